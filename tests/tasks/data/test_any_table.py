"""Whatever a table holds: it is refused by an AutopruneError, or each of its rows is used or counted."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

from tests.tasks.made_tables import (
    MadeFile,
    MadeTable,
    check_file,
    check_table,
    labelled_tables,
    made_files,
    made_tables,
)

many = hypothesis.settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.large_base_example,
    ],
)


@pytest.mark.parametrize("seed", [0, 1])
@hypothesis.given(table=made_tables())
@many
def test_every_row_of_a_table_is_used_or_counted_or_the_table_is_refused(seed: int, table: MadeTable) -> None:
    hypothesis.event(check_table(table, seed=seed))


@hypothesis.given(table=labelled_tables())
@many
def test_every_label_of_a_column_is_used_or_counted_or_the_table_is_refused(table: MadeTable) -> None:
    hypothesis.event(check_table(table))


def test_every_row_of_a_file_is_used_or_counted_or_the_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder: Path = tmp_path_factory.mktemp("files")

    @hypothesis.given(file=made_files())
    @many
    def check(file: MadeFile) -> None:
        hypothesis.event(check_file(file, folder))

    check()
