"""A parquet file, a column at a time: those that nobody asks for are not read, whatever is in them."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError


@dataclass(frozen=True)
class ParquetFile:
    """Names of the columns, how many rows there are, and what gives a `datasets.Dataset` of one column.

    features: what `datasets` noted of the columns, such as classes' names. encoded: columns of bytes, of text
    or of structs of these, as images are stored in.
    """

    names: tuple[str, ...]
    count: int
    read: Callable[[str], Any]
    features: Mapping[str, Any]
    encoded: frozenset[str]


def open_parquet(path: Path, where: str) -> ParquetFile:
    """What a file holds; no column is read.

    Raises:
        AutopruneError: when two columns have one name.
        Exception: whatever pyarrow raises for a file that it cannot read.
    """
    parquet: Any = importlib.import_module("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
    twice = [name for name, times in Counter(schema.names).items() if times > 1]
    if twice:
        raise AutopruneError(
            f"{where} has several columns of one name ({', '.join(map(repr, twice[:5]))}). Rename them."
        )

    def read(name: str) -> Any:
        datasets: Any = importlib.import_module("datasets")
        table = parquet.read_table(path, columns=[name], partitioning=None)
        if table.column_names != [name]:  # to pyarrow a name with a dot is a path
            table = parquet.read_table(path, partitioning=None).select([name])
        return datasets.Dataset(_without_categories(table))

    encoded = frozenset(field.name for field in schema if _is_encoded(field))
    return ParquetFile(tuple(schema.names), count, read, _features(schema), encoded)


def _is_encoded(field: Any) -> bool:
    """Whether a column is of bytes, text or structs; to pyarrow a name with a dot is a path."""
    of: Any = importlib.import_module("pyarrow").types
    kinds = (of.is_binary, of.is_large_binary, of.is_string, of.is_large_string, of.is_struct)
    return "." not in field.name and any(is_kind(field.type) for is_kind in kinds)


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` noted in a file that it wrote, by column."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    datasets: Any = importlib.import_module("datasets")
    return dict(datasets.Features.from_arrow_schema(schema))


def _without_categories(table: Any) -> Any:
    """A table of one column, whose categories (of pandas) are written out."""
    arrow: Any = importlib.import_module("pyarrow")
    (name,), field = table.column_names, table.schema.field(0)
    if not arrow.types.is_dictionary(field.type):
        return table
    return arrow.table({name: table.column(0).cast(field.type.value_type)})
