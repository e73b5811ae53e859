"""Rows as they come in the field: texts with typos or in other case, pictures with noise, blurred or bright.

Each alteration of a row follows from the seed, its name and the row's number, so that every model is asked
the same. Typos are those of Pruthi, Dhingra and Lipton (Combating adversarial misspellings with robust word
recognition, 2019): two letters swapped, one left out, one added, or one's neighbour on the keyboard. Noise,
blur and brightness are three of the corruptions of Hendrycks and Dietterich (Benchmarking neural network
robustness to common corruptions and perturbations, 2019), mild ones. No torch.

Shapes: n pictures, c channels, h height, w width.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.kinds import TaskKind

TYPO_SHARE = 0.1
"""Share of the words of four letters or more that have a typo."""

NOISE = 0.08 * 255
"""Standard deviation of the noise in bytes: the mildest of five on ImageNet-C."""

BLUR = 1 / 80
"""Standard deviation of the blur as a share of the shorter side: the mildest of five on CIFAR-10-C, and
between the second and third on ImageNet-C."""

BRIGHTER = 0.2 * 255
"""What is added to each byte: the second of five on ImageNet-C."""

_WORD = re.compile(r"[^\W\d_]{4,}")
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True)
class Alteration:
    """How rows are altered. what: in words, for the report."""

    name: str
    what: str


TEXT_ALTERATIONS = (
    Alteration("typos", f"a typo in {TYPO_SHARE:.0%} of the words of four letters or more"),
    Alteration("upper case", "all letters in upper case"),
    Alteration("lower case", "all letters in lower case"),
)
PICTURE_ALTERATIONS = (
    Alteration("noise", "Gaussian noise of 8 % of the range of bytes"),
    Alteration("blur", "a Gaussian blur of an eightieth of the shorter side"),
    Alteration("brightness", "20 % of the range of bytes added"),
)


FGSM, WORD_SWAPS = "gradient sign", "word swaps"
PICTURE_ATTACKS = (Alteration(FGSM, "4 bytes of 255 along the sign of the model's own gradient"),)
TEXT_ATTACKS = (
    Alteration(WORD_SWAPS, "up to a fifth of the words swapped for near ones until the model's answer turns"),
)
"""What is made hard for one model (`evaluation/attacks`); alterations are the same for all."""


def attacks_on(kind: TaskKind) -> tuple[Alteration, ...]:
    """What rows of a kind of task are attacked by; none but of texts and pictures with a class each."""
    if not kind.predicts_classes:
        return ()
    if kind.reads_images:
        return PICTURE_ATTACKS
    return TEXT_ATTACKS if kind.labels_texts else ()


def check_attackable(kind: TaskKind) -> None:
    """Raise `AutopruneError` where rows of a kind of task are not attacked."""
    if not attacks_on(kind):
        raise AutopruneError(
            f"--attacks: rows of task {kind} are not attacked; it is for texts and pictures with a class "
            "each. Leave it out"
        )


def alterations_of(kind: TaskKind) -> tuple[Alteration, ...]:
    """What rows of a kind of task are altered by; none of rows that are no texts or pictures with a label."""
    if kind.reads_images:
        return PICTURE_ALTERATIONS
    return TEXT_ALTERATIONS if kind.labels_texts else ()


def check_alterable(kind: TaskKind) -> None:
    """Raise `AutopruneError` where rows of a kind of task are not altered."""
    if not alterations_of(kind):
        raise AutopruneError(
            f"--robustness: rows of task {kind} are not altered; it is for texts and pictures with a label "
            "each. Leave it out"
        )


def altered_text(text: str, name: str, *, seed: int, row: int) -> str:
    """A text with an alteration of `TEXT_ALTERATIONS`.

    >>> altered_text("A fine film", "upper case", seed=0, row=0)
    'A FINE FILM'
    """
    if name == "upper case":
        return text.upper()
    if name == "lower case":
        return text.lower()
    if name != "typos":
        raise ValueError(f"no alteration of texts is called {name!r}")
    rng = _generator(seed, name, row)
    return _WORD.sub(lambda word: _mistyped(word[0], rng) if rng.random() < TYPO_SHARE else word[0], text)


def _mistyped(word: str, rng: np.random.Generator) -> str:
    """A word with one typo, not in its first letter."""
    k = int(rng.integers(1, len(word) - 1))
    match int(rng.integers(4)):
        case 0:
            return word[:k] + word[k + 1] + word[k] + word[k + 2 :]
        case 1:
            return word[:k] + word[k + 1 :]
        case 2:
            return word[:k] + word[k] + word[k:]
        case _:
            near = _neighbours(word[k])
            return word[:k] + (near[int(rng.integers(len(near)))] if near else "") + word[k + 1 :]


def _neighbours(letter: str) -> str:
    """The letters beside one in its row of the keyboard; none of a letter that is on none."""
    for keys in _KEYS:
        if (k := keys.find(letter)) >= 0:
            return keys[max(0, k - 1) : k] + keys[k + 1 : k + 2]
    return ""


def altered_pictures(images: ByteImages, name: str, *, seed: int, rows: NDArray[np.int64]) -> ByteImages:
    """Pictures with an alteration of `PICTURE_ALTERATIONS`. rows: the number of each [n]."""
    if name not in _PICTURES:
        raise ValueError(f"no alteration of pictures is called {name!r}")
    out = np.empty_like(images.bytes)
    for k, row in enumerate(rows):
        values = _PICTURES[name](images.bytes[k].astype(np.float32), _generator(seed, name, int(row)))
        out[k] = np.clip(np.rint(values), 0, 255)
    return ByteImages(out, images.numbers)


def _noisy(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return picture + rng.normal(0.0, NOISE, picture.shape).astype(np.float32)


def _blurred(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    width = BLUR * min(picture.shape[1:])
    return np.asarray(gaussian_filter(picture, (0, width, width)), np.float32)


def _brighter(picture: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    return picture + np.float32(BRIGHTER)


_PICTURES: Mapping[str, Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]] = {
    "noise": _noisy,
    "blur": _blurred,
    "brightness": _brighter,
}


def _generator(seed: int, name: str, row: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), row])
