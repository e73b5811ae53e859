"""The front, the points to ship and the hypervolume, against definitions and closed forms.

Objectives are drawn from small integers, so that ties and equal trials are common.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.pareto import dominates, front, hypervolume, within
from autoprune.strategy.points import best, knee

quick = hypothesis.settings(deadline=None, max_examples=60)
NOTHING = Candidate(())
REFERENCE = Measurement(6, 6.0, 94.0)


def trial(
    number: int, size: int, accuracy: float, *, latency: float = 1.0, kl: float = 1.0, name: str | None = None
) -> Trial:
    return Trial(number, NOTHING, Measurement(size, latency, accuracy, kl), name=name)


def measured(one: Trial) -> Measurement:
    assert one.measurement is not None
    return one.measurement


measurements = some.builds(
    Measurement,
    some.integers(1, 7),
    some.integers(0, 7).map(float),
    some.integers(92, 100).map(float),
    some.sampled_from([0.1, 0.2, 0.3, math.nan]),
)


@some.composite
def many(draw: some.DrawFn) -> list[Trial]:
    """Trials as a run has them: some failed, some are baselines."""
    found = draw(some.lists(measurements | some.none(), max_size=12))
    baselines = draw(some.sets(some.integers(0, 11), max_size=3))
    names = {k: ("original", "uniform 8-bit", "uniform 4-bit")[k % 3] for k in baselines}
    return [Trial(k, NOTHING, m, name=names.get(k)) for k, m in enumerate(found)]


def better_somewhere(a: Measurement, b: Measurement) -> bool:
    return a.size_bytes < b.size_bytes or a.latency_ms < b.latency_ms or a.accuracy > b.accuracy


# ---- the front ----------------------------------------------------------------------------------


@quick
@hypothesis.given(many())
def test_the_front_is_what_no_other_dominates(trials: list[Trial]) -> None:
    """By definition: b is out if some a is better somewhere and b is better than a nowhere."""
    done = [trial for trial in trials if trial.measurement is not None]
    slow = {
        b.number
        for b in done
        if not any(
            better_somewhere(measured(a), measured(b)) and not better_somewhere(measured(b), measured(a))
            for a in done
        )
    }
    members = front(trials)
    assert {trial.number for trial in members} == slow
    assert len(members) == len(slow)


@quick
@hypothesis.given(many())
def test_members_do_not_dominate_each_other_and_dominate_all_else(trials: list[Trial]) -> None:
    members = front(trials)
    assert not any(dominates(measured(a), measured(b)) for a in members for b in members)
    for trial in trials:
        if trial.measurement is not None and trial not in members:
            assert any(dominates(measured(a), trial.measurement) for a in members)


@quick
@hypothesis.given(many(), some.integers())
def test_the_order_of_the_trials_does_not_matter(trials: list[Trial], seed: int) -> None:
    mixed = random.Random(seed).sample(trials, len(trials))
    budget = Budget(4, 5.0)
    assert front(mixed) == front(trials)
    assert best(mixed, budget, answers=100) == best(trials, budget, answers=100)
    assert hypervolume(mixed, REFERENCE) == pytest.approx(hypervolume(trials, REFERENCE), abs=1e-12)


def test_ties_stay_and_are_sorted_by_number() -> None:
    trials = [trial(2, 5, 90), trial(0, 9, 91), trial(1, 5, 90), trial(3, 5, 89)]
    assert [trial.number for trial in front(trials)] == [1, 2, 0]


def test_failed_trials_are_on_no_front_and_within_no_budget() -> None:
    failed = Trial(0, NOTHING, failure="out of memory")
    assert front([failed]) == within([failed], Budget()) == []
    assert best([failed], Budget(), answers=10) is knee([failed]) is None
    assert hypervolume([failed], REFERENCE) == 0.0


# ---- hypervolume --------------------------------------------------------------------------------


def counted(trials: Sequence[Trial]) -> float:
    """Share of the unit cells between the reference and the ideal that some trial dominates."""
    low, high = int(REFERENCE.accuracy), 100
    cells = [(i, j, k) for i in range(6) for j in range(6) for k in range(low, high)]
    points = [measured(trial) for trial in trials if trial.measurement is not None]
    hit = [
        any(m.size_bytes <= i and m.latency_ms <= j and m.accuracy >= k + 1 for m in points)
        for i, j, k in cells
    ]
    return sum(hit) / len(cells)


@quick
@hypothesis.given(many())
def test_hypervolume_is_the_share_of_cells_dominated(trials: list[Trial]) -> None:
    assert hypervolume(trials, REFERENCE) == pytest.approx(counted(trials), abs=1e-12)


@quick
@hypothesis.given(many())
def test_hypervolume_is_the_fronts_alone_and_no_trial_lowers_it(trials: list[Trial]) -> None:
    values = [hypervolume(trials[:k], REFERENCE) for k in range(len(trials) + 1)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))
    assert hypervolume(front(trials), REFERENCE) == pytest.approx(values[-1], abs=1e-12)
    assert 0.0 <= values[-1] <= 1.0


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_hypervolume_of_a_staircase_is_its_closed_form(n: int) -> None:
    """Steps (k, 1 ms, k %) for k of 1..n cover n (n + 1) / 2 of a box of (n + 1) * 2 * (n + 1)."""
    base = 100.0 - (n + 1)
    stairs = [trial(k, k, base + k) for k in range(1, n + 1)]
    assert len(front(stairs)) == n
    assert hypervolume(stairs, Measurement(n + 1, 2.0, base)) == pytest.approx(n / (4 * (n + 1)))


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_hypervolume_of_stairs_in_three_directions_is_its_closed_form(n: int) -> None:
    """Steps (i, j ms, i + j - 1 %) for i, j of 1..n cover n^3 of a box of (n + 1)^2 * 2n."""
    base = 100.0 - 2 * n
    corners = [(i, j) for i in range(1, n + 1) for j in range(1, n + 1)]
    stairs = [trial(k, i, base + i + j - 1, latency=float(j)) for k, (i, j) in enumerate(corners)]
    assert len(front(stairs)) == n * n
    reference = Measurement(n + 1, n + 1.0, base)
    assert hypervolume(stairs, reference) == pytest.approx(n**2 / (2 * (n + 1) ** 2))


def test_the_ideal_fills_the_box_and_the_reference_nothing() -> None:
    ideal = trial(0, 0, 100.0, latency=0.0)
    assert hypervolume([ideal], REFERENCE) == 1.0
    assert hypervolume([Trial(0, NOTHING, REFERENCE)], REFERENCE) == 0.0
    assert hypervolume([ideal], Measurement(6, 6.0, 100.0)) == 0.0  # no box


# ---- the points to ship -------------------------------------------------------------------------


def chosen(trials: Sequence[Trial], *, answers: int, budget: Budget = Budget()) -> int | None:  # noqa: B008
    one = best(trials, budget, answers=answers)
    return None if one is None else one.number


SIZE, TIME, BOTH = Budget(10, None), Budget(None, 10.0), Budget(10, 10.0)


def test_best_is_on_the_front_and_gains_most_in_what_is_not_limited() -> None:
    """The demo as it was: 12.5 MB at 12.5 ms had been shipped, though two others were as accurate."""
    shipped = trial(1, 125, 84.4, latency=12.5, kl=0.001)
    dominating = trial(2, 74, 84.6, latency=9.0, kl=0.004)
    quicker = trial(3, 68, 83.9, latency=6.4, kl=0.02)
    poorer = trial(4, 30, 80.0, latency=3.0, kl=0.1)
    trials, limit = [shipped, dominating, quicker, poorer], Budget(200)
    assert chosen(trials, answers=1263, budget=limit) == 3  # the standard error is 1.0 point
    assert chosen(trials, answers=100_000, budget=limit) == 2  # 0.1 point
    assert chosen(trials, answers=100, budget=limit) == 3  # 3.6 points
    assert chosen(trials, answers=50, budget=limit) == 4  # 5.1 points


def test_best_is_within_a_standard_error_of_the_most_accurate() -> None:
    """At 90 % of 100 answers the error is 100 sqrt(0.9 * 0.1 / 100) = 3 points; of 10,000 it is 0.3."""
    trials = [trial(0, 9, 90, latency=3.0), trial(1, 9, 87.1, latency=2.0), trial(2, 9, 86.9, latency=1.0)]
    assert chosen(trials, answers=100, budget=SIZE) == 1
    assert chosen(trials, answers=10_000, budget=SIZE) == 0
    assert chosen(trials, answers=10, budget=SIZE) == 2


def test_what_is_not_limited_decides_and_then_divergence() -> None:
    small = trial(0, 2, 90, latency=8.0, kl=0.3)
    quick = trial(1, 8, 90, latency=1.5, kl=0.2)
    near = trial(2, 9, 90.1, latency=9.0, kl=0.1)
    trials = [small, quick, near]
    assert chosen(trials, answers=100, budget=SIZE) == 1  # bytes are limited: the fewest milliseconds
    assert chosen(trials, answers=100, budget=TIME) == 0  # milliseconds are: the fewest bytes
    assert chosen(trials, answers=100) == 1  # nothing is: 8 x 1.5 = 12, not 2 x 8 or 9 x 9
    assert chosen(trials, answers=100, budget=BOTH) == 2  # both are: the least divergence


def test_times_as_good_as_the_same_are_no_merit_and_the_least_divergence_wins() -> None:
    """Up to 5 % more milliseconds count as the same."""
    trials = [trial(0, 9, 90, latency=1.0, kl=0.5), trial(1, 8, 90, latency=1.045, kl=0.1)]
    assert chosen(trials, answers=10, budget=SIZE) == 1
    assert chosen([trials[0], trial(1, 8, 90, latency=1.06, kl=0.1)], answers=10, budget=SIZE) == 0


def test_at_100_percent_there_is_no_error_and_equals_go_by_kl_then_size_then_number() -> None:
    trials = [trial(0, 9, 100, kl=0.5), trial(1, 5, 99.9, latency=0.1, kl=0.1)]
    assert chosen(trials, answers=5, budget=SIZE) == 0
    equal = [trial(4, 5, 100, kl=0.5), trial(3, 5, 100, kl=0.5)]
    assert chosen(equal, answers=5, budget=BOTH) == 3
    assert chosen([*equal, trial(5, 9, 100, latency=0.5, kl=0.4)], answers=5, budget=BOTH) == 5


def test_best_keeps_to_the_budget_and_the_error_is_that_of_what_fits() -> None:
    trials = [trial(0, 20, 99, kl=0.0), trial(1, 9, 80, kl=0.3), trial(2, 8, 79, kl=0.2)]
    trials += [trial(3, 9, 98, latency=7.0, kl=0.0)]
    assert chosen(trials, answers=1000, budget=Budget(10, 5.0)) == 2
    assert chosen(trials, answers=1000, budget=Budget(9)) == 3
    assert chosen(trials, answers=1000, budget=Budget(7)) is None


def test_best_is_not_what_a_uniform_baseline_of_its_size_beats() -> None:
    """Of its size is up to 1 % larger; what beats a trial is offered in its place."""
    uniform = trial(0, 1010, 90, kl=0.3, name="uniform 8-bit")
    assert chosen([uniform, trial(1, 1000, 89.9, kl=0.0)], answers=1) == 0
    assert chosen([uniform, trial(1, 999, 89.9, kl=0.0)], answers=1) == 1  # smaller than its size
    assert chosen([uniform, trial(1, 1000, 90, kl=0.9)], answers=1) == 1  # equal is not beaten
    assert chosen([uniform, trial(1, 5000, 89.9), trial(2, 999, 50)], answers=1000) == 0  # not the one of 50
    smaller = trial(3, 800, 89.9, kl=0.1, name="uniform 4-bit")
    assert chosen([uniform, smaller, trial(1, 1000, 10)], answers=10) == 3  # by the rule for trials
    assert chosen([uniform], answers=10) == 0


def test_the_original_and_baselines_over_the_budget_beat_nothing_and_are_never_best() -> None:
    original = trial(0, 5, 99, kl=0.0, name="original")
    slow = trial(1, 5, 99, kl=0.0, latency=9.0, name="uniform 8-bit")
    beaten = trial(2, 9, 50)
    assert chosen([original, slow, beaten], answers=10, budget=Budget(10, 5.0)) == 2
    assert chosen([original, slow], answers=10, budget=Budget(10, 5.0)) is None
    assert chosen([original, slow, beaten], answers=10) == 1


def test_a_trial_that_the_original_dominates_gives_way_to_a_member_of_the_front() -> None:
    original = trial(0, 9, 90, latency=3.0, name="original")
    larger, smaller = trial(1, 9, 90, latency=5.0, kl=0.0), trial(2, 4, 89, latency=5.0, kl=0.1)
    assert chosen([original, larger, smaller], answers=10, budget=SIZE) == 2
    assert chosen([original, larger], answers=10, budget=SIZE) == 1  # there is no other


def test_an_unknown_kl_is_the_last_choice() -> None:
    trials = [trial(0, 1, 90, kl=math.nan), trial(1, 1, 90, kl=7.0), trial(2, 1, 90, kl=math.nan)]
    assert chosen(trials, answers=100) == 1
    assert chosen(trials[::2], answers=100) == 0


def test_where_milliseconds_alone_are_limited_a_baseline_of_its_time_beats_a_trial() -> None:
    uniform = trial(0, 9000, 84.3, kl=0.3, latency=2.0, name="uniform pruning")
    slower, quicker = trial(1, 1000, 82.7, latency=2.1), trial(2, 1000, 76.6, latency=1.8)
    assert chosen([uniform, slower, quicker], answers=400, budget=Budget(None, 2.2)) == 0
    assert chosen([uniform, slower, quicker], answers=400, budget=Budget(None, 1.9)) == 2
    assert chosen([uniform, slower, quicker], answers=400, budget=Budget(8000, 2.2)) == 1


def offered(trials: Sequence[Trial], budget: Budget) -> list[Trial]:
    """By definition: baselines, and trials that no uniform baseline of their cost beats, on the front; on
    the front without the original where there is no such one."""

    def cost(one: Trial) -> float:
        return measured(one).latency_ms if budget.size_bytes is None else measured(one).size_bytes

    def beats(u: Trial, one: Trial) -> bool:
        return measured(u).accuracy > measured(one).accuracy and cost(u) <= 1.01 * cost(one)

    fit = [trial for trial in within(trials, budget) if trial.name != "original"]
    uniform = [trial for trial in fit if trial.is_baseline]
    unbeaten = [trial for trial in fit if trial.is_baseline or not any(beats(u, trial) for u in uniform)]
    on_front = [trial for trial in unbeaten if trial in front(trials)]
    return on_front or [
        trial for trial in unbeaten if trial in front(t for t in trials if t.name != "original")
    ]


@quick
@hypothesis.given(many(), some.integers(1, 5) | some.none(), some.integers(1, 1000))
def test_best_is_one_of_those_offered_within_a_standard_error_that_costs_least(
    trials: list[Trial], size: int | None, answers: int
) -> None:
    budget = Budget(size, 5.0)
    fit = offered(trials, budget)
    one = best(trials, budget, answers=answers)
    assert (one in fit) if fit else (one is None)
    if one is not None:
        top = max(measured(other).accuracy for other in fit) / 100
        least = 100 * (top - math.sqrt(top * (1 - top) / answers)) - 1e-9
        near = [measured(other) for other in fit if measured(other).accuracy >= least]
        assert measured(one) in near
        if size is None:
            assert measured(one).size_bytes == min(m.size_bytes for m in near)


@quick
@hypothesis.given(many(), some.sampled_from([Budget(), SIZE, TIME, BOTH, Budget(4), Budget(None, 3.0)]))
def test_no_compressed_model_dominates_the_best_one(trials: list[Trial], budget: Budget) -> None:
    one = best(trials, budget, answers=100)
    compressed = [other for other in trials if other.name != "original" and other.measurement is not None]
    assert one is None or not any(dominates(measured(other), measured(one)) for other in compressed)


@quick
@hypothesis.given(many(), some.sampled_from([Budget(), SIZE, TIME, BOTH, Budget(4), Budget(None, 3.0)]))
def test_there_is_a_best_wherever_a_compressed_model_is_within_the_budget(
    trials: list[Trial], budget: Budget
) -> None:
    fit = [trial for trial in within(trials, budget) if trial.name != "original"]
    assert (best(trials, budget, answers=100) is None) == (not fit)


def test_the_knee_is_the_farthest_above_the_line_with_log_size() -> None:
    """Above the line by 0, 0.15, 0.10, 0; were size not a logarithm the third would win."""
    trials = [trial(0, 1, 50), trial(1, 2, 70), trial(2, 8, 92.5), trial(3, 16, 100)]
    assert knee(trials) == trials[1]
    assert knee(trials[::-1]) == trials[1]
    larger = [
        trial(point.number, 1000 * measured(point).size_bytes, measured(point).accuracy) for point in trials
    ]
    assert knee(larger) == larger[1]


def test_the_knee_of_few_or_equal_members() -> None:
    assert knee([]) is None
    assert knee([trial(4, 3, 90)]) == trial(4, 3, 90)
    assert knee([trial(0, 9, 99), trial(1, 3, 90)]) == trial(1, 3, 90)  # both on the line: the smaller
    assert knee([trial(0, 3, 90), trial(1, 3, 90)]) == trial(0, 3, 90)
