"""`front.json` of few trials is what it always was; of many its rows are short and are made whole again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoprune.core.files import json_text, read_json
from autoprune.run import front_file
from autoprune.run.front_file import FrontFile
from autoprune.run.front_record import front_record
from autoprune.run.front_schema import checked_front
from autoprune.run.short_rows import NUMBERS, level_rows, whole_row
from autoprune.run.standing import Standing, standing
from autoprune.space.budget import Budget
from autoprune.space.trial import Trial
from tests.run.test_folder import COSTS, REFERENCE, RUN_RECORD, SIZES, TRIALS


def stood(trials: list[Trial]) -> Standing:
    return standing(trials, Budget(), REFERENCE, answers=100)


def expected(trials: list[Trial]) -> dict[str, Any]:
    return front_record(RUN_RECORD, COSTS, stood(trials), Budget(), byte_range=SIZES, state="running")


def opened(path: Path) -> FrontFile:
    return FrontFile(path, COSTS, Budget(), SIZES)


def test_the_file_of_few_trials_is_the_record_however_often_it_is_written(tmp_path: Path) -> None:
    file = opened(tmp_path / "front.json")
    scored = replace(TRIALS[1], test_accuracy=55.5)
    for trials in ([], TRIALS[:2], TRIALS[:4], TRIALS, [TRIALS[0], scored, *TRIALS[2:]]):
        file.write(RUN_RECORD, stood(list(trials)), state="running")
        assert (tmp_path / "front.json").read_text() == json_text(expected(list(trials)))


def test_short_rows_are_whole_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_file, "WHOLE_TRIALS", 3)
    opened(tmp_path / "front.json").write(RUN_RECORD, stood(list(TRIALS)), state="running")
    written, record = read_json(tmp_path / "front.json"), expected(list(TRIALS))
    short = [row["number"] for row in written["trials"] if NUMBERS in row]
    kept = {row["number"] for row in record["trials"] if row["on_front"] or row["name"]}
    kept |= {number for number in record["points"].values() if number is not None}
    assert short == [row["number"] for row in record["trials"] if row["number"] not in kept]
    assert short
    levels = level_rows(written)
    assert [whole_row(row, levels) for row in written["trials"]] == record["trials"]
    read = checked_front(written)
    assert [trial.number for trial in read.trials] == [trial.number for trial in TRIALS]
    assert written | {"trials": 0} == json.loads(json.dumps(record)) | {"trials": 0}


@pytest.mark.parametrize("number", [-1, 99])
def test_a_level_that_a_unit_has_not_is_an_error(number: int) -> None:
    rows = {"a": [["a", 0.0, 8, 100, 0.1, 0.0]]}
    with pytest.raises(ValueError, match=f"a of trial 4 has no level {number}"):
        whole_row({"number": 4, NUMBERS: [number]}, rows)


def test_a_secret_in_a_failure_is_hidden(tmp_path: Path) -> None:
    told = replace(TRIALS[3], failure="RuntimeError: postgresql://me:pass-word@host/db is away")
    opened(tmp_path / "front.json").write(RUN_RECORD, stood([*TRIALS[:3], told]), state="running")
    text = (tmp_path / "front.json").read_text()
    assert "pass-word" not in text
    assert "me:***@host" in text


def test_many_trials_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So seldom that it takes a fiftieth of the time."""
    clock = [100.0]
    monkeypatch.setattr(front_file.time, "monotonic", lambda: clock[0])
    file = opened(tmp_path / "front.json")
    inner = file._row_texts

    def slow(now: Standing) -> list[str]:
        clock[0] += 2.0
        return inner(now)

    monkeypatch.setattr(file, "_row_texts", slow)
    assert file.is_due(10_000)
    file.write(RUN_RECORD, stood(list(TRIALS)), state="running")
    assert file.is_due(front_file.ALWAYS)
    assert not file.is_due(10_000)
    clock[0] += 99.0
    assert not file.is_due(10_000)
    clock[0] += 1.0
    assert file.is_due(10_000)
