"""What an exported folder really is: its bytes, logits, accuracy and milliseconds, measured again.

`fresh_process` calls this in a process of its own.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, reason_of
from autoprune.evaluation.measure import (
    TIMING_PAIRS,
    DefaultRun,
    Timing,
    labels_watched,
    logits_of,
    teacher_answers,
    time_interleaved,
)
from autoprune.export.artifact import read_about, runtime_of, served_by
from autoprune.export.averaged import Loadable, averaged_runner
from autoprune.export.export_record import ExportRecord, TimedAt
from autoprune.export.original import SEARCHED, original_folder
from autoprune.export.recorded_rows import (
    MADE_UP_TOKENS,
    made_up_rows,
    other_rows,
    recorded_rows,
    tokenizer_of,
)
from autoprune.models.spec import Architecture
from autoprune.targets import Runner
from autoprune.tasks.answers import Answers
from autoprune.tasks.task import Arrays, Data, Task
from autoprune.workers.machine_lock import Room, default_room

LOGIT_ROWS = 256
"""Rows on which logits are compared; accuracy is taken on all of them."""

MOST = 99.0
"""Percent of the logits that must be within a target's tolerance: single ones lie at the edge of a rounding
step of the runtime's own, and the accuracy tells whether they matter."""

PROTOCOL = (
    "Size: stat of the files the runtime opens. Latency: median of {pairs} calls with the 10th and 90th "
    "percentile, batch {batch}, {tokens}{threads} thread(s), in turn with the original on the "
    "same target ({original}), while other work of autoprune on the machine waits."
)

PACKAGES = ("autoprune", "torch", "transformers", "openvino", "onnxruntime", "compressed-tensors", "gguf")


@dataclass(frozen=True)
class Request:
    """What to measure.

    against: folder of the same model in the packed layout, whose logits by torch are the truth. dataset:
    rows of this data set instead of the recorded one's. batch, sequence and threads: for latency; None as
    recorded. builder: of a model that is not from transformers, the function that may be called for it.
    against_members: the same of each member of an ensemble, of which the average is the truth. defaults:
    whether to give the runtime no settings, where it then answers otherwise than with ours. recorded_at:
    where the recorded data set lies, if its record is relative to another folder. member: of a family, the
    one to measure; "" is the most accurate.
    """

    folder: str
    against: str | None = None
    against_members: tuple[str, ...] = ()
    dataset: str | None = None
    batch: int | None = None
    sequence: int | None = None
    threads: int | None = None
    builder: str | None = None
    defaults: bool = False
    recorded_at: str | None = None
    member: str = ""


@dataclass(frozen=True)
class Logits:
    """How far the target's logits are from the stitched model's, in standard deviations of the latter.

    most: 99 % of them are no farther. largest: none is farther.
    """

    rows: int
    made_up: bool
    most: float
    largest: float


@dataclass(frozen=True)
class ExportMeasurements:
    """What was measured. accuracy: percent; None where no rows were at hand, and `missing` says why.

    defaults: the same with no settings; None where the runtime then answers as it does with ours.
    """

    size_bytes: int
    load_seconds: float
    rows: int
    accuracy: float | None
    is_recorded_data: bool
    missing: str
    logits: Logits | None
    latency: Timing
    batch: int
    sequence: int
    threads: int
    protocol: str
    machine: str
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    defaults: DefaultRun | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ExportMeasurements:
        """Inverse of `asdict`."""
        parts = {
            "logits": data["logits"] and Logits(**data["logits"]),
            "latency": Timing(**data["latency"]),
            "defaults": data["defaults"] and DefaultRun.from_json(data["defaults"]),
        }
        return cls(**{**data, **parts})


