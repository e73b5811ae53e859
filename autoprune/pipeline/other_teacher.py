"""Another teacher than the original: loaded, held to the model and its rows, and asked for its answers.

Its answers to the training rows are what brief fine-tunes distil (Hinton et al., arXiv 1503.02531). It is of
any size and architecture: answers alone are learned from it, while layers are refitted to the original's.

Shapes: n rows, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError
from autoprune.models.loading import Loaded
from autoprune.models.outputs import outputs_of
from autoprune.models.tokenizer_fit import check_tokens
from autoprune.pipeline.head_classes import check_answers
from autoprune.pipeline.held_together import prove
from autoprune.pipeline.named import encoded, kind_asked_for, load_named, names_builder
from autoprune.run.config import Config, ModelSource, TaskSettings
from autoprune.run.identity import weights_hash
from autoprune.targets.packed import torch_runner
from autoprune.targets.spot_check import spot_check
from autoprune.tasks.class_names import match_classes, match_note
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.encoding import encoded_hash
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Encoded, Task

SHOWN_IDS = 6
"""Tokens of a row that a message about another tokenizer shows."""


@dataclass(frozen=True)
class OtherTeacher:
    """A teacher that fits the model and its rows; it is loaded again when it is asked.

    weights: SHA-256 of all its tensors. task: the rows as it reads them. columns: which of its answers is of
    each class of the task [k]; None where answers are no classes. key: what its answers depend on, but for
    which training rows are asked. note: its line for the plan.
    """

    name: str
    weights: str
    task: Task = field(repr=False)
    columns: tuple[int, ...] | None
    key: str
    note: str
    config: Config = field(repr=False)

    def model(self) -> nn.Module:
        """The teacher, loaded again.

        Raises:
            AutopruneError: where its weights are others by now.
        """
        model = _loaded(self.config, self.task).model
        if weights_hash(model.state_dict()) != self.weights:
            raise AutopruneError(f"--teacher {self.name!r}: its weights changed while the search began")
        return model

    def ordered(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Its answers with classes as the task numbers them."""
        return values if self.columns is None else np.ascontiguousarray(values[:, list(self.columns)])


def read_other_teacher(
    config: Config, rows: Splits | None, task: Task, loaded: Loaded, *, data_hash: str
) -> OtherTeacher | None:
    """The teacher that was asked for, once it is seen to fit; None where none was.

    Args:
        rows: as they were read; None of a task of the user's own.
        task: the rows as the model reads them, with classes as its head numbers them.
        data_hash: of the rows as they were read.

    Raises:
        AutopruneError: naming what does not fit: the task, the tokenizer, the classes or the answers.
    """
    name = config.training.teacher
    if name is None:
        if config.training.teacher_weights or config.training.teacher_revision:
            raise AutopruneError("--teacher-weights and --teacher-revision go with --teacher")
        return None
    if config.training.augment:
        raise AutopruneError(
            "--augment goes with the original as teacher, which answers each changed row anew; another "
            "teacher is asked once. Leave out --augment or --teacher"
        )
    try:
        return _read(config, name, rows, task, loaded, data_hash)
    except AutopruneError as error:
        if str(error).startswith("--teacher "):
            raise
        raise AutopruneError(f"--teacher {name!r}: {error}") from error


def _read(
    config: Config, name: str, rows: Splits | None, task: Task, loaded: Loaded, data_hash: str
) -> OtherTeacher:
    teacher_config = _as_model(config)
    _check_task(teacher_config, name, task.kind)
    teacher = _loaded(teacher_config, task)
    if not teacher.has_head and task.has_labels:
        raise AutopruneError(f"it has no trained head for task {task.kind}: fine-tune it first")
    read = task if rows is None else _as_it_reads(config, name, rows, task, teacher)
    if teacher.tokenizer is not None and isinstance(read.train, Encoded):
        check_tokens(read.train.ids, teacher.tokenizer, teacher.model, name)
    columns, said = _columns(task, teacher)
    prove(teacher, read, name)
    _check_width(task, read, loaded, teacher)
    weights = weights_hash(teacher.model.state_dict())
    batch = read.batch(read.validation, read.example_rows)
    key = content_key(
        torch.__version__, weights, teacher.architecture.identity(),
        spot_check(torch_runner(teacher.model, task.kind), batch),
        encoded_hash(read, data_hash=data_hash, pixels=teacher.pixels), columns,
    )  # fmt: skip
    count = sum(parameter.numel() for parameter in teacher.model.parameters())
    mine = sum(parameter.numel() for parameter in loaded.model.parameters())
    note = (
        f"{name}  {count / 1e6:,.1f} M parameters, the model {mine / 1e6:,.1f} M; its answers alone are "
        "distilled, layers are refitted to the original's; sizes, scores, flips and KL are of the original "
        f"and the labels as ever{said}"
    )
    return OtherTeacher(name, weights, read, columns, key, note, teacher_config)


