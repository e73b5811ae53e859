"""A convolutional network on an edge CPU: a limit in milliseconds, set once the device has been timed.

    python -m examples.edge_cnn [--full]

Shows: a model that a function builds, a space that autoprune drafts for it, a first search that times the
original and uniform models on this machine with one thread, and `resume --budget` with a limit below the
original's time. For another device than this machine see `--latency-node` in docs/cluster.md. Small is a
network of three convolutions, fitted here to the 1,797 digits of scikit-learn; full is EfficientNet-lite0
fine-tuned on photographs of solar cells, whose packages benchmarks/zoo_requirements.txt names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import autoprune
from autoprune.models.image_processor import IMAGENET_MEAN, IMAGENET_STD
from examples.commands import Example, call, example, sizes

SIDE, CLASSES, EPOCHS = 16, 10, 6
SHARE = 0.8
"""Of the original's time: the limit that is searched for."""


class Digits(nn.Module):
    """Pictures [n 3 16 16] to logits [n 10]. What loses channels together lies in one module, `body`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(64, CLASSES)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.classifier(self.body(pixel_values).mean((2, 3)))
        return logits


def build() -> nn.Module:
    """The small network, its weights still to be loaded."""
    return Digits()


def pictures() -> dict[str, dict[str, Any]]:
    """Splits with the columns `image` (uint8 [h w 3]) and `label`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.kron(digits.images * 15.9375, np.ones((1, 2, 2))).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(grey))
    parts = {"train": order[:1100], "validation": order[1100:1400], "test": order[1400:]}
    return {
        name: {
            "image": list(np.repeat(grey[rows, :, :, None], 3, axis=-1)),
            "label": [str(label) for label in digits.target[rows]],
        }
        for name, rows in parts.items()
    }


def normal(images: list[NDArray[np.uint8]]) -> Tensor:
    """Pictures as autoprune gives them to a model that brings no settings of its own."""
    pixels = torch.from_numpy(np.stack(images)).float() / 255
    return ((pixels - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)).permute(0, 3, 1, 2)


def fitted() -> nn.Module:
    """The small network, trained within seconds."""
    torch.manual_seed(0)
    model, train = Digits(), pictures()["train"]
    images, labels = normal(train["image"]), torch.tensor([int(label) for label in train["label"]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def words_of_search(asked: Example) -> list[object]:
    """What the first search is told: a limit that all meet."""
    if not asked.small:
        from benchmarks.harness import models

        words: list[object] = ["benchmarks.harness.models:efficientnet_lite0"]
        words += ["--dataset", models.cell_images()]
        words += [
            "--weights",
            models.efficientnet() / "model.safetensors",
            "--image-size",
            models.CELL_PIXELS,
        ]
        return [*words, "--finetune-steps", 10, "--trials", 1, "--budget", "1000ms"]
    weights, space = asked.work / "digits.safetensors", asked.work / "digits.yaml"
    if not weights.exists():
        save_file(fitted().state_dict(), weights)
    model = "examples.edge_cnn:build"
    if not space.exists():
        call("inspect", model, "--image-size", SIDE, "--write-space", space)
    words = [model, "--weights", weights, "--dataset", "examples.edge_cnn:pictures", "--image-size", SIDE]
    words += ["--task", "image-classification", "--space", space, "--workers", 0, "--calibration-rows", 128]
    return [*words, "--finetune-steps", 10, "--trials", 1, "--budget", "1000ms"]


def main() -> None:
    """Time the original, search below its time, export, and measure the export again."""
    asked = example(__doc__, "edge-cnn")
    is_new = not (asked.work / "run").exists()
    front = asked.search("run", *words_of_search(asked))
    if is_new:
        limit_ms = SHARE * (front.original.latency_ms or 0)
        more = "+2" if asked.small else "+24"
        call("resume", asked.work / "run", "--budget", f"{limit_ms:.4f}ms", "--trials", more)
        front = autoprune.open_run(asked.work / "run")
    folder = asked.export("run", "model")
    print(sizes(front))
    call("bench", folder)


if __name__ == "__main__":
    main()
