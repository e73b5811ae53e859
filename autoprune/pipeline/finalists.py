"""After the trials: the points to ship timed again, in turn, and scored once on test."""

from __future__ import annotations

from collections.abc import Iterable

from autoprune.evaluation.jobs import Original, PackedModel, Score, Scored, TimeTogether
from autoprune.pipeline.opened import OpenedSearch
from autoprune.run.folder import MODEL
from autoprune.run.kept_models import kept_artifact
from autoprune.run.row_scores import record_test_scores
from autoprune.space.trial import ORIGINAL, Trial
from autoprune.workers.pool import run_all, run_one

AGAIN = 4
"""Times at most that points to ship are timed again, while each time others take their place."""

TOGETHER_BYTES = 2**30
"""Files of the models that are held at once to be timed in turn; baselines that are too many are left out."""


def time_again(search: OpenedSearch) -> None:
    """Time the points to ship in turn with the baselines; one that is slower may give way to another.

    Their trials were minutes apart, and what drifted meanwhile is no merit of theirs.
    """
    for _ in range(AGAIN):
        now = search.ledger.standing()
        points = now.points_to_ship
        if all(trial.number in search.study.timed_again for trial in points):
            return
        plain = [trial for trial in now.trials if trial.is_baseline and trial.name != ORIGINAL]
        _time(search, {trial.number: trial for trial in [*points, *plain] if trial.measurement}.values())


def _time(search: OpenedSearch, trials: Iterable[Trial]) -> None:
    chosen = together(trials)
    job = TimeTogether(tuple(packed_model(search, trial) for trial in chosen))
    with search.progress.bar(f"Timing {len(chosen)} finalists and baselines in turn", 1) as bar:
        timings = run_one(search.pool, job, bar)
    for trial, timing in zip(chosen, timings, strict=True):
        search.study.retime(trial.number, timing.fields(search.costed.reference_ms))


def score_finalists(search: OpenedSearch) -> None:
    """Accuracy on test, once, of the baselines and the points to ship."""
    now = search.ledger.standing()
    plain = [trial for trial in now.trials if trial.is_baseline]
    finalists = {trial.number: trial for trial in [*now.points_to_ship, *plain]}
    todo = [trial for trial in finalists.values() if trial.test_accuracy is None and trial.measurement]
    jobs = [Score(model_of(search, trial)) for trial in todo]

    def done(k: int, scored: Scored) -> None:
        search.study.update(todo[k].number, test_accuracy=scored.score)
        record_test_scores(search.run.path, todo[k].number, scored.row_scores)

    if todo:
        with search.progress.bar("Test scores of finalists and baselines", len(todo)) as bar:
            run_all(search.pool, jobs, done, bar)


def model_of(search: OpenedSearch, trial: Trial) -> Original | PackedModel:
    """What a worker is asked about: a trial's model, or the original."""
    return Original() if trial.name == ORIGINAL else packed_model(search, trial)


def packed_model(search: OpenedSearch, trial: Trial) -> PackedModel:
    """A trial's model; made again, the same, where it was not kept."""
    if kept_artifact(search.run.path, trial.number) is None:
        search.ledger.keep(trial, run_one(search.pool, search.job(trial.candidate, trial.rung)))
    return PackedModel((search.run.artifact(trial.number) / MODEL).read_bytes())


def together(trials: Iterable[Trial]) -> list[Trial]:
    """The first trials whose models together fit into the allowed memory; at least one."""
    out: list[Trial] = []
    room = TOGETHER_BYTES
    for trial in trials:
        room -= trial.measurement.size_bytes if trial.measurement else 0
        if out and room < 0:
            break
        out.append(trial)
    return out
