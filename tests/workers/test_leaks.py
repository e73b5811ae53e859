"""Which workers are taken to leak: those that grew, where memory is short."""

from __future__ import annotations

import pytest

from autoprune.workers.ray_worker import Slot

GB = 10**9


@pytest.mark.parametrize(
    ("held", "free", "limit", "replaced"),
    [
        (1.8, 18, None, False),  # a fine-tune after two untrained trials, on a machine with room
        (1.8, 3, None, True),
        (1.8, None, None, True),  # where nothing says how much is free
        (1.2, 1, None, False),  # it did not grow by so much
        (9.0, 15, None, True),
        (0.5, 18, 0.4, True),  # a limit of one's own
        (0.3, 0, 0.4, False),
    ],
)
def test_a_worker_that_grew_is_replaced_where_memory_is_short(
    held: float, free: float | None, limit: float | None, replaced: bool
) -> None:
    slot = Slot(actor=None, asked=None, since=0.0)
    free_bytes = None if free is None else int(free * GB)
    for _ in range(2):
        slot.note_memory(int(0.4 * GB), free_bytes)
    limit_bytes = None if limit is None else int(limit * GB)
    assert not slot.holds_too_much(limit_bytes)
    slot.note_memory(int(held * GB), free_bytes)
    assert slot.holds_too_much(limit_bytes) is replaced
