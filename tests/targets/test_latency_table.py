"""The latency table against the times it was made from, and which models have to be timed for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from autoprune.core.files import read_json
from autoprune.core.progress import Progress
from autoprune.evaluation.jobs import ModelRef, Original, Sense, TimeModel, Whereabouts
from autoprune.evaluation.measure import Timing
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit, Weight
from autoprune.pipeline import measured_costs
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import UNTOUCHED, Candidate, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.targets.latency_table import Design, LatencyTable
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION
from autoprune.tasks.task import Arrays, Encoded, Task
from autoprune.workers.census import Census, WorkerState
from autoprune.workers.pool import SerialPool

FAST = frozenset(storages_of((8, "w8a8")))
ORIGINAL_MS = 12.0
quick = hypothesis.settings(deadline=None, max_examples=40)


def unit(
    name: str, kind: str, out: int, into: int, *, ratios: tuple[float, ...], bits: tuple[int, ...]
) -> Unit:
    """A unit of two matrices, the second of which loses columns; one matrix where nothing is removed."""
    rows = (Weight(f"{name}.up", out, into, True),)
    cols = (Weight(f"{name}.down", into, out, True),) if len(ratios) > 1 else ()
    storages = storages_of([*bits, *(["w8a8"] if len(ratios) > 1 else [])])
    return Unit(name, kind, rows, cols, out, 1, 32, ratios, storages)


RATIOS, WIDE, NARROW = (0.0, 0.25, 0.5), (4, 8, 16, 32), (3, 4, 32)
UNITS = (
    unit("words", "embedding", 1000, 64, ratios=(0.0,), bits=WIDE),
    *(unit(f"heads.{k}", "heads", 64, 64, ratios=RATIOS, bits=WIDE) for k in range(3)),
    *(unit(f"neurons.{k}", "neurons", 256, 64, ratios=RATIOS, bits=WIDE) for k in range(3)),
    unit("neurons.3", "neurons", 128, 64, ratios=RATIOS, bits=WIDE),
    unit("pooler", "dense", 64, 64, ratios=(0.0,), bits=NARROW),
)
SPACE = SearchSpace(tuple(unit.choices for unit in UNITS))
COSTS = Costs(
    100,
    {
        unit.unit: {level: Cost(level.storage.bits, level.ratio) for level in unit.levels()}
        for unit in SPACE.units
    },
)


def is_fast(unit: Unit, level: Level) -> bool:
    """A target that is fast with two widths, whatever the unit."""
    return level.storage in FAST


DESIGN = Design(UNITS, SPACE, is_fast)
PROBES = DESIGN.probes()
EVERY = [SPACE.untouched(), *PROBES]


def times_of(weights: NDArray[np.float64], candidates: Sequence[Candidate]) -> list[float]:
    """What candidates would take if a unit's time were a constant and a part in line with its rows."""
    whole = DESIGN.features(SPACE.untouched()) @ weights
    return [float(DESIGN.features(candidate) @ weights / whole) for candidate in candidates]


def weights_of(seed: int) -> NDArray[np.float64]:
    """Times of ways of computing that could be: none negative, and something outside of all units."""
    rng = np.random.default_rng(seed)
    return np.concatenate([[rng.uniform(0.5, 2.0)], rng.uniform(0.2, 2.0, DESIGN.size - 1)])


def drawn(count: int, seed: int) -> list[Candidate]:
    """Random candidates, every level as likely as another."""
    rng = np.random.default_rng(seed)
    tables = [(unit.unit, list(unit.levels())) for unit in SPACE.units]
    return [Candidate(tuple((u, lv[rng.integers(len(lv))]) for u, lv in tables)) for _ in range(count)]


seeds = some.integers(0, 10_000)

# ---- what has to be timed -----------------------------------------------------------------------


def test_probes_are_candidates_of_the_space_always_the_same_and_more_than_what_is_asked_of_them() -> None:
    assert DESIGN.probes() == PROBES
    assert len(set(PROBES)) == len(PROBES) > DESIGN.size
    for candidate in PROBES:
        SPACE.check(candidate)


def test_every_way_of_computing_is_timed() -> None:
    seen = np.stack([DESIGN.features(candidate) for candidate in PROBES])
    shapes = 5  # for each, how many units compute in either way adds up to how many there are
    assert np.linalg.matrix_rank(seen) == DESIGN.size - shapes


