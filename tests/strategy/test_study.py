"""The study: one contract for every sampler, and what a kill, a bad disk or a bad value may do.

A toy stands in for models: its size is the bits that are left, its accuracy what they are worth.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import numpy as np
import optuna
import pytest

from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy import optuna_trials as frozen_module
from autoprune.strategy import samplers, study_database
from autoprune.strategy.aim import Aim
from autoprune.strategy.history import Asked
from autoprune.strategy.proposer import Proposer
from autoprune.strategy.samplers import OURS, SAMPLERS, Repair, make_proposer
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.study import Study

pytestmark = pytest.mark.filterwarnings("error")

LAYERS = [f"encoder.layer.{k}.attention" for k in range(4)]
SPACE = SearchSpace(
    (
        Choices("embeddings", (0.0,), storages_of((4, 8, 32))),
        *(Choices(name, (0.0, 0.25, 0.5, 0.75), storages_of((2, 4, 8, 32))) for name in LAYERS),
    )
)
BUDGET_BYTES = 50_000
TRIALS, CUT = 25, 12


def size_of(candidate: Candidate) -> int:
    return sum(round(1000 * (1 - level.ratio) * level.storage.bits) for _, level in candidate.items)


def repair(candidate: Candidate, seen: AbstractSet[Candidate], seed: int) -> Candidate:
    """Random moves until the candidate is new and small enough; what is so already stays."""
    draw = random.Random(seed)
    while candidate in seen or size_of(candidate) > BUDGET_BYTES:
        unit = draw.choice(SPACE.units)
        level = Level(draw.choice(unit.ratios), draw.choice(unit.storages[::-1]))  # as was recorded
        candidate = candidate.with_level(unit.unit, level)
    return candidate


def measure(candidate: Candidate) -> Measurement:
    kept = [(1 - level.ratio) for _, level in candidate.items]
    lost = sum(
        (k + 1) * (level.ratio + 2.0**-level.storage.bits) for k, (_, level) in enumerate(candidate.items)
    )
    return Measurement(size_of(candidate), 1 + sum(kept) + kept[1] / 3, 90 - 3 * lost, kl=lost / 7)


def foreseen(k: int, level: Level) -> Cost:
    """What is predicted of a layer: the right size, and damage that is off by a factor of its own."""
    size = round(1000 * (1 - level.ratio) * level.storage.bits)
    return Cost(size, (level.ratio + 2.0**-level.storage.bits) / 3, 1 - level.ratio + 0.1 * (k == 1))


COSTS = Costs(
    0,
    {unit.unit: {level: foreseen(k, level) for level in unit.levels()} for k, unit in enumerate(SPACE.units)},
)


def result(candidate: Candidate, number: int = 0) -> Trial:
    """What the toy gives; every seventh trial fails."""
    if number % 7 == 5:
        return Trial(0, candidate, failure="out of memory", seconds=1.0, rung=0)
    return Trial(0, candidate, measure(candidate), seconds=1.0, worker="one", seed=number, rung=0)


def open_study(path: Path, sampler: str = "random", seed: int = 0) -> Study:
    aim = Aim.of(Problem.of(SPACE, COSTS), Budget(BUDGET_BYTES)) if sampler == OURS else None
    proposer = make_proposer(sampler, space=SPACE, seed=seed, repair=repair, aim=aim)
    return Study(path, SPACE, proposer=proposer)


def chance(space: SearchSpace, repair: Repair) -> Proposer:
    """Random candidates, repaired."""
    return make_proposer("random", space=space, seed=0, repair=repair)


def step(study: Study) -> Trial:
    """The next of a run: a baseline, two warm starts, then what the sampler proposes."""
    number = len(study.trials())
    if number == 0:
        whole = SPACE.untouched()
        return study.add(Trial(0, whole, measure(whole), name="original", rung=0))
    warm = SPACE.uniform(Level.of(0.25 * number, 4)) if number <= 2 else None
    asked = study.ask(warm)
    return study.tell(asked.token, result(asked.candidate, number))


def run(study: Study, until: int) -> list[Candidate]:
    while len(study.trials()) < until:
        step(study)
    return [trial.candidate for trial in study.trials()]


def stored(path: Path) -> list[optuna.trial.FrozenTrial]:
    """What any other program that knows Optuna reads, such as its dashboard."""
    return optuna.load_study(study_name="autoprune", storage=f"sqlite:///{path}").get_trials()


def fill_forever(path: str, sampler: str) -> None:
    """Runs in a process that is killed; prints the number of each trial that was told."""
    study = open_study(Path(path), sampler)
    while True:
        sys.stdout.write(f"{step(study).number}\n")
        sys.stdout.flush()


@pytest.fixture(scope="class", params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    try:
        samplers.check_sampler(name)
    except AutopruneError as error:
        pytest.skip(str(error))
    return name


@pytest.fixture(scope="class")
def uncut(sampler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp(sampler) / "study.db"
    run(open_study(path, sampler), TRIALS)
    return path


@pytest.mark.slow
class TestContract:
    """What holds for every sampler."""

    def test_proposals_are_allowed_small_and_new(self, uncut: Path) -> None:
        found = [trial.candidate for trial in open_study(uncut).trials()]
        for candidate in found:
            SPACE.check(candidate)
        assert len(set(found)) == len(found) == TRIALS
        assert all(size_of(candidate) <= BUDGET_BYTES for candidate in found[3:])

    def test_what_is_recorded_is_what_was_proposed(self, uncut: Path) -> None:
        for trial, frozen in zip(open_study(uncut).trials(), stored(uncut), strict=True):
            assert trial.number == frozen.number
            assert dict(frozen.params) == trial.candidate.params()
            if trial.measurement is not None:
                assert tuple(frozen.values) == measure(trial.candidate).objectives()

    def test_a_cut_run_ends_where_the_uncut_does(self, uncut: Path, sampler: str, tmp_path: Path) -> None:
        path = tmp_path / "study.db"
        run(open_study(path, sampler), CUT)
        open_study(path, sampler).ask()  # in flight at the cut, and lost
        until = CUT + 4 if sampler == "gp" else TRIALS  # a second a proposal
        again = run(open_study(path, sampler), until)
        assert again == [trial.candidate for trial in open_study(uncut).trials()][:until]

    def test_another_seed_is_another_run(self, uncut: Path, sampler: str, tmp_path: Path) -> None:
        until = TRIALS if sampler == OURS else 8  # ours finds the same best places to begin with
        other = run(open_study(tmp_path / "study.db", sampler, seed=1), until)
        assert other[3:] != [trial.candidate for trial in open_study(uncut).trials()][3:until]

    def test_parallel_asks_are_numbered_as_they_finish(
        self, uncut: Path, sampler: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "study.db"
        shutil.copy(uncut, path)
        study = open_study(path, sampler)
        asked = [study.ask() for _ in range(3)]
        order = [asked[k] for k in (2, 0, 1)]
        told = [study.tell(ask.token, result(ask.candidate)) for ask in order]
        assert [trial.number for trial in told] == list(range(TRIALS, TRIALS + 3))
        assert all(trial.candidate is ask.candidate for trial, ask in zip(told, order, strict=True))
        found = [trial.candidate for trial in study.trials()]
        assert found[TRIALS:] == [ask.candidate for ask in order]
        assert len(set(found)) == TRIALS + 3


@pytest.mark.slow
class TestNsga2:
    """Its generations must outlive a cut, and count warm starts."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(samplers, "POPULATION", 4)

    def test_generations(self, tmp_path: Path) -> None:
        path = tmp_path / "study.db"
        run(open_study(path, "nsga2"), 14)
        run(open_study(path, "nsga2"), TRIALS)
        key = "NSGAIISampler:generation"
        trials = stored(path)
        assert key not in trials[0].system_attrs  # the baseline, which nobody asked for
        done = [trial for trial in trials[1:] if trial.state == optuna.trial.TrialState.COMPLETE]
        numbers = [trial.system_attrs[key] for trial in done]
        assert numbers[:2] == [0, 0]  # the warm starts
        assert numbers == [k // 4 for k in range(len(done))]

    def test_reopened_before_every_trial(self, tmp_path: Path) -> None:
        uncut = run(open_study(tmp_path / "uncut.db", "nsga2"), TRIALS)
        for _ in range(TRIALS):
            study = open_study(tmp_path / "cut.db", "nsga2")
            step(study)
            study.close()
        assert [trial.candidate for trial in open_study(tmp_path / "cut.db").trials()] == uncut


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", OURS])
def test_it_learns_from_what_was_evaluated(name: str, tmp_path: Path) -> None:
    """Once it has a model, a sampler proposes more accurate ones than chance does."""

    def accuracy(name: str) -> float:
        study = open_study(tmp_path / f"{name}.db", name)
        run(study, 50)
        done = [m.accuracy for trial in study.trials()[30:] if (m := trial.measurement)]
        return sum(done) / len(done)

    assert accuracy(name) > accuracy("random")


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "times"), [("tpe", 2), (OURS, 4)])
def test_kill_loses_no_told_trial(tmp_path: Path, sampler: str, times: int) -> None:
    """SIGKILL at any time: all that was told is there, nothing is RUNNING."""
    path, draw = tmp_path / "study.db", random.Random(0)
    code = f"from tests.strategy import test_study; test_study.fill_forever({str(path)!r}, {sampler!r})"
    folders = [str(Path(__file__).parents[2])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    for _ in range(times):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env
        ) as child:
            assert child.stdout is not None
            told = [int(child.stdout.readline()) for _ in range(draw.randint(1, 6))]
            time.sleep(draw.uniform(0.0, 0.06))
            child.send_signal(signal.SIGKILL)
            told += [int(line) for line in child.stdout if line.endswith("\n")]
        trials = stored(path)
        assert all(trial.state.is_finished() for trial in trials)
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert len(trials) in (told[-1] + 1, told[-1] + 2)  # written, not yet printed
    cut = [trial.candidate for trial in open_study(path).trials()]
    assert cut == run(open_study(tmp_path / "uncut.db", sampler), len(cut))


