"""A search with --folds and --attacks: what is scored, where it is told, and that nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.pipeline.inputs import read_inputs
from autoprune.run.config import Config
from autoprune.run.folds import FOLDS, Folds, mean_and_spread, record_folds, recorded_folds
from autoprune.run.robustness import ROBUSTNESS
from tests.support.tiny_search import OPTIONS, autoprune, environment, write_inputs


@pytest.mark.slow
def test_points_are_scored_on_folds_and_attacked_and_all_records_say_so(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    env = environment(tmp_path / "cache")
    words = ["search", "model", *OPTIONS, "--dataset", "rows.csv", "--folds", 3, "--attacks", "-o", "run"]
    done = autoprune(words, cwd=tmp_path, env=env)
    assert "Folds     3: at the end the original and the points" in done.stderr + done.stdout
    front = json.loads((tmp_path / "run" / "front.json").read_text(encoding="utf-8"))
    record = json.loads((tmp_path / "run" / FOLDS).read_text(encoding="utf-8"))
    assert front["folds"] == record
    assert record["rows"] == 84  # 64 and 20
    wanted = {str(trial["number"]) for trial in front["trials"] if trial["name"] == "original"}
    wanted |= {str(number) for number in front["points"].values() if number is not None}
    assert set(record["scores"]) == wanted
    assert all(set(scores) == {"0", "1", "2"} for scores in record["scores"].values())
    assert "over 3 folds" in done.stdout
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Accuracy, %, 3 folds" in page or "3 folds" in page
    hard = json.loads((tmp_path / "run" / ROBUSTNESS).read_text(encoding="utf-8"))
    assert [row["name"] for row in hard["alterations"]] == ["word swaps"]
    assert all(scores[1] <= scores[0] for scores in hard["scores"].values())
    again = autoprune(["resume", "run"], cwd=tmp_path, env=env)
    assert "on 3 folds: " not in again.stderr
    one = min(record["scores"])
    gone = {**record, "scores": {**record["scores"], one: {"0": record["scores"][one]["0"]}}}
    (tmp_path / "run" / FOLDS).write_text(json.dumps(gone), encoding="utf-8")
    autoprune(["resume", "run"], cwd=tmp_path, env=env)
    assert json.loads((tmp_path / "run" / FOLDS).read_text(encoding="utf-8")) == record  # the same again


def test_what_is_recorded_is_read_back_and_a_point_counts_with_all_its_folds(
    tmp_path: Path,
) -> None:
    folds = Folds(count=3, rows=30, seed=0).with_score(4, 0, 80.0).with_score(4, 1, 81.0)
    assert folds.of(4) is None
    folds = folds.with_score(4, 2, 82.0).with_score(0, 0, 81.0).with_score(0, 1, 81.0).with_score(0, 2, 81.0)
    assert folds.of(4) == [80.0, 81.0, 82.0]
    assert folds.gaps(4, 0) == [-1.0, 0.0, 1.0]
    assert mean_and_spread([80.0, 81.0, 82.0]) == (81.0, 1.0)
    record_folds(tmp_path, folds)
    assert recorded_folds(tmp_path) == folds
    assert recorded_folds(tmp_path / "none") is None


def test_attacks_on_what_has_no_class_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(AutopruneError, match="--attacks: rows of task text-regression"):
        read_inputs(Config.of(model="no/model", dataset="no.csv", task="text-regression", attacks=True))
