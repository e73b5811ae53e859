"""Made-up texts of `--budget`, and another reading of them: by hand, in fractions."""

from __future__ import annotations

from fractions import Fraction

import hypothesis.strategies as some

from autoprune.core.errors import AutopruneError
from autoprune.space.budget import Budget, parse_budget
from tests.support.damage import check_message

SIZES = {"B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
SIZES |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
TIMES = {"us": Fraction(1, 1000), "ms": Fraction(1), "s": Fraction(1000)}

MOST_DIGITS, MOST_BYTES = 40, 10**18
LEAST_MS, MOST_MS = Fraction(1, 10**6), 10**12

OTHER_UNITS = (
    "",
    "kb",
    "mb",
    "Mb",
    "GIB",
    "TB",
    "PB",
    "bytes",
    "sec",
    "m",
    "h",
    "ns",
    "µs",
    "\uff2d\uff22",
    "MB/s",
    "%",
)
SPACES = ("", "", "", " ", "  ", "\t", "\n", "\u00a0", "\u2009", "\u200b", "\x1f", "\0")
ODD_NUMBERS = (
    "",
    ".5",
    "5.",
    "1e3",
    "1E-3",
    "0x10",
    "1_000",
    "1,5",
    "1.2.3",
    "\u0665",
    "²",
    "½",
    "nan",
    "inf",
    "∞",
)

digits = some.one_of(
    some.integers(0, 5000).map(str),
    some.text("0123456789", min_size=1, max_size=12),
    some.sampled_from(["0", "00", "007", "1", "20", "999999999999999999", "1000000000000000001"]),
    some.integers(1, 6000).map(lambda count: "9" * count),
)
decimals = some.one_of(
    some.just(""),
    some.text("0123456789", min_size=1, max_size=8).map(lambda places: f".{places}"),
    some.integers(1, 400).map(lambda count: f".{'0' * count}1"),
)
numbers = some.one_of(some.builds(str.__add__, digits, decimals), some.sampled_from(ODD_NUMBERS))
units = some.one_of(some.sampled_from([*SIZES, *TIMES]), some.sampled_from(OTHER_UNITS))
good_texts = some.builds(
    "{}{}{}".format,
    some.integers(1, 5000),
    some.sampled_from(["", ".5", ".0001"]),
    some.sampled_from([*SIZES, *TIMES]),
)
odd_texts = some.builds(
    "{}{}{}{}{}{}".format,
    some.sampled_from(SPACES),
    some.sampled_from(["", "", "", "", "+", "-", "\u2212", "<", "~"]),
    numbers,
    some.sampled_from(SPACES),
    units,
    some.sampled_from(SPACES),
)
budget_texts = some.one_of(
    some.lists(good_texts, min_size=1, max_size=2),
    some.lists(odd_texts, min_size=1, max_size=1),
    some.lists(some.one_of(good_texts, odd_texts, some.text(max_size=12)), min_size=1, max_size=3),
)
"""What `--budget` is given, once or repeated."""


def exact_limit(text: str) -> tuple[str, Fraction] | None:
    """A text as ("size", bytes) or ("time", milliseconds); None for what is no limit."""
    text = text.strip()
    number = ""
    while text and (text[0] in "0123456789" or (text[0] == "." and number and "." not in number)):
        number, text = number + text[0], text[1:]
    unit = text.strip()
    if not number or number.endswith(".") or not (unit in SIZES or unit in TIMES):
        return None
    whole, _, places = number.partition(".")
    if len(number) > MOST_DIGITS:
        return None
    amount = Fraction(int(whole)) + (Fraction(int(places), 10 ** len(places)) if places else 0)
    return ("size", amount * SIZES[unit]) if unit in SIZES else ("time", amount * TIMES[unit])


def expected_budget(texts: list[str]) -> Budget | None:
    """What the texts say; None where they are to be refused."""
    read = [exact_limit(text) for text in texts]
    limits = [limit for limit in read if limit is not None]
    if len(limits) < len(read) or len({kind for kind, _ in limits}) < len(limits):
        return None
    size, time = dict(limits).get("size"), dict(limits).get("time")
    if size is not None and not 1 <= size <= MOST_BYTES:
        return None
    if time is not None and not LEAST_MS <= time <= MOST_MS:
        return None
    return Budget(None if size is None else int(size), None if time is None else float(time))


def check_budget(texts: list[str]) -> str:
    """How texts are read: "accepted" or "refused".

    Raises:
        AssertionError: where another budget is read than they say, one is refused that is good, or what is
            read cannot be printed and read again as the same.
        Exception: whatever the reader raises that is no AutopruneError.
    """
    expected = expected_budget(texts)
    budget = None
    try:
        budget = parse_budget(texts)
    except AutopruneError as error:
        check_message(error, 400)
    assert budget == expected, f"{texts} are {expected} and were read as {budget}"
    if budget is None:
        return "refused"
    assert str(budget).isprintable()
    assert parse_budget(budget.texts()) == budget
    return "accepted"
