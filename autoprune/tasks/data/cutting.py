"""The splits that a source lacks, cut from one that it has, so that every class is in each where it can be.

Groups, or else texts or images, are dealt whole in the order of a hash of (seed, group, text or pixels): the
order of the rows does not matter. Where that leaves a split without a class, although there are as many
groups of it as splits, classes are dealt one after the other, the rarest first (stratified sampling).
"""

from __future__ import annotations

import hashlib
import logging
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from autoprune.tasks.data.columns import Row
from autoprune.tasks.data.labels import classes_of
from autoprune.tasks.data.row_counts import LeftOut
from autoprune.tasks.data.source import SPLITS
from autoprune.tasks.data.tables import listed

SHARES = dict(zip(SPLITS, (0.7, 0.1, 0.2), strict=True))
"""Of the rows of a single table; of more tables those of the donor and of what is missing, in proportion."""

_log = logging.getLogger(__name__)


class _Key(NamedTuple):
    """What stays together: its hash, its number of rows, and the classes in them."""

    digest: bytes
    size: int
    classes: frozenset[int]


def cut_splits(
    parts: Mapping[str, list[Row]], name: str, seed: int, left_out: LeftOut, *, has_classes: bool
) -> dict[str, list[Row]]:
    """Fill the missing splits from the donor; no group, text or image lies in two of those cut."""
    donor = next(split for split in SHARES if split in parts)
    takers = [split for split in SHARES if split == donor or split not in parts]
    names = [f"text {r.text_key}" if r.group is None else f"group {r.group}" for r in parts[donor]]
    keys = _keys(parts[donor], names, seed, has_classes)
    place = _in_order(keys, takers)
    if takers[1:] and _lacks_some(keys, place, takers):
        place = _by_class(keys, takers)
    cut: dict[str, list[Row]] = {split: [] for split in takers}
    for row, key in zip(parts[donor], names, strict=True):
        cut[place[key]].append(row)
    held: set[str] = set()
    for split in reversed(takers) if takers[1:] else ():  # a text in two groups stays in the later
        kept = [row for row in cut[split] if row.text_key not in held]
        left_out.add("repeated in a group of another split", len(cut[split]) - len(kept))
        cut[split] = kept
        held |= {row.text_key for row in kept}
    if takers[1:] and parts.keys() - {donor}:
        new = listed(split for split in takers if split != donor)
        _log.warning("%s: %s cut from %s, which the model may have seen", name, new, donor)
    return {**parts, **cut}


def draw_rows(rows: list[Row], limit: int | None, salt: str) -> list[Row]:
    """At most `limit` rows in their order, drawn by a hash: a lower limit draws a subset."""
    if limit is None or len(rows) <= limit:
        return rows
    ranks = [_hash(f"draw {salt} {row.text_key}") for row in rows]
    drawn = sorted(range(len(rows)), key=ranks.__getitem__)[:limit]
    return [rows[i] for i in sorted(drawn)]


def _keys(rows: Sequence[Row], names: Sequence[str], seed: int, has_classes: bool) -> dict[str, _Key]:
    """By name, in the order of their hashes."""
    sizes = Counter(names)
    classes: dict[str, set[int]] = {name: set() for name in sizes}
    for row, name in zip(rows, names, strict=True) if has_classes else ():
        classes[name] |= classes_of(row)
    keys = {
        name: _Key(_hash(f"{seed} {name}"), size, frozenset(classes[name])) for name, size in sizes.items()
    }
    return dict(sorted(keys.items(), key=lambda item: item[1].digest))


def _in_order(keys: Mapping[str, _Key], takers: Sequence[str]) -> dict[str, str]:
    """The split of each key: by the place of its middle row among all rows."""
    edges = list(accumulate(SHARES[split] for split in takers))
    place, before, rows = {}, 0, sum(key.size for key in keys.values())
    for name, key in keys.items():
        middle = (before + key.size / 2) / rows
        place[name] = takers[bisect(edges, middle * edges[-1])]
        before += key.size
    return place


def _lacks_some(keys: Mapping[str, _Key], place: Mapping[str, str], takers: Sequence[str]) -> bool:
    """Whether a split has no key of a class that has as many keys as there are splits."""
    count = Counter(c for key in keys.values() for c in key.classes)
    there = {(place[name], c) for name, key in keys.items() for c in key.classes}
    return any((split, c) not in there for c, n in count.items() if n >= len(takers) for split in takers)


def _by_class(keys: Mapping[str, _Key], takers: Sequence[str]) -> dict[str, str]:
    """The split of each key: class by class, the rarest first, each split's share of each.

    A class is first put into the donor, then into the others if it has keys enough. What one class leaves of
    a share the next one has, so that shares hold over all rows.
    """
    count = Counter(c for key in keys.values() for c in key.classes)
    of_class: dict[int, list[str]] = {}
    for name, key in keys.items():
        of_class.setdefault(min(key.classes, key=lambda c: (count[c], c)), []).append(name)
    whole = sum(SHARES[split] for split in takers)
    due = dict.fromkeys(takers, 0.0)
    place: dict[str, str] = {}
    there: set[tuple[str, int]] = set()
    for c in sorted(of_class, key=lambda c: (count[c], c)):
        rows = sum(keys[name].size for name in of_class[c])
        due = {split: due[split] + rows * SHARES[split] / whole for split in takers}
        for name in of_class[c]:
            needy = [split for split in takers if (split, c) not in there]
            if count[c] < len(takers):
                needy = [split for split in needy if split == takers[0]]
            split = needy[0] if needy else max(takers, key=due.__getitem__)
            place[name] = split
            due[split] -= keys[name].size
            there |= {(split, other) for other in keys[name].classes}
    return place


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
