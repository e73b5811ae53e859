"""Rows that come more than once: the same, or nearly the same, within a split and across them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoprune.tasks.data.near_duplicates import near_duplicates
from autoprune.tasks.data.rows import Place, Rows
from autoprune.tasks.data.source import SPLITS

if TYPE_CHECKING:
    from autoprune.tasks.data.splits import Splits


@dataclass(frozen=True)
class Spot:
    """A row: its split, its number in that split, where it was read, what it is known by, and its label.

    shown: the start of its text, or the name of its file.
    """

    split: str
    number: int
    place: Place
    key: str
    label: Any
    shown: str


SHOWN = 100
"""Characters of a text that stand for it."""


def spots_of(splits: Splits) -> list[Spot]:
    """All rows, of train, validation and test in this order."""
    return [spot for split in SPLITS for spot in _spots(split, getattr(splits, split))]


def _spots(split: str, rows: Rows) -> list[Spot]:
    labels: Sequence[Any] = rows.labels or [None] * len(rows)
    texts = [*zip(*rows.texts, strict=True)] if rows.texts else [()] * len(rows)
    spots = []
    for k, (key, label) in enumerate(zip(rows.keys(), labels, strict=True)):
        place = rows.places[k] if rows.places else Place(split, k)
        words = (text if isinstance(text, str) else " ".join(text) for text in texts[k])
        shown = " ".join(" | ".join(words).split())
        if rows.images:
            cell = rows.images.stored[k].cell
            shown = str(cell) if isinstance(cell, str) else rows.images.stored[k].where
        spots.append(Spot(split, k, place, key, label, shown[:SHOWN]))
    return spots


@dataclass(frozen=True)
class Repeats:
    """Groups of numbers of `spots`, each in order: of one key, and of keys that are nearly the same.

    A near group has rows of two keys or more, and all rows of each of them.
    """

    spots: Sequence[Spot]
    same: Sequence[Sequence[int]]
    near: Sequence[Sequence[int]]

    def contradictions(self) -> list[Sequence[int]]:
        """The groups of one key that have more than one label."""
        return [group for group in self.same if len({self.spots[k].label for k in group}) > 1]

    def leaks(self, split: str) -> tuple[list[int], list[int]]:
        """Rows of a split that train has too: the same, and nearly the same."""
        return self._leaked(split, self.same), self._leaked(split, self.near)

    def _leaked(self, split: str, groups: Sequence[Sequence[int]]) -> list[int]:
        out = []
        for group in groups:
            if any(self.spots[k].split == SPLITS[0] for k in group):
                out += [k for k in group if self.spots[k].split == split]
        return sorted(out)

    @property
    def repeated(self) -> int:
        """Rows that repeat another one."""
        return sum(len(group) - 1 for group in self.same)

    def near_keys(self, group: Sequence[int]) -> int:
        """Different keys of a group."""
        return len({self.spots[k].key for k in group})


def find_repeats(splits: Splits) -> Repeats:
    """Rows of all splits that are the same or nearly so.

    Raises:
        AutopruneError: where a picture cannot be read.
    """
    spots = spots_of(splits)
    by_key: dict[str, list[int]] = defaultdict(list)
    for k, spot in enumerate(spots):
        by_key[spot.key].append(k)
    keys, rows = list(by_key), list(by_key.values())
    if splits.train.images:
        from autoprune.tasks.data.picture_hash import near_pictures, thumbnails

        stored = [image for split in SPLITS for image in getattr(splits, split).images.stored]
        near = near_pictures(thumbnails([stored[members[0]] for members in rows]))
    else:
        near = near_duplicates(keys)
    groups = [sorted(k for distinct in group for k in rows[distinct]) for group in near]
    return Repeats(spots, [members for members in rows if len(members) > 1], groups)


def class_counts(splits: Splits) -> list[dict[str, Any]]:
    """Rows of each class by split, of rows with one class each; of tags the words that have one."""
    counts = {split: Counter(_classes(getattr(splits, split))) for split in SPLITS}
    return [
        {"name": name, **{split: counts[split][k] for split in SPLITS}}
        for k, name in enumerate(splits.label_names)
    ]


def _classes(rows: Rows) -> list[Any]:
    return [c for label in rows.labels for c in (label if isinstance(label, tuple) else (label,))]
