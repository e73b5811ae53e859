"""A search whose original model is no better than guessing ends before anything is compressed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.made_run import write_rows
from tests.support.tiny_search import OPTIONS, autoprune, environment, write_inputs


def test_an_original_that_guesses_is_stopped_before_the_search(tmp_path: Path) -> None:
    write_inputs(tmp_path)  # random weights
    write_rows(tmp_path / "rows.csv", rows=600)
    words = ["search", "model", "--dataset", "rows.csv", *OPTIONS[:-4], "-o", "run"]
    done = autoprune(words, cwd=tmp_path, env=environment(tmp_path / "cache"), code=2)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("autoprune: "))
    assert "the original model's " in line
    assert "over 60 validation rows is not above" in line
    assert "Likely: (1) the labels are in another order than the model's, whose names of classes" in line
    assert line.endswith("; run holds no trials and can be removed")
    assert "autoprune resume" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "front.json").exists()
    status = json.loads((tmp_path / "run" / "status.json").read_text(encoding="utf-8"))
    assert (status["exit_code"], status["next"]) == (2, "")
