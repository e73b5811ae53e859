"""Classes of the data matched with those of a model's trained head: by name, else by number. No torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.core.errors import AutopruneError

_SHOWN = 6
"""Classes that a message names; the others it counts."""

_NAMELESS = re.compile(r"label_?\d+", re.IGNORECASE)
"""What transformers call a class that nobody named."""

CURE = "Name the classes as the model does, or give --new-head to throw its head away and fit a new one"


@dataclass(frozen=True)
class ClassMatch:
    """For each class of the data its number in the head, and whether names told it."""

    numbers: tuple[int, ...]
    by_name: bool


def match_classes(names: Sequence[str], head: Sequence[str]) -> ClassMatch:
    """Match the data's classes with a head's, of which the data may lack some.

    Names are compared without case, and with spaces, hyphens and underscores as one. Where none is the
    head's, a number is the class of that number, and as many names as the head has are taken in order.

    Args:
        names: of the data's classes, as the data number them.
        head: names of the head's classes, in its order.

    Raises:
        AutopruneError: where names do not tell, or only of some, and numbers do not either.

    >>> match_classes(["Positive", "negative"], ["negative", "neutral", "positive"])
    ClassMatch(numbers=(2, 0), by_name=True)
    >>> match_classes(["0", "2"], ["LABEL_0", "LABEL_1", "LABEL_2"])
    ClassMatch(numbers=(0, 2), by_name=False)
    """
    known = {_plain(name): k for k, name in enumerate(head)}
    plain = [_plain(name) for name in names]
    if len(known) < len(head) or len(set(plain)) < len(plain):  # two names differ in case or spacing alone
        known, plain = {name: k for k, name in enumerate(head)}, list(names)
    if known.keys() >= set(plain):
        return ClassMatch(tuple(known[name] for name in plain), by_name=True)
    known_here = f"the model's head tells apart {len(head)} classes ({listed_classes(head)})"
    has = f"{known_here}; the data have {len(names)}"
    strange = [name for name, key in zip(names, plain, strict=True) if key not in known]
    if len(strange) < len(names):
        twins = [name for name in strange if _plain(name) in map(_plain, {*names} - {name})]
        alike = f"; {listed_classes(twins)} differs from another in case or spaces alone" if twins else ""
        raise AutopruneError(f"{has}, of which it does not know {listed_classes(strange)}{alike}. {CURE}")
    if all(re.fullmatch(r"0|[1-9]\d*", name) and int(name) < len(head) for name in names):
        return ClassMatch(tuple(map(int, names)), by_name=False)
    if len(names) == len(head):
        return ClassMatch(tuple(range(len(head))), by_name=False)
    raise AutopruneError(f"{has}, none of them by these names ({listed_classes(names)}). {CURE}")


def match_note(names: Sequence[str], head: Sequence[str], match: ClassMatch) -> str | None:
    """What a plan says of a match; None where the classes are the same by name.

    >>> match_note(["0", "1"], ["NEG", "POS"], ClassMatch((0, 1), by_name=False)).partition(";")[0]
    "no class of the data has a name of the model's, so they are taken by number: 0 as NEG, 1 as POS"
    """
    lacking = [name for k, name in enumerate(head) if k not in match.numbers]
    stays = (
        f"the head stays, with its {len(head)} classes; the data have no row of {len(lacking)} of them: "
        f"{listed_classes(lacking)}"
    )
    is_plain = [str(k) for k in match.numbers] == list(names)
    if match.by_name or (is_plain and all(map(_NAMELESS.fullmatch, head))):
        return stays if lacking else None
    given = [f"{name} as {head[k]}" for name, k in zip(names, match.numbers, strict=True)]
    return (
        f"no class of the data has a name of the model's, so they are taken by number: {_cut(given)}; "
        "the model's own answers are held against that before the search"
    )


def listed_classes(names: Sequence[str]) -> str:
    """Names of classes in a sentence; of many the first, and how many more."""
    return _cut(list(names))


def _cut(parts: list[str]) -> str:
    more = len(parts) - _SHOWN
    return ", ".join(parts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
