"""What a stitched model stores, by the way it is stored."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from autoprune.compress.integers import Integers
from autoprune.compress.stitch import Stitched
from autoprune.compress.stored import HalfFloats


def integers_of(stitched: Stitched) -> dict[str, Integers]:
    """The weights in integers, by module path."""
    return stitched.stored_as(Integers)


def half_of(stitched: Stitched) -> AbstractSet[str]:
    """Paths of the weights in half floats."""
    return stitched.stored_as(HalfFloats).keys()
