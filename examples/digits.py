"""A network of three convolutions and the digits of scikit-learn, which it learns within seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.models.image_processor import IMAGENET_MEAN, IMAGENET_STD

SIDE, CLASSES, EPOCHS = 16, 10, 6


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
