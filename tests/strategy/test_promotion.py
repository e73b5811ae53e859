"""What is trained and when: rungs by definition, and a schedule with a pool of workers that is simulated.

Time is simulated too: an evaluation says how long it took, and the earliest to end ends first.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest
from scipy.stats import kendalltau

from autoprune.evaluation.seeds import candidate_text
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.space.trial import Measurement, Trial, tried_trials
from autoprune.strategy import schedule as schedule_module
from autoprune.strategy import study as study_module
from autoprune.strategy.aim import Aim
from autoprune.strategy.history import Asked, Key
from autoprune.strategy.hypervolume import ByteRange
from autoprune.strategy.patience import is_idle
from autoprune.strategy.points import best
from autoprune.strategy.promotion import (
    FINALISTS,
    LARGER_SHARE,
    SHARE,
    WORTH_TRAINING_KL,
    Ladder,
    finalist,
    promotion,
)
from autoprune.strategy.repair import repair as repaired
from autoprune.strategy.rung_agreement import FEWEST_JUDGED, LOW_TAU, agreement
from autoprune.strategy.samplers import OURS, make_proposer
from autoprune.strategy.schedule import Plan, Schedule, pace_of
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.study import Study
from autoprune.strategy.surrogates.recovery_model import Training

quick = hypothesis.settings(deadline=None, max_examples=60)
ROWS = 1000


def candidate(k: int) -> Candidate:
    return Candidate((("a", Level.of(0.0, k)),))


def trial(
    k: int, size: int, kl: float | None, *, rung: int = 0, accuracy: float = 80.0, name: str | None = None
) -> Trial:
    """A trial of candidate `k`; None as divergence is a failure."""
    m = None if kl is None else Measurement(size, 1.0, accuracy, kl)
    return Trial(k, candidate(k), m, name=name, rung=rung, failure="no memory" if m is None else None)


def begun_of(trials: Sequence[Trial]) -> set[Key]:
    return {(trial.candidate, trial.rung) for trial in trials}


def all_promoted(trials: Sequence[Trial], budget: Budget) -> list[Candidate]:
    """What is promoted one after the other while none of it ends."""
    begun, out = begun_of(trials), list[Candidate]()
    while (one := promotion(trials, begun, budget)) is not None:
        begun.add((one, 1))
        out.append(one)
    return out


# ---- how ranks agree ----------------------------------------------------------------------------


def pairs_of(lower: Sequence[float], upper: Sequence[float]) -> list[Trial]:
    first = [trial(k, 1000 + k, kl) for k, kl in enumerate(lower)]
    return first + [trial(k, 1000 + k, kl, rung=1) for k, kl in enumerate(upper)]


@pytest.mark.parametrize(
    ("upper", "tau"), [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], -1.0), ([2, 1, 4, 3], 1 / 3), ([1, 1, 2, 2], None)]
)
def test_agreement_of_known_ranks(upper: list[float], tau: float | None) -> None:
    lower = [0.1, 0.2, 0.3, 0.4]
    found = agreement(pairs_of(lower, upper), 0, 1)
    expected = kendalltau(lower, upper).statistic if tau is None else tau
    assert found.kendall_tau == pytest.approx(expected)
    assert found.pairs == 4
    assert not found.low  # four pairs say nothing


def test_agreement_needs_three_pairs_that_are_known_at_both_rungs() -> None:
    trials = pairs_of([0.1, 0.2, 0.3, 0.4, 0.5], [0.05, 0.1])
    extra = [trial(2, 1000, None, rung=1), trial(3, 1000, math.nan, rung=1), trial(9, 1000, 0.3, rung=1)]
    found = agreement([*trials, *extra], 0, 1)
    assert (found.kendall_tau, found.pairs, found.low) == (None, 2, False)
    assert agreement([], 0, 1).kendall_tau is None
    ties = agreement(pairs_of([0.1] * 6, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 0, 1)
    assert (ties.kendall_tau, ties.low) == (None, False)


def test_ranks_are_low_from_a_few_pairs_on() -> None:
    lower = [0.1 * (k + 1) for k in range(FEWEST_JUDGED)]
    trained = [0.9 * kl for kl in lower]
    assert agreement(pairs_of(lower, trained[::-1]), 0, 1).low
    assert not agreement(pairs_of(lower, trained), 0, 1).low
    assert not agreement(pairs_of(lower, lower), 0, 1).low
    assert not agreement(pairs_of(lower[1:], trained[:0:-1]), 0, 1).low
    shuffled = [trained[k] for k in (1, 0, 3, 2, 4)]
    found = agreement(pairs_of(lower, shuffled), 0, 1)
    assert found.kendall_tau is not None
    assert found.low == (found.kendall_tau < LOW_TAU)


def test_a_fine_tune_that_changed_nothing_says_nothing_of_ranks() -> None:
    """Three of eight were undone; the five that were kept came out in reverse."""
    lower = [0.1 * (k + 1) for k in range(8)]
    upper = [*lower[:3], 0.35, 0.3, 0.25, 0.2, 0.15]
    found = agreement(pairs_of(lower, upper), 0, 1)
    assert found.kendall_tau == pytest.approx(-1.0)
    assert (found.pairs, found.trained, found.low) == (5, 8, True)
    assert found.left == pytest.approx(sum(b / a for a, b in zip(lower[3:], upper[3:], strict=True)) / 5)
    undone = agreement(pairs_of(lower, lower), 0, 1)
    assert (undone.kendall_tau, undone.pairs, undone.trained, undone.left) == (None, 0, 8, None)


# ---- promotion ----------------------------------------------------------------------------------

untrained = some.lists(
    some.tuples(
        some.integers(500, 1500),
        some.one_of(
            some.none(), some.sampled_from([math.nan, 1e-4, WORTH_TRAINING_KL]), some.floats(1e-3, 2.0)
        ),
    ),
    max_size=20,
)


@quick
@hypothesis.given(untrained, some.integers(0, 3))
def test_a_share_of_what_may_be_promoted_is_each_once(
    measured: list[tuple[int, float | None]], baselines: int
) -> None:
    trials = [trial(k, size, kl) for k, (size, kl) in enumerate(measured)]
    trials += [trial(100 + k, 900, 0.05, rung=1, name="uniform 8-bit") for k in range(baselines)]
    trials.append(trial(200, 1400, 0.0, name="original"))
    budget = Budget(1200)
    found = all_promoted(trials, budget)
    done = sum(kl is not None for _, kl in measured)
    assert len(found) == len(set(found)) <= math.floor(SHARE * done + 1e-9)
    for promoted in found:
        size, kl = measured[promoted["a"].storage.bits]
        assert kl is not None
        assert kl > WORTH_TRAINING_KL
        assert size <= budget.size_bytes  # type: ignore[operator]


def test_promotion_takes_what_should_add_most_then_goes_elsewhere() -> None:
    """What was trained leaves little beside it, and so does what is in training."""
    trials = [
        trial(0, 1000, 0.5),
        trial(1, 1020, 0.45),
        trial(2, 2000, 0.02),  # all is dominated to the right of it, up to 4
        trial(3, 2010, 0.6),
        trial(4, 3000, 0.01),
        trial(5, 3300, 0.009),  # trained as the others were it is worse than 4, which is trained
        *(trial(10 + k, 4000, 0.9) for k in range(6)),
        trial(4, 3000, 0.004, rung=1),
    ]
    assert all_promoted(trials, Budget()) == [candidate(2), candidate(1), candidate(0)]


def test_what_is_in_training_is_not_promoted_again_and_counts() -> None:
    trials = [trial(k, 1000 + 300 * k, 0.3 / (k + 1)) for k in range(6)]
    first = promotion(trials, begun_of(trials), Budget())
    assert first is not None
    begun = begun_of(trials) | {(first, 1)}
    second = promotion(trials, begun, Budget())
    assert second not in (None, first)
    assert promotion(trials, begun | {(second, 1)}, Budget()) is None  # type: ignore[arg-type]


def test_a_failed_training_is_not_repeated_and_counts() -> None:
    trials = [trial(k, 1000 + 300 * k, 0.3 / (k + 1)) for k in range(3)]
    (one,) = all_promoted(trials, Budget())
    failed = trial(one["a"].storage.bits, 1000, None, rung=1)
    assert all_promoted([*trials, failed], Budget()) == []


def test_the_only_size_there_is_is_worth_training() -> None:
    """Nothing smaller or larger was tried yet: what lies at the edge of the sizes counts too."""
    assert len(all_promoted([trial(k, 1000, 0.1 + 0.01 * k) for k in range(3)], Budget())) == 1
    trials = [trial(0, 1000, 0.9), trial(1, 1100, 0.8), trial(2, 1200, 0.01)]
    assert all_promoted(trials, Budget()) == [candidate(2)]


def test_more_is_promoted_where_ranks_agree_poorly() -> None:
    """Six of eighteen, that is a third, were trained; where they came out in reverse six more are."""
    lower = [0.5 * 0.8**k for k in range(18)]
    trials = [trial(k, 1000 + 200 * k, kl) for k, kl in enumerate(lower)]
    same = [trial(k, 1000 + 200 * k, 0.6 * lower[k], rung=1) for k in range(6)]
    reverse = [trial(k, 1000 + 200 * k, 0.6 * lower[5 - k], rung=1) for k in range(6)]
    assert all_promoted(trials + same, Budget()) == []
    more = all_promoted(trials + reverse, Budget())
    assert 0 < len(more) <= math.floor(LARGER_SHARE * 18) - 6


def test_what_training_mends_most_is_promoted_first() -> None:
    """Of two of a size the worse, where training leaves a tenth of it and all of the other."""
    trials = [trial(0, 1000, 0.3), trial(1, 1000, 0.2), trial(2, 1000, 0.9)]

    def promoted(shares: dict[Candidate, float]) -> Candidate | None:
        return promotion(trials, begun_of(trials), Budget(), left=lambda _: shares)

    assert promoted({}) == candidate(1)
    assert promoted({candidate(0): 0.1, candidate(1): 1.0}) == candidate(0)


def test_what_is_quick_is_promoted_though_another_is_as_small_and_better() -> None:
    trials = [
        Trial(k, candidate(k), Measurement(1000, ms, 80.0, kl), rung=rung)
        for k, ms, kl, rung in ((0, 5.0, 0.1, 0), (0, 5.0, 0.08, 1), (1, 2.0, 0.2, 0), (2, 5.0, 0.2, 0))
    ]
    trials += [trial(k, 900, 1e-4) for k in range(3, 9)]
    assert promotion(trials, begun_of(trials), Budget()) == candidate(1)


def test_divergence_that_accuracy_cannot_resolve_adds_little() -> None:
    """From 0.0012 to 0.0011 nats is nothing on few answers, from 0.3 to 0.2 is much."""
    trials = [trial(0, 1000, 0.3), trial(1, 1500, 0.0011), trial(2, 1000, 0.25)]
    trials += [trial(1, 1500, 0.0012, rung=1, name="uniform 8-bit"), trial(0, 1000, 0.3, rung=1)]
    trials += [trial(k, 3000, 1e-4) for k in range(3, 9)]
    assert promotion(trials, begun_of(trials), Budget(), resolved=0.01) == candidate(2)


@quick
@hypothesis.given(untrained, some.integers(0, 3))
def test_first_candidates_are_trained_whatever_the_share(
    measured: list[tuple[int, float | None]], firsts: int
) -> None:
    """All of them that are within the budget and have something to mend, before any other."""
    trials = [trial(k, size, kl) for k, (size, kl) in enumerate(measured)]
    first = {candidate(k) for k in range(firsts)}
    due = {
        one.candidate
        for one in trials
        if one.candidate in first and (m := one.measurement) is not None
        if m.size_bytes <= 1200 and m.kl > WORTH_TRAINING_KL
    }
    begun, out = begun_of(trials), list[Candidate]()
    while (one := promotion(trials, begun, Budget(1200), first=first)) is not None:
        begun.add((one, 1))
        out.append(one)
    assert set(out[: len(due)]) == due
    assert len(out) <= max(len(due), math.floor(SHARE * len(trials) + 1e-9))


@quick
@hypothesis.given(some.integers(0, 10_000))
def test_what_is_chosen_ahead_is_what_would_be_chosen_one_at_a_time(seed: int) -> None:
    """Four at a time, with two hundred in training."""
    rng = random.Random(seed)
    trials = [trial(k, rng.randint(500, 1500), rng.uniform(0.01, 1.0)) for k in range(700)]
    first = [trials[k].candidate for k in rng.sample(range(700), 200)]
    training, begun = list(first), begun_of(trials) | {(candidate, 1) for candidate in first}
    ladder = Ladder(Budget())
    for done in trials:
        ladder.add(done)
    for _ in range(7):
        candidate = ladder.next(begun, training, len(training), at_once=4)
        assert candidate == promotion(trials, begun, Budget())
        if candidate is None:
            break
        training.append(candidate)
        begun.add((candidate, 1))


# ---- finalists ----------------------------------------------------------------------------------


def final(trials: Sequence[Trial], budget: Budget = Budget()) -> int | None:  # noqa: B008
    one = finalist(trials, begun_of(trials), budget, answers=ROWS)
    return None if one is None else one["a"].storage.bits


def test_finalists_are_the_best_then_the_knee() -> None:
    """The knee of 1, 2, 8 and 16 kB with 50, 70, 92.5 and 100 % is the second: see the front's tests."""
    trials = [
        trial(0, 1000, 0.4, accuracy=50.0),
        trial(1, 2000, 0.3, rung=1, accuracy=70.0),
        trial(2, 8000, 0.2, accuracy=92.5),
        trial(3, 16000, 0.1, rung=1, accuracy=100.0),
    ]
    assert final(trials) == 3
    longer = trial(3, 16000, 0.05, rung=2, accuracy=100.0)
    assert final([*trials, longer]) == 1
    assert final([*trials, longer, trial(1, 2000, 0.2, rung=2, accuracy=72.0)]) in (0, 2)