def measure(request: Request) -> ExportMeasurements:
    """Load a folder as its user would, and measure it.

    Raises:
        AutopruneError: when a file is missing or changed, does not load, or named data cannot be read.
    """
    folder = Path(request.folder)
    about = read_about(folder)
    target = runtime_of(about.target, builder=request.builder)
    served = served_by(about, member=request.member, builder=request.builder)
    timed_at = _timed_at(request, about, folder)
    load = _loader(served, timed_at["threads"], defaults=request.defaults)
    load(folder)  # once for the imports
    begun = time.perf_counter()
    run = load(folder)
    load_seconds = time.perf_counter() - begun
    room = default_room()
    task, is_recorded, missing = _rows(request, about, folder)
    wanted = _wanted(request, about, task, room)
    watched = labels_watched(task, task.validation)
    logits = logits_of(run, task, task.validation, watched=watched, room=room.busy)
    if not np.isfinite(logits).all():
        raise AutopruneError(f"{folder} gives logits that are not finite")
    example = task.batch(task.validation, [0])
    path, which = original_folder(folder, target, example, key=about.library_key, builder=request.builder)
    original = _loader(target, timed_at["threads"], defaults=request.defaults)(path)
    teacher = None
    if not task.has_labels and not missing:
        if which != SEARCHED:
            missing = "the original is not on this machine, and there are no labels to compare with"
        else:
            teacher = teacher_answers(original, task, task.validation, room=room.busy)
    sequence = 0 if isinstance(task.validation, Arrays) else timed_at["sequence"]
    with room.alone():
        timing = time_interleaved(run, original, task.timing_batch(timed_at["batch"], timed_at["sequence"]))
    return ExportMeasurements(
        size_bytes=sum(file.stat().st_size for file in served.files(folder)),
        load_seconds=round(load_seconds, 3),
        rows=0 if missing else len(task.validation),
        accuracy=None if missing else task.score(task.validation, logits, teacher),
        is_recorded_data=is_recorded,
        missing=missing,
        logits=_compared(run, task, wanted, made_up=bool(missing), room=room),
        latency=timing,
        protocol=PROTOCOL.format(
            pairs=TIMING_PAIRS,
            original=which,
            batch=timed_at["batch"],
            threads=timed_at["threads"],
            tokens=f"{sequence} tokens, " if sequence else "",
        ),
        machine=f"{_processor()}, {platform.system()}, Python {platform.python_version()}",
        versions={name: version for name in PACKAGES if (version := _version(name))},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        batch=timed_at["batch"],
        sequence=sequence,
        threads=timed_at["threads"],
    )


def _loader(served: Loadable, threads: int, *, defaults: bool) -> Callable[[Path], Runner]:
    """What loads a folder: with a number of threads, or as the runtime does with no settings."""
    own = served.defaults() if defaults else None
    return own.load if own is not None else lambda path: served.load(path, threads=threads)


def _timed_at(request: Request, about: ExportRecord, folder: Path) -> dict[str, int]:
    """Batch, sequence and threads that latency is taken at."""
    names = TimedAt.model_fields
    timed_at = {name: int(getattr(request, name) or getattr(about.timed_at, name)) for name in names}
    longest = _config(folder).get("max_position_embeddings")
    if longest is not None and timed_at["sequence"] > longest:
        raise AutopruneError(f"--sequence {timed_at['sequence']}: this model takes at most {longest} tokens")
    return timed_at


def _rows(request: Request, about: ExportRecord, folder: Path) -> tuple[Task, bool, str]:
    """Rows to measure on, whether they are the recorded ones, and why there are none."""
    if request.dataset is not None:
        return *other_rows(folder, about, request.dataset), ""
    try:
        return recorded_rows(folder, about, request.recorded_at), True, ""
    except AutopruneError as error:
        missing = str(error)
    kind = Architecture.read(folder).kind
    if not kind.is_tokenized:
        raise AutopruneError(f"{folder} cannot be measured: {missing}; name the data with --dataset")
    config = _config(folder)
    longest = min(MADE_UP_TOKENS, int(config.get("max_position_embeddings") or MADE_UP_TOKENS))
    names = kind.token_inputs(tokenizer_of(folder).model_input_names)
    return made_up_rows(names, int(config.get("vocab_size", 1)), longest, kind=kind), False, missing


def _wanted(request: Request, about: ExportRecord, task: Task, room: Room) -> Answers | None:
    """What the packed model answers, by torch, to the rows that are compared; None where there is none."""
    folders = request.against_members or ((request.against,) if request.against else ())
    if not folders:
        return None
    from autoprune.targets.packed import read_packed, torch_runner

    models = [read_packed(Path(folder), builder=request.builder).model for folder in folders]
    runs = [torch_runner(model, task.kind) for model in models]
    run = runs[0] if about.ensemble is None else averaged_runner(runs, about.ensemble.weights, task.kind)
    return teacher_answers(run, task, _compared_rows(task), room=room.busy)


def _compared_rows(task: Task) -> Data:
    """The first rows; fewer where each has an answer at many places."""
    most = LOGIT_ROWS // 16 if task.kind.answers_each_token else LOGIT_ROWS
    rows: Data = task.validation.first(min(most, len(task.validation)))
    return rows


def _compared(run: Runner, task: Task, wanted: Answers | None, *, made_up: bool, room: Room) -> Logits | None:
    """The target's answers beside those of the packed model, by torch."""
    if wanted is None:
        return None
    rows = _compared_rows(task)
    logits = logits_of(run, task, rows, watched=wanted.watched, room=room.busy)
    off = np.abs(logits - wanted.values) / max(float(wanted.values.std()), 1e-12)
    return Logits(len(rows), made_up, float(np.percentile(off, MOST)), float(off.max()))


def _config(folder: Path) -> dict[str, Any]:
    """What `config.json` says."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise AutopruneError(f"{folder / 'config.json'} cannot be read: {reason_of(error)}") from error
    if not isinstance(config, dict):
        raise AutopruneError(f"{folder / 'config.json'} describes no model: an object is needed")
    return config


def _processor() -> str:
    """The model of processor, which is what a latency belongs to."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
