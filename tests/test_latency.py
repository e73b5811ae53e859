"""The latency table against the times it was made from, and which models have to be timed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
from conftest import Tiny

from autoprune import groundwork
from autoprune.costs import Cost, Costs
from autoprune.evaluate import Sense, TimeCandidate
from autoprune.files import read_json
from autoprune.latency import Probe, probes, with_latency
from autoprune.measure import Timing
from autoprune.pool import SerialPool
from autoprune.progress import Progress
from autoprune.sensitivity import Sensitivity
from autoprune.space import FLOAT_BITS, UNTOUCHED, Candidate, Choices, Level, SearchSpace
from autoprune.units import Unit, Weight

FAST = frozenset({8})
ORIGINAL_MS = 12.0
quick = hypothesis.settings(deadline=None, max_examples=40)


def unit(
    name: str, kind: str, out: int, into: int, *, ratios: tuple[float, ...], bits: tuple[int, ...]
) -> Unit:
    """A unit of two matrices, the second of which loses columns; one matrix where nothing is removed."""
    rows = (Weight(f"{name}.up", out, into, True),)
    cols = (Weight(f"{name}.down", into, out, True),) if len(ratios) > 1 else ()
    return Unit(name, kind, rows, cols, 1, 1, 32, ratios, bits)


RATIOS, WIDE, NARROW = (0.0, 0.25, 0.5), (4, 8, 16, 32), (3, 4, 32)
UNITS = (
    unit("words", "embedding", 1000, 64, ratios=(0.0,), bits=WIDE),
    *(unit(f"heads.{k}", "heads", 64, 64, ratios=RATIOS, bits=WIDE) for k in range(3)),
    *(unit(f"neurons.{k}", "neurons", 256, 64, ratios=RATIOS, bits=WIDE) for k in range(3)),
    unit("neurons.3", "neurons", 128, 64, ratios=RATIOS, bits=WIDE),
    unit("pooler", "dense", 64, 64, ratios=(0.0,), bits=NARROW),
)
SPACE = SearchSpace(tuple(Choices(one.name, one.ratios, one.bits) for one in UNITS))
COSTS = Costs(
    100,
    {one.unit: {level: Cost(level.bits, level.ratio) for level in one.levels()} for one in SPACE.units},
)


def taken_of(milliseconds: list[float]) -> dict[Probe, float]:
    return dict(zip(probes(UNITS, SPACE, FAST), milliseconds, strict=True))


COUNT = len(probes(UNITS, SPACE, FAST))
times = some.lists(some.floats(5.0, 14.0), min_size=COUNT, max_size=COUNT)

# ---- what has to be timed -----------------------------------------------------------------------


def test_units_of_one_shape_are_timed_together_at_the_ends_of_their_levels() -> None:
    found = [(one.units, str(one.level)) for one in probes(UNITS, SPACE, FAST)]
    both = ["0x8b", "0.5x32b", "0.5x8b"]
    assert found == [
        (("words",), "0x8b"),
        *((("heads.0", "heads.1", "heads.2"), level) for level in both),
        *((("neurons.0", "neurons.1", "neurons.2"), level) for level in both),
        *((("neurons.3",), level) for level in both),
    ]  # the pooler offers no fast width and loses no rows: nothing about it changes


def test_without_fast_widths_only_ratios_are_timed() -> None:
    found = probes(UNITS, SPACE, frozenset())
    assert [str(one.level) for one in found] == ["0.5x32b"] * 3
    assert probes(UNITS[:1], SPACE, frozenset()) == []


def test_of_two_fast_widths_the_widest_stands_for_both() -> None:
    levels = {one.level for one in probes(UNITS, SPACE, frozenset({4, 8}))}
    assert levels == {Level(0.0, 8), Level(0.5, FLOAT_BITS), Level(0.5, 8), Level(0.0, 4)}
    pooler = [one for one in probes(UNITS, SPACE, frozenset({4, 8})) if one.units == ("pooler",)]
    assert [one.level for one in pooler] == [Level(0.0, 4)]


def test_a_model_of_equal_layers_needs_few(tiny: Tiny) -> None:
    """Six, for heads and for neurons, and one for each matrix that only loses bits, of any depth."""
    found = probes(tiny.units, tiny.space, FAST)
    shapes = {(one.kind, tuple((w.rows, w.columns) for w in one.weights)) for one in tiny.units}
    pruned = {kind for kind, _ in shapes if kind in ("attention", "feed_forward")}
    assert len(found) <= 3 * len(pruned) + len(shapes) - len(pruned)
    assert {name for one in found for name in one.units} <= {one.name for one in tiny.units}
    for one in found:
        tiny.space.check(one.candidate(tiny.space))
        assert one.candidate(tiny.space) != tiny.space.untouched()


def test_a_probe_is_a_candidate_with_all_else_untouched() -> None:
    probe = probes(UNITS, SPACE, FAST)[1]
    candidate = probe.candidate(SPACE)
    SPACE.check(candidate)
    assert {u for u, level in candidate.items if level != UNTOUCHED} == set(probe.units)
    assert {level for u, level in candidate.items if u in probe.units} == {probe.level}


# ---- the table ----------------------------------------------------------------------------------


@quick
@hypothesis.given(times)
def test_the_table_gives_back_what_was_timed(milliseconds: list[float]) -> None:
    taken = taken_of(milliseconds)
    costs = with_latency(COSTS, SPACE, taken, ORIGINAL_MS, FAST)
    assert costs.latency_ms(SPACE.untouched()) == pytest.approx(ORIGINAL_MS)
    for probe, ms in taken.items():
        assert costs.latency_ms(probe.candidate(SPACE)) == pytest.approx(ms)


@quick
@hypothesis.given(times)
def test_no_level_is_negative_one_is_free_and_the_rest_of_the_costs_stays(milliseconds: list[float]) -> None:
    costs = with_latency(COSTS, SPACE, taken_of(milliseconds), ORIGINAL_MS, FAST)
    for name, table in costs.levels.items():
        found = [one.latency_ms for one in table.values()]
        assert min(found) >= 0.0
        assert list(table) == list(COSTS.levels[name])
        plain = [(one.size_bytes, one.damage) for one in COSTS.levels[name].values()]
        assert [(one.size_bytes, one.damage) for one in table.values()] == plain
        assert min(found) == pytest.approx(0.0, abs=1e-12)  # what is left at all costs stands in `fixed_ms`
    assert (costs.fixed_bytes, COSTS.fixed_ms) == (100, 0.0)


@quick
@hypothesis.given(some.lists(some.floats(0.0, 1.5), min_size=COUNT, max_size=COUNT))
def test_between_the_ends_time_falls_in_line_with_the_rows(savings: list[float]) -> None:
    """Where removing rows saves time at the ends it saves time between; a ratio halfway, half of it."""
    groups = probes(UNITS, SPACE, FAST)
    taken = {}
    for probe, saving in zip(groups, savings, strict=True):
        other = Probe(probe.units, Level(0.0, probe.level.bits))
        before = taken.get(other, ORIGINAL_MS) if probe.level.ratio else ORIGINAL_MS
        taken[probe] = before - saving
    costs = with_latency(COSTS, SPACE, taken, ORIGINAL_MS, FAST)
    for one in SPACE.units:
        table = costs.levels[one.unit]
        for bits in one.bits:
            found = [table[Level(ratio, bits)].latency_ms for ratio in one.ratios]
            assert (np.diff(found) <= 1e-12).all()
            if len(found) == 3:
                assert found[1] == pytest.approx((found[0] + found[2]) / 2)


def test_widths_that_are_not_fast_save_bytes_alone() -> None:
    costs = with_latency(COSTS, SPACE, taken_of([9.0] * COUNT), ORIGINAL_MS, FAST)
    for one in SPACE.units:
        for ratio in one.ratios:
            slow = {costs.levels[one.unit][Level(ratio, b)].latency_ms for b in one.bits if b not in FAST}
            assert len(slow) == 1
    heads = costs.levels["heads.1"]
    assert heads[UNTOUCHED].latency_ms - heads[Level(0.0, 8)].latency_ms == pytest.approx(1.0)  # 3 ms of 3


def test_units_of_another_probe_add_up() -> None:
    """The table takes units one by one: two probes together save what they save apart."""
    taken = taken_of([11.5, 11.0, 10.0, 9.0, 11.0, 8.0, 7.0, 11.9, 11.0, 10.9])
    costs = with_latency(COSTS, SPACE, taken, ORIGINAL_MS, FAST)
    half = Level(0.5, 8)
    levels = {f"heads.{k}": half for k in range(3)} | {f"neurons.{k}": half for k in range(3)}
    both = Candidate(tuple((one.unit, levels.get(one.unit, UNTOUCHED)) for one in SPACE.units))
    assert costs.latency_ms(both) == pytest.approx(ORIGINAL_MS - 3.0 - 5.0)


# ---- in the groundwork --------------------------------------------------------------------------


CALLS: list[Candidate | None] = []


def clockwork(_: Mapping[str, object]) -> Callable[[object], object]:
    """A worker whose timings are made up: of 20 ms each unit that is touched takes off one."""

    def work(job: object) -> Timing:
        assert isinstance(job, TimeCandidate)
        CALLS.append(job.candidate)
        touched = sum(level != UNTOUCHED for _, level in job.candidate.items) if job.candidate else 0
        return Timing(20.0 - touched, 19.0, 21.0, 20.0)

    return work


def prepared(**changes: Any) -> Any:
    setting = {"units": UNITS, "target": "openvino", "config": {"layers": 4}, "batch": 1, "sequence": 128}
    return SimpleNamespace(setting=SimpleNamespace(**setting | changes), inputs=SimpleNamespace(space=SPACE))


def measured(**changes: Any) -> Costs:
    CALLS.clear()
    with SerialPool(clockwork, {}) as pool:
        return groundwork._with_latency(COSTS, prepared(**changes), pool, Progress(quiet=True), ORIGINAL_MS)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(groundwork, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(groundwork, "get_target", lambda name: SimpleNamespace(fast_bits=FAST))
    return tmp_path


def test_the_table_is_timed_once_a_machine_and_scaled_to_the_original(cache: Path) -> None:
    costs = measured()
    assert len(CALLS) == COUNT
    assert costs.latency_ms(SPACE.untouched()) == pytest.approx(ORIGINAL_MS)
    one = SPACE.untouched().with_level("heads.0", Level(0.5, 8))
    assert costs.latency_ms(one) == pytest.approx(ORIGINAL_MS * 19 / 20)
    again = measured()
    assert (again, CALLS) == (costs, [])
    (file,) = (cache / "latency").iterdir()
    said = read_json(file)
    assert said["probes"][0] == "0x8b of words"
    assert len(said["of the original's milliseconds"]) == COUNT


@pytest.mark.parametrize(
    "change", [{"batch": 2}, {"sequence": 64}, {"config": {"layers": 5}}, {"units": UNITS[:-2]}]
)
def test_what_changes_the_times_is_timed_anew(cache: Path, change: dict[str, Any]) -> None:
    measured()
    measured(**change)
    assert CALLS


def test_the_original_is_timed_as_itself() -> None:
    with SerialPool(clockwork, {}) as pool:
        assert groundwork.time_original(pool) == 20.0


def test_a_model_that_cannot_be_timed_is_an_error_and_nothing_is_kept(cache: Path) -> None:
    def broken(_: Mapping[str, object]) -> Callable[[object], object]:
        def work(job: object) -> object:
            raise MemoryError("none left")

        return work

    with SerialPool(broken, {}) as pool, pytest.raises(RuntimeError, match="none left"):
        groundwork._with_latency(COSTS, prepared(), pool, Progress(quiet=True), ORIGINAL_MS)
    assert not (cache / "latency").exists() or not list((cache / "latency").iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_units_are_shared_out_whole_and_evenly(count: int) -> None:
    shares = groundwork._shares(UNITS, count)
    dealt = [one.name for share in shares for one in share]
    assert sorted(dealt) == sorted(one.name for one in UNITS)
    assert len(shares) == min(count, len(UNITS))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_scores_read_back_from_the_cache_whatever_a_unit_is_called(cache: Path) -> None:
    """A bar in a unit's name, ratios that are no short decimals, and all workers' parts together."""
    names = ("a|b", "plain")
    scores = {
        name: {Level(1 / 3, 4): np.full(3, k + 0.5, np.float32), UNTOUCHED: np.zeros(3, np.float32)}
        for k, name in enumerate(names)
    }
    units = tuple(unit(name, "heads", 8, 8, ratios=(0.0, 1 / 3), bits=(4, 32)) for name in names)
    calls: list[object] = []

    def sense(_: Mapping[str, object]) -> Callable[[object], object]:
        def work(job: object) -> Sensitivity:
            assert isinstance(job, Sense)
            calls.append(job)
            return Sensitivity({one.name: scores[one.name] for one in job.units})

        return work

    setting = SimpleNamespace(
        units=units, key="k", sensitivity_rows=8, seed=0, task=SimpleNamespace(train=range(8))
    )
    found = []
    for _ in range(2):
        with SerialPool(sense, {}) as pool:
            whole = groundwork._sensitivity(SimpleNamespace(setting=setting), pool, Progress(quiet=True))  # type: ignore[arg-type]
            found.append(whole.scores)
    assert len(calls) == 1
    for table in found:
        assert {name: set(levels) for name, levels in table.items()} == {n: set(scores[n]) for n in names}
        for name in names:
            for level, score in scores[name].items():
                np.testing.assert_array_equal(table[name][level], score)
