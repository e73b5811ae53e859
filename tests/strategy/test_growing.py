"""What grows and shares its members is what a tuple and a set of them would be, whichever version grows."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.strategy.growing import GrowingSet, GrowingTuple


@hypothesis.given(some.lists(some.tuples(some.integers(0, 99), some.integers(0, 9)), max_size=30))
def test_every_version_stays_as_it_was_whichever_is_grown(steps: list[tuple[int, int]]) -> None:
    tuples: list[tuple[GrowingTuple[int], tuple[int, ...]]] = [(GrowingTuple(), ())]
    sets: list[tuple[GrowingSet[int], frozenset[int]]] = [(GrowingSet(), frozenset())]
    for version, item in steps:
        grown, plain = tuples[version % len(tuples)]
        tuples.append((grown.plus(item), (*plain, item)))
        grown_set, plain_set = sets[version % len(sets)]
        sets.append((grown_set.plus(item), plain_set | {item}))
    for grown, plain in tuples:
        assert grown == plain
        assert (len(grown), tuple(grown), grown[-3:], grown[1:9:2]) == (
            len(plain), plain, plain[-3:], plain[1:9:2],
        )  # fmt: skip
        assert not plain or (grown[0], grown[-1]) == (plain[0], plain[-1])
    for grown_set, plain_set in sets:
        assert grown_set == plain_set
        assert set(grown_set) == plain_set
        assert [item in grown_set for item in range(10)] == [item in plain_set for item in range(10)]


def test_a_place_that_is_not_there_is_an_error() -> None:
    more = GrowingTuple([1]).plus(2)
    first = GrowingTuple([1])
    assert first.plus(3) == (1, 3)
    for place in (2, -3):
        with pytest.raises(IndexError):
            more[place]
