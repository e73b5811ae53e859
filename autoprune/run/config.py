"""What a search was asked for, as `run.json` keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, get_type_hints

from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import holds_secret, redacted
from autoprune.core.value_types import has_type
from autoprune.space.budget import Budget, parse_budget
from autoprune.tasks.data.source import DataSource

DEMO_DEFAULTS = {"trials": 16, "finetune_steps": 40, "max_length": 64}
"""What a search without MODEL asks for where the user says nothing: about five minutes on 2 cores."""


@dataclass(frozen=True)
class ModelSource:
    """Which model is compressed. name: a folder, hub id or `package.module:function`; None is the demo's.

    weights: file of one that a function builds. image_size: pixels, None as the model says. new_head: whether
    a trained head is thrown away. trust_remote_code: has no effect, since no such code is run.
    """

    name: str | None = None
    weights: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    image_size: int | None = None
    new_head: bool = False


@dataclass(frozen=True)
class TaskSettings:
    """What the model is for. name: of a kind, `package.module:function`, or auto, as the model tells.

    metric: None is the usual one of the kind. max_length: tokens that a row is cut at.
    """

    name: str = "auto"
    metric: str | None = None
    max_length: int = 128


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, for which target, how long and within which budget.

    storage: address of the study's database; None is `study.db` of the run. trial_timeout_s: seconds that a
    trial may work; None is worked out from those before. robustness: whether the points to ship are scored on
    altered test rows too. no_examples: whether no row of the data is kept for the report. allocation: rules
    of `strategy/allocation` whose models are baselines too.
    folds: of training and validation rows that the points to ship are scored on, fine-tuned on the others.
    attacks: whether the points to ship are scored on test rows that are made hard for each of them.
    track: trackers that the search is followed in too. file_storage: "entropy" where sizes are those of
    entropy-coded files, which target packed has.
    """

    budget: tuple[str, ...] = ()
    space: str = "auto"
    target: str = "openvino"
    trials: int = 100
    timeout_s: float | None = None
    trial_timeout_s: float | None = None
    patience: int | None = None
    sampler: str = "autoprune"
    seed: int = 0
    storage: str | None = field(default=None, repr=False)
    robustness: bool = False
    no_examples: bool = False
    allocation: tuple[str, ...] = ()
    folds: int | None = None
    attacks: bool = False
    track: tuple[str, ...] = ()
    file_storage: str = "plain"

    def storage_on(self, target: str) -> str:
        """How a model's files are stored on a target where nobody says: as sizes are of, on the run's own.

        >>> searched = SearchSettings(target="packed", file_storage="entropy")
        >>> searched.storage_on("packed"), searched.storage_on("onnx")
        ('entropy', 'plain')
        """
        return self.file_storage if target == self.target else SearchSettings.file_storage


@dataclass(frozen=True)
class TrainingSettings:
    """How long is trained, and on which rows. finetune_steps: None as the space says.

    calibration_rows: that statistics are of. augment: whether rows of brief fine-tunes are changed.
    clean_data: "repeats" where rows that come twice are left out of training, "labels" where those whose
    labels are doubted are too. teacher: another model whose answers brief fine-tunes learn, named as the
    model is; teacher_weights: file of one that a function builds; teacher_revision: of one from a hub.
    """

    finetune_steps: int | None = None
    teacher_epochs: float = 1.0
    teacher_rate: float = 1e-4
    calibration_rows: int = 512
    clean_data: str | None = None
    augment: bool = False
    teacher: str | None = None
    teacher_weights: str | None = None
    teacher_revision: str | None = None


@dataclass(frozen=True)
class TimingSettings:
    """What latency is timed at: rows of a batch, and tokens of a row."""

    batch: int = 1
    sequence: int = 128


@dataclass(frozen=True)
class WorkerSettings:
    """The processes that run trials.

    count: at most; None as many as have room. gpus_per_trial: None shares those of this machine out, and on a
    cluster is 1 where it has any. wait_s: seconds to wait for room, or for a latency node that is away.
    """

    count: int | None = 2
    gpus_per_trial: float | None = None
    cpus_per_trial: float = 1.0
    address: str | None = None
    latency_node: str | None = None
    wait_s: float | None = None


