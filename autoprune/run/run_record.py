"""`run.json` as typed, checked data: what a run was asked for, what it began with and how it went.

Every field may be missing: versions before it was there wrote none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from autoprune.core.record import AnyText, Record, read_by
from autoprune.run.text import stored_text
from autoprune.tasks.kinds import TEXT_CLASSIFICATION, TaskKind, task_kind
from autoprune.tasks.metrics import ACCURACY, Metric


def _kind(named: object) -> TaskKind:
    return named if isinstance(named, TaskKind) else task_kind(named)


RecordedMetric = Annotated[Metric, read_by(Metric.from_json, Metric.as_json)]
RecordedKind = Annotated[TaskKind, read_by(_kind, str)]


class Limits(Record):
    """The budget: bytes and milliseconds; None is no limit."""

    size_bytes: int | None = None
    latency_ms: float | None = None


class RecordedRecipe(Record):
    """The brief fine-tune of a trial."""

    steps: int = 0
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    dropout: float = 0.0


class RunFacts(Record):
    """What a search is of, for its report and its exports. Rows and answers are 0 or None where unknown.

    fast_bits: bits of the storages that the target computes faster than float. integer: whether w8a8 is one.
    latency_of: what its milliseconds are of, as `a token after 128 others`; None is a call.
    parts: embeddings that are in two parts, with the tokens of the first. cleaned: training rows that
    --clean-data left out, by reason. teacher: another model that fine-tunes learn from; teacher_score: what
    it scores on validation, None where rows have no labels. file_storage: "entropy" where sizes are those of
    entropy-coded files.
    """

    name: AnyText = ""
    folder: AnyText = ""
    model: AnyText = ""
    dataset: AnyText = ""
    target: AnyText = ""
    fast_bits: tuple[int, ...] | None = None
    integer: bool | None = None
    sampler: AnyText = ""
    seed: int | None = None
    budget: Limits = Limits()
    budget_text: AnyText = ""
    task: RecordedKind = TEXT_CLASSIFICATION
    metric: RecordedMetric = ACCURACY
    latency_of: AnyText | None = None
    validation_answers: int | None = None
    validation_rows: int = 0
    test_rows: int = 0
    planned_trials: int = 0
    versions: Mapping[str, AnyText] = {}
    machine: AnyText = ""
    protocol: AnyText = ""
    recipe: RecordedRecipe = RecordedRecipe()
    model_hash: AnyText = ""
    data_hash: AnyText = ""
    space: AnyText = ""
    labels: tuple[AnyText, ...] = ()
    parts: Mapping[str, int] = {}
    sizes_version: int | None = None
    cleaned: Mapping[str, int] = {}
    teacher: AnyText = ""
    teacher_score: float | None = None
    file_storage: AnyText = "plain"

    @property
    def target_text(self) -> str:
        """The target, and how its files are stored where sizes are not those of plain ones.

        >>> RunFacts(target="packed", file_storage="entropy").target_text
        'packed, entropy-coded'
        """
        return stored_text(self.target, self.file_storage)

    @property
    def answers(self) -> int:
        """Validation answers; runs made before these were noted have as many as rows.

        >>> RunFacts(validation_rows=10, validation_answers=250).answers, RunFacts(validation_rows=10).answers
        (250, 10)
        """
        return self.validation_rows if self.validation_answers is None else self.validation_answers


class Identity(Record):
    """SHA-256 of what was read, and where it was read from.

    weights: of the model as loaded, without its head. head: of the head, None where none was trained.
    data: of what the model is fed, and the names of its classes. paths: absolute, of the settings that name
    a file or folder. commits: of the hub's repositories that `model` and `dataset` name. folder: the working
    directory, which functions are imported from. run: the run's folder. importance: what says which heads,
    neurons and channels go, of the kinds of units where a space file names other than second order, and the
    fallback of tokens where that is not the nearest row. teacher: of another model that fine-tunes learn
    from, its head with it.
    """

    weights: AnyText
    head: AnyText | None
    data: AnyText
    paths: Mapping[str, AnyText] = {}
    commits: Mapping[str, AnyText] = {}
    folder: AnyText = ""
    run: AnyText = ""
    importance: AnyText = ""
    teacher: AnyText = ""


class WorkersRecord(Record):
    """The workers of a search, as `workers/census.Census.as_json` writes them."""

    training: int = 0
    idle: int = 0
    loading: int = 0
    waiting: int = 0
    dead: int = 0
    replaced: int = 0
    overdue: int = 0
    memory_bytes: int = 0
    most_memory_bytes: int = 0
    hosts: Mapping[str, Mapping[str, int]] = {}
    each: tuple[Mapping[str, Any], ...] = ()
    lost_nodes: tuple[AnyText, ...] = ()
    avoided_nodes: Mapping[str, AnyText] = {}
    latency_node: AnyText = ""


class StatusRecord(Record):
    """All of `status.json`: what a run's driver does, or how it ended.

    updated: seconds since the epoch. causes: how many failed of each, None of earlier versions. points:
    numbers of trials by name; earlier versions wrote best and knee.
    workers: None of earlier versions, and where the driver has none. file_storage: "entropy" where sizes are
    those of entropy-coded files.
    """

    state: AnyText
    reason: AnyText | None = None
    exit_code: int | None = None
    next: AnyText | None = None
    pid: int | None = None
    host: AnyText | None = None
    updated: float | None = None
    trials: int = 0
    planned: int | None = None
    failed: int = 0
    causes: Mapping[str, int] | None = None
    in_flight: int = 0
    hypervolume: float = 0.0
    points: Mapping[str, int | None] | None = None
    best: int | None = None
    knee: int | None = None
    workers: WorkersRecord | None = None
    file_storage: AnyText = "plain"


class RunRecord(Record):
    """All of `run.json`.

    study: its name in the database. config: settings by their flat names, as `Config.from_json` reads them.
    inputs: what the run began with, which it is held to. latency_table_error: mean relative error of
    predicted milliseconds on models left out of the fit. time_left_at_half: seconds that were said, and that
    it took.
    """

    version: int = 1
    id: AnyText | None = None
    study: AnyText | None = None
    command: AnyText = ""
    started: AnyText = ""
    config: Mapping[str, Any] = {}
    inputs: Identity | None = None
    original_ms: float | None = None
    latency_table_error: float | None = None
    facts: RunFacts = RunFacts()
    kinds: Mapping[str, AnyText] = {}
    library_key: AnyText | None = None
    stopped_by: AnyText = ""
    driver_share: float | None = None
    overhead_share: float | None = None
    time_left_at_half: dict[str, float] | None = None
    seconds: float = 0.0

    @pydantic.model_validator(mode="after")
    def _is_whole(self) -> RunRecord:
        if (self.id is None) != (self.study is None):
            there, absent = ("study", "id") if self.id is None else ("id", "study")
            raise ValueError(f"it has a field {there!r} and no {absent!r}, which are written together")
        return self
