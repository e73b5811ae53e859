"""`front.json` as typed, checked data (version 1)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, NamedTuple

import pydantic

from autoprune.core.errors import AutopruneError
from autoprune.core.record import checked
from autoprune.run.answer_changes import AnswerChanges
from autoprune.run.class_scores import ClassScores
from autoprune.run.folds import Folds
from autoprune.run.robustness import Robustness
from autoprune.run.run_record import RunFacts
from autoprune.run.safe_front import safe
from autoprune.run.ties import Ties
from autoprune.space.point_names import by_trial
from autoprune.space.storage import STATIC8, Storage, storage_of
from autoprune.space.trial import ORIGINAL

VERSION = 1
"""The version of `front.json` that the report reads."""


def _storage(written: object) -> Storage:
    storage = storage_of(written)
    if type(written) not in (int, str) or storage.written != written:
        raise ValueError(f"{written!r} is no storage as files hold it")
    return storage


WrittenStorage = Annotated[Storage, pydantic.PlainValidator(_storage)]
"""How a weight is stored, from what the file holds: a number of bits or a name."""


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)


class Run(RunFacts):
    """Where a front comes from, and how its search went so far."""

    command: str = ""
    state: str = "finished"
    started: str = ""
    seconds: float | None = None
    stopped_by: str = ""
    driver_share: float | None = None
    overhead_share: float | None = None
    latency_table_error: float | None = None

    def is_fast(self, storage: Storage) -> bool:
        """Whether the target computes with a storage faster than with floats, or the run does not say."""
        if storage == STATIC8:
            return self.integer is not False
        return self.fast_bits is None or storage.written in self.fast_bits

    @property
    def place(self) -> str:
        """What has an answer, over which divergences are means."""
        return self.task.place


class UnitRow(_Frozen):
    """One unit of the model, uncompressed."""

    name: str
    kind: str = ""
    size_bytes: int | None = None


class LevelRow(_Frozen):
    """How hard one unit is compressed."""

    ratio: float
    storage: WrittenStorage = pydantic.Field(alias="bits")


class Measured(pydantic.BaseModel):
    """What was measured of a trial: bytes, milliseconds, scores of 0..100, nats."""

    size_bytes: int | None = None
    predicted_size_bytes: int | None = None
    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    accuracy: float | None = None
    kl: float | None = None
    test_accuracy: float | None = None


class TrialRow(Measured, _Frozen):
    """One trial or baseline.

    level_numbers: the levels of its units in the place of `levels`; see `run/short_rows`.
    ended_s: seconds of the run when it ended; absent from earlier records. parts: seconds of its stages.
    """

    number: int
    name: str | None = None
    state: str
    failure: str | None = None
    levels: dict[str, LevelRow] | None = None
    level_numbers: tuple[int, ...] | None = None
    unit_bytes: dict[str, int | None] | None = None
    unit_ms: dict[str, float | None] | None = None
    seconds: float | None = None
    ended_s: float | None = None
    parts: dict[str, float] | None = None
    worker: str = ""
    on_front: bool = False
    within_budget: bool = False
    rung: int | None = None
    promoted_from: int | None = None
    predicted_kl: float | None = None
    predicted_latency_ms: float | None = None

    @property
    def label(self) -> str:
        """The baseline's name, or `trial 17`."""
        return self.name if self.name is not None else f"trial {self.number}"

    @property
    def measured(self) -> bool:
        """Whether size and accuracy are known, so that it can be compared."""
        return self.state != "FAIL" and self.size_bytes is not None and self.accuracy is not None


class LineRow(_Frozen):
    """A simple model that the front is compared with, which is no trial. Of its fields see `MeasuredLine`."""

    name: str
    size_bytes: int
    latency_ms: float | None = None
    accuracy: float
    test_accuracy: float | None = None
    what: str = ""
    seconds: float | None = None
    kl: float | None = None

    @property
    def label(self) -> str:
        """Its name."""
        return self.name


class Reference(_Frozen):
    """The point that the hypervolume is taken up to."""

    size_bytes: float | None = None
    latency_ms: float | None = None
    accuracy: float | None = None


