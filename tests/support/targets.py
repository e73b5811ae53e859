"""The targets that can be tested on this machine, and why the others cannot."""

from __future__ import annotations

import pytest

import autoprune.targets.openvino.target  # noqa: F401  before OpenVINO itself, to keep its reports off
from autoprune.core.errors import AutopruneError
from autoprune.targets import NAMES, Target, get_target


def _runs_here(name: str) -> Target | str:
    """A target, or why it cannot be tested here."""
    try:
        return get_target(name)
    except (AutopruneError, ModuleNotFoundError) as error:
        return f"target {name}: {error}"


_FOUND = {name: _runs_here(name) for name in NAMES}
TARGETS = {name: target for name, target in _FOUND.items() if not isinstance(target, str)}
"""The targets whose packages and devices are here, by name."""
NOT_HERE = [
    pytest.param(name, marks=pytest.mark.skip(reason=why), id=name)
    for name, why in _FOUND.items()
    if isinstance(why, str)
]
"""The others, as parameters of a test that is skipped."""
