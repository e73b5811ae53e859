"""`lines.json`: simple models recorded one by one, read back, and copied to `front.json`."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.run.front_schema import LineRow
from autoprune.run.lines import LINES, lines_field, record_line, recorded_lines

score = some.floats(0, 100)
rows = some.builds(
    LineRow,
    name=some.sampled_from("abc"),
    size_bytes=some.integers(1, 10**9),
    latency_ms=some.none() | some.floats(1e-3, 1e3),
    accuracy=score,
    test_accuracy=some.none() | score,
    what=some.text(),
)


@hypothesis.given(some.lists(rows, max_size=5))
@hypothesis.settings(max_examples=25, deadline=None)
def test_the_last_of_each_name_is_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, given: list[LineRow]
) -> None:
    run = tmp_path_factory.mktemp("run")
    assert (recorded_lines(run), lines_field(run)) == ((), {})
    wanted: dict[str, LineRow] = {}
    for row in given:
        record_line(run, row)
        wanted = {name: other for name, other in wanted.items() if name != row.name} | {row.name: row}
    assert recorded_lines(run) == tuple(wanted.values())
    assert lines_field(run) == ({"lines": [row.model_dump() for row in wanted.values()]} if given else {})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / LINES).write_text('{"lines": [{"name": "a"}]}', encoding="utf-8")
    with pytest.raises(AutopruneError, match=r"lines\.json cannot be read:\n  lines\.0\.size_bytes"):
        recorded_lines(tmp_path)
