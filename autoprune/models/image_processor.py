"""Pictures -> what a model of pictures takes: one size, one scale.

Shapes: n pictures, h w their height and width, c channels (red, green, blue; or grey, where a model has one).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.core.errors import AutopruneError

FILE = "preprocessor_config.json"
"""Where transformers keeps the same settings."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of most models that were trained on ImageNet (torchvision.transforms, timm)."""

CUBIC = 3
"""Pillow's number for bicubic resampling, as in `preprocessor_config.json`."""


@dataclass(frozen=True)
class Pixels:
    """Size (height, width), and mean and spread of each channel, in shares of the brightest."""

    size: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    cubic: bool = False

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Pictures [h w 3] of any size -> [n c h w], resized without aliasing, and normalised."""
        out = np.empty((len(images), len(self.mean), *self.size), np.float32)
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        for k, image in enumerate(images):
            pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
            if pixels.shape[2:] != self.size:
                mode = "bicubic" if self.cubic else "bilinear"
                pixels = nn.functional.interpolate(pixels, self.size, mode=mode, antialias=True)
            shares = pixels[0].clamp(0, 255).numpy() / 255
            shares = shares.mean(0, keepdims=True) if len(self.mean) == 1 else shares
            out[k] = (shares - mean) / std
        return out

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture as a model takes it."""
        return (len(self.mean), *self.size)

    @classmethod
    def of_model(
        cls, source: str, config: Any, revision: str | None = None, side: int | None = None
    ) -> Pixels:
        """Those of a model of transformers: from its preprocessor's file, or by its config.

        Args:
            side: height and width, whatever these say.

        Raises:
            AutopruneError: when neither says how large its pictures are.
        """
        told = _told(source, revision)
        size = side or told.get("crop_size") or told.get("size") or getattr(config, "image_size", None)
        channels = int(getattr(config, "num_channels", 3))
        mean = tuple(told.get("image_mean") or (IMAGENET_MEAN if channels == 3 else (0.5,) * channels))
        std = tuple(told.get("image_std") or (IMAGENET_STD if channels == 3 else (0.5,) * channels))
        if told.get("do_normalize") is False:
            mean, std = (0.0,) * channels, (1.0,) * channels
        return cls(_pair(size, source), mean, std, told.get("resample") == CUBIC)

    @classmethod
    def beside(cls, weights: str | None, side: int | None) -> Pixels:
        """Those in the folder of a file of weights; ImageNet's usual ones at 224 where there are none.

        Args:
            side: height and width, whatever the folder's file says.
        """
        folder = Path(weights).parent if weights is not None else None
        processor = cls.read(folder) if folder is not None and (folder / FILE).is_file() else cls((224, 224))
        return processor if side is None else replace(processor, size=(side, side))

    @classmethod
    def read(cls, folder: Path) -> Pixels:
        """Inverse of `write`.

        Raises:
            AutopruneError: when the file is missing or damaged.
        """
        try:
            told = json.loads((folder / FILE).read_text(encoding="utf-8"))
            size = (int(told["size"]["height"]), int(told["size"]["width"]))
            return cls(size, tuple(told["image_mean"]), tuple(told["image_std"]), told["resample"] == CUBIC)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AutopruneError(f"{folder / FILE} does not say how pictures are read: {error}") from error

    def write(self, folder: Path) -> None:
        """Write the settings as transformers has them."""
        about = {
            "size": {"height": self.size[0], "width": self.size[1]},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "rescale_factor": 1 / 255,
            "resample": CUBIC if self.cubic else 2,
        }
        (folder / FILE).write_text(json.dumps(about, indent=1), encoding="utf-8")


def _told(source: str, revision: str | None) -> dict[str, Any]:
    """What the preprocessor's file says; nothing where there is none."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(
            source, FILE, revision=revision, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        return {} if path is None else dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise AutopruneError(f"{FILE} of {source!r} cannot be read: {error}") from error


def _pair(size: Any, source: str) -> tuple[int, int]:
    """Height and width, from a number, a pair, or the words that preprocessors use."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or (size.get("height"), size.get("width"))
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return int(size[0]), int(size[1])
    raise AutopruneError(
        f"model {source!r} does not say how large its pictures are; give --image-size, or a {FILE} beside it"
    )