def test_a_look_up_needs_no_timing() -> None:
    words = Weight("words", 1000, 64, False, is_embedding=True)
    one = Unit("words", "embedding", (words,), (), 1000, 1, 32, (0.0,), storages_of((4, 32)))
    space = SearchSpace((one.choices,))
    design = Design((one,), space, is_fast)
    assert design.probes() == []
    table = design.fitted([], [])
    assert table.error is None
    assert set(table.levels["words"].values()) == {0.0}
    assert table.fixed == pytest.approx(1.0)


def test_a_deeper_model_of_equal_layers_needs_no_more() -> None:
    deep = (*UNITS, *(replace(UNITS[1], name=f"heads.{k}") for k in range(3, 9)))
    design = Design(deep, SearchSpace(tuple(unit.choices for unit in deep)), is_fast)
    assert design.size == DESIGN.size
    assert len(design.probes()) <= len(PROBES) + 2


# ---- the table ----------------------------------------------------------------------------------


@quick
@hypothesis.given(seeds)
def test_times_that_add_up_are_found_again_on_other_candidates(seed: int) -> None:
    weights = weights_of(seed)
    table = DESIGN.fitted(PROBES, times_of(weights, PROBES))
    costs = table.applied(COSTS, ORIGINAL_MS)
    others = drawn(20, seed)
    found = np.array([costs.latency_ms(candidate) for candidate in others]) / ORIGINAL_MS
    assert np.abs(found / times_of(weights, others) - 1.0).max() <= 0.03
    assert table.error is not None
    assert table.error <= 0.03


@quick
@hypothesis.given(seeds)
def test_the_error_it_states_is_about_that_on_candidates_it_has_not_seen(seed: int) -> None:
    """With times off by 5 % at random the prediction is nearer than single times, and says how near."""
    rng, weights = np.random.default_rng(seed), weights_of(seed)
    taken = np.array(times_of(weights, PROBES)) * rng.normal(1.0, 0.05, len(PROBES))
    table = DESIGN.fitted(PROBES, taken.tolist())
    costs = table.applied(COSTS, 1.0)
    others = drawn(200, seed)
    truth = np.array(times_of(weights, others))
    off = np.abs(np.array([costs.latency_ms(candidate) for candidate in others]) / truth - 1.0).mean()
    assert off <= 0.08  # of 600 draws the median is 0.023, the largest 0.063
    assert table.error is not None
    assert 0.4 * off <= table.error <= 0.15


