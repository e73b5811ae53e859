"""What the plan says of rows that were read and may not be what was meant: nothing of it is an error."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from autoprune.tasks.data.columns import Row
from autoprune.tasks.data.labels import classes_of
from autoprune.tasks.data.source import SPLITS
from autoprune.tasks.data.tables import listed
from autoprune.tasks.kinds import TaskKind


def doubts(parts: Mapping[str, Sequence[Row]], names: Sequence[str], kind: TaskKind) -> Iterator[str]:
    """Classes that a split lacks, names that differ by case alone, and rows that come twice.

    Args:
        names: of the classes; none where labels are none.
    """
    if names:
        yield from _lacking(parts, names)
        yield from _alike(names)
    what = "image" if kind.reads_images else "text"
    yield from _repeated(parts, what, has_classes=bool(names) and not kind.reads_words)


def _lacking(parts: Mapping[str, Sequence[Row]], names: Sequence[str]) -> Iterator[str]:
    """Rows of a class are of all splits together; of tags the rows that have one."""
    count = {split: Counter(c for row in parts[split] for c in classes_of(row)) for split in SPLITS}
    whole = sum(count.values(), Counter())
    for split in SPLITS:
        lacks = sorted((c for c in whole if not count[split][c]), key=lambda c: (-whole[c], c))
        if lacks:
            told = listed(f"{names[c]} ({whole[c]} row{'s' * (whole[c] > 1)} in all)" for c in lacks)
            yield f"{split} lacks {len(lacks)} of {len(names)} classes: {told}"
    unused = [name for c, name in enumerate(names) if c not in whole]
    if unused:
        yield f"{len(unused)} of {len(names)} classes have no row: {listed(unused)}"


def _alike(names: Sequence[str]) -> Iterator[str]:
    same = defaultdict(list)
    for name in names:
        same[" ".join(name.split()).casefold()].append(name)
    twins = [" and ".join(group) for group in same.values() if len(group) > 1]
    if twins:
        yield f"classes differ by case or spaces alone: {listed(twins)}"


def _repeated(parts: Mapping[str, Sequence[Row]], what: str, *, has_classes: bool) -> Iterator[str]:
    """Rows of one text or image: how many, in how many splits, and with how many labels."""
    labels, splits = defaultdict(set), defaultdict(set)
    for split in SPLITS:
        for row in parts[split]:
            labels[row.text_key].add(row.label)
            splits[row.text_key].add(split)
    rows = sum(len(parts[split]) for split in SPLITS)
    if rows > len(splits):
        repeated = rows - len(splits)
        verb = "repeats" if repeated == 1 else "repeat"
        yield f"{repeated} of {rows} rows {verb} the {what} of another row"
    for split in SPLITS[1:]:
        seen = sum("train" in splits[row.text_key] for row in parts[split])
        if seen:
            verb = "has" if seen == 1 else "have"
            yield f"{seen} of {len(parts[split])} {split} rows {verb} {_a(what)} that train has too"
    unlike = sum(len(of_text) > 1 for of_text in labels.values())
    if has_classes and unlike:
        yield f"{unlike} {what}{'s' * (unlike > 1)} ha{'ve' if unlike > 1 else 's'} more than one label"


def _a(what: str) -> str:
    return f"a{'n' * (what[0] in 'aeiou')} {what}"
