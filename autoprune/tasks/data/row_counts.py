"""How many rows a source had, and how many of them are not used, by reason: the sum is all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field

SizedParts = Mapping[str, Sized]
"""Rows by split."""


@dataclass(frozen=True)
class RowCounts:
    """Rows of all splits that were read, and of these the ones that are in no split, by reason.

    Of pairs whose texts are rows of their own, each text counts.
    """

    read: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Rows of train, validation and test together."""
        return self.read - sum(self.left_out.values())

    def lines(self) -> list[str]:
        """What the plan says; nothing where every row is used.

        >>> RowCounts(400, {"without text": 3, "over --limit-rows": 97}).lines()
        ['of 400 rows read 100 are left out: 3 without text, 97 over --limit-rows']
        """
        if self.used == self.read:
            return []
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)
        return [f"of {self.read} rows read {self.read - self.used} are left out: {reasons}"]


class LeftOut:
    """Counts of rows left out while splits are made, by reason, in the order in which they came."""

    def __init__(self, read: int = 0) -> None:
        self.read = read
        self._counts: Counter[str] = Counter()

    def add(self, reason: str, count: int) -> None:
        """So many more rows are left out."""
        if count:
            self._counts[reason] += count

    def add_lost(self, reason: str, before: SizedParts, after: SizedParts) -> None:
        """The rows that `after` lacks of `before` are left out."""
        self.add(reason, sum(map(len, before.values())) - sum(map(len, after.values())))

    def counts(self) -> RowCounts:
        """What was counted."""
        return RowCounts(self.read, dict(self._counts))
