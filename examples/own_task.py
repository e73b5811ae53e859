"""A model and a task of your own, in Python: the lower half of a digit is drawn from its upper half.

    python -m examples.own_task [--full]

Shows: a `torch.nn.Module` that no library knows, a metric of one's own (variance explained, in percent),
a search space for its layers, and `autoprune.search` with a function that is called at each trial. The
data are the 1,797 digits of scikit-learn, 8 x 8 pixels; the model is fitted in seconds. Small is one
hidden layer of 256 units and 3 candidates; full is 1,024 units and 40 candidates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import autoprune
from examples.commands import example, sizes

PIXELS, HALF = 64, 32
SPACE = """
version: 1
units:
  hidden:
    at: body
    rows: ["0"]
    cols: ["2"]
    prune: {by: neuron, ratios: [0.0, 0.25, 0.5, 0.75]}
    quantize: {bits: [2, 3, 4, 6, 8, 16], activations: 8}
"""


class Completer(nn.Module):
    """Upper half of a picture [n 32], values 0 to 1, to its lower half [n 32]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(HALF, width), nn.ReLU(), nn.Linear(width, HALF))

    def forward(self, upper: Tensor) -> Tensor:
        """Answers by the name that the task gives the input."""
        lower: Tensor = self.body(upper)
        return lower


def build() -> nn.Module:
    """The small model, its weights still to be loaded."""
    return Completer(256)


def build_wide() -> nn.Module:
    """The full one."""
    return Completer(1024)


def variance_explained(answers: NDArray[np.float32], labels: NDArray[Any]) -> float:
    """Percent of the labels' variance that answers explain, never below 0 (R squared)."""
    wrong = float(((labels - answers) ** 2).sum())
    return max(0.0, 100 * (1 - wrong / float(((labels - labels.mean(0)) ** 2).sum())))


def task() -> dict[str, Any]:
    """Arrays of three splits, and the metric. Without `classes` the answers are vectors."""
    from sklearn.datasets import load_digits

    pixels = load_digits().data.astype(np.float32) / 16
    pixels = pixels[np.random.default_rng(0).permutation(len(pixels))]
    ends = {"train": (0, 1100), "validation": (1100, 1400), "test": (1400, len(pixels))}
    splits = {
        name: {"inputs": {"upper": pixels[start:end, :HALF]}, "labels": pixels[start:end, HALF:]}
        for name, (start, end) in ends.items()
    }
    return {**splits, "metric": variance_explained}


def fit(model: nn.Module, path: Path, steps: int = 400) -> None:
    """Train on the training rows; the weights as a safetensors file."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    data = task()["train"]
    upper, lower = torch.from_numpy(data["inputs"]["upper"]), torch.from_numpy(data["labels"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(steps):
        rows = torch.randint(len(upper), (128,))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(upper[rows]), lower[rows]).backward()
        optimizer.step()
    save_file(model.state_dict(), path)


def prepare(work: Path, *, small: bool) -> tuple[str, Path, Path]:
    """The reference of the builder, the weights and the space."""
    weights, space = work / "weights.safetensors", work / "space.yaml"
    torch.manual_seed(0)
    if not weights.exists():
        fit(build() if small else build_wide(), weights)
    space.write_text(SPACE, encoding="utf-8")
    return f"examples.own_task:{'build' if small else 'build_wide'}", weights, space


def told(trial: autoprune.Trial) -> None:
    """Print a trial in a line."""
    if trial.measurement is not None:
        print(
            f"trial {trial.number}: {trial.measurement.size_bytes} bytes, {trial.measurement.accuracy:.1f} %"
        )


def main() -> None:
    """Fit, search, export, load and ask."""
    asked = example(__doc__, "own-task")
    model, weights, space = prepare(asked.work, small=asked.small)
    run = asked.work / "run"
    front = autoprune.resume(run, quiet=True) if run.exists() else autoprune.search(
        model, weights=str(weights), task="examples.own_task:task", space=str(space), target="packed",
        budget="10kB" if asked.small else "30kB", trials=3 if asked.small else 40, finetune_steps=100,
        workers=0, output=str(run), quiet=True,
        on_trial=told,
    )  # fmt: skip
    print(sizes(front))

    folder = asked.work / "small-model"
    if not folder.exists():
        front.best.export(folder)
    smaller = autoprune.load(folder, builder=model)
    test = task()["test"]
    with torch.inference_mode():
        answers = smaller(torch.from_numpy(test["inputs"]["upper"]))
    print(f"The export explains {variance_explained(answers.numpy(), test['labels']):.1f} % on test rows")


if __name__ == "__main__":
    main()
