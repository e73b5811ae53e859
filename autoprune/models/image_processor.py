"""Pictures -> what a model of pictures takes: one size, one scale.

Shapes: n pictures, h w their height and width, c channels (red, green, blue; or grey, where a model has one).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.data.images import Images, StoredImage, mapped, pillow

FILE = "preprocessor_config.json"
"""Where transformers keeps the same settings."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of most models that were trained on ImageNet (torchvision.transforms, timm)."""

BILINEAR, CUBIC = 2, 3
"""Pillow's numbers for ways of resampling, as in `preprocessor_config.json`."""

VERSION = 2
"""Raised when `Pixels` makes other numbers of the same pictures and settings."""

VERSION_IN_FLOATS = 1
"""Of settings with `in_floats`, whose numbers are those of earlier versions."""


@dataclass(frozen=True)
class Pixels:
    """How a picture is made a model's input: resized, cropped, scaled and normalised, in this order.

    These are the steps of transformers' image processors (`image_processing_backends.PilBackend`), and each
    is done as there: resizing by Pillow, on bytes.

    size: height and width of an input. mean, std: of each channel of the input, once it is scaled. resample:
    Pillow's number of a filter. resized: height and width before the crop, or pixels of the shorter edge;
    None is `size`. is_cropped: whether the middle is cut out, or a border of zeros is added. scale: what a
    byte is multiplied by. is_bgr: whether channels are in the order blue, green, red. in_floats: whether
    pictures are resized by torch to fractions of bytes, as earlier versions did; their runs and exports are
    read so.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resample: int = BILINEAR
    resized: tuple[int, int] | int | None = None
    is_resized: bool = True
    is_cropped: bool = False
    scale: float = 1 / 255
    is_bgr: bool = False
    in_floats: bool = False

    def __call__(self, images: Images | Sequence[NDArray[np.uint8]]) -> ByteImages | NDArray[np.float32]:
        """Pictures [h w 3] of any size -> [n c h w], one at a time, so that none is kept at its own size.

        Raises:
            AutopruneError: that names all pictures that cannot be read.
        """
        if not isinstance(images, Images):
            images = Images([StoredImage(image, "a picture") for image in images])
        stored = images.stored
        kind = np.float32 if self.in_floats else np.uint8
        out = np.empty((len(stored), *self.shape), kind)

        def prepare(place: int) -> None:
            image = stored[place].decoded(None if self.in_floats else self.least_side)
            out[place] = self._in_floats(image) if self.in_floats else self.shaped(image)

        mapped(prepare, range(len(stored)))
        return out if self.in_floats else ByteImages(out, self.numbers)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture as a model takes it."""
        return (len(self.mean), *self.size)

    @property
    def least_side(self) -> int | None:
        """Pixels that both sides of a picture need, so that nothing is made larger again."""
        if not self.is_resized:
            return None
        return self.resized if isinstance(self.resized, int) else max(self.resized or self.size)

    @property
    def numbers(self) -> NDArray[np.float32]:
        """What each byte of each channel stands for [c 256]."""
        shares = np.arange(256, dtype=np.float64) * self.scale
        mean, std = (np.asarray(values, np.float32)[:, None] for values in (self.mean, self.std))
        return (shares.astype(np.float32) - mean) / std

    @property
    def key_parts(self) -> tuple[int, dict[str, Any]]:
        """What a cache's key says of these settings: a version, and each of them."""
        if self.in_floats:
            named = {name: getattr(self, name) for name in ("size", "mean", "std")}
            return VERSION_IN_FLOATS, named | {"cubic": self.resample == CUBIC}
        return VERSION, asdict(self)

    def shaped(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture [h w 3] as the bytes [c h w] of an input."""
        is_grey = image.strides[2] == 0 or len(self.mean) == 1
        plane = _grey(image) if is_grey else image
        height, width = self._height_and_width(*image.shape[:2])
        if (height, width) != image.shape[:2]:
            resized = pillow().fromarray(np.ascontiguousarray(plane)).resize((width, height), self.resample)
            plane = np.asarray(resized)
        if plane.shape[:2] != self.size:
            if not self.is_cropped:
                raise AutopruneError(
                    f"a picture of {width} x {height} pixels: the model's processor resizes none, and takes "
                    f"{self.size[1]} x {self.size[0]}. Give pictures of that size, or --image-size."
                )
            plane = _cropped(plane, *self.size)
        planes = np.broadcast_to(plane, (len(self.mean), *self.size)) if is_grey else plane.transpose(2, 0, 1)
        return planes[::-1] if self.is_bgr else planes

    def _height_and_width(self, height: int, width: int) -> tuple[int, int]:
        """Of a picture once it is resized."""
        if not self.is_resized:
            return height, width
        if not isinstance(self.resized, int):
            return self.resized or self.size
        longer = int(self.resized * max(height, width) / min(height, width))
        return (longer, self.resized) if width <= height else (self.resized, longer)

    def _in_floats(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A picture [h w 3] as an input [c h w], as earlier versions made it."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        if pixels.shape[2:] != self.size:
            mode = "bicubic" if self.resample == CUBIC else "bilinear"
            pixels = nn.functional.interpolate(pixels, self.size, mode=mode, antialias=True)
        shares: NDArray[Any] = pixels[0].clamp(0, 255).numpy() / np.float32(255)
        shares = shares.mean(0, keepdims=True, dtype=np.float32) if len(self.mean) == 1 else shares
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        return np.asarray((shares - mean) / std, np.float32)

    @classmethod
    def read(cls, folder: Path) -> Pixels:
        """Inverse of `write`; settings of earlier versions, which name no processor, are `in_floats`.

        Raises:
            AutopruneError: when the file is missing or damaged.
        """
        try:
            told = read_json(folder / FILE)
            return cls.from_settings(told, in_floats="image_processor_type" not in told)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AutopruneError(f"{folder / FILE} does not say how pictures are read: {error}") from error

    @classmethod
    def from_settings(cls, told: dict[str, Any], *, in_floats: bool = False) -> Pixels:
        """Settings by transformers' names, all of which are given; those it has no step for are not read."""
        edge = told["size"].get("shortest_edge")
        resized = int(edge) if edge else (int(told["size"]["height"]), int(told["size"]["width"]))
        crop, is_resized = told.get("crop_size") or {}, told.get("do_resize") is not False
        is_cropped = bool(told.get("do_center_crop"))
        size = (int(crop["height"]), int(crop["width"])) if is_cropped else resized
        if isinstance(size, int):
            raise ValueError(
                f"the shorter edge is made {size} pixels and nothing is cropped, so inputs differ in shape"
            )
        pixels = cls(
            size, tuple(told["image_mean"]), tuple(told["image_std"]), int(told["resample"]),
            None if resized == size else resized, is_resized, is_cropped,
            float(told.get("rescale_factor", 1 / 255)), bool(told.get("do_flip_channel_order")), in_floats,
        )  # fmt: skip
        if told.get("do_rescale") is False:
            pixels = replace(pixels, scale=1.0)
        if told.get("do_normalize") is False:
            return replace(pixels, mean=(0.0,) * len(pixels.mean), std=(1.0,) * len(pixels.mean))
        return pixels

    def write(self, folder: Path) -> None:
        """Write the settings as transformers has them."""
        about: dict[str, Any] = {
            "size": {"height": self.size[0], "width": self.size[1]},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_resize": self.is_resized,
            "do_rescale": True,
            "do_normalize": True,
            "rescale_factor": self.scale,
            "resample": self.resample,
        }
        if not self.in_floats:
            about["image_processor_type"] = "BitImageProcessor" if self.is_cropped else "ViTImageProcessor"
        if self.is_cropped:
            about |= {"do_center_crop": True, "crop_size": about["size"]}
        if isinstance(self.resized, int):
            about["size"] = {"shortest_edge": self.resized}
        elif self.resized:
            about["size"] = dict(zip(("height", "width"), self.resized, strict=True))
        if self.is_bgr:
            about |= {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True}
        (folder / FILE).write_text(json.dumps(about, indent=1), encoding="utf-8")


def earlier_pixels(folder: Path) -> Pixels | None:
    """The settings in a folder that an earlier version wrote; None where there are none, or later ones.

    Pictures of a run or export with such settings are known by their pixels too (`DataSource.by_pixels`).
    """
    pixels = Pixels.read(folder) if (folder / FILE).is_file() else None
    return pixels if pixels is not None and pixels.in_floats else None


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One plane [h w] of a picture [h w 3]: the mean of its channels."""
    return image[:, :, 0] if image.strides[2] == 0 else np.rint(image.mean(2)).astype(np.uint8)


def _cropped(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle of a picture [h w ...]; zeros where it has none (`image_transforms.center_crop`)."""
    for axis, (has, needs) in enumerate(zip(image.shape[:2], (height, width), strict=True)):
        before = -(-(max(has, needs) - has) // 2)
        border = [(0, 0)] * image.ndim
        border[axis] = (before, max(has, needs) - has - before)
        start = (has - needs) // 2 + before
        image = np.pad(image, border) if needs > has else image
        image = image.take(range(start, start + needs), axis)
    return image
