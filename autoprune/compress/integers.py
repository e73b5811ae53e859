"""Integer weights with a scale and a zero point per group, and the rounding that makes them.

Shapes: o output features (rows), i input features (columns), g groups in a row, s = i / g weights
in a group. A weight is `(code - zero) * scale`, codes and zeros in 0 .. 2^bits - 1 (asymmetric
affine quantization: Jacob et al., arXiv 1712.05877, eq. 1). Scales are half floats, because that
is how they are stored: rounding with any other scale would measure a model that nobody ships.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from autoprune.compress.stored import Parts, Rounding, StoredWeight, straight_through
from autoprune.space.storage import GroupedIntegers, Storage, group_size_for

SMALLEST_SCALE = 2.0**-14
"""Smallest normal half float; a group of zeros gets it, and codes equal to its zero point."""

LARGEST_SCALE = 65504.0
"""Largest half float."""

SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.72, 0.64, 0.56)
"""Shares of a group's range tried when its scale is chosen: clipping outliers pays at few bits."""


PRODUCT_REACH = 64
"""How far codes that are multiplied as integers lie from the middle, of the 127 that 8 bits would allow.

A processor of x86 without VNNI adds two products of 8 bits in 16, and cuts off what is above: with inputs of
0 .. 255, 2 * 255 * 64 is the most that fits. With 127 a network's answers there are others than elsewhere
(docs/decisions/042-codes-that-fit-16-bits.md).
"""

LARGEST_GROWTH = 1.0
"""Of a scale's logarithm in training, either way."""

NEAR = 0.49
"""Of a scale: how far from its code's value a trained weight may start (0.5 is the next code).
Nearer to the code (0) fewer codes turn: 0.049 nats were left of 0.056 against 0.046 (MiniLM, 5.2 MB)."""


