"""A model's own image processor, of transformers: its settings, and a check that pictures come out alike.

Shapes: h w height and width of a picture, c channels.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.models.checkpoint import file_of, json_of
from autoprune.models.image_processor import FILE, IMAGENET_MEAN, IMAGENET_STD, Pixels
from autoprune.tasks.data.images import ImageError, Images, StoredImage, pillow

ALLOWED_LEVELS = 1.0
"""Of 255 grey levels, by how many a number may differ from the processor's. Pillow's own are met exactly;
another backend of transformers rounds otherwise."""

LOOKED_AT = 8
"""Pictures of which the least square one is compared: a square one does not tell a crop from a squeeze."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnProcessor:
    """A processor of transformers, of a model.

    is_named: whether the model's file names it; else it follows from the model's type.
    """

    processor: Any
    source: str
    is_named: bool

    @property
    def name(self) -> str:
        """Its type, as files name it."""
        return str(type(self.processor).__name__).removesuffix("Pil")

    def pixels(self) -> Pixels:
        """Its settings, with the steps that only some types have.

        Raises:
            AutopruneError: when its inputs have no one shape.
        """
        told = dict(self.processor.to_dict())
        size = {name: value for name, value in dict(told.get("size") or {}).items() if value}
        if not (size.keys() == {"shortest_edge"} or size.keys() == {"height", "width"}):
            raise self._not_read(f"its size is {size}; height and width, or shortest_edge, are read")
        told["size"] = size
        _told_of_type(self.name, told, size)
        for name in ("image_mean", "image_std"):
            plain = {"image_mean": 0.0, "image_std": 1.0}[name]
            value = plain if told.get(name) is None else told[name]
            told[name] = [value] * 3 if isinstance(value, int | float) else value
        told["do_normalize"] = bool(told.get("do_normalize"))
        try:
            pixels = Pixels.from_settings(told)
        except (ValueError, KeyError, TypeError) as error:
            raise self._not_read(str(error)) from error
        if self.name == "EfficientNetImageProcessor":
            return _scaled_as_efficientnet(pixels, told)
        return pixels

    def with_side(self, side: int) -> OwnProcessor:
        """The same for pictures of another height and width; what is resized before a crop goes with it."""
        told = self.processor.to_dict()
        size = dict(told.get("size") or {})
        crop = dict(told.get("crop_size") or {})
        share = side / crop["height"] if told.get("do_center_crop") and crop.get("height") else None
        told["size"] = {
            name: round(value * share) if share else side for name, value in size.items() if value
        } or {"height": side, "width": side}
        if share:
            told["crop_size"] = {"height": side, "width": side}
        return replace(self, processor=type(self.processor)(**told))

    def check(self, images: Images, pixels: Pixels) -> None:
        """Compare real pictures, the first and the least square of a few, with what the processor makes.

        Raises:
            AutopruneError: when they differ, or the processor cannot read them.
        """
        longest: dict[int, float] = {}
        for place, image in enumerate(images.stored[:LOOKED_AT]):
            with contextlib.suppress(ImageError):  # all that cannot be read are named when all are decoded
                height, width = image.decoded(64).shape[:2]
                longest[place] = max(height, width) / min(height, width)
        for place in sorted({min(longest), max(longest, key=longest.__getitem__)}) if longest else ():
            self._check_picture(images.stored[place], pixels)

    def _check_picture(self, stored: StoredImage, pixels: Pixels) -> None:
        image = stored.decoded()
        if len(pixels.mean) == 1:
            image = image.mean(2).round().astype(np.uint8)[:, :, None].repeat(3, 2)
        shown = pillow().fromarray(np.ascontiguousarray(image))
        try:
            wanted = self._numbers(shown if len(pixels.mean) == 3 else shown.convert("L"))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())
            if not self.is_named:
                _log.warning(
                    "%s names no image_processor_type, and %s, which transformers takes for it, reads no "
                    "picture with its settings (%.200s); they are taken word by word",
                    FILE, self.name, reason,
                )  # fmt: skip
                return
            raise self._not_read(f"it reads no picture with the settings of {FILE}: {reason:.200}") from error
        found = pixels.numbers[np.arange(len(pixels.mean))[:, None, None], pixels.shaped(image)]
        if found.shape != wanted.shape:
            raise self._not_read(f"its inputs are {list(wanted.shape)}, those made here {list(found.shape)}")
        levels = np.abs(found - wanted) * np.asarray(pixels.std)[:, None, None] / pixels.scale
        if not levels.max() <= ALLOWED_LEVELS:
            raise self._not_read(
                f"of {stored.where} its numbers differ by up to {levels.max():.3g} of 255 grey levels, "
                f"{levels.mean():.2g} in the mean, from those made here"
            )

    def _numbers(self, image: Any) -> NDArray[np.float32]:
        """What the processor makes of a picture [c h w]."""
        return np.asarray(self.processor(images=image, return_tensors="np")["pixel_values"][0])

    def _not_read(self, reason: str) -> AutopruneError:
        return AutopruneError(
            f"model {self.source!r}: pictures cannot be prepared as its processor {self.name} does: {reason}"
            f". Resizing, a crop, scaling, mean and spread are read; give a {FILE} of these "
            "(ViTImageProcessor, or BitImageProcessor with a crop) that the model was trained with."
        )


