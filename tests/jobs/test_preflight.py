"""What the preflight says of the versions that a cluster's nodes tell."""

from __future__ import annotations

import pytest

from autoprune.jobs.preflight import versions
from autoprune.jobs.probe import own_version

INSTALL = f"install autoprune {own_version()}, which is here, on b"
SILENT = "try again when b can start a process within 60 s, or leave this out with --no-preflight"


@pytest.mark.parametrize(
    ("node", "told", "cure"),
    [
        ({"autoprune": own_version()}, f"{own_version()} on a, b", ""),
        ({"autoprune": "0.0.1"}, "0.0.1 on b", INSTALL),
        ({"autoprune": None, "error": "No module named 'autoprune'"},
         "none (No module named 'autoprune') on b", INSTALL),
        ({"silent": True}, "no answer on b", SILENT),
    ],
)  # fmt: skip
def test_a_node_that_lacks_it_and_one_that_is_busy_are_told_apart(
    node: dict[str, object], told: str, cure: str
) -> None:
    nodes = [{"name": "a", "autoprune": own_version()}, {"name": "b", **node}]
    *_, check = versions({"ray": "2.60.0", "head": {"python": "3.11.7"}, "nodes": nodes})
    assert told in check.told
    assert check.cure == cure
