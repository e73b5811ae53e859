"""Proposals are those that were recorded before: the same search space, trials and seed give the same.

`recorded_proposals.json` names the versions of the packages that it was recorded with. To record it again,
where proposals are meant to change: `python -m tests.strategy.test_recorded_proposals`. Another processor's
kernels for matrices round otherwise, which leads to other proposals: there `--here` adds those that differ,
under what its arithmetic gives.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import optuna
import pytest
import scipy

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.history import Asked
from autoprune.strategy.records import Records
from autoprune.strategy.samplers import OURS, make_proposer
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.study import Study
from tests.strategy import test_promotion
from tests.strategy.test_study import COSTS, SPACE, measure, repair, result

RECORDED = Path(__file__).with_name("recorded_proposals.json")
VERSIONS = {"numpy": np.__version__, "optuna": optuna.__version__, "scipy": scipy.__version__}

BUDGETS = {
    "nothing": Budget(),
    "bytes": Budget(50_000),
    "milliseconds": Budget(None, 3.0),
    "both": Budget(60_000, 3.5),
}
CASES = [*((OURS, limited) for limited in BUDGETS), ("tpe", "bytes"), ("random", "bytes"), ("nsga2", "bytes")]
ROUNDS, CUT = 10, 5


def open_study(path: Path, sampler: str, budget: Budget) -> Study:
    aim = Aim.of(Problem.of(SPACE, COSTS), budget)
    proposer = make_proposer(sampler, space=SPACE, seed=3, repair=repair, aim=aim)
    return Study(path, SPACE, proposer=proposer)


def named(candidate: Candidate) -> str:
    return " ".join(str(level) for _, level in candidate.items)


def sequence(folder: Path, sampler: str, budget: Budget) -> list[str]:
    """What three workers are asked to evaluate: warm starts, proposals, a brief fine-tune of a known one.

    Some trials fail, they end in another order than they began in, and the study is opened again halfway.
    """
    path, asked_for = folder / f"{sampler}.db", list[Candidate]()
    study = open_study(path, sampler, budget)
    whole = SPACE.untouched()
    study.add(Trial(0, whole, measure(whole), name="original", rung=0))
    for number in range(ROUNDS):
        if number == CUT:
            study.ask()  # in flight at the cut, and lost
            study.close()
            study = open_study(path, sampler, budget)
        known = asked_for[-3] if number % 3 == 2 else None
        flying: list[tuple[Asked, int]] = [(study.ask(known), 1)] if known else []
        flying += [(study.ask(), 0) for _ in range(2)]
        asked_for += [asked.candidate for asked, _ in flying]
        for k, (asked, rung) in enumerate(reversed(flying)):
            candidate = asked.candidate
            untrained, trained = result(candidate, 3 * number + k), Trial(0, candidate, measure(candidate))
            study.tell(asked.token, trained if rung else untrained)
    study.close()
    return [named(candidate) for candidate in asked_for]


def answers() -> list[str]:
    """The solver's answers to some budgets, with what twenty trials taught."""
    problem, rng = Problem.of(SPACE, COSTS), np.random.default_rng(0)
    rows = [np.array([rng.integers(len(levels)) for levels in problem.levels]) for _ in range(20)]
    trials = [result(problem.candidate(row), 7 * k) for k, row in enumerate(rows)]
    aim = Aim.of(problem, Budget())
    found = [aim.answer(Records.of(problem, trials), budget) for budget in BUDGETS.values()]
    return ["" if candidate is None else named(candidate) for candidate in found]


def scheduled(folder: Path, sampler: str) -> list[str]:
    """What a schedule of two workers begins, with rungs."""
    run = test_promotion.Simulated(folder / f"{sampler}-scheduled.db", sampler=sampler, wanted=16).go()
    return [f"{work.rung}: {named(work.candidate)}" for work in run.log]


def record(folder: Path) -> dict[str, list[str]]:
    cases = {f"{sampler}, {limited}": (sampler, BUDGETS[limited]) for sampler, limited in CASES}
    found = {}
    for name, (sampler, budget) in cases.items():
        (folder / name).mkdir()
        found[name] = sequence(folder / name, sampler, budget)
    found |= {f"schedule, {sampler}": scheduled(folder, sampler) for sampler in (OURS, "random")}
    return found | {"answers": answers()}


def recorded(name: str) -> list[str]:
    """What was recorded under a name; skipped where the sampler is of another version than recorded."""
    file = json.loads(RECORDED.read_text())
    if not name.startswith(OURS) and file["versions"] != VERSIONS:
        pytest.skip(f"recorded with {file['versions']}")
    here = file.get("by_arithmetic", {}).get(arithmetic(), {})
    return list(here.get(name) or file["proposals"][name])


def arithmetic() -> str:
    """What this processor makes of a product and a decomposition, as a hash: others round otherwise."""
    matrix = np.random.default_rng(0).normal(size=(96, 96))
    factor = np.linalg.cholesky(matrix @ matrix.T + np.eye(96))
    return hashlib.sha256(factor.tobytes()).hexdigest()[:16]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedule and study see the time of the simulated run."""
    for module in test_promotion.CLOCKED:
        monkeypatch.setattr(module, "time", test_promotion.CLOCK)


@pytest.mark.parametrize(("sampler", "limited"), CASES)
def test_proposals_are_those_recorded(sampler: str, limited: str, tmp_path: Path) -> None:
    expected = recorded(f"{sampler}, {limited}")
    assert sequence(tmp_path, sampler, BUDGETS[limited]) == expected


@pytest.mark.parametrize("sampler", [OURS, "random"])
def test_what_a_schedule_begins_is_as_recorded(sampler: str, tmp_path: Path) -> None:
    assert scheduled(tmp_path, sampler) == recorded(f"schedule, {sampler}")


def test_answers_are_those_recorded() -> None:
    assert answers() == recorded("answers")


if __name__ == "__main__":
    for module in test_promotion.CLOCKED:
        module.time = test_promotion.CLOCK
    with tempfile.TemporaryDirectory() as temporary:
        found = record(Path(temporary))
    if "--here" in sys.argv:
        file = json.loads(RECORDED.read_text())
        differ = {name: rows for name, rows in found.items() if rows != file["proposals"][name]}
        file.setdefault("by_arithmetic", {})[arithmetic()] = differ
    else:
        file = {"versions": VERSIONS, "proposals": found}
    RECORDED.write_text(json.dumps(file, indent=1) + "\n")
