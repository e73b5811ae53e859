"""What the search brought over trials and time, and what its workers did, in words and numbers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import pytest

from autoprune.report.page import render
from autoprune.report.sections import timeline as lanes
from autoprune.report.sections.plain_table import plain_rows
from autoprune.report.sections.progress import MOST_STEPS, progress
from autoprune.report.sections.repeat import repeat_note
from autoprune.report.sections.tables import provenance
from autoprune.report.sections.timeline import KINDS, timeline
from autoprune.run.front_schema import checked_front
from tests.report.test_report import MB, Json, changed, climbed, lined, synthetic

FRONT = climbed(synthetic())
BOX = {"size_bytes": 100.0, "latency_ms": 100.0, "accuracy": 0.0}


def timed(front: Json, workers: int = 2) -> Json:
    """The same front with the times of its trials, on workers that wait a second after each."""
    new = copy.deepcopy(front)
    free = [0.0] * workers
    for row in new["trials"]:
        lane = min(range(workers), key=free.__getitem__)
        row |= {"seconds": 9.0, "worker": f"worker-{lane}", "parts": {"latency": 2.0}}
        row["ended_s"] = free[lane] + 9.0
        free[lane] += 10.0
    return new


def grown(*points: tuple[int, float, float] | None, on_front: Sequence[int] = ()) -> Json:
    """A front of one baseline that dominates an eighth of the box, and of these trials; None is a failure."""
    rows = [{"number": 0, "name": "uniform 4-bit", "state": "COMPLETE", "size_bytes": 50, "latency_ms": 50.0,
             "accuracy": 50.0}]  # fmt: skip
    for number, point in enumerate(points, start=1):
        row: Json = {
            "number": number,
            "state": "FAIL",
            "ended_s": 60.0 * number,
            "on_front": number in on_front,
        }
        if point is not None:
            size, ms, score = point
            row |= {"state": "COMPLETE", "size_bytes": size, "latency_ms": ms, "accuracy": score}
        rows.append(row)
    return {"version": 1, "run": {}, "trials": rows, "hypervolume_reference": BOX}


def words(front: Json) -> str:
    curve = progress(checked_front(front))
    assert curve is not None
    return curve.words.replace("\u00a0", " ")


def test_the_curve_ends_at_the_volume_of_all_trials_and_steps_where_it_grew() -> None:
    curve = progress(checked_front(grown((90, 50.0, 50.0), None, (90, 60.0, 40.0), (50, 40.0, 50.0))))
    assert curve is not None
    assert [(step.trials, step.seconds, round(step.volume, 9)) for step in curve.steps] == [
        (1, 60.0, 0.025), (4, 240.0, 0.15),
    ]  # fmt: skip
    assert curve.rivals == (("uniform baselines", 0.125),)
    assert (curve.trials, curve.seconds) == (4, 240.0)


def test_words_say_when_the_baselines_were_passed_and_what_the_last_trials_brought() -> None:
    said = words(grown((90, 50.0, 50.0), None, (50, 40.0, 50.0), on_front=[3]))
    assert said == (
        "The trials of the search alone were above the uniform baselines (0.1250) after 3 trials, 3 min 0 s "
        "into the run. The last 2 trials raised the hypervolume by 500.0 %; one is on the front: trial 3."
    )
    behind = words(grown((90, 50.0, 50.0), (90, 60.0, 40.0)))
    assert "alone (0.0250) are not above the uniform baselines (0.1250)" in behind
    assert behind.endswith("The last trial brought nothing.")
    ten = words(grown(*[(90 - k, 50.0, 50.0) for k in range(13)], on_front=range(1, 14)))
    assert "The last ten trials raised the hypervolume by 83.3 %; 10 are on the front" in ten
    assert ten.endswith("4, 5, 6, 7, 8, 9, 10, 11 and 2 more.")
    assert "last" not in words(grown((50, 40.0, 50.0)))


def test_simple_models_are_a_line_of_their_own() -> None:
    curve = progress(checked_front(lined(FRONT)))
    assert curve is not None
    assert [name for name, _ in curve.rivals] == ["uniform baselines", "simple models"]


def test_without_a_reference_a_trial_or_times_there_is_less() -> None:
    for record in (changed(FRONT, hypervolume_reference={}), changed(FRONT, trials=FRONT["trials"][:4])):
        assert progress(checked_front(record)) is None
        assert "progress-title" not in render(record)
    curve = progress(checked_front(FRONT))
    assert curve is not None
    assert curve.seconds is None
    assert {step.seconds for step in curve.steps} == {None}
    assert timeline(checked_front(FRONT)) is None
    assert "timeline-title" not in render(FRONT)


def test_many_steps_are_thinned_and_keep_their_ends() -> None:
    record = grown(*[(5 * MB - k, 50.0, 50.0) for k in range(3000)])
    record["hypervolume_reference"] = {**BOX, "size_bytes": 10.0 * MB}
    curve = progress(checked_front(record))
    assert curve is not None
    assert len(curve.steps) == MOST_STEPS
    assert (curve.steps[0].trials, curve.steps[-1].trials) == (1, 3000)


def test_a_trial_is_a_bar_and_its_timing_another() -> None:
    record = timed(FRONT)
    found = timeline(checked_front(record))
    assert found is not None
    assert found.workers == ("worker-0", "worker-1")
    for row in record["trials"]:
        bars = [bar for bar in found.bars if bar.number == row["number"]]
        kind = "failed" if row["state"] == "FAIL" else "trained" if row["rung"] else "untrained"
        kinds = [kind] if kind == "failed" else [kind, "timing"]
        assert [KINDS[bar.kind] for bar in bars] == kinds
        assert sum(bar.end - bar.begin for bar in bars) == pytest.approx(9.0)
        assert bars[-1].end == row["ended_s"]
    for lane in (0, 1):
        ordered = sorted((bar.begin, bar.end) for bar in found.bars if bar.lane == lane)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ordered))


def test_words_say_how_busy_the_workers_were() -> None:
    found = timeline(checked_front(timed(changed(FRONT, trials=FRONT["trials"][:10]), workers=2)))
    assert found is not None
    said = found.words.replace("\u00a0", " ")
    assert said.startswith("2 workers had work in 91.8 % of the 49 s from the begin of the first trial")
    assert said.endswith("Of that: 77.8 % untrained trials, 22.2 % timing.")


def test_of_very_many_trials_neighbours_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "MOST_BARS", 12)
    record = checked_front(timed(FRONT))
    found = timeline(record)
    assert found is not None
    assert len(found.bars) <= 12
    assert any(bar.number is None for bar in found.bars)
    assert max(bar.end for bar in found.bars) == max(row.ended_s or 0 for row in record.trials)


def test_worker_10_comes_after_worker_9_and_most_lanes_are_said() -> None:
    found = timeline(checked_front(timed(FRONT, workers=45)))
    assert found is not None
    assert found.workers[8:11] == ("worker-8", "worker-9", "worker-10")
    assert len(found.workers) == lanes.MOST_LANES
    assert "45 workers" in found.words
    assert "The first 40 of them are drawn." in found.words


def test_the_table_needs_no_javascript() -> None:
    page = render(FRONT)
    plain = page[page.rindex("<noscript>") :].partition("</noscript>")[0]
    assert plain.count("<tr>") == 1 + len(FRONT["trials"])
    rows = {row.label: row for row in plain_rows(checked_front(FRONT), range(10**6))}
    assert rows["trial 13"].standing == "failed: OutOfMemoryError"
    best = rows[f"trial {FRONT['best']}"]
    assert best.standing.startswith("best")
    assert best.size in plain


def test_the_command_is_told_with_what_it_takes_to_repeat_it() -> None:
    said = repeat_note(checked_front(FRONT))
    assert said.startswith(
        "Start it in the folder that its relative paths begin at, with seed 0, the versions below and the "
        "model and data of the hashes below. In the end 40 trials were asked for."
    )
    assert "another -o" not in said
    output = {
        "command": "autoprune search m -o runs/a",
        "versions": {},
        "model_hash": "",
        "planned_trials": 0,
    }
    assert repeat_note(checked_front(changed(FRONT, output))) == (
        "Start it in the folder that its relative paths begin at. No run is written over: give another -o. "
        "Milliseconds differ each time, and with them what is tried after the first trials."
    )
    assert repeat_note(checked_front(changed(FRONT, {"command": ""}))) == ""


def test_provenance_has_trials_and_the_fine_tune() -> None:
    recipe = {"recipe": {"steps": 40, "batch_size": 8, "learning_rate": 1e-4}}
    told = dict(provenance(checked_front(changed(FRONT, recipe))))
    assert told["Fine-tune"] == "40 steps of 8 rows at a learning rate of 0.0001 in a brief one"
    assert told["Trials"] == "40 asked for, 55 ended, those trained further counted again, 2 failed"
    assert "Fine-tune" not in dict(provenance(checked_front(FRONT)))
