"""Splits of a source, with what a test asks for by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoprune.tasks.data.source import SPLITS, DataSource
from autoprune.tasks.data.splits import Splits, read_splits
from autoprune.tasks.kinds import TEXT_CLASSIFICATION, TaskKind


def splits_of(
    source: str,
    *,
    kind: TaskKind = TEXT_CLASSIFICATION,
    seed: int = 0,
    limits: Mapping[str, int] | None = None,
    **columns: Any,
) -> Splits:
    """limits: most rows by split. columns: other attributes of the `DataSource`."""
    limit_rows = tuple((limits or {}).get(split) for split in SPLITS)
    return read_splits(DataSource(source, limit_rows=limit_rows, **columns), kind, seed=seed)