def test_a_finalist_is_within_the_budget_was_not_trained_longer_and_has_something_to_mend() -> None:
    trials = [
        trial(0, 9000, 0.1, accuracy=99.0),  # too large
        trial(1, 1000, WORTH_TRAINING_KL, rung=1, accuracy=95.0),
        trial(2, 1000, None, accuracy=95.0),
        trial(3, 1000, 0.1, name="original", accuracy=70.0),
        trial(4, 900, 0.2, accuracy=90.0),
    ]
    assert final(trials, Budget(2000)) == 4
    assert final([*trials, trial(4, 900, None, rung=2)], Budget(2000)) is None
    assert final(trials[:4], Budget(2000)) is None
    assert final([]) is None


def test_a_uniform_baseline_that_is_to_be_shipped_is_trained_longer_too() -> None:
    plain = trial(0, 1000, 0.1, rung=1, name="uniform 3-bit", accuracy=90.0)
    beaten = trial(1, 1000, 0.2, rung=1, accuracy=80.0)
    assert final([plain, beaten]) == 0
    assert final([plain, beaten, trial(0, 1000, 0.05, rung=2, accuracy=91.0)]) == 1
    better = trial(1, 1000, 0.05, rung=1, accuracy=95.0)
    assert final([plain, better]) == 1
    assert final([plain, better, trial(1, 1000, 0.04, rung=2, accuracy=95.0)]) is None


