"""A search with --robustness: what finalists score on altered test rows, and where it is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.robustness import MOST_ROWS, altered_rows
from autoprune.run.config import Config
from autoprune.run.robustness import ROBUSTNESS
from autoprune.tasks.alterations import TEXT_ALTERATIONS
from autoprune.tasks.task import Encoded
from tests.support.tiny_search import OPTIONS, autoprune, environment, write_inputs


@pytest.mark.slow
def test_finalists_are_scored_on_altered_rows_and_all_records_say_so(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    env = environment(tmp_path / "cache")
    words = ["search", "model", *OPTIONS, "--dataset", "rows.csv", "--robustness", "-o", "run"]
    done = autoprune(words, cwd=tmp_path, env=env)
    record = json.loads((tmp_path / "run" / ROBUSTNESS).read_text(encoding="utf-8"))
    front = json.loads((tmp_path / "run" / "front.json").read_text(encoding="utf-8"))
    assert front["robustness"] == record
    assert [row["name"] for row in record["alterations"]] == [one.name for one in TEXT_ALTERATIONS]
    trials = {str(trial["number"]): trial for trial in front["trials"]}
    wanted = {number for number, trial in trials.items() if trial["name"] == "original"}
    wanted |= {str(number) for number in front["points"].values() if number is not None}
    assert set(record["scores"]) == wanted
    assert record["rows"] == record["test_rows"] == 20
    for number, scores in record["scores"].items():
        assert scores[0] == trials[number]["test_accuracy"]  # all test rows, as they are
        assert len(scores) == 4
        is_original = trials[number]["name"] == "original"
        assert not is_original or record["flips"][number] == [0.0] * 4
    assert "loses on altered test rows" in done.stdout
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Robustness" in page
    assert "Other answers, upper case" in page
    again = autoprune(["resume", "run"], cwd=tmp_path, env=env)
    assert "altered test rows: " not in again.stderr  # nothing is asked twice
    assert json.loads((tmp_path / "run" / ROBUSTNESS).read_text(encoding="utf-8")) == record


def test_rows_are_drawn_and_altered_by_the_seed_and_keep_their_labels(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    config = Config.of(
        model=str(tmp_path / "model"), dataset=str(tmp_path / "rows.csv"), target="packed", max_length=16,
        sequence=16, robustness=True,
    )  # fmt: skip
    inputs = read_inputs(config, progress=Progress(quiet=True))
    rows = altered_rows(inputs, 16, seed=0)
    again = altered_rows(inputs, 16, seed=0)
    assert [part.name for part in rows] == ["", *(one.name for one in TEXT_ALTERATIONS)]
    assert len(rows[0].numbers) == min(MOST_ROWS, len(inputs.task.test))
    for part, other in zip(rows[1:], again[1:], strict=True):
        assert isinstance(part.tokens, Encoded)
        assert isinstance(other.tokens, Encoded)
        assert (part.tokens.ids == other.tokens.ids).all()
        assert (part.tokens.labels == inputs.task.test.pick(part.numbers).labels).all()
        assert len(part.tokens) == len(part.numbers)
    lower, plain = rows[3].tokens, inputs.task.test.pick(rows[0].numbers)
    assert isinstance(lower, Encoded)
    assert isinstance(plain, Encoded)
    assert (lower.ids == plain.ids).all()  # the made-up words are in lower case


def test_rows_that_are_not_altered_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(AutopruneError, match="--robustness: rows of task causal-lm"):
        read_inputs(Config.of(model="no/model", dataset="no.csv", task="causal-lm", robustness=True))
