"""A convolutional model that the check uses: made in seconds, of data that scikit-learn brings.

Its 1,797 digits of 8 x 8 pixels are made four times as wide, and a ResNet of four basic blocks is trained on
them for a few epochs. Full rows use the ResNet of `harness/models`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.models import DIGIT_LABELS, write_processor
from benchmarks.harness.packages import made, note, split_rows
from benchmarks.harness.training import Images, Recipe, train

SIDE, WIDER = 8, 4
SHARES = (0.6, 0.2, 0.2)
SHAPE: dict[str, Any] = {
    "embedding_size": 32, "hidden_sizes": [32, 64], "depths": [2, 2], "layer_type": "basic",
}  # fmt: skip
RECIPE = Recipe(epochs=2, rate=4e-3, decay=0.05, mean=0.3, std=0.37)


def small_cnn(folder: Path | None = None) -> tuple[Path, Path]:
    """The model's folder, and that of its pictures in SPLIT/LABEL folders."""
    import transformers
    from PIL import Image

    with made("small-digits", folder, SHARES, WIDER) as (pictures, temporary):
        if temporary is not None:
            for split, part in _images().items():
                for k, (image, label) in enumerate(zip(part["image"], part["label"], strict=True)):
                    path = temporary / split / label / f"{k:04}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image[..., 0]).save(path)
    with made("small-resnet", folder, asdict(RECIPE), SHAPE, SHARES, WIDER) as (model_path, temporary):
        if temporary is not None:
            torch.manual_seed(0)
            config = transformers.ResNetConfig(**SHAPE)
            config.id2label = dict(enumerate(DIGIT_LABELS))
            config.label2id = {label: k for k, label in enumerate(DIGIT_LABELS)}
            model = transformers.AutoModelForImageClassification.from_config(config)
            facts = train(model, _images(), DIGIT_LABELS, RECIPE)
            model.save_pretrained(temporary)
            write_processor(temporary, SIDE * WIDER, RECIPE)
            note(temporary, **facts)
    return model_path, pictures


def _images() -> Images:
    """By split uint8 [n h w 3] and names of classes."""
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    wide = np.kron(grey.reshape(-1, SIDE, SIDE) * 15.9, np.ones((1, WIDER, WIDER))).astype(np.uint8)
    image = np.repeat(wide[..., None], 3, axis=-1)
    names = np.array(DIGIT_LABELS)[labels]
    parts = split_rows(len(labels), SHARES)
    return {split: {"image": image[rows], "label": names[rows].tolist()} for split, rows in parts.items()}