@quick
@hypothesis.given(untrained, some.integers(0, 99))
def test_what_is_offered_no_uniform_baseline_of_its_size_beats(
    measured: list[tuple[int, float | None]], seed: int
) -> None:
    rng = random.Random(seed)
    trials = [trial(k, size, kl, accuracy=rng.randint(70, 90)) for k, (size, kl) in enumerate(measured)]
    plain = [
        trial(100 + k, rng.randint(500, 1500), 0.1, rung=1, accuracy=rng.randint(70, 90), name=f"uniform {k}")
        for k in range(2)
    ]
    one = best([*trials, *plain], Budget(), answers=ROWS)
    assert one is not None
    assert one.measurement is not None
    if not one.is_baseline:
        for other in plain:
            m = other.measurement
            assert m is not None
            same_size = m.size_bytes <= one.measurement.size_bytes
            assert not (same_size and m.accuracy > one.measurement.accuracy)


# ---- a pool that is simulated -------------------------------------------------------------------

SPACE = SearchSpace(
    tuple(Choices(f"layer.{k}", (0.0, 0.25, 0.5), storages_of((3, 4, 8, 32))) for k in range(6))
)
COSTS = Costs(
    500,
    {
        unit.unit: {
            level: Cost(
                round(1000 * (k % 4 + 1) * (1 - level.ratio) * level.storage.bits / 8),
                0.05 * level.ratio**2 + (4.0**-level.storage.bits if level.storage.bits < 32 else 0.0),
                0.1 * (1 - level.ratio),
            )
            for level in unit.levels()
        }
        for k, unit in enumerate(SPACE.units)
    },
)
BUDGET = Budget(15_000)
SECONDS = (2.0, 9.0, 30.0)