@dataclass(frozen=True)
class Config:
    """All that a search is asked for, by who reads it.

    Flags, `run.json` and messages name a setting without its part, as versions before there were parts did:
    `of`, `with_settings`, `as_json` and `from_json` take and give these flat names.
    """

    model: ModelSource = field(default_factory=ModelSource)
    data: DataSource = field(default_factory=DataSource)
    task: TaskSettings = field(default_factory=TaskSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    timing: TimingSettings = field(default_factory=TimingSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """The defaults with some settings, by their flat names."""
        return cls().with_settings(**settings)

    def with_settings(self, **settings: Any) -> Self:
        """The same with some settings, by their flat names."""
        parts: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            part, attribute = _PLACES[name]
            parts.setdefault(part, {})[attribute] = value
        return replace(self, **{part: replace(getattr(self, part), **new) for part, new in parts.items()})

    def limits(self) -> Budget:
        """The budget as numbers."""
        return parse_budget(self.search.budget)

    def check_secrets(self) -> None:
        """Raise `AutopruneError` for a password or token in what is written to `run.json`.

        The address of a database is written without its own; nothing else works without what is hidden.
        """
        for name, value in self.as_json().items():
            if name != "storage" and isinstance(value, str) and holds_secret(value):
                raise AutopruneError(
                    f"{name} {redacted(value)!r} holds a password or token (hidden here), which is "
                    "written to no file and could not be used again. Give it without one: for the hub run "
                    "`hf auth login` or set HF_TOKEN, and download what is not on the hub first"
                )

    def as_json(self) -> dict[str, Any]:
        """All settings by their flat names, but those of `_WRITTEN_IF_SET` that are not."""
        given = {name: getattr(getattr(self, part), attribute) for name, (part, attribute) in _PLACES.items()}
        return {
            name: value
            for name, value in given.items()
            if name not in _WRITTEN_IF_SET or (value and value != SearchSettings.file_storage)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote; unknown names and values of another type are an error."""
        if unknown := sorted(set(data) - _PLACES.keys()):
            raise AutopruneError(f"run.json has settings this version does not know: {unknown}")
        wrong = [f"{name} {value!r:.60}" for name, value in data.items() if not _may_be(name, value)]
        if wrong:
            raise AutopruneError(
                f"run.json is damaged: it has settings of another type than they are: {', '.join(wrong)}"
            )
        lists = {"text_columns", "budget", "limit_rows", "allocation", "track"}
        return cls.of(**{name: tuple(value) if name in lists else value for name, value in data.items()})


def name_of(config: Config) -> str:
    """What a run is called after."""
    if config.model.name is None:
        return "demo-minilm"
    return Path(config.model.name.rstrip("/").rpartition(":")[2]).name or "model"


def setting_names() -> tuple[str, ...]:
    """The flat names of all settings."""
    return tuple(_PLACES)


def setting_type(name: str) -> Any:
    """The declared type of a setting, by its flat name."""
    part, attribute = _PLACES[name]
    return get_type_hints(type(getattr(Config(), part)))[attribute]


def _may_be(name: str, value: object) -> bool:
    """Whether a value has the type of a setting."""
    return has_type(value, setting_type(name))


_WRITTEN_IF_SET = {
    "new_head", "wait_s", "trial_timeout_s", "clean_data", "robustness", "no_examples", "augment",
    "allocation", "teacher", "teacher_weights", "teacher_revision", "folds", "attacks", "track",
    "file_storage",
}  # fmt: skip
"""Settings that earlier versions do not know: files without them are read by these too."""

_FLAT_NAMES = {("model", "name"): "model", ("task", "name"): "task", ("workers", "count"): "workers"}
"""Settings whose flat name is not that of their attribute."""

_PLACES = {
    _FLAT_NAMES.get((part.name, field.name), field.name): (part.name, field.name)
    for part in fields(Config)
    for field in fields(getattr(Config(), part.name))
    if part.name != "data" or field.name in DataSource.SETTINGS
}
"""Part and attribute of each setting, by its flat name."""