def test_a_full_disk_stops_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.db"
    run(open_study(path), 5)
    connect = study_database._connect

    def full(where: str) -> sqlite3.Connection:
        connection = connect(where)
        connection.execute("PRAGMA max_page_count = 1")  # no page more than there are
        return connection

    monkeypatch.setattr(study_database, "_connect", full)
    monkeypatch.setattr("optuna.storages._rdb.storage.time.sleep", lambda seconds: None)
    study = open_study(path)
    with pytest.raises(StoppedError, match=r"study\.db cannot be written: .*disk is full.*resume"):
        run(study, 100)  # the last pages have room for some
    told = study.trials()
    assert 5 <= len(told) < 100
    monkeypatch.undo()
    study = open_study(path)
    assert study.trials() == told
    assert step(study).number == len(told)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "81"])
@pytest.mark.parametrize("key", ["size_bytes", "latency_ms", "accuracy"])
def test_bad_values_are_failures(tmp_path: Path, key: str, bad: object) -> None:
    path = tmp_path / "study.db"
    study = open_study(path)
    asked = study.ask()
    wrong = replace(measure(asked.candidate), **{key: bad})  # type: ignore[arg-type]
    told = study.tell(asked.token, Trial(0, asked.candidate, wrong))
    assert told.measurement is None
    assert told.failure == f"{key} is {bad!r}, not a finite number"
    assert study.trials() == [told]
    (frozen,) = stored(path)
    assert frozen.state == optuna.trial.TrialState.FAIL
    assert frozen.params == asked.candidate.params()
    assert frozen.user_attrs["failure"] == told.failure