def fake(candidate: Candidate, rung: int) -> Trial:
    """Training mends about half; how much, and for how long, differs by candidate; a few fail."""
    rng = random.Random(f"({candidate_text(candidate)}, {rung})")
    seconds = SECONDS[rung] * rng.uniform(0.7, 1.3)
    if rng.random() < 0.06:
        return Trial(0, candidate, failure="no memory", rung=rung, seconds=seconds)
    kl = COSTS.damage(candidate) * rng.uniform(0.8, 1.2) * (1.0, 0.5, 0.35)[rung] + 1e-5
    size = COSTS.size_bytes(candidate)
    m = Measurement(size, COSTS.latency_ms(candidate) + 0.1, 90 - 40 * kl**0.5, kl=kl)
    parts = {"finetune": 0.9 * seconds} if rung else {}
    return Trial(0, candidate, m, rung=rung, seconds=seconds, worker="one", parts=parts)


NOW = [0.0]
"""What time it is for the schedule."""

CLOCK = SimpleNamespace(monotonic=lambda: NOW[0])
CLOCKED: tuple[Any, ...] = (schedule_module, study_module)


@dataclass
class Simulated:
    """Workers that evaluate by `fake`, on a clock of their own."""

    path: Path
    workers: int = 2
    wanted: int = 24
    steps: int = 30
    sampler: str = "random"
    patience: int | None = None
    deadline: float | None = None
    limit: Budget = BUDGET
    evaluate: Callable[[Candidate, int], Trial] = fake
    first: Sequence[Candidate] = ()
    """Candidates that are tried first and then trained at once."""
    log: list[Asked] = field(default_factory=list)
    estimates: list[tuple[float, float]] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    """When `next` gave nothing though candidates were still to be tried."""

    def __post_init__(self) -> None:
        NOW[0] = 0.0
        training = Training(self.steps, {unit.unit: "neurons" for unit in SPACE.units})
        aim = Aim.of(Problem.of(SPACE, COSTS), self.limit, training=training, answers=ROWS)
        proposer = make_proposer(self.sampler, space=SPACE, seed=0, repair=self.repair, aim=aim)
        self.study = Study(self.path, SPACE, proposer=proposer)
        if not self.study.trials():
            whole = SPACE.untouched()
            m = Measurement(COSTS.size_bytes(whole), 2.0, 90.0, kl=1e-6)
            self.study.add(Trial(0, whole, m, name="original", rung=0, seconds=1.0))
            plain = SPACE.uniform(Level.of(0.0, 4))
            self.study.add(replace(fake(plain, 1), name="uniform 4-bit"))
        plan = Plan(
            budget=self.limit, wanted=self.wanted, steps=self.steps, answers=ROWS,
            byte_range=aim.scale.byte_range, patience=self.patience, deadline=self.deadline,
            first=frozenset(self.first), left=aim.shares_left,
        )  # fmt: skip
        self.schedule = Schedule(self.study, plan, self.first)

    def repair(self, one: Candidate, seen: AbstractSet[Candidate], seed: int) -> Candidate:
        return repaired(one, seen, seed, space=SPACE, costs=COSTS, limit_bytes=self.limit.size_bytes)

    def go(self, until: int | None = None) -> Simulated:
        """Run till all is done, or until so many trials are told and the driver is killed."""
        busy: list[tuple[float, int, Asked, Trial]] = []
        while True:
            while len(busy) < self.workers and (work := self.schedule.next()) is not None:
                self.log.append(work)
                trial = self.evaluate(work.candidate, work.rung)
                heapq.heappush(busy, (self.now + trial.seconds, len(self.log), work, trial))
            if len(busy) < self.workers and self.tried + self._flying(busy) < self.wanted:
                self.idle.append(self.now)
            if not busy:
                return self
            NOW[0], _, work, trial = heapq.heappop(busy)
            self.study.tell(work.token, trial)
            self.estimates.append((self.now, self.schedule.seconds_left(self.workers)))
            if until is not None and len(self.study.trials()) >= until:
                return self

    @staticmethod
    def _flying(busy: Sequence[tuple[float, int, Asked, Trial]]) -> int:
        return sum(work.rung == 0 for _, _, work, _ in busy)

    @property
    def now(self) -> float:
        return NOW[0]

    @property
    def tried(self) -> int:
        return len(tried_trials(self.study.trials()))

    def at(self, rung: int) -> list[Trial]:
        return [trial for trial in self.study.trials() if trial.rung == rung and not trial.is_baseline]

    def keys(self) -> list[tuple[Candidate, int]]:
        return [(trial.candidate, trial.rung) for trial in self.study.trials()]


