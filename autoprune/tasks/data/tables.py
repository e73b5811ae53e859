"""Tables of named columns: from a csv, tsv, json, jsonl or parquet file, a folder, or the hub."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.cells_on_disk import cells_of_parquet, cells_on_disk
from autoprune.tasks.data.delimited import SEPARATORS, parse_delimited
from autoprune.tasks.data.json_rows import json_columns
from autoprune.tasks.data.parquet_file import open_parquet
from autoprune.tasks.data.plain_text import ESCAPED, OPENERS, decode, not_utf8, read_bytes

SPLIT_NAMES = {name: name for name in ("train", "validation", "test")} | dict.fromkeys(
    ("valid", "val", "dev"), "validation"
)
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
PACKED = tuple(OPENERS)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")


@dataclass(frozen=True)
class Table:
    """Column names, how to read one column, and the class names of columns that declare them.

    classes: of a column of lists, such as tags, what one of the list may be. folder: where relative paths
    in its cells start; None where a file on this disk is no part of the data. notes: what was not read, and
    what may not be meant, for the plan. read_images: a column as `CellOnDisk`s.
    """

    names: tuple[str, ...]
    read: Callable[[str], list[Any]]
    classes: Mapping[str, tuple[str, ...]]
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    read_images: Callable[[str], Sequence[Any]] | None = None

    def images(self, name: str) -> Sequence[Any]:
        """A column of images, whose cells stay on the disk where they can."""
        return self.read(name) if self.read_images is None else self.read_images(name)


def local_tables(path: Path, hint: Callable[[], str] = str) -> dict[str, Table]:
    """The tables of a file or folder by split; what `hint` gives ends the message where there is none.

    Raises:
        AutopruneError: when it holds no table, or one that cannot be read.
    """
    if path.is_file():
        return {"train": _read_file(path, hint)}
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return load_tables(f"data folder {path}", "load_from_disk", str(path))
    files = table_files(path)
    if len(files) == 1:
        return with_note({"train": _read_file(files[0])}, _unread(path, files))
    files_of: dict[str, list[Path]] = {}
    for file in files:
        stem = _SHARD.sub(r"\1", _stem(file)).lower()
        if stem in SPLIT_NAMES:
            files_of.setdefault(SPLIT_NAMES[stem], []).append(file)
    for split, same in files_of.items():
        if len(same) > 1 and not all(_SHARD.fullmatch(_stem(file)) for file in same):
            names = listed(file.name for file in same)
            raise AutopruneError(f"data folder {path} has {names} for one split, {split}. Keep one.")
        _check_shards(path, same)
    if not files_of:
        raise AutopruneError(
            f"data folder {path} holds no data: allowed are files named train, validation and test "
            f"(or some of them), one file, or what save_to_disk writes, as {listed(SUFFIXES)}.{hint()}"
        )
    tables = {split: _joined([_read_file(file) for file in same]) for split, same in files_of.items()}
    return with_note(tables, _unread(path, [file for same in files_of.values() for file in same]))


def _check_shards(folder: Path, files: Sequence[Path]) -> None:
    """Raise AutopruneError where a split lacks one of its shards."""
    shards = [match for file in files if (match := _SHARD.fullmatch(_stem(file)))]
    have = {int(shard[2]) for shard in shards}
    for shard in shards:
        if lacking := sorted(set(range(int(shard[3]))) - have):
            first = f"{shard[1]}-{lacking[0]:05}-of-{shard[3]}"
            raise AutopruneError(
                f"data folder {folder} lacks {len(lacking)} of {int(shard[3])} files of {shard[1]}, first "
                f"{first}. Add what is missing, or rename the others."
            )


def _unread(folder: Path, read: Sequence[Path]) -> str:
    """A note of the files that may be meant as data and are not read."""
    others = sorted(file for file in folder.iterdir() if file.is_file() and file not in read)
    return not_read(
        "files", [f.name for f in others if suffix_of(f) in SUFFIXES or _stem(f).lower() in SPLIT_NAMES]
    )


def not_read(what: str, names: Sequence[str]) -> str:
    """A note of what lies beside the data and is no part of them; "" where nothing does."""
    return f"{what} not read, being no split by name, or a second one: {listed(names)}" if names else ""


def with_note(tables: Mapping[str, Table], note: str) -> dict[str, Table]:
    """The tables, the first of which has one more note, if it says anything."""
    return {
        split: replace(table, notes=(*table.notes, note)) if note and not place else table
        for place, (split, table) in enumerate(tables.items())
    }


def table_files(folder: Path) -> list[Path]:
    """The files of a folder that are tables by their suffix, sorted."""
    return [file for file in sorted(folder.iterdir()) if file.is_file() and suffix_of(file) in SUFFIXES]


def _joined(tables: Sequence[Table]) -> Table:
    """The shards of one split as one table, of the columns that all of them have."""
    names = tuple(n for n in tables[0].names if all(n in table.names for table in tables))
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return replace(
        tables[0],
        names=names,
        read=lambda n: [v for t in tables for v in t.read(n)],
        read_images=lambda n: [v for t in tables for v in t.images(n)],
        notes=notes,
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def suffix_of(path: Path) -> str:
    """The suffix that tells the format: `.csv` also for a compressed `reviews.csv.bz2`."""
    return Path(path.stem if path.suffix.lower() in PACKED else path.name).suffix.lower()


def _read_file(path: Path, hint: Callable[[], str] = str) -> Table:
    kind, where = suffix_of(path), f"data file {path}"
    if kind not in SUFFIXES:
        raise AutopruneError(
            f"{where} is no table by its suffix ({kind or 'none'}); allowed: {listed(SUFFIXES)}, "
            f"compressed as {listed(PACKED)} or not. Save it as one of these.{hint()}"
        )
    if not path.stat().st_size:
        raise AutopruneError(f"{where} is empty (0 bytes). Write it again.")
    if kind == ".parquet":
        return replace(_read_parquet(path, where), folder=path.parent)
    try:
        data = read_bytes(path)
        text = decode(data, keep_damaged=kind in SEPARATORS)
        if kind in SEPARATORS:
            table = _read_delimited(text.text, where, SEPARATORS[kind], is_damaged=text.is_damaged)
        else:
            table = from_columns(json_columns(text.text, where))
    except AutopruneError:
        raise
    except Exception as error:  # files, codecs, decompressors and JSON each raise their own
        raise _unreadable(where, error) from error
    notes = tuple(f"{listed([path.name])}: {note}" for note in (text.note, *table.notes) if note)
    return replace(table, folder=path.parent, notes=notes)


def _read_delimited(text: str, where: str, separator: str, *, is_damaged: bool) -> Table:
    """All cells as text, so that a review "None" or "NA" is no gap and a label stays as written."""
    parsed = parse_delimited(text, separator=separator, where=where)

    def read(name: str) -> list[str | None]:
        cells = parsed.columns[name]
        if is_damaged:  # somewhere; what is not asked for may hold anything
            for line, cell in zip(parsed.lines, cells, strict=True):
                if cell and ESCAPED.search(cell):
                    raise _unreadable(where, ValueError(f"line {line} is {not_utf8(cell)}"))
        return cells

    return Table(tuple(parsed.columns), read, {}, notes=parsed.notes)


def _read_parquet(path: Path, where: str) -> Table:
    """Columns that are asked for are read; each must have as many rows as the file says."""
    try:
        file = open_parquet(path, where)
    except AutopruneError:
        raise
    except Exception as error:  # pyarrow has no common error
        raise _unreadable(where, error) from error

    def read(name: str) -> list[Any]:
        try:
            cells = _cells(file.read(name), name)
        except Exception as error:
            raise _unreadable(f"{where}, column {name!r:.60}", error) from error
        if len(cells) != file.count:
            raise AutopruneError(f"{where}: {len(cells)} of {file.count} rows were read. Write it again.")
        return cells

    def read_images(name: str) -> Sequence[Any]:
        told = partial(_unreadable, f"{where}, column {name!r:.60}")
        return cells_of_parquet(path, name, file.count, told) if name in file.encoded else read(name)

    return Table(file.names, read, _classes_of(file.features), read_images=read_images)


def from_columns(columns: Mapping[str, list[Any]]) -> Table:
    return Table(tuple(columns), lambda name: columns[name], {})


def load_tables(where: str, function: str, *args: str, **options: Any) -> dict[str, Table]:
    """Call a loader of `datasets` (slow to import, so only here) and take the splits it returns."""
    datasets: Any = importlib.import_module("datasets")
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        loaded = getattr(datasets, function)(*args, **options)
    except Exception as error:  # the loaders have no common error
        raise _unreadable(where, error) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    return by_split(loaded if isinstance(loaded, dict) else {"train": loaded}, where, from_dataset)


def by_split(parts: Mapping[Any, Any], where: str, table: Callable[[Any], Table]) -> dict[str, Table]:
    """The parts that are named as splits, as tables; one part alone is the train split."""
    tables: dict[str, Table] = {}
    others: list[str] = []
    for split, part in parts.items():
        name = SPLIT_NAMES.get(str(split).split("_")[0].lower(), "train" if len(parts) == 1 else "")
        if name and name not in tables:  # of MNLI's two validation splits the first, validation_matched
            tables[name] = table(part)
        else:
            others.append(str(split))
    if not tables:
        raise AutopruneError(f"{where} has the splits {listed(map(str, parts))}: none is train or test.")
    return with_note(tables, not_read("splits", others))


def from_dataset(part: Any) -> Table:
    """A `datasets.Dataset` as a table; tags declare their classes one level down."""

    def read_images(name: str) -> Sequence[Any]:
        column = _as_stored(part, name)
        return cells_on_disk(lambda row: column[row][name], len(column))

    classes = _classes_of(part.features)
    return Table(tuple(part.column_names), lambda name: _cells(part, name), classes, read_images=read_images)


def _classes_of(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    inner = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {name: tuple(f.names) for name, f in inner.items() if type(f).__name__ == "ClassLabel"}


def _cells(part: Any, name: str) -> list[Any]:
    """A column as plain values, images as they are stored, and grids of numbers as arrays."""
    column = _as_stored(part, name)
    return [row[name] for row in column] if column.format["type"] else list(column[:][name])


def _as_stored(part: Any, name: str) -> Any:
    """One column as a `datasets.Dataset` whose rows have images as they are stored, and grids as arrays.

    Decoding is left to `images`, one image at a time; a grid as nested lists takes 8 bytes a number
    and more.
    """
    feature, column = part.features[name], part.select_columns([name]).with_format(None)
    if type(feature).__name__ == "Image":
        return column.cast_column(name, type(feature)(decode=False))
    is_nested = hasattr(getattr(feature, "feature", None), "feature")
    is_grid = is_nested or type(feature).__name__.startswith("Array")
    return column.with_format("numpy") if is_grid else column


def _unreadable(where: str, error: BaseException) -> AutopruneError:
    """One error for all that a loader raises, with a cure for a hub id or for a file."""
    if type(error).__name__ == "DatasetGenerationError":  # says nothing: its cause does
        error = error.__cause__ or error
    cause = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    cure = "The file is damaged or in another format: write it again (text as UTF-8)."
    if not where.startswith("data f"):
        where = f"data set {where!r}"
        cure = (
            "It is no file or folder here; of the hub, check the id and the network, log in for a "
            "private one (HF_TOKEN), or give a local file."
        )
    return AutopruneError(f"{where} cannot be read ({cause}). {cure}")


def listed(names: Iterable[str]) -> str:
    """At most 20 names; the long and the unprintable are quoted, for they come from files."""
    short = [n if len(n) <= 60 and n.isprintable() else repr(n[:60]) + "..." for n in names]
    return ", ".join(short[:20]) + (f" and {len(short) - 20} more" if len(short) > 20 else "")
