"""The names of the points to choose from (`strategy/points`), in files and flags and in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

POINT_NAMES = ("best", "accurate", "small", "fast", "knee")
"""The names in files and flags, in the order in which they are shown."""

POINT_WORDS = {"accurate": "most accurate", "small": "smallest", "fast": "fastest"}
"""The names in sentences, where they differ."""


def by_trial(numbers: Mapping[str, int | None]) -> dict[int, list[str]]:
    """The words for each trial that has a name, in order; `numbers` as in `Points.numbers`.

    >>> by_trial({"best": 3, "accurate": 7, "small": 3, "fast": 3, "knee": None})
    {3: ['best', 'smallest', 'fastest'], 7: ['most accurate']}
    """
    words: dict[int, list[str]] = {}
    for name, number in numbers.items():
        if number is not None:
            words.setdefault(number, []).append(POINT_WORDS.get(name, name))
    return words


def also(words: Sequence[str]) -> str:
    """What a trial is beside its first name.

    >>> also(["best", "smallest", "knee"]), also(["best"])
    ('also smallest and knee', '')
    """
    if len(words) < 2:
        return ""
    *most, last = words[1:]
    return f"also {', '.join(most)} and {last}" if most else f"also {last}"
