"""`autoprune.json` of an export as typed, checked data: where the model came from, and what it was found.

Every field but the target may be missing: versions before it was there wrote none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from autoprune.core.record import AnyText, Record
from autoprune.run.front_schema import Measured
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.kinds import TaskKind, task_kind
from autoprune.tasks.metrics import Metric


class BaseRecord(Record):
    """The model that was compressed, as far as it is known."""

    name: AnyText = ""
    hub_id: AnyText | None = None
    revision: AnyText | None = None
    license: AnyText | None = None
    tensors_sha256: AnyText = ""


class DataRecord(Record):
    """The data that were searched with, and how their rows become the model's inputs.

    dataset: as it was given; None is the demo's. on_disk: whether it was a file or folder. revision: commit
    of one on the hub. own: reference of a task of one's own. metric: its name, or an object as
    `Metric.as_json` gives.
    """

    dataset: AnyText | None = None
    on_disk: bool | None = None
    revision: AnyText | None = None
    text_columns: tuple[AnyText, ...] = ()
    label_column: AnyText | None = None
    group_by: AnyText | None = None
    seed: int = 0
    max_length: int = 128
    labels: tuple[AnyText, ...] = ()
    fingerprint: AnyText = ""
    task: AnyText | None = None
    metric: AnyText | Mapping[str, Any] | None = ""
    own: AnyText | None = None
    image_column: AnyText | None = None
    limit_rows: tuple[int | None, ...] | None = ()
    validation_rows: int = 0

    @property
    def kind(self) -> TaskKind:
        """The kind of task; text classification in records of before there were others."""
        return task_kind(self.task or None)

    def source(self, dataset: str) -> DataSource:
        """How rows of a data set are read that is like the one recorded."""
        return DataSource(
            dataset,
            revision=self.revision if dataset == self.dataset and not Path(dataset).exists() else None,
            text_columns=self.text_columns,
            image_column=self.image_column,
            label_column=self.label_column,
            group_by=self.group_by,
            limit_rows=self.limit_rows or (),
        )


class MeasuredRecord(Measured, Record):
    """What the search measured of the trial, and the original's milliseconds then."""

    original_ms: float | None = None


class TimedAt(Record):
    """What latency was taken at."""

    batch: int = 1
    sequence: int = 128
    threads: int = 1


class UnitRecord(Record):
    """How hard a unit is compressed: the share of rows removed, and a storage as files hold it."""

    ratio: float
    bits: int | str


class CheckRecord(Record):
    """One thing that was recorded or predicted. passed: None where it could not be checked."""

    name: AnyText
    passed: bool | None
    said: AnyText


class LatencyRecord(Record):
    """Milliseconds, in turn with the original's. ratio: of the model's to these."""

    median_ms: float
    low_ms: float
    high_ms: float
    original_ms: float
    ratio: float


class DefaultsRecord(Record):
    """What the model does under the runtime's default settings."""

    settings: AnyText = ""
    accuracy: float | None = None
    latency: LatencyRecord | None = None
    failure: AnyText = ""


class ValidatedRecord(Record):
    """What fresh processes found of the folder, once it was written."""

    passed: bool | None = None
    checks: tuple[CheckRecord, ...] = ()
    size_bytes: int
    load_seconds: float | None = None
    rows: int = 0
    accuracy: float | None = None
    is_recorded_data: bool | None = None
    missing: AnyText = ""
    logits: Mapping[str, Any] | None = None
    latency: LatencyRecord
    batch: int = 1
    sequence: int = 128
    threads: int = 1
    protocol: AnyText = ""
    machine: AnyText = ""
    versions: Mapping[str, AnyText] = {}
    date: AnyText = ""
    defaults: DefaultsRecord | None = None


class MemberRecord(Record):
    """A trial's model that is one of several in an export.

    name: its folder in an ensemble, its name in a family. accuracy and test_accuracy: its own. weight: of its
    answers, in an ensemble.
    """

    name: AnyText
    trial: int
    size_bytes: int
    latency_ms: float | None = None
    accuracy: float | None = None
    test_accuracy: float | None = None
    weight: float | None = None
    units: Mapping[str, UnitRecord] = {}


class ScoresRecord(Record):
    """Scores of an average: of the validation rows it was chosen by, and of the test rows."""

    weights: tuple[float, ...] = ()
    accuracy: float | None = None
    test_accuracy: float | None = None


class EnsembleRecord(Record):
    """What an ensemble is made of.

    average: which of the two averages it answers with. limit: of the members' bytes and milliseconds
    together, in words. candidates: kept models of the front that were tried. single: the most accurate of
    these that alone has no more bytes than all members.
    """

    average: Literal["simple", "weighted"]
    members: tuple[MemberRecord, ...]
    limit: AnyText = ""
    candidates: int = 0
    simple: ScoresRecord
    weighted: ScoresRecord
    single: MemberRecord | None = None

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the members, in their order."""
        return (self.simple if self.average == "simple" else self.weighted).weights


class FamilyRecord(Record):
    """Members that are in one file, smallest first; size_bytes of each is that of its own file.

    file_bytes: of the file. equal_bytes: of tensors that several members have, and that are stored once.
    """

    members: tuple[MemberRecord, ...]
    file_bytes: int
    equal_bytes: int = 0

    @property
    def sum_bytes(self) -> int:
        """Bytes of the members' own files together."""
        return sum(member.size_bytes for member in self.members)


class ExportRecord(Record):
    """All of `autoprune.json`.

    measured_on: target of the search. measured_storage: how files were stored whose bytes it counted. steps:
    of the fine-tune. sha256: of every other file, by name.
    predicted_size_bytes: of its files, plainly stored; None where nothing was predicted, and why. pooling:
    what a text's vector is, in words; None of other kinds. has_sentence_head: whether that is not the mean.
    ensemble: where the folder holds several models that answer together. family: where it holds several of
    which one answers at a time.
    """

    version: int = 1
    target: AnyText
    storage: AnyText = "plain"
    base_model: AnyText = ""
    base: BaseRecord = BaseRecord()
    dataset: AnyText = ""
    data: DataRecord = DataRecord()
    run: AnyText = "a run"
    trial: int | None = None
    steps: int = 0
    command: AnyText = ""
    measured: MeasuredRecord = MeasuredRecord()
    measured_on: AnyText = ""
    measured_storage: AnyText = "plain"
    protocol: AnyText = ""
    latency_of: AnyText | None = None
    timed_at: TimedAt = TimedAt()
    library_key: AnyText | None = None
    searched_with: Mapping[str, AnyText] = {}
    export: AnyText = ""
    budget: AnyText = ""
    predicted_size_bytes: int | None = None
    unit_bytes: Mapping[str, int] = {}
    not_predicted: AnyText | None = None
    units: Mapping[str, UnitRecord] = {}
    pooling: AnyText | None = None
    has_sentence_head: bool = False
    sha256: Mapping[str, AnyText] = {}
    validated: ValidatedRecord | None = None
    ensemble: EnsembleRecord | None = None
    family: FamilyRecord | None = None

    @property
    def metric(self) -> Metric:
        """Accuracy in a record of before there were other metrics."""
        return Metric.from_json(self.data.metric)
