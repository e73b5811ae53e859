"""What tests of weights on fixed grids share: the kinds of grid."""

from __future__ import annotations

import pytest

from autoprune.compress.fixed_grid_rounding import FixedGridWay
from autoprune.space.fixed_grid_storages import FixedGrid, MicroscalingFloats, NormalFloats, SymmetricIntegers

NF4, MXFP4 = NormalFloats(), MicroscalingFloats()
KINDS: list[FixedGrid] = [NF4, MXFP4, *(SymmetricIntegers(bits) for bits in (2, 3, 4, 6, 8))]
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
WAY = FixedGridWay()
