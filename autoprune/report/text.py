"""Numbers, commands and files as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from autoprune.core.files import written_whole
from autoprune.space.storage import Storage, widest_first
from autoprune.tasks.metrics import Metric

DASH, MINUS, TIMES = "\u2013", "\u2212", "\u00d7"
RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
"""Digits of an exponent."""


def percent(value: float | None) -> str:
    """A percentage with a space that does not break, a dash where unknown.

    >>> percent(80.24).replace("\N{NO-BREAK SPACE}", " "), percent(None)
    ('80.2 %', '–')
    """
    return DASH if value is None else f"{value:.1f}\u00a0%"


def score_text(metric: Metric, score: float | None) -> str:
    """A metric's own number with its unit, after a space that does not break.

    >>> score_text(Metric("accuracy"), 80.24).split(), score_text(Metric("perplexity", "", False), 8.0)
    (['80.2', '%'], '12.50')
    """
    return metric.value(score).replace(" ", "\u00a0")


def named_score(metric: Metric, score: float | None) -> str:
    """The same in a sentence, with the metric's name where it is not accuracy."""
    value = score_text(metric, score)
    return metric.told(score).removesuffix(metric.value(score)) + value


def milliseconds(value: float | None) -> str:
    """Latency in milliseconds with three digits.

    >>> [milliseconds(ms).split() for ms in (7.384, 141.2)]
    [['7.38', 'ms'], ['141', 'ms']]
    """
    if value is None:
        return DASH
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{min(digits, 3)}f}\u00a0ms"


def duration(seconds: float | None) -> str:
    """Seconds as hours and minutes.

    >>> duration(6720.0), duration(65.0), duration(4.2)
    ('1 h 52 min', '1 min 5 s', '4 s')
    """
    if seconds is None:
        return DASH
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def nats(value: float | None) -> str:
    """A divergence with two digits, as a power of ten where it is small.

    >>> nats(0.0123), nats(0.00040469), nats(3.4e-9), nats(0.0)
    ('0.012', '4.0×10⁻⁴', '3.4×10⁻⁹', '0')
    """
    if value is None:
        return DASH
    if value == 0 or abs(value) >= 99.5:
        return f"{value:,.0f}".replace("-", MINUS)
    if abs(value) >= 1e-3:
        return f"{value:#.2g}".rstrip(".").replace("-", MINUS)
    digits, power = f"{value:.1e}".split("e")
    return f"{digits}{TIMES}10{str(int(power)).translate(RAISED)}".replace("-", MINUS)


def share(value: float) -> str:
    """A share of one, in percent.

    >>> share(0.004).replace("\N{NO-BREAK SPACE}", " "), share(0.0003).replace("\N{NO-BREAK SPACE}", " ")
    ('0.4 %', 'less than 0.1 %')
    """
    return percent(100.0 * value) if value == 0 or value >= 0.0005 else f"less than {percent(0.1)}"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "trial"), plural(1200, "test row")
    ('1 trial', '1,200 test rows')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def standard_error(accuracy: float | None, rows: int) -> float | None:
    """Binomial standard error, in points, of an accuracy in percent measured on `rows` rows.

    >>> standard_error(80.0, 1600)
    1.0
    """
    if accuracy is None or rows <= 0:
        return None
    share = min(max(accuracy / 100.0, 0.0), 1.0)
    return 100.0 * math.sqrt(share * (1.0 - share) / rows)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 whole or not at all, line ends as given."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def comma_list(storages: Iterable[Storage]) -> str:
    """Several storages in a sentence, the widest first; dom.js has the same order.

    >>> from autoprune.space.storage import storages_of
    >>> comma_list(storages_of([3, 16, 6])), comma_list(storages_of([4, "w8a8"]))
    ('16, 6 and 3 bits', 'w8a8 and 4 bits')
    >>> comma_list(storages_of(["w8a8"]))
    'w8a8'
    """
    *most, last = [storage.name for storage in widest_first(storages)]
    text = f"{', '.join(most)} and {last}" if most else last
    return f"{text} bits" if last.isdecimal() else text
