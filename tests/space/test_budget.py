"""Limits from text: each unit, each message, and what a limit lets through."""

from __future__ import annotations

from fractions import Fraction

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.space.budget import Budget, megabytes, parse_budget

quick = hypothesis.settings(deadline=None, max_examples=100)
SIZES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
SIZES |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@pytest.mark.parametrize(
    ("texts", "budget"),
    [
        ([], Budget()),
        (["20MB"], Budget(20_000_000)),
        (["20MiB"], Budget(20_971_520)),
        (["1.5 GB"], Budget(1_500_000_000)),
        ([" 512  KiB "], Budget(524_288)),
        (["7B"], Budget(7)),
        (["5ms"], Budget(None, 5.0)),
        (["0.25s"], Budget(None, 250.0)),
        (["800us"], Budget(None, 0.8)),
        (["5ms", "20MB"], Budget(20_000_000, 5.0)),
    ],
)
def test_texts_and_what_they_mean(texts: list[str], budget: Budget) -> None:
    assert parse_budget(texts) == budget


@quick
@hypothesis.given(some.integers(1, 10**7), some.integers(0, 3), some.sampled_from(sorted(SIZES)))
def test_a_size_is_exact_to_the_byte(digits: int, places: int, unit: str) -> None:
    """Against fractions: floats make 1000 bytes of 1.001 kB."""
    exact = Fraction(digits, 10**places) * SIZES[unit]
    hypothesis.assume(exact >= 1)
    text = f"{digits // 10**places}.{digits % 10**places:0{places}d}" if places else str(digits)
    assert parse_budget([text + unit]).size_bytes == int(exact)


ALLOWED = "write a size (B, kB, KB, MB, GB, KiB, MiB, GiB) or a time (us, ms, s), for instance 20MB or 5ms"


@pytest.mark.parametrize(
    "text", ["", "20", "MB", "20mb", "20 parsecs", "-5MB", "1e3MB", "1,5MB", "5ms 20MB", "nanms", "\u0665MB"]
)
def test_what_is_no_limit_is_told_what_is(text: str) -> None:
    with pytest.raises(AutopruneError) as caught:
        parse_budget(["3GB", text])
    assert str(caught.value) == f"budget {text!r} is no limit; {ALLOWED}"


@pytest.mark.parametrize(
    ("texts", "culprit"),
    [
        (["0MB"], "0MB"),
        (["0.0ms"], "0.0ms"),
        (["0.4B"], "0.4B"),  # no whole byte
        (["20MB", "10MB"], "10MB"),
        (["20MB", "20MB"], "20MB"),
        (["5ms", "1MB", "1s"], "1s"),
    ],
)
def test_zero_and_a_second_of_a_kind_are_refused(texts: list[str], culprit: str) -> None:
    with pytest.raises(AutopruneError) as caught:
        parse_budget(texts)
    assert str(caught.value) == f"budget {culprit!r}: must be above zero and given once"


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(), "no limit"),
        (Budget(20_971_520), "21.0 MB"),
        (Budget(None, 2.5), "2.5 ms"),
        (Budget(20_000_000, 5.0), "20.0 MB and 5 ms"),
    ],
)
def test_a_budget_reads_as_people_write_it(budget: Budget, text: str) -> None:
    assert str(budget) == text


def test_a_printed_size_is_within_its_last_digit() -> None:
    for size in (1, 49_999, 50_001, 999_949_999, 19_640_000):
        number, unit = megabytes(size).split()
        assert unit == "MB"
        assert abs(float(number) * 1e6 - size) <= 50_000


limits = some.none() | some.integers(1, 5)


@quick
@hypothesis.given(limits, limits, some.integers(0, 6), some.integers(0, 6))
def test_allows_is_both_limits_and_the_limit_itself_fits(
    size: int | None, latency: int | None, size_bytes: int, latency_ms: int
) -> None:
    budget = Budget(size, None if latency is None else float(latency))
    over = [size is not None and size_bytes > size, latency is not None and latency_ms > latency]
    assert budget.allows(size_bytes, latency_ms) == (not any(over))
    assert budget.allows(size_bytes) == (not over[0])


def test_milliseconds_are_limited_alone_only_where_bytes_are_not() -> None:
    assert Budget(None, 5.0).limits_latency_alone
    assert not any(budget.limits_latency_alone for budget in (Budget(), Budget(9), Budget(9, 5.0)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("99999999999GB", "is more than any model takes"),
        (f"{10**18 + 1}B", "is more than any model takes"),
        ("1000000001s", "is more than any model takes"),
        (f"0.{'0' * 40}1ms", "a limit has 40 digits at most"),
        ("9" * 5000 + "B", "a limit has 40 digits at most"),
        ("0.0000000001us", "must be above zero"),
    ],
)
def test_what_no_model_reaches_is_refused(text: str, words: str) -> None:
    """As bytes it would be no float, as milliseconds zero or infinite."""
    with pytest.raises(AutopruneError, match=words) as caught:
        parse_budget([text])
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "text", ["1000000GB", "123456789012345678B", "0.001us", "0.01us", "1000000000s", "0.3ms"]
)
def test_limits_are_exact_and_print_as_what_is_read_again(text: str) -> None:
    budget = parse_budget([text])
    assert parse_budget(budget.texts()) == budget
    assert "e" not in "".join(budget.texts())
