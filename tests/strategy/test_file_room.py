"""Room for files: what was larger than predicted is left free, and the smallest stays allowed."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import ORIGINAL, Measurement, Trial
from autoprune.strategy.file_room import FileRoom

sizes = some.integers(100, 10_000)


def trials_of(excess: list[int]) -> list[Trial]:
    original = Trial(0, Candidate(()), Measurement(99_999, 1.0, 80.0), predicted_size_bytes=1, name=ORIGINAL)
    return [original] + [
        Trial(1 + k, Candidate(()), Measurement(20_000 + more, 1.0, 80.0), predicted_size_bytes=20_000)
        for k, more in enumerate(excess)
    ]


@hypothesis.given(some.lists(some.integers(-500, 500), max_size=8), sizes, sizes)
def test_a_limit_shrinks_by_what_three_of_four_files_needed(
    excess: list[int], limit: int, smallest: int
) -> None:
    room = FileRoom.of(trials_of(excess))
    predicted = room.predicted(Budget(limit, 3.0), smallest).size_bytes
    assert predicted is not None
    assert predicted <= limit
    assert predicted >= min(smallest, limit)
    assert predicted in (limit - room.excess_bytes, min(smallest, limit))
    assert 4 * sum(more <= room.excess_bytes for more in excess) >= 3 * len(excess) - 3
    assert room.predicted(Budget(None, 3.0), smallest) == Budget(None, 3.0)
