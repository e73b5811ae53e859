"""Answers that changed, in the report: what is said; hostile rows run nothing; it stays small."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.report import write_report
from autoprune.report.page import render
from autoprune.report.sections.answer_changes import USUAL, changes_section, kl_words
from autoprune.run.front_schema import checked_front
from tests.report.test_report import (  # noqa: F401
    HOSTILE,
    MB,
    Json,
    browser,
    climbed,
    hostile,
    synthetic,
    visit,
)
from tests.support.made_changes import with_changes, with_ties

FRONT = climbed(synthetic())


def test_each_point_has_its_kl_beside_its_accuracy_and_the_worst_rows() -> None:
    section = changes_section(checked_front(with_changes(FRONT)))
    assert section is not None
    assert len(section.rows) == len(section.details) == 2  # best and knee
    first = section.rows[0]
    assert (first.kl, first.lost, first.won) == ("0.012", "30", "13")
    assert first.changed.replace("\u00a0", " ") == "43 (2.7 %)"
    assert "some answers change" in first.kl_words
    assert "the worst 20 of 43" in section.details[0].title
    assert len(section.details[0].examples) == 20
    confusion = section.details[0].confusion
    assert confusion is not None
    looks = [cell.look for _, cells in confusion.rows for cell in cells]
    assert looks == ["right", "more", "less", "right"]
    assert [cell.change for _, cells in confusion.rows for cell in cells] == [
        "\u221220",
        "+20",
        "\u221213",
        "+13",
    ]


def test_of_many_classes_the_largest_cells_are_a_list() -> None:
    many = with_changes(FRONT, classes=tuple(f"class {k}" for k in range(30)))
    section = changes_section(checked_front(many))
    assert section is not None
    confusion = section.details[0].confusion
    assert confusion is not None
    assert confusion.heads == ()
    assert ("class 0", "class 29", "100") in [(a, b, cell.count) for a, b, cell in confusion.cells]


@pytest.mark.parametrize("kl", [0.0, 1e-6, 5e-4, 0.003, 0.05, 0.7, 3.0])
def test_what_a_kl_means_grows_with_it(kl: float) -> None:
    words = kl_words(kl, "class")
    assert words.startswith(next(told for most, told in USUAL if kl < most))
    found = re.search(r"at most ([\d.]+)", words)
    if found:
        assert float(found[1]) == pytest.approx(100 * (kl / 2) ** 0.5, abs=0.06)
    else:
        assert kl >= 2  # a bound above 100 % says nothing


def test_a_run_without_examples_or_without_answers_says_so() -> None:
    front = with_changes(FRONT)
    bare = {**front["answer_changes"], "examples": False, "rows": {}}
    bare["points"] = {number: {**point, "examples": []} for number, point in bare["points"].items()}
    page = render({**front, "answer_changes": bare})
    assert "--no-examples" in page
    assert "a fine film" not in page
    assert "Answers that changed" not in render(FRONT)
    own = {**FRONT, "run": {**FRONT["run"], "task": "own"}}
    assert "Which answers changed is not shown" in render(own)


def test_rows_of_data_are_not_in_what_the_page_saves() -> None:
    page = render(with_changes(FRONT, text="a row that is private"))
    data = page.split('id="data">')[1].split("</script>")[0]
    assert "a row that is private" in page
    assert "a row that is private" not in data
    assert '"changed":43' in data  # the counts stay


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "data:image/svg+xml;base64,AAAA", 'data:image/webp;base64,A" onerror="x',
            "data:text/html;base64,AAAA", "https://example.com/x.png", "data:image/webp;base64," + "A" * 9000]
)  # fmt: skip
def test_a_picture_that_is_no_small_picture_is_refused(uri: str) -> None:
    front = with_changes(FRONT)
    front["answer_changes"]["rows"]["0"] = {"picture": uri}
    with pytest.raises(AutopruneError, match="no small picture"):
        render(front)


def test_no_markup_of_a_row_or_class_is_left(tmp_path: Path) -> None:
    image, script = HOSTILE
    bad = with_ties(with_changes(hostile(FRONT), text=script, classes=(image, script)))
    bad["answer_changes"]["rows"]["1"]["word"] = image
    for point in bad["answer_changes"]["points"].values():
        point["examples"][0] |= {"expected": image, "original": script, "now": image}
    page = render(bad)
    assert image not in page
    assert script not in page
    assert page.count("<script") == 2  # the data and ours


def test_five_hundred_trials_with_answers_fit(tmp_path: Path) -> None:
    classes = tuple(f"class {k}" for k in range(20))
    big = with_ties(with_changes(climbed(synthetic(500, 38)), text="\u00e4" * 200, classes=classes))
    for number in [row["number"] for row in big["trials"] if row["on_front"]][:5]:
        big["answer_changes"]["points"].setdefault(
            str(number), next(iter(big["answer_changes"]["points"].values()))
        )
    write_report(big, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size <= 1.5 * MB


@pytest.mark.browser
def test_two_points_are_kept_in_the_address_and_ties_are_ringed(visit: Callable[[Json], Any]) -> None:  # noqa: F811
    front = with_ties(with_changes(FRONT))
    page = visit(front)
    members = [row for row in front["trials"] if row["on_front"] and row["name"] is None]
    one, other = (str(row["number"]) for row in members[:2])
    page.select_option("#pair-first", one)
    page.locator("#pair-second").focus()
    page.select_option("#pair-second", other)
    assert f"pair={one}:{other}" in page.url
    assert page.locator("#pair-units tbody tr").count() == 15
    page.reload()
    assert page.input_value("#pair-first") == one
    assert page.input_value("#pair-second") == other
    page.keyboard.press("Tab")
    page.locator("#pair-swap").focus()
    page.keyboard.press("Enter")
    assert page.input_value("#pair-first") == other
    ties = {tuple(pair) for pair in front["ties"]["pairs"]}
    best = front["best"]
    tied = sum(best in pair for pair in ties)
    assert page.locator("#chart .point.tied").count() == tied
    assert (page.locator("#chart .ties").count() == 1) == (tied > 0)
    assert ("does not tell" in page.inner_text("#tie-note")) == (tied > 0)
    page.goto(page.url.split("#")[0] + "#pair=999:-1")
    assert page.locator("#pair-units tbody tr").count() == 15


@pytest.mark.browser
def test_hostile_rows_run_nothing(visit: Callable[[Json], Any]) -> None:  # noqa: F811
    image, script = HOSTILE
    page = visit(with_ties(with_changes(hostile(FRONT), text=script, classes=(image, script))))
    assert page.evaluate("window.hacked") is None
    assert script in page.inner_text(".examples")
