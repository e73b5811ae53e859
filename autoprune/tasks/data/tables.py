"""Tables of named columns: from a csv, tsv, json, jsonl or parquet file, a folder, or the hub."""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.delimited import SEPARATORS, parse_delimited
from autoprune.tasks.data.plain_text import OPENERS, read_text

SPLIT_NAMES = {name: name for name in ("train", "validation", "test")} | dict.fromkeys(
    ("valid", "val", "dev"), "validation"
)
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
PACKED = tuple(OPENERS)
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Table:
    """Column names, how to read one column, and the class names of columns that declare them.

    classes: of a column of lists, such as tags, what one of the list may be. folder: where relative paths
    in its cells start; None where a file on this disk is no part of the data.
    """

    names: tuple[str, ...]
    read: Callable[[str], list[Any]]
    classes: Mapping[str, tuple[str, ...]]
    folder: Path | None = None


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
        return {"train": _read_file(files[0])}
    files_of: dict[str, list[Path]] = {}
    for file in files:
        stem = _SHARD.sub(r"\1", _stem(file)).lower()
        if stem in SPLIT_NAMES:
            files_of.setdefault(SPLIT_NAMES[stem], []).append(file)
    for split, same in files_of.items():
        if len(same) > 1 and not all(_SHARD.fullmatch(_stem(file)) for file in same):
            names = listed(file.name for file in same)
            raise AutopruneError(f"data folder {path} has {names} for one split, {split}. Keep one.")
    if not files_of:
        raise AutopruneError(
            f"data folder {path} holds no data: allowed are files named train, validation and test "
            f"(or some of them), one file, or what save_to_disk writes, as {listed(SUFFIXES)}.{hint()}"
        )
    return {split: _joined([_read_file(file) for file in same]) for split, same in files_of.items()}


def table_files(folder: Path) -> list[Path]:
    """The files of a folder that are tables by their suffix, sorted."""
    return [file for file in sorted(folder.iterdir()) if file.is_file() and suffix_of(file) in SUFFIXES]


def _joined(tables: Sequence[Table]) -> Table:
    """The shards of one split as one table, of the columns that all of them have."""
    names = tuple(n for n in tables[0].names if all(n in table.names for table in tables))
    return replace(tables[0], names=names, read=lambda n: [v for t in tables for v in t.read(n)])


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
    if kind in SEPARATORS:
        return replace(_read_delimited(path, where, SEPARATORS[kind]), folder=path.parent)
    rows = None if kind == ".parquet" else _json_rows(path, where)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # so never a stale one
        builder = "parquet" if kind == ".parquet" else "json"
        options = {"data_files": [str(path)], "cache_dir": cache, "keep_in_memory": True}
        table = load_tables(where, "load_dataset", builder, **options)["train"]
    if rows is not None and rows != (came := len(table.read(table.names[0]))):
        raise AutopruneError(f"{where} holds {rows} rows, and {came} were read. Write it as one row a line.")
    return replace(table, folder=path.parent)


def _read_delimited(path: Path, where: str, separator: str) -> Table:
    """All cells as text, so that a review "None" or "NA" is no gap and a label stays as written."""
    try:
        text = read_text(path)
    except Exception as error:  # files, codecs and decompressors each raise their own
        raise _unreadable(where, error) from error
    return from_columns(parse_delimited(text, separator=separator, where=where))


def _json_rows(path: Path, where: str) -> int:
    """How many rows a json or jsonl file holds, counted apart from the library that reads them.

    Rows are the members of one list, or values one after the other, usually one a line.
    """
    count, place = 0, 0
    try:
        text = read_text(path)
        decoder = json.JSONDecoder(strict=text.lstrip()[:1] != "[")  # as the library's parsers are
        while (place := _SPACE.match(text, place).end()) < len(text):  # type: ignore[union-attr]
            value, place = decoder.raw_decode(text, place)
            count += len(value) if isinstance(value, list) else 1
    except Exception as error:  # files, codecs, decompressors and JSON each raise their own
        raise _unreadable(where, error) from error
    return count


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
    for split, part in parts.items():
        name = SPLIT_NAMES.get(str(split).split("_")[0].lower(), "train" if len(parts) == 1 else "")
        if name and name not in tables:  # of MNLI's two validation splits the first, validation_matched
            tables[name] = table(part)
    if not tables:
        raise AutopruneError(f"{where} has the splits {listed(map(str, parts))}: none is train or test.")
    return tables


def from_dataset(part: Any) -> Table:
    """A `datasets.Dataset` as a table; tags declare their classes one level down."""
    inner = {name: getattr(feature, "feature", feature) for name, feature in part.features.items()}
    classes = {name: tuple(f.names) for name, f in inner.items() if type(f).__name__ == "ClassLabel"}
    return Table(tuple(part.column_names), lambda name: _cells(part, name), classes)


def _cells(part: Any, name: str) -> list[Any]:
    """A column as plain values, images as they are stored, and grids of numbers as arrays.

    Decoding is left to `pictures`, one image at a time; a grid as nested lists takes 8 bytes a number
    and more.
    """
    feature, column = part.features[name], part.select_columns([name]).with_format(None)
    if type(feature).__name__ == "Image":
        column = column.cast_column(name, type(feature)(decode=False))
    elif type(feature).__name__.startswith("Array") or hasattr(getattr(feature, "feature", None), "feature"):
        return [row[name] for row in column.with_format("numpy")]
    return list(column[:][name])


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
