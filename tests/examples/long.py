"""The mark of examples that take minutes at small size: `make examples` runs them."""

from __future__ import annotations

import os

import pytest

LONG = pytest.mark.skipif(
    not os.environ.get("AUTOPRUNE_ALL_EXAMPLES"), reason="takes three to five minutes: make examples runs it"
)
