"""Arrays of costs: the types, and the order of their three planes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Choice = NDArray[np.intp]
"""Candidates [n u]: the index of a level for each unit."""

BYTES, MS, DAMAGE = 0, 1, 2
"""Planes of an array of costs [3 ...]: bytes, milliseconds, predicted damage."""
