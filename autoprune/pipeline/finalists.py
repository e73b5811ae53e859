"""After the trials: the points to ship timed again, in turn, and scored once on test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autoprune.core.progress import Progress
from autoprune.evaluation.jobs import Evaluate, Original, PackedModel, Score, TimeTogether
from autoprune.pipeline.ledger import Ledger
from autoprune.run.folder import RunFolder
from autoprune.search.study import Study
from autoprune.space.levels import Candidate
from autoprune.space.trial import ORIGINAL, Trial
from autoprune.workers.pool import Pool, run_all, run_one

AGAIN = 4
"""Times at most that points to ship are timed again, while each time others take their place."""

TOGETHER_BYTES = 2**30
"""Files of the models that are held at once to be timed in turn; baselines that are too many are left out."""


@dataclass(frozen=True)
class Finalists:
    """What is done with the points to ship of a run, and with its baselines.

    job: how a candidate is evaluated at a rung, for models that were not kept.
    """

    run: RunFolder
    study: Study
    ledger: Ledger
    pool: Pool
    progress: Progress
    reference_ms: float
    job: Callable[[Candidate, int], Evaluate]

    def time_again(self) -> None:
        """Time the points to ship in turn with the baselines; one that is slower may give way to another.

        Their trials were minutes apart, and what drifted meanwhile is no merit of theirs.
        """
        for _ in range(AGAIN):
            now = self.ledger.standing()
            points = [one for one in (now.best, now.knee) if one is not None]
            if all(trial.number in self.study.timed_again for trial in points):
                return
            plain = [trial for trial in now.trials if trial.is_baseline and trial.name != ORIGINAL]
            self._time({one.number: one for one in [*points, *plain] if one.measurement}.values())

    def _time(self, trials: Iterable[Trial]) -> None:
        chosen = together(trials)
        job = TimeTogether(tuple(self.packed(trial) for trial in chosen))

        with self.progress.bar(f"Timing {len(chosen)} finalists and baselines in turn", 1) as bar:
            timings = run_one(self.pool, job, bar)
        for trial, timing in zip(chosen, timings, strict=True):
            self.study.retime(trial.number, timing.fields(self.reference_ms))

    def score(self) -> None:
        """Accuracy on test, once, of the baselines and the points to ship."""
        now = self.ledger.standing()
        points = [one for one in (now.best, now.knee) if one is not None]
        finalists = {one.number: one for one in [*points, *(t for t in now.trials if t.is_baseline)]}
        todo = [trial for trial in finalists.values() if trial.test_accuracy is None and trial.measurement]
        jobs = [Score(Original() if trial.name == ORIGINAL else self.packed(trial)) for trial in todo]
        if todo:
            with self.progress.bar("Test scores of finalists and baselines", len(todo)) as bar:
                run_all(
                    self.pool,
                    jobs,
                    lambda k, result: self.study.update(todo[k].number, test_accuracy=result),
                    bar,
                )

    def packed(self, trial: Trial) -> PackedModel:
        """A trial's packed model; made again, the same, where it was not kept."""
        path = self.run.artifact(trial.number) / "model.safetensors"
        if not path.is_file():
            self.ledger.keep(trial, run_one(self.pool, self.job(trial.candidate, trial.rung)))
        return PackedModel(path.read_bytes())


def together(trials: Iterable[Trial]) -> list[Trial]:
    """The first of some trials whose models take no more memory than they may; one at least."""
    out: list[Trial] = []
    room = TOGETHER_BYTES
    for trial in trials:
        room -= trial.measurement.size_bytes if trial.measurement else 0
        if out and room < 0:
            break
        out.append(trial)
    return out
