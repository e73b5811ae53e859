"""The page of architectures is that of the results, and the results bear out what the page says."""

from __future__ import annotations

import math

import pytest

from benchmarks.architectures.measure import DRAFTED, REFUSED, SHIPPED, TARGETS, Row
from benchmarks.architectures.table import PAGE, page, read_results
from tests.support.families import EVERY, FAMILIES

ROWS = {row.family: row for row in read_results()}


def row_of(name: str) -> Row:
    return ROWS[name]


def test_the_page_is_that_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(list(ROWS.values())), (
        "docs/architectures.md is another than benchmarks/results/architectures.json makes: run "
        "python -m benchmarks.architectures"
    )


def test_every_family_of_the_tests_was_measured() -> None:
    assert list(ROWS) == list(EVERY)
    for name, family in FAMILIES.items():
        assert ROWS[name].status == (SHIPPED if family.space else DRAFTED)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_that_works_does_on_every_target(name: str) -> None:
    row = row_of(name)
    assert row.masked_against_removed is None or row.masked_against_removed < 3e-6
    assert (row.masked_against_removed is None) == (not row.parts)
    for target in TARGETS:
        saved = row.targets[target]
        assert not saved.refusal
        assert saved.off["halved"] < 1e-4
        assert math.isfinite(saved.off["mixed"])
        for which, size in saved.saved_bytes.items():  # text of graphs, of weights that are of few bytes
            assert abs(size - saved.predicted_bytes[which]) < 0.005 * size + 900 * row.units


def test_what_is_refused_has_one_line() -> None:
    for name in set(EVERY) - set(FAMILIES):
        row = row_of(name)
        lines = [row.refusal, *(saved.refusal for saved in row.targets.values())]
        assert any(lines)
        assert all(len(line.splitlines()) <= 1 for line in lines)
        assert (row.status == REFUSED) == (not row.targets)
