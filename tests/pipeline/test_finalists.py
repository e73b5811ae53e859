"""The points to ship are timed again: what was quick by the luck of its minute does not ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from autoprune.core.progress import Progress
from autoprune.evaluation.jobs import PackedModel, Score, Scored, TimeTogether
from autoprune.evaluation.measure import Timing
from autoprune.pipeline import finalists as finalists_module
from autoprune.pipeline.finalists import score_finalists, time_again, together
from autoprune.run.folder import RunFolder
from autoprune.run.standing import Standing, standing
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.space.trial import ORIGINAL, Measurement, Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.points import best
from autoprune.strategy.proposer import HypervolumeProposer
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.study import Study
from autoprune.workers.pool import SerialPool

SPACE = SearchSpace((Choices("layer", (0.0, 0.25, 0.5, 0.75), storages_of((2, 3, 4, 6, 8, 32))),))
COSTS = Costs(
    100,
    {"layer": {lv: Cost(lv.storage.bits * 10, 0.1 / lv.storage.bits, 1.0) for lv in SPACE.units[0].levels()}},
)
BUDGET, REFERENCE_MS, ROWS = Budget(latency_ms=12.0), 20.0, 100_000
TOLD = {"original": 20.0, "uniform 8-bit": 16.0, "lucky": 11.0, "sound": 11.5, "quick": 6.0}
"""Milliseconds that their trials took."""
TRUE = {**TOLD, "uniform 8-bit": 15.0, "lucky": 14.0}
"""And take, all in turn."""


class Finished:
    """A finished study, whose trials' models are their names."""

    def __init__(self, folder: Path, true: Mapping[str, float] = TRUE) -> None:
        self.run, self.true, self.jobs = RunFolder(folder, cast(Any, None)), true, list[object]()
        aim = Aim.of(Problem.of(SPACE, COSTS), BUDGET)
        self.study = Study(folder / "study.db", SPACE, proposer=HypervolumeProposer(aim, seed=0))
        ratios = iter((0.0, 0.0, 0.25, 0.5, 0.75))
        for k, (name, ms) in enumerate(TOLD.items() if not self.study.trials() else ()):
            level = Level.of(next(ratios), 8 if k else 32)
            m = Measurement(1000 - 100 * k, ms, 90.0 - k, kl=0.01 * k)
            plain = name if name in (ORIGINAL, "uniform 8-bit") else None
            self.study.add(Trial(k, Candidate((("layer", level),)), m, name=plain))
            self.run.keep_artifact(k, name.encode(), {})

    def standing(self) -> Standing:
        return standing(self.study.trials(), BUDGET, Measurement(1000, REFERENCE_MS, 50.0), answers=ROWS)

    def work(self, job: object) -> object:
        self.jobs.append(job)
        if isinstance(job, Score):
            return Scored(80.0)
        assert isinstance(job, TimeTogether)
        ms = [self.true[cast(PackedModel, model).weights.decode()] for model in job.models]
        return [Timing(x, 0.9 * x, 1.1 * x, REFERENCE_MS, x / REFERENCE_MS, x / REFERENCE_MS) for x in ms]

    @property
    def search(self) -> Any:
        """What finalists need of a search."""
        return SimpleNamespace(
            run=self.run,
            study=self.study,
            ledger=SimpleNamespace(standing=self.standing),
            pool=SerialPool(lambda context: self.work, {}),
            progress=Progress(quiet=True),
            costed=SimpleNamespace(reference_ms=REFERENCE_MS),
        )

    def best(self) -> str:
        one = best(self.study.trials(), BUDGET, answers=ROWS)
        return "" if one is None else list(TOLD)[one.number]


def test_a_trial_that_was_quick_by_luck_gives_way_to_one_that_is(tmp_path: Path) -> None:
    one = Finished(tmp_path)
    assert one.best() == "lucky"
    time_again(one.search)
    assert one.best() == "sound"
    m = one.study.trials()[2].measurement
    assert m is not None
    assert (m.latency_ms, m.raw_latency_ms, m.raw_original_ms) == pytest.approx((14.0, 14.0, REFERENCE_MS))
    assert one.study.timed_again >= {1, 2, 3}  # the baseline beside them, not the original itself
    assert 0 not in one.study.timed_again


def test_what_was_timed_again_is_not_timed_once_more(tmp_path: Path) -> None:
    one = Finished(tmp_path)
    time_again(one.search)
    count = len(one.jobs)
    again = Finished(tmp_path)
    time_again(again.search)
    assert (count, len(again.jobs)) == (2, 0)
    assert again.best() == "sound"


def test_all_that_are_too_slow_after_all_leave_nothing_to_ship(tmp_path: Path) -> None:
    one = Finished(tmp_path, dict.fromkeys(TOLD, 19.0))
    time_again(one.search)
    assert one.best() == ""
    assert len(one.jobs) <= finalists_module.AGAIN


def test_points_to_ship_and_baselines_are_scored_once(tmp_path: Path) -> None:
    one = Finished(tmp_path)
    for _ in range(2):
        score_finalists(one.search)
    now = one.standing()
    assert sum(isinstance(job, Score) for job in one.jobs) == len(
        {0, 1, *(number for number in now.points.numbers().values() if number is not None)}
    )
    assert one.study.trials()[0].test_accuracy == 80.0


def test_models_that_take_too_much_memory_together_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [Trial(k, Candidate(()), Measurement(400, 1.0, 80.0)) for k in range(4)]
    monkeypatch.setattr(finalists_module, "TOGETHER_BYTES", 1000)
    assert [trial.number for trial in together(trials)] == [0, 1]
    monkeypatch.setattr(finalists_module, "TOGETHER_BYTES", 100)
    assert [trial.number for trial in together(trials)] == [0]