def shared(one: Simulated) -> int:
    """Most that may be promoted, with what was measured."""
    share = LARGER_SHARE if agreement(one.study.trials(), 0, 1).low else SHARE
    return math.floor(share * sum(t.measurement is not None for t in one.at(0)) + 1e-9)


@pytest.fixture(autouse=True, scope="module")
def clock() -> Iterator[None]:
    """The schedule sees the time of the run that was made last."""
    with pytest.MonkeyPatch.context() as patch:
        for module in CLOCKED:
            patch.setattr(module, "time", CLOCK)
        yield


@pytest.mark.parametrize(("workers", "sampler"), [(1, "random"), (2, "random"), (3, "random"), (3, OURS)])
def test_no_worker_idles_and_all_that_was_wanted_is_done(workers: int, sampler: str, tmp_path: Path) -> None:
    one = Simulated(tmp_path / "study.db", workers=workers, sampler=sampler).go()
    assert one.idle == []
    assert one.tried == one.wanted
    assert len(set(one.keys())) == len(one.keys())
    measured = {t.candidate for t in one.at(0) if t.measurement is not None}
    promoted = {t.candidate for t in one.at(1)}
    assert promoted <= measured
    assert 0 < len(promoted) <= shared(one)
    assert 0 < len(one.at(2)) <= FINALISTS
    assert all(COSTS.size_bytes(t.candidate) <= BUDGET.size_bytes for t in one.at(1) + one.at(2))
    assert one.schedule.stopped_by == "trials"
    assert one.schedule.next() is None
    assert one.schedule.seconds_left(workers) < SECONDS[2] * FINALISTS


