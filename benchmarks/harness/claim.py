"""A claim of a benchmark: a sentence, the figures behind it, and whether they bear it out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """Prints as PASS or FAIL."""

    says: str
    figures: str
    holds: bool

    def __str__(self) -> str:
        return f"{'PASS' if self.holds else 'FAIL'}  {self.says}\n      {self.figures}"
