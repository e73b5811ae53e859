"""The table of trials in a browser: filters, order, and the ranges of the parallel axes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.report.test_progress import timed
from tests.report.test_report import MB, Json, changed, climbed, synthetic, worded

FRONT = timed(climbed(synthetic()))
NAMES = [trial["name"] or f"trial {trial['number']}" for trial in FRONT["trials"]]


def shown(page: Any) -> list[str]:
    """Names in the rows that are seen."""
    return [text.strip() for text in page.locator("#trials tbody tr:visible .pick").all_inner_texts()]


def fitting(fits: Callable[[Json], bool]) -> list[str]:
    return [name for name, trial in zip(NAMES, FRONT["trials"], strict=True) if fits(trial)]


def fill(page: Any, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"#filter-{name}").fill(value)


def test_filters_leave_the_rows_that_fit_and_count_them(visit: Callable[[Json], Any]) -> None:
    page = visit(FRONT)
    count = page.locator("#filter-count")
    assert count.inner_text() == f"{len(NAMES)} of {len(NAMES)} shown"
    assert page.locator("#filter-clear").is_disabled()
    fill(page, mb="17.5")
    small = fitting(lambda t: t["size_bytes"] is not None and t["size_bytes"] <= 17.5 * MB)
    assert shown(page) == small
    assert 0 < len(small) < len(NAMES)
    assert count.inner_text() == f"{len(small)} of {len(NAMES)} shown"
    fill(page, score="79", ms="7")
    few = fitting(
        lambda t: t["size_bytes"] is not None and t["size_bytes"] <= 17.5 * MB
        and t["accuracy"] >= 79 and t["latency_ms"] <= 7
    )  # fmt: skip
    assert shown(page) == few
    assert 0 < len(few) < len(small)
    page.locator("#filter-clear").click()
    page.wait_for_function("document.getElementById('filter-clear').disabled")
    assert shown(page) == NAMES
    fill(page, find="FAILED outofmem")
    assert shown(page) == ["trial 13"]
    fill(page, find="worker-1")
    assert shown(page) == fitting(lambda t: t["worker"] == "worker-1")
    fill(page, find="")
    for choice, fits in (
        ("failed", lambda t: t["state"] == "FAIL"), ("front", lambda t: t["on_front"]),
        ("baselines", lambda t: t["name"] is not None), ("budget", lambda t: t["within_budget"]),
    ):  # fmt: skip
        page.select_option("#filter-show", choice)
        assert shown(page) == fitting(fits)
    page.select_option("#filter-show", "")
    page.select_option("#filter-rung", "2")
    assert shown(page) == fitting(lambda t: t["rung"] == 2)


def test_filters_are_kept_in_the_address_and_work_by_keyboard(visit: Callable[[Json], Any]) -> None:
    page = visit(FRONT)
    page.locator("#filter-find").focus()
    page.keyboard.type("front")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("19.5")
    page.select_option("#filter-show", "budget")
    assert page.url.partition("#")[2] == "find=front&mb=19.5&show=budget"
    names, told = shown(page), page.inner_text("#filter-count")
    page.reload()
    assert (shown(page), page.inner_text("#filter-count")) == (names, told)
    page.goto(page.url.partition("#")[0] + "#show=nonsense&rung=9&mb=x&ranges=size:0.9-0.1,none:0-1&sort=kl")
    page.reload()
    assert len(shown(page)) == len(NAMES)
    assert page.locator("#parallel-clear").is_disabled()


def test_every_column_sorts_both_ways_and_keeps_the_filter(visit: Callable[[Json], Any]) -> None:
    rows = [{**trial, "seconds": 1.0 + trial["number"] % 7} for trial in FRONT["trials"]]
    page = visit(changed(FRONT, trials=rows))
    page.select_option("#filter-show", "searched")
    names = sorted(shown(page))
    keys = page.locator("#trials thead button").evaluate_all("(all) => all.map((b) => b.dataset.key)")
    assert len(keys) == 9
    for key in keys:
        before = shown(page)
        for direction in ("ascending", "descending"):
            page.locator(f"#trials button[data-key={key}]").focus()
            page.keyboard.press("Enter")
            on = page.locator(f"#trials th[aria-sort={direction}] button")
            if key != "number" or direction == "descending":  # the table begins in this order
                assert on.get_attribute("data-key") == key
                assert shown(page) != before
            assert sorted(shown(page)) == names
            before = shown(page)
            if key == "number":
                break


def test_a_metric_that_shall_be_less_has_a_limit_from_above(visit: Callable[[Json], Any]) -> None:
    page = visit(worded(FRONT))
    assert "at most" in page.locator("#filter-score-name").inner_text()
    fill(page, score="20")
    assert 0 < len(shown(page)) < len(NAMES)
    cells = page.locator("#trials tbody tr:visible > :nth-child(5)").all_inner_texts()
    assert all(float(cell) <= 20 for cell in cells)


def test_what_is_saved_is_what_is_shown_under_a_name_that_says_the_run(visit: Callable[[Json], Any]) -> None:
    page = visit(FRONT)
    page.select_option("#filter-show", "failed")
    files = {}
    for kind in ("csv", "json"):
        assert page.locator(f"#save-{kind}").inner_text() == f"Save {kind.upper()} (2)"
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        files[download.value.suggested_filename] = Path(download.value.path()).read_text(encoding="utf-8")
    names = [f"minilm-20MB-front-2-of-{len(NAMES)}.{kind}" for kind in ("csv", "json")]
    assert list(files) == names
    rows = list(csv.DictReader(io.StringIO(files[names[0]])))
    assert [row["number"] for row in rows] == ["13", "29"]
    assert [trial["number"] for trial in json.loads(files[names[1]])["trials"]] == [13, 29]


def test_ranges_of_the_axes_by_keys_and_by_mouse(visit: Callable[[Json], Any]) -> None:
    page = visit(FRONT)
    done = [t for t in FRONT["trials"] if t["state"] == "COMPLETE" and t["name"] is None]
    assert page.inner_text("#parallel-count") == f"{len(done)} lines."
    handle = page.locator("#parallel [role=slider][tabindex='0']").nth(1)
    assert handle.get_attribute("aria-label") == "Size (log), most"
    handle.focus()
    for _ in range(5):
        page.keyboard.press("PageDown")
    low, high = (f(t["size_bytes"] for t in done) for f in (min, max))
    within = [t for t in done if t["size_bytes"] <= low * (high / low) ** 0.5]
    assert 0 < len(within) < len(done)
    assert page.inner_text("#parallel-count") == f"{len(within)} of {len(done)} lines are within the ranges."
    assert page.locator("#parallel .course.out").count() == len(done) - len(within)
    assert len(shown(page)) == len(NAMES)
    page.check("#parallel-table")
    assert sorted(shown(page)) == sorted(f"trial {t['number']}" for t in within)
    assert "ranges=size:0-0.5" in page.url
    page.reload()
    assert len(shown(page)) == len(within)
    page.keyboard.press("Escape")
    page.click("#parallel-clear")
    assert len(shown(page)) == len(NAMES)
    page.locator("#parallel").scroll_into_view_if_needed()
    box = page.locator("#parallel .hit").nth(1).bounding_box()
    page.mouse.move(box["x"] + 14, box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 14, box["y"] + 0.9 * box["height"], steps=3)
    page.mouse.up()
    told = re.match(r"(\d+) of (\d+) lines", page.inner_text("#parallel-count"))
    assert told is not None
    assert 0 < int(told[1]) < int(told[2])
    assert page.locator("#parallel .band.on").count() == 1


def test_the_chosen_trial_is_marked_in_every_chart(visit: Callable[[Json], Any]) -> None:
    page = visit(FRONT)
    line = page.locator("#parallel .chosen").get_attribute("d")
    assert line
    number = next(t["number"] for t in FRONT["trials"] if t["name"] is None and t["rung"] == 1)
    bar = page.locator(f"#timeline .span[aria-label^='trial {number},']").first
    bar.focus()
    assert "trained trial on worker-" in page.inner_text("#tip")
    page.keyboard.press("Enter")
    assert page.inner_text("#card h3") == f"Trial {number}"
    assert page.locator("#timeline .span.selected").count() == 2  # the trial and its timing
    assert page.locator("#parallel .chosen").get_attribute("d") != line
    page.keyboard.press("End")
    assert page.locator("#timeline .span:focus").count() == 1
