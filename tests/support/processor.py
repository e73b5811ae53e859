"""What this machine's processor cannot show: tests that need it are skipped with the reason."""

from __future__ import annotations

import pytest

from autoprune.inspection.machine import instructions


def skip_where_products_saturate() -> None:
    """Without VNNI a runtime adds two products of 8 bits in 16, which cuts large sums off."""
    if "vnni" not in instructions():
        pytest.skip("products of 8-bit integers saturate here: the processor has no VNNI")
