"""The pages of the documentation as tests read them: headings, links, code blocks and their marks.

A comment before a code block says what a test does with it: `<!-- run -->` runs it on a tiny model,
`<!-- file: NAME -->` writes it to that file first.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

PAGES = (
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)  # fmt: skip

_BLOCK = re.compile(r"(?:^<!-- ([^>]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^)\s]+)\)")
_ENDS = {"|", ">", "&&", ";", ">>"}
"""Words of a shell after which another command, or a file, comes."""


@dataclass(frozen=True)
class Block:
    """A code block of a page, with the mark before it."""

    mark: str
    language: str
    text: str


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page."""
    return [Block(mark.strip(), language, text) for mark, language, text in _BLOCK.findall(text_of(page))]


def links(page: Path) -> list[str]:
    """Where the links of a page lead, code left out."""
    return _LINK.findall(_INLINE.sub("", _BLOCK.sub("", text_of(page))))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as both code hosts and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[tuple[list[str], bool]]:
    """The words after `autoprune` of each command of a page, and whether it stands in a block.

    In a block that shows prompts (`$ autoprune ...`) only the lines with one are commands.
    """
    for block in blocks(page):
        if block.language == "python":
            continue
        lines = block.text.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        lines = [line for line in lines if "[OPTIONS]" not in line]  # a usage, which is no command
        yield from ((words, True) for line in lines if (words := words_of(line)))
    for code in _INLINE.findall(_BLOCK.sub("", text_of(page))):
        if words := words_of(code):
            yield words, False


def words_of(line: str) -> list[str]:
    """The words after `autoprune` of a line of a shell; none of a line that is another command."""
    if not line.startswith("autoprune "):
        return []
    words = shlex.split(line, comments=True)[1:]
    ends = [k for k, word in enumerate(words) if word in _ENDS]
    return [word for word in words[: min(ends, default=len(words))] if word != "..."]
