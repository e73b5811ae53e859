"""Models run by their runtime alone, in a process that may die: each death and error is that of its case."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ALONE = """
import json, sys
import numpy as np

def opened(runtime, folder, settings):
    if runtime == "openvino":
        import openvino
        model = openvino.Core().compile_model(folder + "/model.xml", "CPU", settings)
        return lambda batch: model({port.any_name: batch[port.any_name] for port in model.inputs})[0]
    if runtime == "onnx":
        import onnxruntime
        model = onnxruntime.InferenceSession(folder + "/model.onnx")
        return lambda batch: model.run(None, {one.name: batch[one.name] for one in model.get_inputs()})[0]
    import torch, transformers
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    return lambda batch: model(**{k: torch.from_numpy(x) for k, x in batch.items()}).logits.detach().numpy()

for case in json.load(sys.stdin):
    print("begins", flush=True)
    try:
        run, out = opened(case["runtime"], case["folder"], case["settings"]), {}
        for k, file in enumerate(case["batches"]):
            out[str(k)] = np.array(run(dict(np.load(file))))
        np.savez(case["answers"], **out)
        print("ended", flush=True)
    except Exception as error:
        print("ended", "failed:", " ".join(str(error).split())[-200:], flush=True)
assert "autoprune" not in sys.modules
"""


@dataclass(frozen=True)
class Case:
    """A folder to open with some settings, and files with batches to run there; answers: file to write."""

    runtime: str
    folder: str
    batches: Sequence[str]
    answers: str
    settings: dict[str, str | int] = field(default_factory=dict)


def run_alone(cases: Sequence[Case]) -> list[list[NDArray[np.float32]] | str]:
    """The answers of each case to its batches, or how it failed: an error, or the death of its process."""
    ends: list[str] = []
    while len(ends) < len(cases):
        asked = json.dumps([asdict(case) for case in cases[len(ends) :]])
        command = [sys.executable, "-P", "-c", ALONE]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False, timeout=300)
        lines = [line for line in done.stdout.splitlines() if line.startswith(("begins", "ended"))]
        ends += [line.removeprefix("ended").strip() for line in lines if line.startswith("ended")]
        if lines and lines[-1] == "begins":
            ends.append(f"its process died with {done.returncode}")
        elif done.returncode != 0:
            raise RuntimeError(done.stderr)
    return [end or _read(Path(case.answers)) for case, end in zip(cases, ends, strict=True)]


def _read(path: Path) -> list[NDArray[np.float32]]:
    with np.load(path) as file:
        return [file[str(k)] for k in range(len(file.files))]
