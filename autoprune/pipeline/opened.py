"""A search that has begun: what its stages share once variants are measured and the study is open."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from autoprune.core.progress import Progress
from autoprune.evaluation.jobs import Evaluate
from autoprune.evaluation.seeds import candidate_seed
from autoprune.pipeline.ledger import Ledger
from autoprune.pipeline.measured_costs import Costed
from autoprune.pipeline.places import expected_study
from autoprune.pipeline.prepare import Prepared
from autoprune.run.config import Config
from autoprune.run.folder import STUDY, RunFolder
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.file_room import FileRoom
from autoprune.strategy.promotion import RUNG_STEPS
from autoprune.strategy.repair import repair
from autoprune.strategy.samplers import make_proposer
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.study import Study
from autoprune.strategy.surrogates.recovery_model import Training
from autoprune.strategy.trial_limits import TrialLimits
from autoprune.tracking.tracking import Tracking
from autoprune.workers import Pool


@dataclass(frozen=True)
class OpenedSearch:
    """One driver at work on one run.

    wanted: candidates to try. deadline: by `time.monotonic()`, after which no trial is begun. limits: how
    long a trial may work. on_trial: hears of each trial and baseline that the study has. followed: the
    trackers that hear of them.
    """

    run: RunFolder
    config: Config
    prepared: Prepared
    costed: Costed
    aim: Aim
    study: Study
    ledger: Ledger
    pool: Pool
    progress: Progress
    wanted: int
    deadline: float | None
    limits: TrialLimits
    on_trial: Callable[[Trial], object] | None = None
    followed: Tracking | None = None

    def tell(self, trial: Trial) -> None:
        """Tell whoever asked of a trial that the study has."""
        if self.followed is not None:
            self.followed.tell([trial])
        if self.on_trial is not None:
            self.on_trial(trial)

    def begin_tracking(self) -> None:
        """Tell the trackers, which may lack some, of the trials that the study has."""
        if self.followed is not None:
            self.followed.begin(self.prepared.setting.task.metric, self.study.trials())

    @property
    def budget(self) -> Budget:
        """What the run is searched under."""
        return self.aim.budget

    def job(self, candidate: Candidate, rung: int) -> Evaluate:
        """How a candidate is evaluated at a rung; its model comes back."""
        recipe = self.prepared.recipe
        steps = recipe.steps * RUNG_STEPS[rung]
        seed = candidate_seed(self.config.search.seed, candidate)
        limit_s = self.limits.seconds(self.study.history, rung)
        reference_ms = self.costed.reference_ms
        return Evaluate(candidate, replace(recipe, steps=steps), seed, reference_ms, limit_s=limit_s)

    def trial_job(self, candidate: Candidate, rung: int) -> Evaluate:
        """The same for a trial, whose model comes back only where it would be on the front.

        The front is that of the compressed models now: it gets no worse until the trial ends.
        """
        return replace(self.job(candidate, rung), rivals=self.ledger.leaders.costs_to_beat)

    def predicted_limit_bytes(self) -> int | None:
        """Predicted bytes that a candidate may have for its file to be within the budget."""
        return self.predicted(self.budget, baselines_alone=True).size_bytes

    def predicted(self, budget: Budget, *, baselines_alone: bool) -> Budget:
        """The limits on what is predicted of a candidate for its files to be within a budget.

        baselines_alone: whether what other files needed is left out, which depends on which trial ends first.
        """
        trials = (trial for trial in self.study.trials() if trial.is_baseline or not baselines_alone)
        return FileRoom.of(trials).predicted(budget, self.aim.scale.byte_range.low)


def open_search(
    run: RunFolder,
    prepared: Prepared,
    costed: Costed,
    pool: Pool,
    progress: Progress,
    *,
    wanted: int,
    deadline: float | None = None,
    on_trial: Callable[[Trial], object] | None = None,
    followed: Tracking | None = None,
) -> OpenedSearch:
    """Open the run's study and ledger; whoever calls closes the study.

    Raises:
        AutopruneError: as `Study` raises, and for a sampler that cannot run here.
    """
    config, space = run.config(), prepared.inputs.space
    asked = config.search
    task, units = prepared.setting.task, prepared.setting.units
    aim = Aim.of(
        Problem.of(space, costed.costs),
        config.limits(),
        training=Training(
            prepared.recipe.steps,
            {unit.name: unit.removed for unit in units},
            other_teacher=prepared.setting.taught_answers is not None,
        ),
        answers=task.answer_count(task.validation),
    )

    def repaired(candidate: Candidate, seen: AbstractSet[Candidate], seed: int) -> Candidate:
        limit_bytes = search.predicted_limit_bytes()
        return repair(candidate, seen, seed, space=space, costs=costed.costs, limit_bytes=limit_bytes)

    study = Study(
        run.path / STUDY,
        space,
        proposer=make_proposer(asked.sampler, space=space, seed=asked.seed, repair=repaired, aim=aim),
        storage=asked.storage,
        name=run.study_name(),
        expect=expected_study(run),
    )
    ledger = Ledger(run, prepared, study, costed, wanted=wanted, byte_range=aim.scale.byte_range)
    limits = TrialLimits(prepared.recipe.steps, asked.trial_timeout_s)
    search = OpenedSearch(
        run, config, prepared, costed, aim, study, ledger, pool, progress, wanted, deadline, limits, on_trial,
        followed,
    )  # fmt: skip
    return search