def test_very_many_workers_idle_no_more_than_few(tmp_path: Path) -> None:
    """Three candidates are chosen at a time; what is promoted is no more than the share, each once."""
    one = Simulated(tmp_path / "study.db", workers=140, wanted=220, sampler=OURS).go()
    assert one.idle == []
    assert one.tried == one.wanted
    assert len(set(one.keys())) == len(one.keys())
    assert 0 < len(one.at(1)) <= shared(one)
    assert 0 < len(one.at(2)) <= FINALISTS


def test_records_that_are_revised_are_not_counted_twice(tmp_path: Path) -> None:
    one = Simulated(tmp_path / "study.db", wanted=16).go(until=9)
    before = one.schedule.seconds_left(2)
    done = next(t for t in one.study.trials() if t.measurement is not None)
    one.study.retime(done.number, {"latency_ms": 2.0})
    assert one.schedule.seconds_left(2) == before


def test_training_starts_before_the_last_candidate_is_tried(tmp_path: Path) -> None:
    one = Simulated(tmp_path / "study.db", sampler=OURS).go()
    rungs = [work.rung for work in one.log]
    assert rungs.index(1) < len(rungs) // 2
    assert rungs.index(2) > rungs[::-1].index(0)
    first = next(k for k, rung in enumerate(rungs) if rung == 2)
    assert 0 not in rungs[first:]


