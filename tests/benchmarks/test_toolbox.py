"""The benchmark of the toolbox: each tool is a space file that is read, and rows are judged as told."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json
from autoprune.space.space_file import SpaceFile
from autoprune.space.storage import FLOAT16, storage_of
from benchmarks.harness.commands import Bench, Run
from benchmarks.toolbox.chosen import by_baseline, by_storage, by_training
from benchmarks.toolbox.rows import Plan, Row, Subject, measured
from benchmarks.toolbox.spaces import shipped
from benchmarks.toolbox.tools import TOOLS, Tool, for_check, tools_named
from benchmarks.toolbox.verdicts import rows_table, verdicts, verdicts_table
from tests.support.paths import ROOT

BY_NAME = {tool.name: tool for tool in TOOLS}


def row(tool: str, kl: float = 0.1, *, limit: int = 3_000_000, size: int = 2_900_000, **other: Any) -> Row:
    figures = {
        "name": None, "number": 1, "rung": 2, "size_bytes": size, "latency_ms": 1.0, "accuracy": 80.0,
        "test_accuracy": 80.0, "kl": kl,
    }  # fmt: skip
    return Row(
        "demo", limit, tool, 0, False, "search", figures, figures, figures, (1, 4), (2, 9), 16, 100.0, 50.0,
        **other,
    )  # fmt: skip


def run_of(best: dict[str, Any], *others: dict[str, Any]) -> Run:
    trials = [
        {"name": None, "state": "COMPLETE", "rung": 0, "number": k, **t}
        for k, t in enumerate([best, *others])
    ]
    return Run("r", Path("r"), {"trials": trials, "best": 0, "run": {}}, 0)


@pytest.mark.parametrize("space", ["bert", "resnet"])
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_is_a_space_that_is_allowed(tool: Tool, space: str) -> None:
    before = copy.deepcopy(shipped(space))
    for each in (tool, for_check(tool)):
        SpaceFile.model_validate(each.edit(shipped(space)))
    assert shipped(space) == before


def test_what_a_check_offers_is_the_tool_alone() -> None:
    for unit in for_check(BY_NAME["ternary"]).edit(shipped("bert"))["units"].values():
        assert "prune" not in unit
        assert (unit["quantize"]["bits"], unit["quantize"]["also"]) == ([FLOAT16.bits], ["ternary"])
    units = for_check(BY_NAME["importance taylor obs"]).edit(shipped("bert"))["units"]
    assert units["feed_forward"]["prune"]["importance"] == ["taylor", "obs"]
    assert "importance" not in units["word_embeddings"]["prune"]
    assert all(unit["quantize"] == {"bits": [FLOAT16.bits]} for unit in units.values())


def test_names_are_each_once_and_what_they_are_against_is_there() -> None:
    assert len(BY_NAME) == len(TOOLS)
    assert all(tool.against in BY_NAME for tool in TOOLS)
    assert [tool.name for tool in tools_named(["ternary", "default"])] == ["default", "ternary"]
    with pytest.raises(SystemExit, match="no such tool: quaternary; there are: default, "):
        tools_named(["quaternary"])


def test_every_flag_of_a_tool_is_one_of_the_command() -> None:
    for command, words in (
        ("search", [w for t in TOOLS for w in t.flags]),
        ("export", [w for t in TOOLS for w in t.export]),
    ):
        help_text = CliRunner().invoke(main, [command, "--help"]).output
        assert all(word in help_text for word in words if word.startswith("--"))


def test_the_page_of_the_toolbox_has_every_tool() -> None:
    page = (ROOT / "docs/toolbox.md").read_text(encoding="utf-8")
    for tool in TOOLS:
        missing = [w for w in re.findall(r"--[a-z-]+|[a-z0-9]*[0-9][a-z0-9]*", tool.line) if w not in page]
        assert not missing, tool.name
        assert all(source in page for source in tool.source.split(", ") if source)


def test_the_units_that_have_a_storage_are_counted() -> None:
    level = {bits: {"ratio": 0.0, "bits": storage_of(bits).written} for bits in (4, "ternary", "codebook4")}
    run = run_of(
        {"levels": {"a": level["ternary"], "b": level["codebook4"], "c": level[4]}},
        {"levels": {"a": level[4]}}, {"levels": {"a": level["ternary"]}},
    )  # fmt: skip
    assert by_storage("codebook4", "ternary")(run) == by_storage("ternary", "codebook4")(run)
    counted = by_storage("ternary")(run)
    assert counted is not None
    assert (counted.of_best, counted.trials) == ((1, 3), (2, 3))


def test_training_and_rules_are_counted() -> None:
    run = run_of({"levels": {}, "rung": 2}, {"levels": {}}, {"levels": {}, "name": "ERK pruning, longer"})
    assert str(by_training(run)) == "1 of 1, in 1 of 2 trials"
    assert str(by_baseline("ERK pruning")(run)) == "0 of 1, in 0 of 2 trials"


def test_a_finished_run_is_read_and_not_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, subject = Bench(tmp_path, workers=0), Subject("demo", (), "bert", 1, (300_000,), 2)
    for name in ("default", "rules"):
        shutil.copytree(ROOT / "tests/support/old_run/run", tmp_path / f"demo-full-300000-{name}-0")
        (tmp_path / f"demo-full-300000-{name}-0.peak").write_text("1", encoding="utf-8")
    monkeypatch.setattr(Bench, "_call", lambda *_: pytest.fail("a command was called"))
    plan = Plan(bench, 0, ())
    plain = measured(plan, subject, 300_000, BY_NAME["default"])
    assert plain.key == ("demo", 300_000, "default", 0, False)
    assert (plain.best["number"], plain.trials, plain.of_trials) == (4, 3, (1, 3))
    assert plain.closest["kl"] == min(
        t["kl"] for t in read_json(ROOT / "tests/support/old_run/run/front.json")["trials"]
        if t["size_bytes"] <= 300_000
    )  # fmt: skip
    ruled = measured(plan, subject, 300_000, BY_NAME["allocation uniform"])
    assert ruled.best["name"] == "uniform pruning"
    with pytest.raises(AutopruneError, match="has no baseline ERK pruning"):
        measured(plan, subject, 300_000, BY_NAME["allocation erk"])


def test_a_row_comes_back_from_its_file() -> None:
    made = row("ternary", members_bytes=7, robustness={"a": 1})
    assert Row.from_json(json.loads(json.dumps(made.as_json()))) == made


def test_a_tool_pays_where_the_divergence_is_a_tenth_less() -> None:
    rows = [row("default"), row("ternary", 0.08), row("codebook4", 0.095), row("2of4x4", 0.2)]
    told = {one.tool: one.says for one in verdicts(rows)}
    assert told == {"codebook4": "no difference", "ternary": "pays", "2of4x4": "harms"}
    both = [*rows, row("default", limit=5_000_000), row("ternary", 0.2, limit=5_000_000)]
    pooled = next(one for one in verdicts(both) if one.tool == "ternary")
    assert (pooled.limits, pooled.chosen) == (2, (2, 8))
    assert pooled.kl == pytest.approx((0.8 * 2.0) ** 0.5)


def test_an_export_is_judged_by_its_bytes() -> None:
    rows = [row("default"), row("entropy coding", size=2_000_000), row("family", size=8, members_bytes=10)]
    found = {one.tool: one for one in verdicts(rows)}
    assert found["family"].size == pytest.approx(0.8)
    assert (found["entropy coding"].kl, found["entropy coding"].says) == (None, "pays")


def test_rows_of_the_check_are_not_judged_with_the_others() -> None:
    rows = [row("default"), replace(row("ternary", 0.01), check=True)]
    assert verdicts(rows) == []


def test_tables_have_a_line_for_each() -> None:
    rows = [row("default"), row("ternary", 0.08)]
    assert len(rows_table(rows).splitlines()) == 4
    assert verdicts_table(verdicts(rows)).splitlines()[-1].startswith("| ternary | demo | 1 | 0.80 |")