def test_other_failures(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db")
    one, two, three = study.ask(), study.ask(), study.ask()
    zero = replace(measure(one.candidate), latency_ms=0.0)
    assert "not above zero" in str(study.tell(one.token, Trial(0, one.candidate, zero)).failure)
    assert study.tell(two.token, Trial(0, two.candidate)).failure == "no measurement"
    both = replace(result(three.candidate), failure="out of memory")
    assert study.tell(three.token, both).measurement is None


def test_integers_are_cast_and_parameters_named(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = open_study(path, "tpe")
    for _ in range(12):  # integers as objectives crash Optuna's multi-objective TPE
        asked = study.ask()
        done = Measurement(np.int64(7), 3, np.float32(80.0), kl=np.float32(0.5))  # type: ignore[arg-type]
        study.tell(asked.token, Trial(0, asked.candidate, done, seed=np.int64(4)))  # type: ignore[arg-type]
    frozen = stored(path)[-1]
    assert [type(value) for value in frozen.values] == [float, float, float]
    assert frozen.user_attrs["seed"] == 4
    assert isinstance(frozen.params["encoder.layer.0.attention.bits"], int)
    assert isinstance(frozen.params["embeddings.ratio"], float)
    assert list(frozen.params) == [
        f"{unit}.{part}" for unit in ["embeddings", *LAYERS] for part in ("ratio", "bits")
    ]
    assert study.trials()[-1].measurement == Measurement(7, 3.0, 80.0, kl=0.5)


def test_test_accuracy_is_noted_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = open_study(path)
    run(study, 4)
    study.update(2, test_accuracy=81.5)
    study.update(2, test_accuracy=80.5)
    for opened in (study, open_study(path)):
        assert [t.test_accuracy for t in opened.trials()] == [None, None, 80.5, None]
    with pytest.raises(AutopruneError, match="there is no trial 9; 4 are finished"):
        study.update(9, test_accuracy=1.0)
    with pytest.raises(AutopruneError, match="nan"):
        study.update(1, test_accuracy=math.nan)


def test_what_a_trial_took_when_timed_again_takes_the_place_of_what_it_took(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = open_study(path)
    run(study, 3)
    before = study.trials()[1].measurement
    assert before is not None
    study.retime(1, {"latency_ms": 5.0, "latency_low_ms": 4.0})
    study.retime(1, {"latency_ms": 7.5, "latency_low_ms": 7.0})
    for opened in (study, open_study(path)):
        assert opened.timed_again == {1}
        assert opened.trials()[1].measurement == replace(before, latency_ms=7.5, latency_low_ms=7.0)
    assert stored(path)[1].values[1] == before.latency_ms  # as Optuna has it, which samplers learn from
    with pytest.raises(AutopruneError, match="there is no trial 9; 3 are finished"):
        study.retime(9, {"latency_ms": 1.0})
    with pytest.raises(AutopruneError, match="timed again, are"):
        study.retime(1, {"latency_ms": 0.0})


maybe = some.one_of(some.just(math.nan), some.floats(0, 1e9))


@hypothesis.given(
    size=some.integers(1, 2**52),
    latency=some.floats(1e-9, 1e9),
    accuracy=some.floats(-1e3, 1e3),
    kl=maybe,
    low=maybe,
    parts=some.dictionaries(some.text(max_size=4), some.floats(0, 1e6), max_size=3),
    words=some.one_of(some.none(), some.text(max_size=9)),
    seed=some.integers(-(2**70), 2**70),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_a_trial_comes_back_as_it_went(
    size: int,
    latency: float,
    accuracy: float,
    kl: float,
    low: float,
    parts: dict[str, float],
    words: str | None,
    seed: int,
) -> None:
    done = Measurement(size, latency, accuracy, kl=kl, latency_low_ms=low)
    one = Trial(-1, SPACE.untouched(), done, name=words, seed=seed, parts=parts, seconds=2.5)
    assert repr(frozen_module.thaw(frozen_module.freeze(one, SPACE), SPACE, {})) == repr(one)
    failed = replace(one, measurement=None, failure="no memory")
    assert frozen_module.thaw(frozen_module.freeze(failed, SPACE), SPACE, {}) == failed


def test_told_and_read_are_the_same(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db")
    told = [step(study) for _ in range(9)]
    assert study.trials() == told == open_study(tmp_path / "study.db").trials()
    assert told[0].is_baseline
    assert told[0].number == 0
    assert told[5].failure == "out of memory"


def test_wrong_use(tmp_path: Path) -> None:
    study = open_study(tmp_path / "study.db")
    asked = study.ask()
    with pytest.raises(AutopruneError, match=r"token 7 is not in flight; in flight: \[0\]"):
        study.tell(7, result(asked.candidate))
    with pytest.raises(AutopruneError, match="another candidate"):
        study.tell(asked.token, result(SPACE.untouched()))
    study.tell(asked.token, result(asked.candidate))
    with pytest.raises(AutopruneError, match="not in flight"):
        study.tell(asked.token, result(asked.candidate))
    wrong = SPACE.untouched().with_level(LAYERS[0], Level.of(0.1, 4))
    with pytest.raises(AutopruneError, match="is not offered"):
        study.ask(wrong)
    with pytest.raises(AutopruneError, match="is not offered"):
        study.add(result(wrong))
    assert study.ask(asked.candidate) == Asked(1, asked.candidate)  # a retry is allowed
    assert len(study.trials()) == 1


def test_repair_has_the_last_word_and_is_checked(tmp_path: Path) -> None:
    def off(candidate: Candidate, seen: AbstractSet[Candidate], seed: int) -> Candidate:
        return candidate.with_level(LAYERS[0], Level.of(0.1, 4))

    study = Study(tmp_path / "a.db", SPACE, proposer=chance(SPACE, off))
    with pytest.raises(AutopruneError, match="is not offered"):
        study.ask()
    one = SearchSpace((Choices("a", (0.0,), storages_of((8,))),))
    same = make_proposer("nsga2", space=one, seed=0, repair=lambda c, seen, seed: c)
    study = Study(tmp_path / "b.db", one, proposer=same)
    study.ask()
    with pytest.raises(AutopruneError, match="no candidate of this search space is left"):
        study.ask()


@pytest.mark.parametrize("when", ["before a write", "in the middle of it"])
def test_a_database_that_is_removed_is_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = tmp_path / "study.db"
    study = open_study(path)
    run(study, 3)
    write = study._stored.add

    def remove_and_write(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
        path.unlink()
        return write(trial)

    if when == "before a write":
        path.unlink()
    else:
        monkeypatch.setattr(study._stored, "add", remove_and_write)
    with pytest.raises(AutopruneError, match=r"moved away or replaced.*restore it from a copy") as raised:
        step(study)
    assert raised.value.exit_code == 2


def test_samplers_that_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AutopruneError, match="'best' does not exist; choose autoprune, tpe, nsga2, random"):
        open_study(tmp_path / "study.db", "best")
    with pytest.raises(AutopruneError, match="sampler autoprune needs predicted costs"):
        make_proposer(OURS, space=SPACE, seed=0, repair=repair)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AutopruneError, match="'gp' needs torch and scipy: pip install"):
        open_study(tmp_path / "study.db", "gp")
    assert not (tmp_path / "study.db").exists()


def damaged(path: Path) -> Iterator[tuple[str, bytes]]:
    good = path.read_bytes()
    middle = len(good) // 8192 * 4096
    yield "garbage", b"no database " * 400
    yield "half", good[:middle]
    yield "overwritten", good[:4096] + os.urandom(8192) + good[12288:]


def test_a_damaged_database_is_one_error(tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    run(open_study(whole), 6)
    for name, content in damaged(whole):
        path = tmp_path / f"{name}.db"
        path.write_bytes(content)
        with pytest.raises(AutopruneError, match=rf"{name}\.db cannot be opened: .*restore it from a copy"):
            open_study(path)
        assert path.read_bytes() == content
        assert not list(tmp_path.glob(f"{name}.db?*"))


def test_a_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (address TEXT)")
    before = path.read_bytes()
    with pytest.raises(AutopruneError, match="is a database of another program"):
        open_study(path)
    assert path.read_bytes() == before
    other = f"sqlite:///{tmp_path}/other.db"
    optuna.create_study(study_name="autoprune", storage=other)
    with pytest.raises(AutopruneError, match="not made by autoprune"):
        open_study(tmp_path / "other.db")
    with pytest.raises(AutopruneError, match=r"nowhere/study\.db cannot be opened: unable to open"):
        open_study(tmp_path / "nowhere" / "study.db")


def test_another_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    run(open_study(path), 4)
    units = SPACE.units
    fewer = SearchSpace((units[0], *(replace(unit, storages=storages_of((4, 8, 32))) for unit in units[1:])))
    found = r"study\.db holds a search over another space: "
    cases = [
        (fewer, r"units or levels differ \(encoder.layer.0.*and 1 more\). Go on with the model"),
        (SearchSpace(units[:-1]), r"units or levels differ \(encoder.layer.3.attention\)"),
        (SearchSpace(units[::-1]), "the units are in another order"),
    ]
    for space, words in cases:
        with pytest.raises(AutopruneError, match=found + words):
            Study(path, space, proposer=chance(space, repair))
    assert len(open_study(path).trials()) == 4


def test_storage_urls(tmp_path: Path) -> None:
    def opened(url: str, name: str) -> Study:
        return Study(tmp_path / "unused.db", SPACE, proposer=chance(SPACE, repair), storage=url, name=name)

    shared = f"sqlite:///{tmp_path}/shared.db"
    assert len(run(opened(shared, "one"), 3)) == 3
    assert opened(shared, "two").trials() == []
    assert not (tmp_path / "unused.db").exists()
    with pytest.raises(AutopruneError, match="is no database URL; write sqlite:///FILE"):
        opened("study.db", "one")
    with pytest.raises(AutopruneError, match="keeps nothing on disk"):
        opened("sqlite://", "one")
    with pytest.raises(AutopruneError, match=r"nothing://me:\*\*\*@host/db: nothing is no kind of database"):
        opened("nothing://me:secret@host/db", "one")


def test_odd_paths(tmp_path: Path) -> None:
    folder = tmp_path / "a {b} 100%? #1"
    folder.mkdir()
    run(open_study(folder / "study.db"), 2)
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert len(open_study(folder / "study.db").trials()) == 2


def test_a_driver_killed_at_the_first_moment(tmp_path: Path) -> None:
    """An empty file, and one with the first of Optuna's tables only, are new studies."""
    (tmp_path / "empty.db").touch()
    first = optuna.storages._rdb.models.BaseModel.metadata.sorted_tables[0].name
    with sqlite3.connect(tmp_path / "tables.db") as connection:
        shutil.copy(tmp_path / "empty.db", tmp_path / "whole.db")
        open_study(tmp_path / "whole.db")
        source = sqlite3.connect(tmp_path / "whole.db")
        (text,) = source.execute("SELECT sql FROM sqlite_master WHERE name = ?", [first]).fetchone()
        source.close()
        connection.execute(text)
    for name in ("empty.db", "tables.db"):
        assert run(open_study(tmp_path / name), 2) == run(open_study(tmp_path / "whole.db"), 2)


@pytest.mark.slow
def test_the_study_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom tests.strategy import test_study\n"
        "for name in ('tpe', 'autoprune'):\n"
        "    run = test_study.run(test_study.open_study(pathlib.Path(f'{name}.db'), name), 15)\n"
        "    assert len(run) == 15\n"
        "assert 'torch' not in sys.modules"
    )
    folders = [str(Path(__file__).parents[2])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
