"""Runs that are compared: what is said at equal limits, what cannot be compared, and where the page goes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.report.compared.compared_runs import comparable
from autoprune.report.compared.differences import WORDS
from autoprune.report.compared.equal_limits import kept_within, limits_of
from autoprune.report.compared.lines import comparison_lines
from autoprune.report.compared.page import compare, page_path, render_comparison
from autoprune.run.config import setting_names
from autoprune.strategy.paired import scores_told_apart
from autoprune.tasks.row_scores import rows_as_text
from tests.report.test_report import HOSTILE, MB, Json, climbed, hostile, synthetic

FRONT = climbed(synthetic())
OTHER = climbed(synthetic(trials=30, seed=4))


def folder(path: Path, front: Json, config: Json | None = None, scores: Json | None = None) -> Path:
    path.mkdir()
    (path / "front.json").write_text(json.dumps(front), encoding="utf-8")
    (path / "run.json").write_text(json.dumps({"config": config or {}}), encoding="utf-8")
    if scores is not None:
        (path / "row_scores.json").write_text(json.dumps(scores), encoding="utf-8")
    return path


def with_run(front: Json, **facts: Any) -> Json:
    return {**copy.deepcopy(front), "run": {**front["run"], **facts}}


def test_every_setting_has_words() -> None:
    assert set(WORDS) == set(setting_names())


def test_what_is_kept_at_a_limit_is_the_best_of_all_within_it(tmp_path: Path) -> None:
    runs = compare([folder(tmp_path / "a", FRONT), folder(tmp_path / "b", OTHER)]).runs
    limits = limits_of(runs, "size_bytes")
    assert 2 <= len(limits) <= 9
    assert 20 * MB in limits  # the budget of both
    for run in runs:
        for limit in limits:
            fits = [
                t for t in run.front.trials if t.measured and t.name != "original" and t.size_bytes <= limit
            ]
            kept = kept_within(run, "size_bytes", limit)
            assert (kept is None) == (not fits)
            assert kept is None or kept.accuracy == max(t.accuracy for t in fits)


def test_only_settings_that_differ_are_told(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", FRONT, {"seed": 0, "trials": 40})
    b = folder(tmp_path / "b", OTHER, {"seed": 1, "trials": 40, "finetune_steps": 0})
    found = {row.name: row.values for row in compare([a, b]).differences}
    assert found == {"Seed": ("0", "1"), "Steps of a brief fine-tune": ("as usual", "0")}


def test_the_paired_test_is_made_where_both_kept_their_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sure = rows_as_text(rng.random(1600) < 0.8)
    worse = rows_as_text(rng.random(1600) < 0.5)
    numbers = [str(row["number"]) for row in FRONT["trials"]]
    others = [str(row["number"]) for row in OTHER["trials"]]
    for theirs, words in ((sure, "within the noise"), (worse, "more than noise")):
        base = tmp_path / words.replace(" ", "-")
        base.mkdir()
        a = folder(
            base / "a", FRONT, scores={name: dict.fromkeys(numbers, sure) for name in ("validation", "test")}
        )
        b = folder(
            base / "b", OTHER, scores={name: dict.fromkeys(others, theirs) for name in ("validation", "test")}
        )
        told = [row.verdict for table in compare([a, b]).tables for row in table.rows if None not in row.kept]
        paired = [text for text in told if "paired test" in text]
        assert paired == told
        answers = {scores_told_apart(sure, theirs), scores_told_apart(theirs, sure)}
        assert answers == ({False} if theirs == sure else {True, False})
        assert any(words in text for text in told)
    bare = compare([folder(tmp_path / "c", FRONT), folder(tmp_path / "d", OTHER)])
    assert all("error bars" in row.verdict for t in bare.tables for row in t.rows if None not in row.kept)


def test_what_cannot_be_compared_is_warned_of_or_refused(tmp_path: Path) -> None:
    same = folder(tmp_path / "same", FRONT, {"dataset": "reviews.csv"})
    rows = folder(tmp_path / "rows", with_run(OTHER, data_hash="sha256 other"), {"dataset": "/x/reviews.csv"})
    data = folder(tmp_path / "data", with_run(OTHER, data_hash="sha256 x"), {"dataset": "news.csv"})
    clock = folder(tmp_path / "clock", with_run(OTHER, machine="another"), {"dataset": "reviews.csv"})
    model = folder(tmp_path / "model", with_run(OTHER, model_hash="sha256 y"), {"dataset": "reviews.csv"})
    found = {path.name: comparable(compare([same, path]).runs) for path in (rows, data, clock, model)}
    assert "rows differ" in found["rows"].warnings[0]
    assert (found["rows"].same_rows, found["rows"].same_data) == (False, True)
    assert not found["data"].same_data
    assert "data differ" in found["data"].warnings[0]
    assert not found["clock"].same_clock
    assert "(machine)" in found["clock"].warnings[0]
    assert len(compare([same, clock]).tables) == 1  # no milliseconds
    assert "originals differ" in found["model"].warnings[0]
    assert all(
        "not judged" in row.verdict for row in compare([same, data]).tables[0].rows if None not in row.kept
    )
    lm = folder(
        tmp_path / "lm", with_run(OTHER, metric={"name": "f1", "unit": "%", "higher_is_better": True})
    )
    with pytest.raises(AutopruneError, match="different metrics"):
        compare([same, lm])
    with pytest.raises(AutopruneError, match="given twice"):
        compare([same, tmp_path / "rows" / ".." / "same"])


def test_hostile_runs_leave_no_markup(tmp_path: Path) -> None:
    bad = with_run(hostile(FRONT), metric="accuracy", labels=[HOSTILE[0]])
    a = folder(tmp_path / "a", FRONT)
    page = render_comparison(compare([a, folder(tmp_path / "b", bad, {"space": HOSTILE[1]})]))
    assert all(text not in page for text in HOSTILE)
    assert page.count("<script") == 2
    assert len(page) < 0.5 * MB


def test_the_command_writes_a_page_and_a_table_and_overwrites_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "a", FRONT)
    folder(tmp_path / "b", OTHER, {"seed": 1})
    first = CliRunner().invoke(main, ["report", "a", "b"])
    assert first.exit_code == 0, first.output
    lines = first.stdout.rstrip().splitlines()
    assert lines[-1] == "compare.html"
    assert any(line.startswith("At equal sizes") for line in lines)
    again = CliRunner().invoke(main, ["report", "a", "b"])
    assert again.stdout.rstrip().endswith("compare-2.html")
    (tmp_path / "mine.html").write_text("mine")
    refused = CliRunner().invoke(main, ["report", "a", "b", "-o", "mine.html"])
    assert refused.exit_code != 0
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert page_path(tmp_path / "compare.html") == tmp_path / "compare.html"  # ours may be written again
    single = CliRunner().invoke(main, ["report", "a"])
    assert single.stdout.strip() == str(Path("a") / "report.html")
    for _ in range(2):  # its own page may be written again
        named = CliRunner().invoke(main, ["report", "a", "-o", "pages/a.html"])
        assert named.stdout.strip() == str(Path("pages") / "a.html")
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["a.csv", "a.html"]
    refused = CliRunner().invoke(main, ["report", "a", "-o", "mine.html"])
    assert "mine.html is there, and no report" in refused.output
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert comparison_lines(compare([tmp_path / "a", tmp_path / "b"]))[0].startswith("A: ")


def test_another_host_counts_as_another_machine_unless_its_original_is_as_fast(tmp_path: Path) -> None:
    slow = copy.deepcopy(OTHER)
    next(row for row in slow["trials"] if row["name"] == "original")["latency_ms"] *= 2
    a, b = folder(tmp_path / "a", FRONT), folder(tmp_path / "b", slow)
    assert comparable(compare([a, b]).runs).same_clock  # no host is known
    for path, host in ((a, "one"), (b, "two")):
        (path / "status.json").write_text(json.dumps({"state": "finished", "host": host}), encoding="utf-8")
    assert not comparable(compare([a, b]).runs).same_clock
    (b / "front.json").write_text(json.dumps(OTHER), encoding="utf-8")
    assert comparable(compare([a, b]).runs).same_clock
