"""Widths of a level as people read them: bits, or 8-bit weights with 8-bit activations."""

from __future__ import annotations

from collections.abc import Iterable

from autoprune.report.schema import Width
from autoprune.report.text import plural
from autoprune.space import Level


def from_widest(widths: Iterable[Width]) -> list[Width]:
    """Each width once: 32, 16, 8, w8a8, 6, 4, 3, 2; dom.js has the same order.

    >>> from_widest([4, "w8a8", 32, 8, 6, 4])
    [32, 8, 'w8a8', 6, 4]
    """
    return sorted(set(widths), key=lambda one: Level.of(0.0, one), reverse=True)


def in_words(width: Width) -> str:
    """One width in a sentence; dom.js has the same words.

    >>> in_words(4), in_words("w8a8")
    ('4 bits', '8-bit weights and activations')
    """
    return plural(width, "bit") if isinstance(width, int) else "8-bit weights and activations"


def listed(widths: Iterable[Width]) -> str:
    """Several widths in a sentence, the widest first.

    >>> listed([3, 16, 6]), listed([4, "w8a8"]), listed(["w8a8"])
    ('16, 6 and 3 bits', 'w8a8 and 4 bits', 'w8a8')
    """
    *most, last = [str(one) for one in from_widest(widths)]
    text = f"{', '.join(most)} and {last}" if most else last
    return f"{text} bits" if last.isdecimal() else text
