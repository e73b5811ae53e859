"""Data of every kind: a file, a folder, a hub id or a function becomes train, validation and test.

A split that the source lacks is cut from the first of train, validation and test that it has (the
donor), 70/10/20 among the donor and what is missing: a single table becomes 70/10/20, train + test
gives 1/8 of train as validation, train + validation 2/9 of train as test. All rows of one group, or else
of one text or image, stay together (see `cutting`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.references import is_reference
from autoprune.tasks.data.cells_on_disk import read_cell
from autoprune.tasks.data.columns import Columns, Row, WantedColumns, find_columns, read_rows
from autoprune.tasks.data.cutting import SHARES, cut_splits, draw_rows
from autoprune.tasks.data.demo import demo_rows
from autoprune.tasks.data.doubts import doubts
from autoprune.tasks.data.function_source import function_tables
from autoprune.tasks.data.image_folders import has_class_folders, read_image_folder
from autoprune.tasks.data.images import Images
from autoprune.tasks.data.labels import classes_of, labelled
from autoprune.tasks.data.row_counts import LeftOut, RowCounts
from autoprune.tasks.data.rows import Place, Rows
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.data.tables import (
    SUFFIXES,
    Table,
    from_columns,
    listed,
    load_tables,
    local_tables,
    table_files,
    with_note,
)
from autoprune.tasks.data.text_files import text_files, text_tables
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION, KINDS, TEXT_CLASSIFICATION, TaskKind

_PATH = re.compile(r"^[.~/]|/$|/.*/|\\|\.[A-Za-z]\w{1,6}$|^\s*$")  # else a hub id: `owner/name`
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """The three splits, the names of classes or tags in label order, and a SHA-256 over all of it.

    counts: of the rows that were read. notes: what the plan says of them.
    """

    train: Rows
    validation: Rows
    test: Rows
    label_names: tuple[str, ...]
    name: str
    fingerprint: str
    counts: RowCounts = field(default=RowCounts(), compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)


def read_splits(source: DataSource, kind: TaskKind = TEXT_CLASSIFICATION, *, seed: int = 0) -> Splits:
    """Read a csv, tsv, json, jsonl or parquet file, a folder of them, a hub data set, or a function.

    Columns not named are found by convention (see `reading`).

    Args:
        source: not the demo's, which `demo_splits` gives.
        kind: one of `kinds.KINDS`.
        seed: of how splits are cut and of which rows are drawn.

    Raises:
        AutopruneError: when the source cannot be read, or does not fit the kind.
    """
    _check(source, kind)
    dataset = str(source.dataset)
    path = Path(dataset).expanduser()
    local = bool(dataset.strip()) and path.exists()
    if (local or is_reference(dataset)) and (source.revision or source.config_name):
        where = "is on this disk" if local else "is a function"
        raise AutopruneError(f"{dataset} {where}: revision and config name are for hub ids.")
    if local:
        return _splits(_local_tables(path, kind), path.resolve().name, source, kind, seed)
    if is_reference(dataset):
        return _splits(function_tables(dataset), dataset, source, kind, seed)
    if _PATH.search(dataset):
        raise AutopruneError(
            f"data file {dataset!r} does not exist (looked in {Path.cwd()}). Give a "
            f"{listed(SUFFIXES)} file, a folder of them, or a hub id such as stanfordnlp/imdb."
        )
    tables = load_tables(dataset, "load_dataset", dataset, name=source.config_name, revision=source.revision)
    return _splits(tables, dataset, source, kind, seed)


def _check(source: DataSource, kind: TaskKind) -> None:
    """Raise `AutopruneError` for what is not allowed, whatever the data."""
    if kind.is_own:
        raise AutopruneError(
            f"data of kind {kind.name!r} cannot be read; allowed: {listed(map(str, KINDS))}."
        )
    if wrong := {split: limit for split, limit in source.limits.items() if limit < 1}:
        raise AutopruneError(f"limits {wrong} not allowed: give 1 or more for {listed(SHARES)}.")
    if source.image_side is not None and source.image_side < 1:
        raise AutopruneError(f"image_side {source.image_side} not allowed: give 1 pixel or more, or None.")
    _wanted(source).check(kind)


def _wanted(source: DataSource) -> WantedColumns:
    return WantedColumns(source.text_columns, source.image_column, source.label_column, source.group_by)


def demo_splits(seed: int = 0) -> Splits:
    """The built-in film reviews, split by film."""
    rows = demo_rows()
    table = from_columns({name: [row[name] for row in rows] for name in rows[0]})
    source = DataSource(group_by="movie_name")
    return _splits({"train": table}, "rotten-tomatoes", source, TEXT_CLASSIFICATION, seed)


def _local_tables(path: Path, kind: TaskKind) -> dict[str, Table]:
    """What lies on this disk: tables, or what only rows of this kind are made from."""
    if kind.reads_images and path.is_dir() and (pictures := read_image_folder(path)):
        tables = pictures.tables()
        for note in pictures.notes():
            tables = with_note(tables, f"{path.name}: {note}")
        return tables
    has_tables = path.is_dir() and table_files(path)
    if kind.reading.is_plain_text and not has_tables and text_files(path):
        return text_tables(path, by_line=kind.reading.is_each_text_a_row)
    return local_tables(path, lambda: _hint(path, kind))


def _hint(path: Path, kind: TaskKind) -> str:
    """What else a source without tables may be."""
    if kind.reads_images:
        return " Or give a folder of one sub-folder a class, of at least two, with image files in them."
    if kind.reading.is_plain_text:
        return " Or give text files (.txt)."
    if text_files(path):
        of_text = sorted(kind.name for kind in KINDS if kind.reading.is_plain_text)
        return f" Plain text is for {listed(of_text)} (--task)."
    of_images = f" Images are for --task {IMAGE_CLASSIFICATION}."
    return of_images if path.is_dir() and has_class_folders(path) else ""


def _splits(tables: Mapping[str, Table], name: str, source: DataSource, kind: TaskKind, seed: int) -> Splits:
    donor = next(split for split in SHARES if split in tables)
    columns = find_columns(tables[donor], name, _wanted(source), kind.reading)
    left_out = LeftOut()
    parts = {
        split: read_rows(
            table,
            f"{name} ({split})",
            columns,
            kind.reading,
            source.image_side,
            left_out,
            by_pixels=source.by_pixels,
        )
        for split, table in tables.items()
    }
    _check_some(parts[donor], f"{name} ({donor})", kind)
    parts = {split: [row._replace(table=split) for row in rows] for split, rows in parts.items() if rows}
    notes = [note for table in tables.values() for note in table.notes]
    label_names: tuple[str, ...] = ()
    if columns.label:
        declared = tables[donor].classes.get(columns.label, ())
        before = parts
        parts, label_names, more = labelled(
            parts, declared, kind, f"label column {columns.label!r} of {name}"
        )
        left_out.add_lost(f"without {kind.reading.label_word}", before, parts)
        _check_some(parts[donor], f"{name} ({donor})", kind)
        parts = {split: rows for split, rows in parts.items() if rows}
        notes += more
    if kind.reading.is_each_text_a_row:
        before, parts = parts, {split: _once(rows) for split, rows in parts.items()}
        left_out.add_lost("that come twice", before, parts)
    notes += [
        f"{split} has no row with {kind.reading.needs}; it is cut from {donor}"
        for split in tables
        if split not in parts
    ]
    parts = cut_splits(parts, name, seed, left_out, has_classes=bool(label_names))
    limits, before = source.limits, parts
    parts = {split: draw_rows(parts[split], limits.get(split), f"{seed} {split}") for split in SHARES}
    left_out.add_lost("over --limit-rows", before, parts)
    _check_sizes(parts, name, columns, label_names)
    counts = left_out.counts()
    notes = [
        *_told(columns, tables[donor].names, kind),
        *counts.lines(),
        *notes,
        *doubts(parts, label_names, kind),
    ]
    done = {split: _transposed(rows, kind) for split, rows in parts.items()}
    fingerprint = _fingerprint(done, label_names, parts, kind)
    return Splits(
        **done, label_names=label_names, name=name, fingerprint=fingerprint, counts=counts, notes=tuple(notes)
    )


def _told(columns: Columns, names: Sequence[str], kind: TaskKind) -> list[str]:
    """Which columns are read, where there are others."""
    group = (columns.group,) if columns.group else ()
    used = [*columns.inputs, *([columns.label] if columns.label else []), *group]
    others = [name for name in names if name not in used]
    if not others:
        return []
    label = f", {kind.reading.label_word} from {listed([columns.label])}" if columns.label else ""
    what = f"{kind.reading.what} from {listed(columns.inputs)}{label}"
    return [f"{what}; columns not read: {listed(others)}"]


def _check_some(rows: Sequence[Row], where: str, kind: TaskKind) -> None:
    if not rows:
        raise AutopruneError(f"{where} has no row with {kind.reading.needs}. Give some.")


def _check_sizes(
    parts: Mapping[str, Sequence[Row]], name: str, columns: Columns, label_names: tuple[str, ...]
) -> None:
    """Raises AutopruneError where a split is empty, or training rows have no two labels."""
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in parts.items())
    labels = {label for row in parts["train"] for label in classes_of(row)} if columns.label else set()
    if not all(parts.values()) or (columns.label and len(labels) < 2):
        two = f", and train 2 {'classes' if label_names else 'different numbers'}" if columns.label else ""
        raise AutopruneError(
            f"{name} is too small: {sizes} rows; each split needs some{two}. Give "
            "more rows (or groups, or higher limits), or a file for each split."
        )
    _log.info("%s: %s rows%s", name, sizes, f", {len(label_names)} classes" if label_names else "")


def _fingerprint(
    splits: Mapping[str, Rows], names: tuple[str, ...], parts: Mapping[str, Sequence[Row]], kind: TaskKind
) -> str:
    """A SHA-256 over the kind (other than text classification), the names, texts, labels and pixels."""
    content: list[Any] = [names, [(rows.texts, rows.labels) for rows in splits.values()]]
    if kind.key_parts:
        content += [*kind.key_parts, [[row.image_key for row in rows] for rows in parts.values()]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _transposed(rows: Sequence[Row], kind: TaskKind) -> Rows:
    texts = tuple(zip(*(row.texts for row in rows), strict=True))
    labels = tuple(row.label for row in rows) if kind.reading.labels else ()
    stored = [row.image for row in rows if row.image is not None]
    return Rows(
        texts,
        labels,
        Images([replace(image, cell=read_cell(image.cell)) for image in stored]),
        tuple(row.image_key for row in rows if row.image_key),
        tuple(Place(row.table, row.number) for row in rows),
        tuple(str(row.group) for row in rows) if any(row.group is not None for row in rows) else (),
    )


def _once(rows: Sequence[Row]) -> list[Row]:
    """Each text once where it comes first, as the row that is least by group and text.

    So which of two that differ in case or group is kept does not depend on the order of the rows.
    """
    kept: dict[str, Row] = {}
    for row in rows:
        kept[row.text_key] = min(kept.get(row.text_key, row), row, key=lambda r: (r.group or "", r.texts))
    return list(kept.values())
