"""Is a model faster on target torch with 8-bit integers or 4-bit weights than with floats?

Each call takes arrays of the host and gives one back, as a server's would: the original as transformers runs
it, compiled, compiled in bfloat16, and what target torch makes of the original, 4 bits and w8a8.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.stitch import Stitched
from autoprune.evaluation.measure import time_interleaved
from autoprune.evaluation.workbench import Workbench
from autoprune.models.outputs import outputs_of
from autoprune.models.split_embedding import whole
from autoprune.space.levels import Level
from autoprune.targets import Runner
from autoprune.targets.torch_cuda import Torch, compiled_apart, with_integer_products
from autoprune.tasks.task import Batch
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.models import open_workbench, uniform
from benchmarks.gpu.setup import Setup

WIDTHS: dict[str, object] = {"target torch, 4 bits": 4, "target torch, w8a8": "w8a8"}


def measure(setup: Setup, figures: Figures) -> None:
    """Milliseconds of each model beside the eager original's at each batch, and how far off its answers are.

    A model that fails is noted with its error, and the others go on.
    """
    workbench, _ = open_workbench(setup)
    device = torch.device("cuda" if setup.cuda else "cpu")
    batches = {rows: workbench.task.timing_batch(rows, setup.sequence) for rows in setup.batches}
    plain = whole(workbench.teacher)
    eager = _eager(workbench, copy.deepcopy(plain), device)

    def original() -> Stitched:
        return Stitched.plain(plain, workbench.setting.architecture)

    def compressed(written: object) -> Callable[[], Stitched]:
        return lambda: workbench.stitched(uniform(workbench, Level.of(0.0, written)))

    def compiled(dtype: torch.dtype) -> Runner:
        return _compiled(workbench, copy.deepcopy(plain).to(dtype), device)

    models: dict[str, tuple[Callable[[], Stitched], Callable[[Stitched], Runner]]] = {
        "float32, eager": (original, lambda _: eager),
        "float32, torch.compile": (original, lambda _: compiled(torch.float32)),
        **{
            name: (compressed(written), lambda stitched: _on_target(workbench, stitched, device))
            for name, written in WIDTHS.items()
        },
        "bfloat16, torch.compile": (original, lambda _: compiled(torch.bfloat16)),
    }
    for name, (make, load) in models.items():
        try:
            found = _measured(workbench, make(), load, eager, batches, setup.rounds)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:2000]}
        figures.note(**{name: found})


def _measured(
    workbench: Workbench,
    stitched: Stitched,
    load: Callable[[Stitched], Runner],
    eager: Runner,
    batches: dict[int, Batch],
    rounds: int,
) -> dict[str, Any]:
    """One model: seconds until it answers, its error, and its time beside the eager original's."""
    threads = torch.get_num_threads()
    reference = _eager(workbench, stitched.model, torch.device("cpu"))
    wanted = {rows: reference(batch) for rows, batch in batches.items()}
    found: dict[str, Any] = {"layers of 8-bit integers": len(stitched.activations)}
    start = time.perf_counter()
    run = load(stitched)
    for rows, batch in batches.items():
        answers = run(batch)
        error = np.abs(answers - wanted[rows]).max() / max(float(wanted[rows].std()), 1e-6)
        found[f"error at batch {rows}, in standard deviations"] = float(error)
    found["seconds until it answered"] = time.perf_counter() - start
    for rows, batch in batches.items():
        timing = time_interleaved(run, eager, batch, pairs=rounds)
        found[f"batch {rows}"] = {
            "ms": timing.median_ms,
            "low_ms": timing.low_ms,
            "high_ms": timing.high_ms,
            "eager float32 ms": timing.original_ms,
            "times faster": 1 / timing.ratio,
        }
    torch.set_num_threads(threads)
    return found


def _on_target(workbench: Workbench, stitched: Stitched, device: torch.device) -> Runner:
    """What target torch runs; on the CPU, where it refuses, the same module."""
    if device.type != "cuda":
        return _compiled(workbench, with_integer_products(stitched), device)
    target = Torch()
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        target.save(stitched, Path(name), workbench.example)
        return target.load(Path(name))


def _compiled(workbench: Workbench, model: nn.Module, device: torch.device) -> Runner:
    """As target torch compiles; on the CPU it is traced alone, which takes no compiler."""
    backend = "inductor" if device.type == "cuda" else "eager"
    return _runner(compiled_apart(model.to(device), workbench.task.kind, backend), device)


def _eager(workbench: Workbench, model: nn.Module, device: torch.device) -> Runner:
    model.to(device)
    return _runner(lambda inputs: outputs_of(model, inputs, workbench.task.kind), device)


def _runner(answers: Callable[[Mapping[str, Tensor]], Tensor], device: torch.device) -> Runner:
    def run(batch: Batch) -> NDArray[np.float32]:
        inputs = {name: torch.from_numpy(x).to(device) for name, x in batch.items()}
        with torch.inference_mode():
            return np.asarray(answers(inputs).float().cpu().numpy(), np.float32)

    return run
