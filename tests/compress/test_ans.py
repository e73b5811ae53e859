"""Coded symbols: what comes back, how many bytes they take, and streams that are no such streams."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.compress import ans


@hypothesis.given(
    seed=some.integers(0, 10_000),
    count=some.integers(0, 5000),
    alphabet=some.integers(1, 256),
    contexts=some.integers(1, 9),
    skew=some.floats(0.01, 5.0),
)
@hypothesis.settings(deadline=None)
def test_symbols_come_back(seed: int, count: int, alphabet: int, contexts: int, skew: float) -> None:
    rng = np.random.default_rng(seed)
    where = rng.integers(0, contexts, count).astype(np.uint8)
    shares = rng.dirichlet(np.full(alphabet, skew), contexts)
    symbols = np.array([rng.choice(alphabet, p=shares[c]) for c in where], np.uint8)
    data = ans.code_symbols(symbols, where)
    assert np.array_equal(ans.read_symbols(data, where), symbols)


def test_streams_that_are_read_together_are_what_they_are_alone() -> None:
    rng = np.random.default_rng(0)
    streams = []
    for count in (0, 1, 5000, 1023, 70_000):
        where = rng.integers(0, 3, count).astype(np.uint8)
        symbols = (rng.integers(0, 200, count) // (1 + where)).astype(np.uint8)
        streams.append((symbols, where))
    coded = [(ans.code_symbols(symbols, where), where) for symbols, where in streams]
    for (symbols, _), found in zip(streams, ans.read_streams(coded), strict=True):
        assert np.array_equal(found, symbols)
    assert ans.read_streams([]) == []


def test_bytes_are_the_entropy_and_little_more() -> None:
    rng = np.random.default_rng(0)
    where = rng.integers(0, 2, 200_000).astype(np.uint8)
    symbols = (rng.random(200_000) < np.array([0.02, 0.4])[where]).astype(np.uint8)
    share = np.array([0.02, 0.4])
    entropy = (-share * np.log2(share) - (1 - share) * np.log2(1 - share)).mean() * len(symbols) / 8
    coded = len(ans.code_symbols(symbols, where))
    assert entropy <= coded * 1.01
    assert coded <= entropy * 1.01 + 4 * len(symbols) / ans.SYMBOLS_A_LANE + 100
    assert ans.bits_of(symbols, where) / 8 == pytest.approx(coded, rel=0.02)


def test_what_is_certain_takes_no_bits() -> None:
    symbols = np.full(100_000, 7, np.uint8)
    assert len(ans.code_symbols(symbols, np.zeros_like(symbols))) < 500


@hypothesis.given(data=some.data())
@hypothesis.settings(deadline=None, max_examples=300)
def test_a_damaged_stream_is_refused_or_gives_as_many_symbols(data: some.DataObject) -> None:
    rng = np.random.default_rng(1)
    symbols, where = rng.integers(0, 5, 3000).astype(np.uint8), np.zeros(3000, np.uint8)
    whole = bytearray(ans.code_symbols(symbols, where))
    for _ in range(data.draw(some.integers(1, 3))):
        whole[data.draw(some.integers(0, len(whole) - 1))] = data.draw(some.integers(0, 255))
    damaged = bytes(whole[: data.draw(some.integers(0, len(whole)))])
    try:
        out = ans.read_symbols(damaged, where)
    except ValueError:
        return
    assert len(out) == 3000


def test_another_number_of_symbols_is_refused() -> None:
    data = ans.code_symbols(np.zeros(10, np.uint8), np.zeros(10, np.uint8))
    with pytest.raises(ValueError, match="10 symbols"):
        ans.read_symbols(data, np.zeros(11, np.uint8))