class Rung(_Frozen):
    """How long the trials of a rung were trained; 0 is not at all.

    kept: how many of its fine-tunes changed anything; left: the mean share of the KL that these left. Both by
    the nearest lower rung, and absent from earlier records.
    """

    rung: int
    steps: int | None = None
    trials: int = 0
    mean_seconds: float | None = None
    kept: int | None = None
    left: float | None = None


class AgreementRow(_Frozen):
    """How the ranks by KL of `pairs` candidates agree between two rungs.

    `low` where the search promoted more of them because of it. `trained`: candidates that were trained from
    the lower rung to the upper; `pairs` are those of them whose fine-tune was kept, and `left` the mean share
    of their KL that it left. Both are absent from earlier records, whose pairs are all that were trained.
    """

    lower: int
    upper: int
    kendall_tau: float | None = None
    pairs: int = 0
    low: bool = False
    trained: int | None = None
    left: float | None = None


class UnitLevel(NamedTuple):
    """One unit at one level: predicted damage in nats a row."""

    unit: str
    ratio: float
    storage: WrittenStorage
    size_bytes: int | None = None
    damage: float | None = None
    latency_ms: float | None = None


class SensitivityRow(_Frozen):
    """Predicted damage of every unit at every level.

    `spearman` is the rank correlation of predicted and measured KL over `pairs` untrained trials.
    """

    levels: tuple[UnitLevel, ...] = ()
    spearman: float | None = None
    pairs: int = 0


class Latency(_Frozen):
    """Predicted against measured milliseconds over `pairs` trials, as shares of the measured.

    predicted_error: the mean without signs; bias: the mean with them, above 0 where predicted too high.
    """

    predicted_error: float = pydantic.Field(alias="predicted error")
    pairs: int
    bias: float


class Front(_Frozen):
    """All of `front.json` that the report computes with.

    points: numbers of trials by the names of `strategy/points`; empty in files of before there were more than
    `best` and `knee`. as_accurate: those that are as accurate as the most accurate within the budget.
    """

    run: Run
    units: tuple[UnitRow, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    front: tuple[int, ...] = ()
    best: int | None = None
    knee: int | None = None
    points: dict[str, int | None] = {}
    as_accurate: tuple[int, ...] = ()
    hypervolume: float | None = None
    hypervolume_reference: Reference = Reference()
    kl_hypervolume: float | None = None
    rungs: tuple[Rung, ...] | None = None
    agreement: tuple[AgreementRow, ...] | None = None
    sensitivity: SensitivityRow | None = None
    latency: Latency | None = None
    lines: tuple[LineRow, ...] = ()
    class_scores: ClassScores | None = None
    robustness: Robustness | None = None
    folds: Folds | None = None
    answer_changes: AnswerChanges | None = None
    ties: Ties | None = None

    @cached_property
    def searched(self) -> list[TrialRow]:
        """The trials of the search, baselines left out."""
        return [trial for trial in self.trials if trial.name is None]

    @cached_property
    def baselines(self) -> list[TrialRow]:
        """The models that the run is compared with, the original among them."""
        return [trial for trial in self.trials if trial.name is not None]

    @cached_property
    def original(self) -> TrialRow | None:
        """The uncompressed model, where it was measured."""
        named = (trial for trial in self.baselines if trial.name == ORIGINAL and trial.measured)
        return next(named, None)

    @cached_property
    def chosen(self) -> TrialRow | None:
        """The trial to ship: the best within the budget."""
        return next((trial for trial in self.trials if trial.number == self.best), None)

    @cached_property
    def named(self) -> list[tuple[TrialRow, list[str]]]:
        """Each measured trial that is a point to choose from, with the words for it."""
        words = by_trial(self.points or {"best": self.best, "knee": self.knee})
        rows = {trial.number: trial for trial in self.trials if trial.measured}
        return [(rows[number], told) for number, told in words.items() if number in rows]


def checked_front(raw: Mapping[str, object]) -> Front:
    """Check a parsed `front.json`.

    Raises:
        AutopruneError: naming the version or every field that is wrong.
    """
    if raw.get("version") != VERSION:
        raise AutopruneError(
            f"front.json has version {raw.get('version')!r}, this report reads version {VERSION}; "
            f"write it again with `autoprune report` of the version that made the run"
        )
    front = safe(raw)
    if front.checked is None:
        front.checked = checked(Front, front, "front.json")
    found: Front = front.checked
    return found