@quick
@hypothesis.given(seeds, some.floats(0.0, 0.3))
def test_no_time_is_negative_and_more_rows_never_take_less(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    taken = np.array(times_of(weights_of(seed), PROBES)) * np.exp(rng.normal(0.0, noise, len(PROBES)))
    costs = DESIGN.fitted(PROBES, taken.tolist()).applied(COSTS, ORIGINAL_MS)
    assert costs.fixed_ms >= 0.0
    for unit in SPACE.units:
        table = costs.levels[unit.unit]
        assert list(table) == list(COSTS.levels[unit.unit])
        assert [(c.size_bytes, c.damage) for c in table.values()] == [
            (c.size_bytes, c.damage) for c in COSTS.levels[unit.unit].values()
        ]
        for storage in unit.storages:
            found = [table[Level(ratio, storage)].latency_ms for ratio in unit.ratios]
            assert min(found) >= 0.0
            assert (np.diff(found) <= 1e-12).all()


def test_widths_that_are_not_fast_cost_what_floats_do() -> None:
    costs = DESIGN.fitted(PROBES, times_of(weights_of(0), PROBES)).applied(COSTS, ORIGINAL_MS)
    for unit in SPACE.units:
        for ratio in unit.ratios:
            slow = {
                costs.levels[unit.unit][Level(ratio, s)].latency_ms for s in unit.storages if s not in FAST
            }
            assert len(slow) == 1


# ---- in the groundwork --------------------------------------------------------------------------


CALLS: list[ModelRef] = []


def clockwork(_: Mapping[str, object]) -> Callable[[object], object]:
    """A worker whose timings are made up: of 20 ms each unit that is touched takes off one."""

    def work(job: object) -> object:
        if isinstance(job, Whereabouts):
            return ["a machine"]
        assert isinstance(job, TimeModel)
        CALLS.append(job.model)
        items = job.model.items if isinstance(job.model, Candidate) else ()
        touched = sum(level != UNTOUCHED for _, level in items)
        return Timing(20.0 - touched, 19.0, 21.0, 20.0, 1.0, 1.0 - touched / 20.0)

    return work


def text_task() -> Task:
    rows = Encoded(np.ones(8, np.int32), np.zeros(8, np.uint8), np.array([0, 8]), np.zeros(1, np.int64))
    return Task(rows, rows, rows, ("a", "b"), ("input_ids", "attention_mask"), pad_id=0)


def picture_task(side: int) -> Task:
    rows = Arrays({"pixel_values": np.zeros((2, 3, side, side), np.float32)}, np.zeros(2, np.int64))
    return Task(rows, rows, rows, ("a", "b"), ("pixel_values",), pad_id=0, kind=IMAGE_CLASSIFICATION)


def prepared(**changes: Any) -> Any:
    architecture = Architecture(TEXT_CLASSIFICATION, {"layers": changes.pop("layers", 4)})
    setting = {
        "units": UNITS,
        "target": "openvino",
        "architecture": architecture,
        "batch": 1,
        "sequence": 128,
        "task": text_task(),
    }
    units = changes.get("units", UNITS)
    space = SearchSpace(tuple(unit.choices for unit in units))
    return SimpleNamespace(setting=SimpleNamespace(**setting | changes), inputs=SimpleNamespace(space=space))


def measured(**changes: Any) -> LatencyTable:
    CALLS.clear()
    with SerialPool(clockwork, {}) as pool:
        return measured_costs._latency_table(prepared(**changes), pool, Progress(quiet=True))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    target = SimpleNamespace(fast=FAST)
    monkeypatch.setattr(measured_costs, "get_target", lambda name: target)
    return tmp_path


def test_the_table_is_timed_once_a_machine_and_scaled_to_the_original(cache: Path) -> None:
    table = measured()
    assert len(CALLS) == len(PROBES)
    costs = table.applied(COSTS, ORIGINAL_MS)
    assert costs.fixed_ms == pytest.approx(ORIGINAL_MS * table.fixed)
    assert (measured(), CALLS) == (table, [])
    (file,) = (cache / "latency").iterdir()
    said = read_json(file)
    assert said["machine"] == ["a machine"]
    assert said["probes"][0] == {u: str(level) for u, level in PROBES[0].items}
    assert len(said["of the original's milliseconds"]) == len(PROBES)


@pytest.mark.parametrize(
    "change",
    [{"batch": 2}, {"sequence": 64}, {"layers": 5}, {"units": UNITS[:-2]}, {"task": picture_task(16)}],
)
def test_what_changes_the_times_is_timed_anew(cache: Path, change: dict[str, Any]) -> None:
    measured()
    measured(**change)
    assert CALLS


class OfHosts(SerialPool):
    """A pool whose workers are on these machines."""

    hosts = ("b", "a", "a")

    def census(self) -> Census:
        return Census(tuple(WorkerState(f"{host}:{k}", host, "idle") for k, host in enumerate(self.hosts)))


def test_a_table_that_several_machines_timed_is_of_these_alone(cache: Path) -> None:
    measured()
    with OfHosts(clockwork, {}) as pool:
        hosts = measured_costs.timing_hosts(pool)
        assert hosts == ["a", "b"]
        assert measured_costs.timing_hosts(SerialPool(clockwork, {})) == []
        for _ in range(2):
            CALLS.clear()
            measured_costs._latency_table(prepared(), pool, Progress(quiet=True), hosts)
    assert len([*(cache / "latency").iterdir()]) == 2
    assert CALLS == []


def test_pictures_of_another_size_are_timed_anew(cache: Path) -> None:
    measured(task=picture_task(16))
    measured(task=picture_task(32))
    assert CALLS


def test_the_original_is_timed_as_itself() -> None:
    with SerialPool(clockwork, {}) as pool:
        CALLS.clear()
        assert measured_costs.time_original(pool) == 20.0
    assert [Original()] == CALLS


def test_a_model_that_cannot_be_timed_is_an_error_and_nothing_is_kept(cache: Path) -> None:
    def broken(_: Mapping[str, object]) -> Callable[[object], object]:
        def work(job: object) -> object:
            if isinstance(job, Whereabouts):
                return ["a machine"]
            raise MemoryError("none left")

        return work

    with SerialPool(broken, {}) as pool, pytest.raises(MemoryError, match="none left"):
        measured_costs._latency_table(prepared(), pool, Progress(quiet=True))
    assert not (cache / "latency").exists() or not list((cache / "latency").iterdir())


def test_scores_read_back_from_the_cache_whatever_a_unit_is_called(cache: Path) -> None:
    """A bar in a unit's name, ratios that are no short decimals, and all workers' parts together."""
    names = ("a|b", "plain")
    scores = {
        name: {Level.of(1 / 3, 4): np.full(3, k + 0.5, np.float32), UNTOUCHED: np.zeros(3, np.float32)}
        for k, name in enumerate(names)
    }
    units = tuple(unit(name, "heads", 8, 8, ratios=(0.0, 1 / 3), bits=(4, 32)) for name in names)
    calls: list[object] = []

    def sense(_: Mapping[str, object]) -> Callable[[object], object]:
        def work(job: object) -> Sensitivity:
            assert isinstance(job, Sense)
            calls.append(job)
            return Sensitivity({unit.name: scores[unit.name] for unit in job.units})

        return work

    setting = SimpleNamespace(
        units=units, key="k", sensitivity_rows=8, seed=0, task=SimpleNamespace(train=range(8))
    )
    model = nn.Module()
    for each in units:
        parts = (weight.path.removeprefix(f"{each.name}.") for weight in each.weights)
        model.add_module(each.name, nn.ModuleDict({part: nn.Identity() for part in parts}))
    found = []
    for _ in range(2):
        with SerialPool(sense, {}) as pool:
            whole = measured_costs._sensitivity(
                SimpleNamespace(setting=setting, model=model), pool, Progress(quiet=True)
            )  # type: ignore[arg-type]
            found.append(whole.scores)
    assert len(calls) == 1
    for table in found:
        assert {name: set(levels) for name, levels in table.items()} == {n: set(scores[n]) for n in names}
        for name in names:
            for level, score in scores[name].items():
                np.testing.assert_array_equal(table[name][level], score)


# ---- units of one kind --------------------------------------------------------------------------


def blocks(count: int = 12) -> tuple[Unit, ...]:
    """Of a convolutional network: each of a shape of its own."""
    out = []
    for k in range(count):
        c = 16 * (k + 1)
        rows, cols = Weight(f"b{k}.in", c, 64, True), Weight(f"b{k}.out", 64, c, True)
        out.append(
            Unit(f"block.{k}", "channels", (rows,), (cols,), c, 1, 32, (0.0, 0.5, 0.75), storages_of((8, 32)))
        )
    return tuple(out)


def error_where_it_is_quickest(seed: int) -> float:
    """Mean relative error on the candidates that a table of disturbed times has for the quickest."""
    rng, units = np.random.default_rng(seed), blocks()
    space = SearchSpace(tuple(unit.choices for unit in units))
    design = Design(units, space, is_fast)
    own = {unit.name: rng.uniform(0.8, 1.2) for unit in units}

    def time(one: Candidate) -> float:
        each = [
            own[n] * (0.1 + 0.9 * (1 - lv.ratio)) * (0.5 if lv.storage.bits == 8 else 1)
            for n, lv in one.items
        ]
        return (1.0 + sum(each)) / (1.0 + sum(own.values()))

    probes = design.probes()
    table = design.fitted(probes, [time(probe) * rng.normal(1, 0.15) for probe in probes])
    off = []
    for ratio in (0.0, 0.5, 0.75):
        items = []
        for choices in space.units:
            times = table.levels[choices.unit]
            items.append((choices.unit, min((x for x in times if x.ratio == ratio), key=times.__getitem__)))
        predicted = table.fixed + sum(table.levels[name][level] for name, level in items)
        off.append(abs(predicted / time(Candidate(tuple(items))) - 1.0))
    return float(np.mean(off))


def test_units_of_a_kind_that_differ_in_shape_learn_from_each_other_where_times_are_disturbed() -> None:
    assert np.mean([error_where_it_is_quickest(seed) for seed in range(8)]) < 0.15
