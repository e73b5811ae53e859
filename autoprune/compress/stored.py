"""A weight as a file holds it: what every way of storing can do, and half floats, the plainest.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].

A new way of storing is a `Storage` in `space`, a `StoredWeight` and its entry in `ways` here in `compress`,
and a writer in each target that offers it; `packed` writes any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from autoprune.space.storage import FLOAT16, Storage


class StoredWeight(Protocol):
    """A weight [o i] in a storage other than float32. Of its inputs see `Activations`."""

    @property
    def storage(self) -> Storage:
        """How the weight is stored, whatever is done to its inputs."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def tensors(self) -> Mapping[str, Tensor]:
        """What the library keeps of it beside the float weight, by the names of `Storage.parts`."""

    def widths(self) -> Mapping[str, int]:
        """Bits of each number of those tensors that are codes, which a file lays out without gaps."""

    def dequantize(self) -> Float[Tensor, "o i"]:
        """The values that a model computes with, float32."""

    def rows(self, at: Int[Tensor, " k"]) -> StoredWeight:
        """The same rows that a weight of rows `at` alone has."""

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        """Both as one weight, this one's rows first; None where their storage cannot hold both."""

    def widened(self, storage: Storage) -> StoredWeight:
        """The same values in a storage that holds all of them (`Storage.fits_into`)."""

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        """What a fine-tune trains of it, as it is at first, in the units of `rounding`.

        unrounded: the weight before it was rounded.
        """

    def rounding(self) -> Rounding:
        """What keeps a trained weight in this storage."""


class Parts(Protocol):
    """What a file or the library holds of one weight, to be read once."""

    def tensor(self, name: str) -> Tensor:
        """A tensor that is kept as it is; `KeyError` where there is none."""

    def codes(self, name: str, bits: int, shape: tuple[int, ...]) -> UInt8[Tensor, "*n"]:
        """Codes of so many bits; `ValueError` where they are not of that shape or number."""


class Rounding(nn.Module, ABC):
    """Parametrization of a trained weight: the value that is stored of it.

    What is trained comes in the shape that the layer's weight has [o ...]. Rounding is straight-through:
    forward rounds, backward treats rounding as the identity (Bengio et al., arXiv 1308.3432).
    """

    @abstractmethod
    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        """The weight that the layer computes with."""

    @abstractmethod
    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        """The weight as it is stored; its values are those of `forward`."""


@dataclass(frozen=True)
class HalfFloats:
    """A weight stored in float16. `weight`: as it came, in any precision, so that nothing is copied."""

    weight: Float[Tensor, "o i"]

    @property
    def storage(self) -> Storage:
        return FLOAT16

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return rows, columns

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    def widths(self) -> Mapping[str, int]:
        return {}

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.weight.half().float()

    def rows(self, at: Int[Tensor, " k"]) -> HalfFloats:
        return HalfFloats(self.weight[at])

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, HalfFloats):
            return None
        return HalfFloats(torch.cat([self.weight.half(), below.weight.half()]))

    def widened(self, storage: Storage) -> HalfFloats:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        return self.dequantize()

    def rounding(self) -> Rounding:
        return _HalfRounding()


class _HalfRounding(Rounding):
    """Keeps a weight in half floats."""

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        return straight_through(trained, trained.half().float())

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        return HalfFloats(trained.detach().half().flatten(1))


def straight_through(exact: Float[Tensor, "*n"], rounded: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The rounded values, with the gradient of the exact ones."""
    return exact + (rounded - exact).detach()