@dataclass(frozen=True)
class Integers:
    """A weight as stored: codes, and a scale and zero point for each group of a row."""

    codes: UInt8[Tensor, "o i"]
    scale: Float[Tensor, "o g"]
    zero: UInt8[Tensor, "o g"]
    bits: int

    @property
    def storage(self) -> Storage:
        """Integers in groups; that of a row may be one (`is_symmetric`)."""
        return GroupedIntegers(self.bits)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        o, i = self.codes.shape
        return o, i

    @property
    def group_size(self) -> int:
        """Weights that share a scale."""
        return self.codes.shape[1] // self.scale.shape[1]

    @property
    def is_symmetric(self) -> bool:
        """Whether they are those of w8a8: one scale a row, zero points 128, codes within `PRODUCT_REACH`."""
        if self.bits != 8 or self.scale.shape[1] != 1 or bool((self.zero != 2**7).any()):
            return False
        least, top = ends_of(8, PRODUCT_REACH)
        return bool(((self.codes >= least) & (self.codes <= top)).all())

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest code that may be used."""
        return ends_of(self.bits, PRODUCT_REACH if self.is_symmetric else None)

    @classmethod
    def stacked(cls, parts: Sequence[Integers]) -> Integers:
        """Those of a weight whose rows were rounded in parts, in the widest of their widths."""
        codes, scale, zero = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scale", "zero")
        )
        return cls(codes, scale, zero, max(part.bits for part in parts))

    def rows(self, at: Int[Tensor, " k"]) -> Integers:
        """The same rows that a weight of rows `at` alone has."""
        return Integers(self.codes[at], self.scale[at], self.zero[at], self.bits)

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        """Both as one weight, in the wider of their widths."""
        return Integers.stacked([self, below]) if isinstance(below, Integers) else None

    def widened(self, storage: Storage) -> Integers:
        """The same integers with more bits each."""
        return replace(self, bits=storage.bits)

    def tensors(self) -> Mapping[str, Tensor]:
        """All three, by name."""
        return {"codes": self.codes, "scale": self.scale, "zero": self.zero}

    def widths(self) -> Mapping[str, int]:
        """Bits of codes and zero points."""
        return {"codes": self.bits, "zero": self.bits}

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        """The weight in units of its scale, as near to the weight before rounding as its code allows.

        So the codes are at first the library's, and those that were a close call can turn soonest.
        """
        codes = self._centred()
        if unrounded is None:
            return codes.flatten(1)
        exact = unrounded.reshape(codes.shape) / self.scale[..., None].float()
        return (codes + (exact - codes).clamp(min=-NEAR, max=NEAR)).flatten(1)

    def rounding(self) -> Rounding:
        """Keeps zero points as they are; scales are trained."""
        return IntegerRounding(self)

    def _centred(self) -> Float[Tensor, "o g s"]:
        """Codes less zero points."""
        codes = self.codes.reshape(len(self.codes), -1, self.group_size)
        return codes.float() - self.zero[..., None].float()

    def dequantize(self) -> Float[Tensor, "o i"]:
        """The weight these integers stand for, float32."""
        return (self._centred() * self.scale[..., None].float()).flatten(1)


class IntegerRounding(Rounding):
    """Keeps a weight on a grid of integers; what is trained is the weight in units of its scale.

    So a step is a share of a code in every group, whatever its width and range. Scales are trained too, by
    their logarithms: with codes held, theirs is the gradient of Esser et al. (LSQ, arXiv 1902.08153, eq. 3)
    within the range.
    """

    scale: Float[Tensor, "o g 1"]
    zero: Float[Tensor, "o g 1"]

    def __init__(self, integers: Integers) -> None:
        super().__init__()
        self.register_buffer("scale", integers.scale.float()[..., None], persistent=False)
        self.register_buffer("zero", integers.zero.float()[..., None], persistent=False)
        self.log_growth = nn.Parameter(torch.zeros_like(self.scale))
        self.bits, (self.least, self.top) = integers.bits, integers.ends

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        exact = trained.reshape(*self.scale.shape[:2], -1)
        grown = self._grown()
        codes = straight_through(exact, self._codes(trained) - self.zero)
        return (codes * straight_through(grown, self._half(grown))).reshape(trained.shape)

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        return self.integers(trained)

    def integers(self, trained: Float[Tensor, "o ..."]) -> Integers:
        """The integers that a trained weight is rounded to."""
        with torch.no_grad():
            return Integers(
                self._codes(trained).flatten(1).to(torch.uint8),
                self._half(self._grown())[..., 0].half(),
                self.zero[..., 0].to(torch.uint8),
                self.bits,
            )

    def _grown(self) -> Float[Tensor, "o g 1"]:
        return self.scale * self.log_growth.clamp(min=-LARGEST_GROWTH, max=LARGEST_GROWTH).exp()

    def _codes(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o g s"]:
        """The nearest code of each weight."""
        grouped = trained.reshape(*self.scale.shape[:2], -1)
        return (grouped.round() + self.zero).clamp(self.least, self.top)

    @staticmethod
    def _half(scale: Float[Tensor, "o g 1"]) -> Float[Tensor, "o g 1"]:
        """The nearest half float that may be a scale."""
        return scale.clamp(min=SMALLEST_SCALE, max=LARGEST_SCALE).half().float()


def choose_scale(
    weight: Float[Tensor, "*b o s"],
    top: Float[Tensor, "*#b 1"],
    weight_of: Float[Tensor, " s"],
    *,
    reach: int | None = None,
    shrinks: Sequence[float] = SHRINKS,
) -> tuple[Float[Tensor, "*b o"], Float[Tensor, "*b o"]]:
    """Scale and zero point of each row of one group, by least weighted squared error.

    Args:
        weight: the group's weights.
        top: largest code, 2^bits - 1; broadcasts, so several bit-widths are done at once.
        weight_of: importance of each column (the diagonal of the input's second moment).
        reach: every zero point is the code above the middle, from which codes lie so far at most; None: a
            zero point of each row's own, and every code.
        shrinks: shares of a group's range that are tried.

    Returns:
        scale (half-float values in float32) and zero point (integers in float32).
    """
    low = weight.amin(-1).clamp(max=0.0)
    high = weight.amax(-1).clamp(min=0.0)
    floor, middle = torch.zeros_like(top), (top + 1) / 2
    if reach is not None:
        high = torch.maximum(high, -low)
        low, floor, top = -high, middle - reach, middle + reach
    best_error = torch.full_like(low, torch.inf)
    best_scale, best_zero = torch.ones_like(low), torch.zeros_like(low)
    for shrink in shrinks:
        scale = (shrink * (high - low) / (top - floor)).clamp(min=SMALLEST_SCALE).half().float()
        zero = (-shrink * low / scale).round().clamp(min=floor, max=top)
        zero = middle.expand_as(zero) if reach is not None else zero
        code = (weight / scale[..., None]).round() + zero[..., None]
        code = code.clamp(min=floor[..., None], max=top[..., None])
        gap = (code - zero[..., None]) * scale[..., None] - weight
        error = gap.square() @ weight_of
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero


def round_nearest(
    weight: Float[Tensor, "o i"],
    *,
    bits: int,
    group_size: int,
    reach: int | None = None,
    shrinks: Sequence[float] = SHRINKS,
) -> Integers:
    """Round each weight to its nearest code, with the best scale for each group; see `choose_scale`."""
    o, i = weight.shape
    size = group_size_for(i, group_size)
    grouped = weight.reshape(-1, size)
    top = torch.tensor([float(2**bits - 1)], device=weight.device)
    ones = torch.ones(size, device=weight.device)
    scale, zero = choose_scale(grouped, top, ones, reach=reach, shrinks=shrinks)
    codes = ((grouped / scale[:, None]).round() + zero[:, None]).clamp(*ends_of(bits, reach))
    return Integers(
        codes.reshape(o, i).to(torch.uint8),
        scale.reshape(o, -1).half(),
        zero.reshape(o, -1).to(torch.uint8),
        bits,
    )


def ends_of(bits: int, reach: int | None) -> tuple[int, int]:
    """The smallest and the largest code within reach of the middle.

    >>> ends_of(8, 64), ends_of(2, 1), ends_of(4, None)
    ((64, 192), (1, 3), (0, 15))
    """
    middle = 2 ** (bits - 1)
    return (0, 2**bits - 1) if reach is None else (middle - reach, middle + reach)


def read_integers(parts: Parts, bits: int, shape: tuple[int, int]) -> Integers:
    """Integers in groups [o i] as they were written; `ValueError` or `KeyError` where they are not such."""
    scale = parts.tensor("scale")
    check_scales(scale, shape)
    zero = parts.codes("zero", bits, tuple(scale.shape))
    return Integers(parts.codes("codes", bits, shape), scale, zero, bits)


def check_scales(scale: Tensor, shape: tuple[int, int]) -> None:
    """Raise `ValueError` where a tensor is not the half-float scales [o g] of a weight."""
    rows, columns = shape
    groups = scale.shape[1] if scale.ndim == 2 else 0
    if scale.dtype != torch.half or len(scale) != rows or not groups or columns % groups:
        raise ValueError(f"scales of {scale.dtype} {tuple(scale.shape)} are none of groups of {shape}")
