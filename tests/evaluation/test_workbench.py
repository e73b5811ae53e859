"""A workbench runs the original of a model that a function builds, also where the module is made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from autoprune.core.progress import Progress
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import Config
from autoprune.targets.packed import torch_runner
from tests.support.families import ResNet


def test_a_functions_model_is_searched_for_the_target_that_torch_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, level in (("dark", 0), ("middle", 80), ("light", 160)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 90, (32, 32, 3), np.uint8) + np.uint8(level)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    torch.manual_seed(0)
    save_file(ResNet().state_dict(), tmp_path / "net.safetensors")
    config = Config.of(
        model="tests.support.families:ResNet", weights=str(tmp_path / "net.safetensors"), image_size=32,
        dataset=str(tmp_path / "pictures"), calibration_rows=8, target="packed",
    )  # fmt: skip
    prepared = prepare(config, read_inputs(config), Progress(quiet=True))
    bench = make_worker({"setting": prepared.setting}).workbench
    wanted = torch_runner(bench.teacher, bench.task.kind)(bench.example)
    np.testing.assert_allclose(bench.original()(bench.example), wanted, rtol=1e-5, atol=1e-5)
