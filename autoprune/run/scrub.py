"""Hides the secrets in the files of a run that an older version wrote, an export's below it among them."""

from __future__ import annotations

import html
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.core.files import file_hash, read_json, reason_of, write_json, written_whole
from autoprune.core.redaction import may_hold_secret, secrets_with_place

log = logging.getLogger(__name__)

RECORD, EXPORT = "run.json", "autoprune.json"
HASHES = "sha256.json"
"""Hashes of a kept trial's files, beside them."""
RECORDS = (RECORD, "front.json", "status.json", EXPORT)
"""Files that the secrets of a run are looked for in; where one is found, every text is cleaned of it."""

WEIGHTS = (".safetensors", ".bin", ".db", ".onnx", ".gguf")
"""Files that no address was ever written to."""


def scrub(folder: Path) -> list[Path]:
    """Hide in every file of a run folder what its records hold of secrets; the files that changed.

    `run.json` comes last: cut short, it is done again. Hashes that an export keeps of its files follow.
    """
    pairs = dict(pair for file in _files(folder) if file.name in RECORDS for pair in _secrets(file))
    if not pairs:
        return []
    spelled = {a.encode(): b.encode() for old, new in pairs.items() for a, b in _spellings(old, new)}
    changed = []
    for file in sorted(_files(folder), key=lambda path: (path.name == RECORD, path.name == EXPORT, path)):
        if file.suffix not in WEIGHTS and _replaced(file, spelled):
            changed.append(file)
    for record in (file for file in _files(folder) if file.name in (EXPORT, HASHES)):
        _follow(record, {file.name for file in changed if file.parent == record.parent})
    return changed


def scrub_and_say(folder: Path) -> None:
    """Hide the secrets of a run folder, where it can be written, and say in which files there were some."""
    try:
        changed = scrub(folder)
    except OSError as error:
        log.warning(
            "%s holds a password or token, written by an older version, which cannot be hidden (%s)",
            folder, reason_of(error),
        )  # fmt: skip
        return
    if changed:
        names = ", ".join(str(file.relative_to(folder)) for file in changed)
        log.warning(
            "%s held a password or token in %s, written by an older version; it is hidden there now. Change "
            "it: whoever could read these files knows it, and copies and uploads of them still hold it",
            folder,
            names,
        )


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink()]


def _secrets(file: Path) -> Iterator[tuple[str, str]]:
    """Secrets of a JSON file with their places; none of one that is damaged."""
    try:
        if may_hold_secret(file.read_text(encoding="utf-8")):
            for text in _texts(read_json(file)):
                yield from secrets_with_place(text)
    except (OSError, ValueError, RecursionError):
        return


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)


def _spellings(old: str, new: str) -> Iterator[tuple[str, str]]:
    """The pair as texts, JSON, HTML, a script in HTML and a shell's command line write it."""
    in_json, in_new = json.dumps(old)[1:-1], json.dumps(new)[1:-1]
    yield old, new
    yield in_json, in_new
    yield html.escape(old), html.escape(new)
    yield html.escape(in_json), html.escape(in_new)
    for sign in "&<>'":  # the quotation mark last: not every writer escapes it
        yield in_json, in_new
        in_json, in_new = (form.replace(sign, f"\\u{ord(sign):04x}") for form in (in_json, in_new))
    yield in_json, in_new
    quoted = "'\"'\"'"
    yield old.replace("'", quoted), new.replace("'", quoted)


def _replaced(file: Path, spelled: Mapping[bytes, bytes]) -> bool:
    """Write a file again without the secrets, where it has any."""
    before = file.read_bytes()
    after = before
    for old, new in sorted(spelled.items(), key=lambda pair: -len(pair[0])):
        after = after.replace(old, new)
    if after == before:
        return False
    with written_whole(file) as temporary:
        temporary.write_bytes(after)
    return True


def _follow(record: Path, names: set[str]) -> None:
    """Note the hashes of an export's files that changed."""
    about = read_json(record)
    hashes = dict(about.get("sha256", {}))
    new = {name: file_hash(record.parent / name) for name in names & hashes.keys()}
    if new:
        write_json(record, about | {"sha256": hashes | new})
