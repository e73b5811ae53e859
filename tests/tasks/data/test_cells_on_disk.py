"""Images in a table's cells: all are looked at, those of the rows that are drawn alone are kept."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.cells_on_disk import BATCH_ROWS, CellOnDisk, ParquetColumn
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.data.splits import Splits, read_splits
from autoprune.tasks.data.tables import local_tables
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION
from tests.support.made_pictures import encoded_picture, noise

ROWS, SIDE = 100, 64
LIMITS = (20, 5, 5)


def pictures(rows: int = ROWS) -> list[dict[str, Any] | None]:
    """Encoded pictures as `datasets` stores them; one is missing."""
    cells = [{"bytes": encoded_picture(noise(k, SIDE, SIDE), "PNG"), "path": None} for k in range(rows)]
    return [*cells[:-1], None]


def hub_like(folder: Path) -> Path:
    """A data set as `save_to_disk` writes it and as one of the hub is cached: mapped into memory."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {"image": pictures(), "label": [k % 2 for k in range(ROWS)]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder / "data"))
    return folder / "data"


def parquet(folder: Path) -> Path:
    """The same as a parquet file, of a few row groups."""
    data = datasets.load_from_disk(str(hub_like(folder)))
    data.to_parquet(str(folder / "data.parquet"), batch_size=40)
    return folder / "data.parquet"


def plain_parquet(folder: Path) -> Path:
    """A parquet file in which nothing says that a column is of images: plain bytes."""
    import pyarrow
    import pyarrow.parquet

    columns = {
        "image": [cell and cell["bytes"] for cell in pictures()],
        "label": [k % 2 for k in range(ROWS)],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "plain.parquet", row_group_size=1000)
    return folder / "plain.parquet"


def splits_of(path: Path, limits: tuple[int, ...] = ()) -> Splits:
    return read_splits(DataSource(str(path), limit_rows=limits), IMAGE_CLASSIFICATION)


@pytest.mark.parametrize("write", [hub_like, parquet, plain_parquet])
def test_rows_are_drawn_before_their_pictures_are_kept(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    splits = splits_of(path, LIMITS)
    assert splits.counts.read == ROWS
    assert splits.counts.left_out == {"without image": 1, "over --limit-rows": ROWS - 1 - sum(LIMITS)}
    stored = [
        image for part in (splits.train, splits.validation, splits.test) for image in part.images.stored
    ]
    assert len(stored) == sum(LIMITS)
    assert not any(isinstance(image.cell, CellOnDisk) for image in stored)
    gc.collect()
    assert not any(isinstance(thing, CellOnDisk) for thing in gc.get_objects())
    numbers = {noise(k, SIDE, SIDE).tobytes(): k for k in range(ROWS)}
    for part in (splits.train, splits.validation, splits.test):
        drawn = [numbers[image.tobytes()] for image in part.images]
        assert list(part.labels) == [k % 2 for k in drawn]
        assert len({*drawn}) == len(drawn)


@pytest.mark.parametrize("limits", [(), LIMITS])
def test_the_same_rows_are_drawn_wherever_the_pictures_lie(tmp_path: Path, limits: tuple[int, ...]) -> None:
    prints = []
    for write in (hub_like, parquet):
        (tmp_path / write.__name__).mkdir()
        prints.append(splits_of(write(tmp_path / write.__name__), limits).fingerprint)
    assert len(set(prints)) == 1


def test_a_column_is_read_in_any_order_and_little_of_it_at_once(tmp_path: Path) -> None:
    column, cells = ParquetColumn(parquet(tmp_path), "image"), pictures()
    order = [*range(ROWS), *range(0, ROWS, 7), ROWS - 1, 0, *np.random.default_rng(0).permutation(ROWS)[:20]]
    for row in map(int, order):
        assert column(row) == cells[row]
        assert sum(len(batch) for _, batch in column._kept) <= 2 * BATCH_ROWS
    with pytest.raises(IndexError, match=f"{ROWS} of {ROWS} rows were read"):
        column(ROWS)


def test_shards_are_joined_without_reading_them(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    data = datasets.load_from_disk(str(hub_like(tmp_path)))
    for k in range(2):
        data.shard(2, k, contiguous=True).to_parquet(str(folder / f"train-0000{k}-of-00002.parquet"))
    cells = local_tables(folder)["train"].images("image")
    assert len(cells) == ROWS
    assert all(isinstance(cell, CellOnDisk) for cell in cells)
    assert [cell.read() for cell in cells] == pictures()


def test_a_file_that_ends_early_is_one_error_that_names_the_column(tmp_path: Path) -> None:
    path = parquet(tmp_path)
    table = local_tables(path)["train"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(AutopruneError, match=r"data\.parquet, column 'image' cannot be read"):
        table.images("image")[ROWS - 1].read()
    path.write_bytes(whole)
    assert replace(table).images("image")[3].read() == pictures()[3]
