"""How many bytes a weight takes when it is stored in so many bits: arithmetic on shapes alone."""

from __future__ import annotations

import math


def group_size_for(columns: int, wanted: int) -> int:
    """Weights per scale in a row of `columns`: the largest divisor both numbers share.

    Rows that share less than 8 with the wanted size get one scale each.

    >>> group_size_for(384, 64), group_size_for(288, 64), group_size_for(50, 64)
    (64, 32, 50)
    """
    shared = math.gcd(columns, wanted)
    return shared if shared >= 8 else columns


def stored_bytes(rows: int, columns: int, *, bits: int, group_size: int) -> int:
    """Bytes of a weight [rows, columns] stored in `bits`, scales and zero points counted.

    >>> stored_bytes(384, 384, bits=4, group_size=64)  # 73728 codes, 4608 scales, 1152 zeros
    79488
    """
    if bits >= 16:
        return rows * columns * bits // 8
    groups = rows * (columns // group_size_for(columns, group_size))
    return math.ceil(rows * columns * bits / 8) + 2 * groups + math.ceil(groups * bits / 8)
