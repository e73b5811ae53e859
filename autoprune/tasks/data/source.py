"""Where a data set is and how its rows are read, for all that read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataSource:
    """A data set and what of it is read. Columns that are None, or (), are found by convention.

    dataset: a csv, tsv, json, jsonl or parquet file, a folder of them, a hub id, or
        `package.module:function`; of images also a folder of one sub-folder a class; without labels also a
        text file, or a folder of them. None is the built-in demo's.
    text_columns: one, or two for pairs; of token classification the one column of lists of words.
    group_by: column whose rows stay in one split where splits are cut.
    limit_rows: most rows of train, validation and test, in this order; None is no limit.
    revision, config_name: for hub ids.
    image_side: images whose shorter side has more pixels are shrunk to it; None keeps their sizes.
    by_pixels: whether a large image too is known by its pixels, as in splits that earlier versions cut.
    """

    SETTINGS: ClassVar = ("dataset", "text_columns", "image_column", "label_column", "group_by", "limit_rows")
    """What a user can set, and records of a run or an export keep."""

    dataset: str | None = None
    text_columns: tuple[str, ...] = ()
    image_column: str | None = None
    label_column: str | None = None
    group_by: str | None = None
    limit_rows: tuple[int | None, ...] = ()
    revision: str | None = None
    config_name: str | None = None
    image_side: int | None = None
    by_pixels: bool = False

    @property
    def limits(self) -> Mapping[str, int]:
        """Most rows of each split that has a limit."""
        given = zip(SPLITS, self.limit_rows, strict=False)
        return {split: limit for split, limit in given if limit is not None}
