"""A unit, what is compressed together, and its weights: shapes, and bytes at each level.

Shapes: o output and i input features of a weight.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from autoprune.models.split_embedding import ranks_type
from autoprune.space.levels import UNTOUCHED, Choices, Level
from autoprune.space.space_file import NEAREST, SECOND_ORDER
from autoprune.space.storage import STATIC8, Storage

FLOAT_BYTES = 4
"""Of a weight that is left as it came."""

ID_BYTES = 4
"""Of a token's row number, where tokens are removed: runtimes look up by 32 bits."""


@dataclass(frozen=True)
class Weight:
    """One matrix of a unit: its module's path, and shape as it came [o i]; a look-up or a product.

    A convolution's is [o, i kernel], with `kernel` weights for each input channel; one that is `depthwise`
    has an input channel of its own for each output, so its [o, kernel] loses rows alone. tied: path of the
    output layer that has the same weight.
    """

    path: str
    rows: int
    columns: int
    has_bias: bool
    is_embedding: bool = False
    kernel: int = 0
    depthwise: bool = False
    tied: str = ""

    @property
    def is_conv(self) -> bool:
        """Whether it is slid over a picture."""
        return self.kernel > 0


@dataclass(frozen=True)
class Unit:
    """What is compressed together, in `pieces` that can be removed one by one; kept in steps of `step`."""

    name: str
    kind: str
    rows: tuple[Weight, ...]
    cols: tuple[Weight, ...]
    pieces: int
    step: int
    group_size: int
    ratios: tuple[float, ...]
    storages: tuple[Storage, ...]
    """How its weights may be stored, the widest first."""
    by_token: bool = False
    """Whether what is removed are rows of an embedding, by how rarely they are looked up."""
    ranked: int = 0
    """Of a vocabulary's rare part: tokens of both parts, each of which has a rank; 0 of all else."""
    importance: tuple[str, ...] = SECOND_ORDER
    """What says which heads, neurons or channels go; of several the least harmful at each ratio."""
    fallback: str = NEAREST
    """What removed tokens are looked up as: the nearest row that stays, or the centroid of several tokens."""

    @property
    def weights(self) -> tuple[Weight, ...]:
        """All matrices of the unit."""
        return self.rows + self.cols

    @property
    def is_looked_up(self) -> bool:
        """Whether it has an embedding that is no output layer's weight too."""
        return any(weight.is_embedding and not weight.tied for weight in self.weights)

    @property
    def choices(self) -> Choices:
        """What the unit may be set to, whatever the target."""
        return Choices(self.name, self.ratios, self.storages)

    def levels(self, ratio: float | None = None) -> list[Level]:
        """All levels, or those of one ratio, untouched first."""
        return [level for level in self.choices.levels() if ratio is None or level.ratio == ratio]

    def described(self) -> dict[str, Any]:
        """The unit as plain data, for keys of caches.

        Keys of files that exist already have storages in two parts: the numbers of bits, in ascending order,
        and whether w8a8 is among them. They say nothing of the importance and the fallback that all had.
        """
        bits = [storage.written for storage in reversed(self.storages) if storage != STATIC8]
        described = asdict(self) | {"bits": bits, "integer": STATIC8 in self.storages}
        del described["storages"]
        if self.importance == SECOND_ORDER:
            del described["importance"]
        if self.fallback == NEAREST:
            del described["fallback"]
        return described

    @property
    def prunable(self) -> bool:
        """Whether rows can be removed."""
        return bool(self.cols) or self.by_token

    @property
    def removed(self) -> str:
        """What is removed, in words: heads, neurons, channels or tokens; empty where nothing can be."""
        if not self.prunable:
            return ""
        if self.by_token or self.rows[0].is_conv:
            return "tokens" if self.by_token else "channels"
        return "heads" if self.pieces < min(weight.rows for weight in self.rows) else "neurons"

    def kept(self, ratio: float) -> int:
        """Pieces that stay, in whole steps; none only at a ratio of 1."""
        if ratio in (0.0, 1.0):
            return self.pieces if ratio == 0.0 else 0
        steps = max(1, round(self.pieces * (1 - ratio) / self.step))
        return min(self.pieces, steps * self.step)

    def shapes(self, ratio: float) -> dict[str, tuple[int, int]]:
        """Shape [o i] of each matrix once `ratio` of the pieces is gone."""
        kept = self.kept(ratio)
        out = {w.path: (self._left(w.rows, kept) if self.prunable else w.rows, w.columns) for w in self.rows}
        return out | {w.path: (w.rows, self._left(w.columns, kept)) for w in self.cols}

    def _left(self, size: int, kept: int) -> int:
        """Rows or columns that stay with so many pieces."""
        return size // self.pieces * kept

    def at(self, keep: Any, size: int) -> Any:
        """Numbers of the rows or columns, of `size` in all, that belong to pieces `keep` [k], in order."""
        import torch

        each = size // self.pieces
        return (keep[:, None] * each + torch.arange(each)).reshape(-1)

    def map_bytes(self, level: Level) -> int:
        """Bytes of the numbers by which tokens are looked up, where some are gone or stored apart."""
        if self.ranked:
            return self.ranked * ranks_type(self.ranked).itemsize if level != UNTOUCHED else 0
        return ID_BYTES * self.pieces if self.by_token and level.ratio > 0 else 0

    def size_bytes(self, level: Level) -> int:
        """Bytes of the unit's weights and biases at a level, file overhead not counted."""
        shapes = self.shapes(level.ratio)
        weights = sum(
            level.storage.size_bytes(o, i, group_size=self.group_size) for o, i in shapes.values() if o and i
        )
        biases = sum(shapes[w.path][0] for w in self.weights if w.has_bias)
        return weights + FLOAT_BYTES * biases + self.map_bytes(level)