def test_without_steps_nothing_is_trained(tmp_path: Path) -> None:
    one = Simulated(tmp_path / "study.db", steps=0).go()
    assert {work.rung for work in one.log} == {0}
    assert one.tried == one.wanted
    assert one.schedule.seconds_left(2) == 0.0


def test_first_candidates_come_first_and_once(tmp_path: Path) -> None:
    starts = [SPACE.uniform(Level.of(0.25 * k, 4)) for k in range(3)]  # the first is a baseline
    one = Simulated(tmp_path / "study.db", wanted=4, steps=0)
    one.schedule = Schedule(one.study, Plan(BUDGET, 4, 0, ROWS, ByteRange(500, 15_000)), starts)
    one.go()
    assert [work.candidate for work in one.log[:2]] == starts[1:]
    assert len(one.log) == 4


def test_first_candidates_are_trained_as_soon_as_they_were_tried(tmp_path: Path) -> None:
    first = [SPACE.uniform(Level.of(0.25 * k, 4)) for k in (1, 2)] + [SPACE.uniform(Level.of(0.0, 3))]
    one = Simulated(tmp_path / "study.db", workers=1, first=first).go()
    expected = [(candidate, rung) for candidate in first for rung in (0, 1)]
    due = [key for key in expected if key[1] == 0 or fake(key[0], 0).measurement is not None]
    assert [(work.candidate, work.rung) for work in one.log[: len(due)]] == due
    assert len(one.at(1)) <= shared(one)
    cut = Simulated(tmp_path / "cut.db", workers=1, first=first).go(until=5)
    again = Simulated(tmp_path / "cut.db", workers=1, first=first).go()
    assert len(cut.keys()) < len(again.keys())
    assert again.keys() == one.keys()


