"""A task and a model's trained head: whose classes they are, and what the plan says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models.loading import Loaded
from autoprune.tasks.class_names import match_classes, match_note
from autoprune.tasks.task import Task, with_label_order


def with_head_classes(task: Task, loaded: Loaded) -> tuple[Task, tuple[str, ...]]:
    """The task with the classes of a model's trained head, and its labels as that head numbers them.

    A class that the data have keeps its name there. Without a trained head, or without classes, the task is
    as it came.

    Returns:
        The task, and lines for the plan.

    Raises:
        AutopruneError: where the classes are not the head's, or it answers other than the task asks for.
    """
    config: Any = getattr(loaded.model, "config", None)
    if config is None or task.own is not None or not task.has_labels or task.kind.predicts_next_token:
        return task, ()
    if not loaded.has_head:
        return task, (f"{_why_new(loaded)}; one is fitted to the training rows before the search",)
    check_answers(task, config)
    if not task.label_names:
        return task, ()
    head = [str(config.id2label[k]) for k in range(int(config.num_labels))]
    match = match_classes(task.label_names, head)
    note = match_note(task.label_names, head, match)
    spelled = dict(enumerate(head)) | dict(zip(match.numbers, task.label_names, strict=True))
    ordered = replace(
        task,
        train=with_label_order(task.train, match.numbers),
        validation=with_label_order(task.validation, match.numbers),
        test=with_label_order(task.test, match.numbers),
        label_names=tuple(spelled[k] for k in range(len(head))),
    )
    return ordered, () if note is None else (note,)


def has_names_of_head(task: Task, model: nn.Module) -> bool:
    """Whether every class has a name of the model's head, so that their order is beyond doubt."""
    config: Any = getattr(model, "config", None)
    if config is None:
        return False
    head = {str(name).casefold() for name in config.id2label.values()}
    return {name.casefold() for name in task.label_names} <= head


def _why_new(loaded: Loaded) -> str:
    if loaded.dropped_head:
        return f"the model's head for {loaded.dropped_head} is thrown away (--new-head)"
    return "the model has no trained head for this task"


def check_answers(task: Task, config: Any) -> None:
    """Raise `AutopruneError` where a trained head gives other answers than a kind of task has."""
    outputs, told = int(config.num_labels), getattr(config, "problem_type", None)
    if told == "multi_label_classification" and task.kind.predicts_classes:
        raise AutopruneError(
            f"the model gives each row any number of its {outputs} labels (problem_type {told}), each by a "
            f"threshold of its own; {task.kind} has one class a row. Give a task of your own (--task "
            "module:function), or --new-head to fit a head of one class a row"
        )
    if task.kind.predicts_number and outputs != 1:
        raise AutopruneError(
            f"the model's head gives {outputs} numbers a row; {task.kind} has one. Give --task "
            "text-classification if they are classes, or --new-head to fit a new head"
        )
    if task.kind.predicts_classes and (outputs == 1 or told == "regression"):
        raise AutopruneError(
            f"the model's head gives {outputs} number{'s' * (outputs > 1)} a row, a score; {task.kind} has "
            "classes. "
            f"Give --task text-regression, or --new-head to fit a head of classes"
        )