def own_processor(source: str, revision: str | None = None) -> OwnProcessor | None:
    """The processor of a model's folder or hub id; None where it has no `preprocessor_config.json`.

    Raises:
        AutopruneError: when the file names one that cannot be had.
    """
    told = _told(source, revision)
    if told is None:
        return None
    pillow()  # transformers' processors need it
    import transformers

    is_named = any(name in told for name in ("image_processor_type", "feature_extractor_type", "auto_map"))
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            source, revision=revision, trust_remote_code=False, backend="pil"
        )
    except Exception as error:  # transformers raises many kinds, by what the file lacks
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AutopruneError(
            f"model {source!r}: transformers makes no image processor of its {FILE}: {reason:.300}. Name one "
            "that it has, as image_processor_type (ViTImageProcessor, or BitImageProcessor with a crop)."
        ) from error
    return OwnProcessor(processor, source, is_named)


def pixels_of_model(
    source: str, config: Any, revision: str | None = None, side: int | None = None
) -> tuple[Pixels, OwnProcessor | None]:
    """How pictures are made inputs of a model of transformers, and its own processor for that size.

    Where it has none, the size is the config's, and mean and spread are ImageNet's.

    Args:
        side: height and width, whatever these say.

    Raises:
        AutopruneError: when neither says how large pictures are, or a step of the processor is not known.
    """
    own = own_processor(source, revision)
    if own is not None:
        own = own if side is None else own.with_side(side)
        pixels = own.pixels()
        if len(pixels.mean) != (takes := int(getattr(config, "num_channels", len(pixels.mean)))):
            raise AutopruneError(
                f"model {source!r} takes pictures of {takes} channels, and image_mean in its {FILE} is of "
                f"{len(pixels.mean)}. Give a mean and a spread (image_std) for each channel there."
            )
        return pixels, own
    channels = int(getattr(config, "num_channels", 3))
    size = side or getattr(config, "image_size", None)
    if isinstance(size, int):
        size = (size, size)
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(x, int) for x in size)):
        raise AutopruneError(
            f"model {source!r} does not say how large its pictures are; give --image-size, or a {FILE} "
            "beside it"
        )
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    usual = "those of ImageNet" if channels == 3 else "0.5"
    _log.warning(
        "model %r has no %s: pictures are resized to %d x %d, and mean and spread are %s",
        source, FILE, size[1], size[0], usual,
    )  # fmt: skip
    return Pixels((size[0], size[1]), mean, std), None


def pixels_beside(weights: str | None, side: int | None) -> tuple[Pixels, OwnProcessor | None]:
    """Those in the folder of a file of weights; ImageNet's usual ones at 224 where there are none.

    Args:
        side: height and width, whatever the folder's file says.
    """
    folder = Path(weights).parent if weights is not None else None
    if folder is None or not (folder / FILE).is_file():
        return Pixels((side or 224,) * 2), None
    if "image_processor_type" in (_told(str(folder), None) or {}):
        return pixels_of_model(str(folder), None, None, side)
    pixels = replace(Pixels.read(folder), in_floats=False)
    return (pixels if side is None else replace(pixels, size=(side, side), resized=None)), None


def _told(source: str, revision: str | None) -> dict[str, Any] | None:
    """What the preprocessor's file says; None where there is none."""
    if file_of(source, FILE, revision) is None:
        return None
    told = json_of(source, FILE, revision)
    if not isinstance(told, dict):
        raise AutopruneError(f"{FILE} of {source!r} holds a {type(told).__name__}; an object is needed")
    return told


# ---- what only some types do ---------------------------------------------------------------------

WARPED_FROM = 384
"""Pixels from which ConvNeXT's processor squeezes a picture, and crops none
(`image_processing_pil_convnext`)."""

LEVIT_SHARE = 256 / 224
"""LeViT's processor resizes the shorter edge to this many times what its settings say."""


def _told_of_type(name: str, told: dict[str, Any], size: dict[str, int]) -> None:
    """Say in plain settings, in place, what a type of processor does beyond them."""
    edge = size.get("shortest_edge")
    if name == "ConvNextImageProcessor" and edge:
        if edge >= WARPED_FROM:
            told["size"] = {"height": edge, "width": edge}
        else:
            told["size"] = {"shortest_edge": int(edge / told["crop_pct"])}
            told |= {"do_center_crop": True, "crop_size": {"height": edge, "width": edge}}
    if name == "LevitImageProcessor" and edge:
        told["size"] = {"shortest_edge": int(LEVIT_SHARE * edge)}
    if name == "PoolFormerImageProcessor" and told.get("crop_pct") is not None:
        share = told["crop_pct"]
        if edge or size["height"] == size["width"]:
            told["size"] = {"shortest_edge": int((edge or size["height"]) / share)}
        else:
            told["size"] = {side: int(value / share) for side, value in size.items()}
    if name == "MobileViTImageProcessor":
        told["do_normalize"] = False


def _scaled_as_efficientnet(pixels: Pixels, told: dict[str, Any]) -> Pixels:
    """With 1 taken off once scaled, and the spread divided by twice (`image_processing_pil_efficientnet`)."""
    mean, std = pixels.mean, pixels.std
    if told.get("rescale_offset"):
        mean = tuple(value + 1 for value in mean)
    if told.get("include_top"):
        again = tuple(map(float, told["image_std"]))
        std = tuple(a * b for a, b in zip(std, again, strict=True))
    return replace(pixels, mean=mean, std=std)