@pytest.fixture(scope="module", params=["random", OURS])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """A run of one worker that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "study.db"
    return Simulated(path, workers=1, sampler=request.param).go()


@pytest.mark.parametrize("left", [20, 2, 1])
def test_a_cut_run_goes_on_as_the_uncut_does(whole: Simulated, left: int, tmp_path: Path) -> None:
    """One worker; what was in flight is lost; while candidates are tried, and before each finalist ends."""
    keys = whole.keys()
    assert [rung for _, rung in keys[-2:]] == [2, 2]
    Simulated(tmp_path / "cut.db", workers=1, sampler=whole.sampler).go(until=len(keys) - left)
    again = Simulated(tmp_path / "cut.db", workers=1, sampler=whole.sampler).go()
    assert again.keys() == keys


def test_resumed_with_more_it_tries_more_and_has_new_finalists(tmp_path: Path) -> None:
    one = Simulated(tmp_path / "study.db", wanted=12).go()
    assert (one.tried, len(one.at(2))) == (12, FINALISTS)
    same = Simulated(tmp_path / "study.db", wanted=12)
    assert same.schedule.next() is None
    more = Simulated(tmp_path / "study.db", wanted=20).go()
    assert more.tried == 20
    assert len(more.at(1)) <= shared(more)
    assert FINALISTS < len(more.at(2)) <= 2 * FINALISTS
    assert len(set(more.keys())) == len(more.keys())


def test_after_the_deadline_nothing_begins_and_it_says_so(tmp_path: Path) -> None:
    one = Simulated(tmp_path / "study.db", wanted=100, deadline=60.0).go()
    assert 60.0 < one.now < 60.0 + 1.3 * SECONDS[1]
    assert one.schedule.stopped_by == "time"
    assert 0 < one.tried < 100
    assert all(left <= 60.0 - now + 1.3 * SECONDS[1] for now, left in one.estimates if now < 60.0)
    assert all(left <= 1.3 * SECONDS[1] for now, left in one.estimates if now >= 60.0)


def test_patience_ends_it_and_it_says_so(tmp_path: Path) -> None:
    """Each candidate is as bad as the first, so nothing grows; what was begun is still trained."""

    def same(candidate: Candidate, rung: int) -> Trial:
        m = Measurement(12_000, 1.0, 80.0, kl=0.1)
        return Trial(0, candidate, m, rung=rung, seconds=1.0)

    one = Simulated(tmp_path / "study.db", workers=1, wanted=100, patience=5, evaluate=same, steps=0).go()
    assert one.tried == 6
    assert one.schedule.stopped_by == "patience"
    assert one.schedule.seconds_left(1) == 0.0


def test_patience_once_lost_does_not_come_back(tmp_path: Path) -> None:
    """A candidate that was in flight then ends well; what was said stays true."""

    def late(candidate: Candidate, rung: int) -> Trial:
        first = not late_seen
        late_seen.append(candidate)
        m = Measurement(6_000 if first else 12_000, 1.0, 80.0, kl=0.001 if first else 0.1)
        return Trial(0, candidate, m, rung=rung, seconds=20.5 if first else 1.0)

    late_seen: list[Candidate] = []
    one = Simulated(tmp_path / "study.db", wanted=100, patience=5, evaluate=late, steps=0).go()
    assert one.tried == 7
    assert one.schedule.stopped_by == "patience"


def test_idle_is_no_growth_over_the_last_candidates() -> None:
    sizes = ByteRange(500.0, 2000.0)
    trials = [trial(k, 1000, 0.1) for k in range(5)]
    assert not is_idle(trials, 5, sizes)
    assert is_idle(trials, 4, sizes)
    better = trial(5, 1000, 0.05)
    assert not is_idle([*trials, better], 1, sizes)
    assert is_idle([*trials, better, trial(6, 1000, 0.0499999)], 1, sizes)  # less than 0.1 %
    trained = trial(0, 1000, 0.01, rung=1)
    assert not is_idle([*trials, trained], 4, sizes)  # what training brings counts too
    assert is_idle([trained, *trials], 4, sizes)
    assert is_idle([trial(0, 1000, None) for _ in range(9)], 8, sizes)


# ---- the time that is left ----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_estimate_holds_at_half_time(workers: int, tmp_path: Path) -> None:
    """Within a quarter in the median of nine searches, though training takes four times as long and
    finalists fifteen; how many are promoted late is luck, so some may be off by more."""
    off = []
    for wanted in range(20, 29):
        one = Simulated(tmp_path / f"{wanted}.db", workers=workers, wanted=wanted, sampler=OURS).go()
        at, said = min(one.estimates, key=lambda pair: abs(pair[0] - one.now / 2))
        off.append(abs(said / (one.now - at) - 1))
    assert sorted(off)[4] <= 0.25
    assert max(off) <= 0.5


def test_the_pace_is_the_mean_of_the_last_or_a_guess_from_the_steps() -> None:
    """At first 8 s and half a second a step; 4 times the steps at rung 2; then what steps really took."""

    def timed(rung: int, seconds: float, *, finetune: float = 0.0, name: str | None = None) -> Trial:
        return Trial(0, candidate(0), rung=rung, seconds=seconds, name=name, parts={"finetune": finetune})

    assert pace_of([], 20) == (8.0, 18.0, 48.0)
    assert pace_of([], 0) == (8.0, 8.0, 8.0)
    trials = [timed(0, 100.0), *(timed(0, 2.0) for _ in range(20))]
    assert pace_of(trials, 20) == (2.0, 12.0, 42.0)
    plain = timed(1, 9.0, finetune=6.0, name="uniform 8-bit")
    assert pace_of([*trials, plain], 20) == pytest.approx((2.0, 8.0, 26.0))
    assert pace_of([*trials, plain, timed(1, 11.0, finetune=4.0)], 20) == pytest.approx((2.0, 11.0, 22.0))


def test_a_space_that_is_tried_out_is_no_error_and_what_is_worth_it_is_trained(tmp_path: Path) -> None:
    """Only some candidates are within a limit just above the smallest; there is no 24th."""
    small = COSTS.size_bytes(COSTS.smallest(SPACE))
    one = Simulated(tmp_path / "study.db", limit=Budget(round(1.03 * small)), sampler=OURS).go()
    assert 0 < one.tried < one.wanted
    assert len(one.at(2)) > 0
    assert one.schedule.stopped_by == "space"
    assert one.schedule.next() is None
    assert one.schedule.seconds_left(2) == 0.0
