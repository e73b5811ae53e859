"""Plain text as a table: a `.txt` file, or a folder of them, becomes documents or sentences.

A document is what blank lines separate. In a file without blank lines each line is one, as in corpora of
one article a line, which are often called `.cor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.plain_text import DecodedText, decode, read_bytes
from autoprune.tasks.data.tables import (
    SPLIT_NAMES,
    Table,
    from_columns,
    listed,
    not_read,
    suffix_of,
    with_note,
)

TEXT_SUFFIXES = (".txt", ".cor")


def text_files(path: Path) -> list[Path]:
    """The text file itself, or those of a folder and the folders in it, sorted; [] where there is none."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [f for f in files if suffix_of(f) in TEXT_SUFFIXES and f.is_file() and f.name[0] != "."]


def text_tables(path: Path, *, by_line: bool) -> dict[str, Table]:
    """Columns `text` and `file` by split; a file or the folder it lies in may be named as a split.

    Args:
        path: a file or folder for which `text_files` finds some.
        by_line: each line is a text of its own, blank lines or not.

    Raises:
        AutopruneError: when a file is no UTF-8 text.
    """
    files: dict[str, list[Path]] = {}
    for file in text_files(path):
        parts = file.relative_to(path).parts if path.is_dir() else ()
        split = SPLIT_NAMES.get(parts[0].split(".")[0].lower(), "") if parts else ""
        files.setdefault(split, []).append(file)
    named = {split: some for split, some in files.items() if split}
    beside = [str(file.relative_to(path)) for file in files.get("", [])] if named else []
    tables = {split: _table(some, path, by_line) for split, some in (named or {"train": files[""]}).items()}
    return with_note(tables, not_read("files", beside))


def _table(files: Sequence[Path], root: Path, by_line: bool) -> Table:
    texts: list[str] = []
    names: list[str] = []
    notes: list[str] = []
    lines = 0
    for file in files:
        decoded = _read(file)
        found = _texts(decoded.text, by_line)
        texts += found
        names += [str(file.relative_to(root)) if root.is_dir() else file.name] * len(found)
        notes += [f"{listed([file.name])}: {decoded.note}"] * bool(decoded.note)
        lines += sum(1 for line in _lines(decoded.text) if line.strip())
    if lines > len(texts):
        notes.append(f"{lines} lines are {len(texts)} texts, which blank lines separate")
    return replace(from_columns({"text": texts, "file": names}), notes=tuple(notes))


def _texts(text: str, by_line: bool) -> list[str]:
    """What blank lines separate; each line where there are none, or where that is asked for."""
    lines = _lines(text.strip())
    blocks = ["\n".join(block) for full, block in groupby(lines, lambda n: bool(n.strip())) if full]
    if by_line or len(blocks) == 1:
        return [line for line in lines if line.strip()]
    return blocks


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _read(file: Path) -> DecodedText:
    """Its text, unpacked and decoded."""
    try:
        return decode(read_bytes(file))
    except Exception as error:  # files, codecs and decompressors each raise their own
        cause = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        raise AutopruneError(
            f"data file {file} cannot be read ({cause}). Text as UTF-8 is needed: write it again."
        ) from error