def _as_model(config: Config) -> Config:
    """The settings of a search whose model is the teacher."""
    asked = config.training
    is_built = names_builder(str(asked.teacher))
    source = ModelSource(
        name=asked.teacher,
        weights=asked.teacher_weights,
        revision=asked.teacher_revision,
        image_size=config.model.image_size if is_built else None,
    )
    return replace(config, model=source)


def _loaded(config: Config, task: Task) -> Loaded:
    state = torch.get_rng_state()
    try:
        return load_named(config, task.kind, len(task.label_names), task=task if task.kind.is_own else None)
    finally:
        torch.set_rng_state(state)


def _check_task(config: Config, name: str, kind: TaskKind) -> None:
    """Raise `AutopruneError` where the teacher is for another kind of task."""
    if kind.is_own:
        return
    theirs = kind_asked_for(replace(config, task=TaskSettings()))
    fits = theirs.is_tokenized if kind.gives_vectors else theirs == kind
    if not fits:
        raise AutopruneError(
            f"--teacher {name!r} is for task {theirs}, and the model is searched for {kind}: give one that "
            "was fine-tuned for the same task, or leave --teacher out"
        )


def _as_it_reads(config: Config, name: str, rows: Splits, task: Task, teacher: Loaded) -> Task:
    """The rows as a teacher takes them; of texts the ids are the model's.

    Raises:
        AutopruneError: where its tokenizer makes other ids of a text.
    """
    if teacher.processor is not None and teacher.pixels is not None:
        teacher.processor.check(rows.train.images, teacher.pixels)
    read = encoded(rows, teacher, config.task.max_length, task.kind, task.metric)
    parts: dict[str, Any] = {}
    for part, words in (("train", "training"), ("validation", "validation")):
        ours, theirs = getattr(task, part), getattr(read, part)
        if isinstance(ours, Encoded):
            _check_ids(name, words, ours, theirs)
            parts[part] = replace(ours, types=theirs.types)
        else:
            parts[part] = replace(theirs, labels=ours.labels)
    return replace(task, inputs=read.inputs, pad_id=read.pad_id, **parts)


def _check_ids(name: str, words: str, ours: Encoded, theirs: Encoded) -> None:
    """Raise `AutopruneError` at the first row that two tokenizers read otherwise."""
    if np.array_equal(ours.starts, theirs.starts) and np.array_equal(ours.ids, theirs.ids):
        return
    for row in range(min(len(ours), len(theirs))):
        mine, other = (x.ids[x.starts[row] : x.starts[row + 1]] for x in (ours, theirs))
        if not np.array_equal(mine, other):
            told = f"row {row + 1} of the {words} rows is {_ids(mine)} to the model and {_ids(other)} to it"
            break
    else:
        told = f"there are {len(ours)} {words} rows to the model and {len(theirs)} to it"
    raise AutopruneError(
        f"--teacher {name!r} reads text with another tokenizer: {told}. Answers are distilled token for "
        "token and row for row: give a teacher that was trained with the model's tokenizer, or leave "
        "--teacher out"
    )


def _ids(ids: NDArray[np.int32]) -> str:
    more = ", ..." if len(ids) > SHOWN_IDS else ""
    return f"{len(ids)} tokens ({', '.join(map(str, ids[:SHOWN_IDS].tolist()))}{more})"


def _columns(task: Task, teacher: Loaded) -> tuple[tuple[int, ...] | None, str]:
    """Which of a teacher's outputs is of each class, and what the plan says of it.

    Raises:
        AutopruneError: where its classes are others, or another number.
    """
    config: Any = getattr(teacher.model, "config", None)
    if config is None or task.kind.is_own or not task.has_labels or task.kind.predicts_next_token:
        return None, ""
    check_answers(task, config)
    if not task.label_names:
        return None, ""
    head = [str(config.id2label[k]) for k in range(int(config.num_labels))]
    if len(head) != len(task.label_names):
        raise AutopruneError(
            f"its head tells apart {len(head)} classes ({', '.join(head[:SHOWN_IDS])}), the model "
            f"{len(task.label_names)} ({', '.join(task.label_names[:SHOWN_IDS])}): give a teacher of the "
            "same classes, or leave --teacher out"
        )
    match = match_classes(task.label_names, head)
    note = match_note(task.label_names, head, match)
    return match.numbers, "" if note is None else f"; {note}"


def _check_width(task: Task, read: Task, loaded: Loaded, teacher: Loaded) -> None:
    """Raise `AutopruneError` where a teacher answers in another number of outputs than the model."""
    widths = []
    for own, model in ((task, loaded.model), (read, teacher.model)):
        batch = own.batch(own.validation, own.example_rows)
        with torch.inference_mode():
            answers = outputs_of(model, {k: torch.from_numpy(x) for k, x in batch.items()}, task.kind)
        widths.append(int(answers.shape[-1]))
    if loaded.has_head and widths[0] != widths[1]:
        raise AutopruneError(
            f"it answers with {widths[1]} numbers where the model answers with {widths[0]}: give a teacher "
            "that has as many, or leave --teacher out"
        )
