"""Cells of a column of images that stay on the disk until one is asked for.

An encoded photograph is megabytes, and all rows of a data set are looked at before some are drawn: each cell
is read for its hash and let go of, and those of the rows that were drawn are read again and kept.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BATCH_ROWS = 16
"""Rows of a parquet file that are read at once."""

BUFFER_BYTES = 1 << 20
"""Of a parquet file's column that are read ahead; without a buffer it is the column of a whole row group."""


Column = Callable[[int], Any]
"""What gives the cell of a row."""


@dataclass(frozen=True, eq=False)
class CellOnDisk:
    """One cell of a column, read each time that it is asked for."""

    column: Column
    row: int

    def read(self) -> Any:
        """The cell, as the column has it."""
        return self.column(self.row)


def read_cell(cell: Any) -> Any:
    """A cell itself, from the disk where it lies there."""
    return cell.read() if isinstance(cell, CellOnDisk) else cell


def cells_on_disk(column: Column, count: int) -> Sequence[CellOnDisk]:
    """The cells of a column of so many rows."""
    return [CellOnDisk(column, row) for row in range(count)]


def cells_of_parquet(
    path: Path, name: str, count: int, told: Callable[[Exception], Exception]
) -> Sequence[CellOnDisk]:
    """The cells of a column of a parquet file; `told` makes the error that is raised of pyarrow's."""
    column = ParquetColumn(path, name)

    def cell(row: int) -> Any:
        try:
            return column(row)
        except Exception as error:  # pyarrow has no common error
            raise told(error) from error

    return cells_on_disk(cell, count)


@dataclass
class ParquetColumn:
    """A column of a parquet file, read forward in batches; the last two are kept for threads that lag behind.

    Going backward begins the file again.
    """

    path: Path
    name: str
    _batches: Iterator[list[Any]] = field(default_factory=lambda: iter(()), repr=False)
    _kept: list[tuple[int, list[Any]]] = field(default_factory=list, repr=False)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, row: int) -> Any:
        """The cell of a row.

        Raises:
            Exception: whatever pyarrow raises for a file that it cannot read.
        """
        with self._lock:
            if not self._kept or row < self._kept[0][0]:
                self._batches, self._next, self._kept = self._opened(), 0, []
            while row >= self._next:
                cells = next(self._batches, None)
                if cells is None:
                    raise IndexError(f"{row} of {self._next} rows were read")
                self._kept = [*self._kept[-1:], (self._next, cells)]
                self._next += len(cells)
            start, cells = next((first, some) for first, some in reversed(self._kept) if row >= first)
            return cells[row - start]

    def _opened(self) -> Iterator[list[Any]]:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        with parquet.ParquetFile(self.path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[self.name], use_threads=False):
                yield batch.column(0).to_pylist()
