"""Data that a function gives: `package.module:function` is imported, called, and read as tables.

Called without arguments, it gives a `datasets.Dataset` or `DatasetDict`, a dict of columns, a list of
dicts (one a row), or a dict of splits of any of these.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.references import named, told
from autoprune.tasks.data.tables import SPLIT_NAMES, Table, by_split, from_columns, from_dataset, listed

ALLOWED = (
    "allowed are a datasets.Dataset or DatasetDict, a dict of columns, a list of dicts, or a dict of "
    "train, validation and test (or some of them) of these"
)


def function_tables(source: str) -> dict[str, Table]:
    """The tables by split that the function named `package.module:function` gives.

    Raises:
        AutopruneError: when it cannot be imported, raises, or gives something else.
    """
    where = f"data function {source!r}"
    value = _called(source, where)
    if isinstance(value, Mapping) and _is_splits(value):
        return by_split(value, where, lambda part: _table(part, where))
    return {"train": _table(value, where)}


def _called(source: str, where: str) -> Any:
    importlib.invalidate_caches()  # for a module that was written a moment ago
    function = named(source, what="data function")
    try:
        return function()
    except Exception as error:  # so does a function
        raise AutopruneError(
            f"{where} raised {told(error)}. It is called without arguments: mend it, or wrap it in one that "
            "takes none."
        ) from error


def _is_splits(value: Mapping[Any, Any]) -> bool:
    """Whether a dict is of splits: what it holds are tables, not columns."""
    for name, part in value.items():
        if isinstance(part, Mapping) or _is_dataset(part):
            return True
        is_rows = isinstance(part, list | tuple) and part and isinstance(part[0], Mapping)
        if is_rows and str(name).split("_")[0].lower() in SPLIT_NAMES:  # else a column of dicts
            return True
    return False


def _is_dataset(part: Any) -> bool:
    """An object of `datasets`, which must have been imported for there to be one."""
    datasets: Any = sys.modules.get("datasets")
    return datasets is not None and isinstance(part, datasets.Dataset)


def _table(part: Any, where: str) -> Table:
    if _is_dataset(part):
        return from_dataset(part)
    if isinstance(part, Mapping):
        return _of_columns(part, where)
    if isinstance(part, list | tuple) and part and all(isinstance(row, Mapping) for row in part):
        names = list(dict.fromkeys(str(name) for row in part for name in row))
        return from_columns({name: [row.get(name) for row in part] for name in names})
    came = f"an empty {type(part).__name__}" if part in ([], ()) else f"a {type(part).__name__}"
    raise AutopruneError(f"{where} gave {came}; {ALLOWED}.")


def _of_columns(part: Mapping[Any, Any], where: str) -> Table:
    """A dict of columns; a NumPy array is a column of its first axis."""
    for name, column in part.items():
        is_array = hasattr(column, "__array__") and getattr(column, "ndim", 0) > 0
        if not is_array and (isinstance(column, str | bytes) or not isinstance(column, Sequence)):
            raise AutopruneError(
                f"{where} gave a dict with {type(column).__name__} as {name!r:.60}; {ALLOWED}."
            )
    sizes = {str(name): len(column) for name, column in part.items()}
    if len(set(sizes.values())) != 1:
        told = listed(f"{name} {size}" for name, size in sizes.items()) or "none"
        raise AutopruneError(f"{where} gave columns of {told} rows. Give some, all of as many rows.")
    return from_columns({str(name): list(column) for name, column in part.items()})
