"""Markdown of text that is taken for hostile: code that nothing in it can end, and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def one_line(text: str) -> str:
    """One line of printable characters.

    >>> one_line("a\\nb" + chr(0))
    'a b�'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).split()))


def code(text: str) -> str:
    """Text as a code span: nothing in it is Markdown or HTML.

    >>> print(code("a`b"), code("<b>"))
    ``a`b`` `<b>`
    """
    line = one_line(text) or "-"
    fence = "`" * (_longest_run(line) + 1)
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def words(text: str) -> str:
    """Text as it is where it is but words, else as a code span.

    >>> words("a token after 128 others"), words("a*b*")
    ('a token after 128 others', '`a*b*`')
    """
    return text if re.fullmatch(r"[A-Za-z0-9]+([ ,-]+[A-Za-z0-9]+)*", text) else code(text)


def fenced(text: str, language: str) -> str:
    """Text as a block of code, which it cannot end."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table. A bar ends a cell even in a code span, and whether a backslash before it helps depends on
    what stands before that (GitHub Flavored Markdown, 4.10): it becomes another one.
    """
    cells = [[cell.replace("|", "\u00a6") for cell in row] for row in (head, *rows)]
    cells.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def figure(value: Any) -> str:
    """A number, or two as a range; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        return " to ".join(map(figure, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)
