"""The user's limits, read from text such as `20MB` or `5ms`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from autoprune.core.errors import AutopruneError

_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MILLISECONDS = {"us": Fraction(1, 1000), "ms": Fraction(1), "s": Fraction(1000)}

_MOST_DIGITS = 40
_MOST_BYTES, _LEAST_MS, _MOST_MS = 10**18, Fraction(1, 10**6), 10**12
"""What no model reaches: a limit beyond it is a slip, and larger numbers are no floats."""


@dataclass(frozen=True)
class Budget:
    """Upper limits of a model: size in bytes, latency in milliseconds; None is no limit."""

    size_bytes: int | None = None
    latency_ms: float | None = None

    def allows(self, size_bytes: float, latency_ms: float = 0.0) -> bool:
        """Whether a model of this size and latency is within the limits."""
        fits = self.size_bytes is None or size_bytes <= self.size_bytes
        return fits and (self.latency_ms is None or latency_ms <= self.latency_ms)

    @property
    def limits_latency_alone(self) -> bool:
        """Whether milliseconds are limited and bytes are not: divergence is then traded for milliseconds."""
        return self.latency_ms is not None and self.size_bytes is None

    def texts(self) -> list[str]:
        """The limits as texts that `parse_budget` reads as this budget.

        >>> Budget(8_000_000, 0.00005).texts()
        ['8000000B', '0.00005ms']
        """
        limits = [(self.size_bytes, "B"), (self.latency_ms, "ms")]
        return [f"{Decimal(repr(limit)):f}{unit}" for limit, unit in limits if limit is not None]

    def __str__(self) -> str:
        parts = [] if self.size_bytes is None else [megabytes(self.size_bytes)]
        parts += [] if self.latency_ms is None else [f"{self.latency_ms:g} ms"]
        return " and ".join(parts) or "no limit"


def megabytes(size_bytes: float) -> str:
    """Size for people; MB is 1,000,000 bytes. Below one of them three digits count.

    >>> megabytes(19_640_000), megabytes(51_234), megabytes(800)
    ('19.6 MB', '0.0512 MB', '0.0008 MB')
    """
    size = size_bytes / 1e6
    return f"{size:.1f} MB" if size >= 1 or not size else f"{float(f'{size:.3g}'):.7f}".rstrip("0") + " MB"


def parse_budget(texts: Iterable[str]) -> Budget:
    """Read limits; a later one of the same kind is an error, not an override.

    >>> parse_budget(["20MB", "5 ms"])
    Budget(size_bytes=20000000, latency_ms=5.0)

    Raises:
        AutopruneError: for what is no size or time, zero, beyond what any model takes, or given twice.
    """
    size: int | None = None
    latency: float | None = None
    for text in texts:
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
        unit = match.group(2) if match else ""
        if match is None or (unit not in _BYTES and unit not in _MILLISECONDS):
            raise AutopruneError(
                f"budget {text!r:.80} is no limit; write a size ({', '.join(_BYTES)}) or a time "
                f"({', '.join(_MILLISECONDS)}), for instance 20MB or 5ms"
            )
        if len(match.group(1)) > _MOST_DIGITS:
            raise AutopruneError(f"budget {text!r:.80}: a limit has {_MOST_DIGITS} digits at most")
        amount = Fraction(match.group(1))  # floats lose a byte of 1.001 kB
        if unit in _BYTES:
            limit = amount * _BYTES[unit]
            _check(text, limit, 1, _MOST_BYTES, is_second=size is not None)
            size = int(limit)
        else:
            limit = amount * _MILLISECONDS[unit]
            _check(text, limit, _LEAST_MS, _MOST_MS, is_second=latency is not None)
            latency = float(limit)
    return Budget(size, latency)


def _check(text: str, limit: Fraction, least: Fraction | int, most: int, *, is_second: bool) -> None:
    if limit < least or is_second:
        raise AutopruneError(f"budget {text!r}: must be above zero and given once")
    if limit > most:
        raise AutopruneError(
            f"budget {text!r} is more than any model takes: leave it out, or give what the model must not "
            "exceed, for instance 20MB or 5ms"
        )
