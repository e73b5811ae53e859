"""Bytes of units in an entropy-coded packed file, where how many depends on the numbers and not on shapes.

A file's coded bytes are its plain ones less what coding saves of each tensor, and tensors are coded one by
one: so what a unit saves at a level is found by coding that unit's variant, and is a sum over units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import nn

from autoprune.compress import entropy
from autoprune.compress.stitch import Stitched
from autoprune.compress.variants import Variant
from autoprune.core.cache import DiskCache
from autoprune.core.files import read_json, write_json
from autoprune.models.spec import Architecture
from autoprune.models.split_embedding import COMMON, RANKS, RARE, parted, whole
from autoprune.models.state import state_of
from autoprune.run.identity import weights_hash
from autoprune.space.costs import Costs
from autoprune.space.levels import UNTOUCHED, Level, SearchSpace
from autoprune.targets.packed import WEIGHTS, packed_tensors, write_packed
from autoprune.targets.packed_module import PLACES
from autoprune.targets.target import ENTROPY

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.models.unit import Unit

CODED_VERSION = 1
"""Raised when the same tensors are coded in other bytes, or other tensors of a unit are."""

TRAINED_SHARE = 0.003
"""Share by which a variant's coded bytes are predicted larger than they are before training, which evens the
use of codes out: MiniLM at 3 MB, 40 steps, by 0.11 % (docs/decisions/044-limits-in-coded-bytes.md)."""

Saved = Mapping[str, Mapping[Level, int]]
"""Bytes that coding saves of each unit at each level."""

_ORIGINALS = DiskCache("coded", CODED_VERSION, ".json")


def coding() -> list[object]:
    """What coded bytes depend on beside the tensors, for keys of caches."""
    return [CODED_VERSION, entropy.LEVEL, entropy.zstandard().__version__]


def saved_by_coding(unit: Unit, level: Level, variants: Mapping[str, Variant], teacher: nn.Module) -> int:
    """Bytes that coding saves of a unit's tensors in the packed file.

    Args:
        variants: of the unit at the level, by module path.
        teacher: the model that has the unit, for the ranks of an embedding in two parts.
    """
    tensors: dict[str, Tensor] = {}
    for path, variant in variants.items():
        tensors |= packed_tensors(f"{path}.weight", variant.weight, variant.stored)
        if variant.bias is not None:
            tensors[f"{path}.bias"] = variant.bias.contiguous()
        if unit.ranked and level != UNTOUCHED:
            stem = path.removesuffix(f".{RARE}")
            embedding = parted(teacher)[stem]
            places = variant.places
            ranks = embedding.ranks if places is None else embedding.ranks_by(places)
            tensors[f"{stem}.{RANKS}"] = ranks
        elif variant.places is not None:
            tensors[f"{path}{PLACES}"] = variant.places.int()
    stored = {path: variant.stored for path, variant in variants.items() if variant.stored is not None}
    return entropy.saved_bytes(tensors, stored)


def coded_original_bytes(model: nn.Module, architecture: Architecture) -> int:
    """Bytes of an uncompressed model's coded file, from really writing it; cached."""

    def size() -> int:
        with TemporaryDirectory(prefix="autoprune-") as folder:
            path = Path(folder) / WEIGHTS
            write_packed(Stitched.plain(whole(model), architecture), path, storage=ENTROPY)
            return path.stat().st_size

    return _ORIGINALS.get(
        [*coding(), weights_hash(state_of(model))],
        make=size,
        save=lambda size, path: write_json(path, {"size_bytes": size}),
        load=lambda path: int(read_json(path)["size_bytes"]),
    )


def saved_outside(model: nn.Module, units: Sequence[Unit]) -> int:
    """Bytes that coding saves of an uncompressed model's tensors that no unit has."""
    paths = {path for unit in units for weight in unit.weights for path in (weight.path, weight.tied) if path}
    paths |= {path.removesuffix(f".{part}") for path in paths for part in (COMMON, RARE)}
    inside = {f"{path}.{kind}" for path in paths for kind in ("weight", "bias")}
    state = state_of(whole(model))
    return entropy.saved_bytes({name: x.contiguous() for name, x in state.items() if name not in inside}, {})


def _as_trained(level: Level, plain: int, saved: int) -> int:
    """Coded bytes of a unit at a level once it is trained, of which coding makes no more than plain ones."""
    share = 0.0 if level == UNTOUCHED else TRAINED_SHARE
    return min(plain, plain - saved + math.ceil(share * max(plain - saved, 0)))


def coded_costs(plain: Costs, space: SearchSpace, saved: Saved, outside: int) -> Costs:
    """Costs of plain files as those of coded ones.

    What the original's file takes is a little off where it has an embedding in one part whose two parts are
    units: the whole is coded in other blocks.

    Args:
        saved: of every unit at every level of the space.
        outside: saved of what no unit has.
    """
    levels = {
        choices.unit: {
            level: replace(cost, size_bytes=_as_trained(level, cost.size_bytes, saved[choices.unit][level]))
            for level in choices.levels()
            for cost in [plain.levels[choices.unit][level]]
        }
        for choices in space.units
    }
    return replace(plain, fixed_bytes=plain.fixed_bytes - outside, levels=levels)
