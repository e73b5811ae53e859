"""What always answering alike scores, so that a model can be held against it. No torch.

Shapes: m answered places, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.tasks.metrics import ACCURACY
from autoprune.tasks.task import Data, Task

DOMINATING = 80.0
"""Percent of the rows that one class may be before the plan points at other metrics than accuracy."""

FEWEST_ANSWERS = 50
"""Validation answers below which a good model may be behind the commonest class by chance. One that is right
of 80 % of rows, where that class is 60 % of them, is so in 22 % of draws of 10 rows and in 2 % of draws of 50
(two independent binomials)."""

AGREEING = 10.0
"""Points of accuracy that another order of the labels must gain to be named as a cause."""

FEW_CLASSES = 200
"""Most classes whose order is sought: the assignment takes cubic time."""


@dataclass(frozen=True)
class Commonest:
    """The commonest class of a split: its name, what percent of the answers it is, and how many there are."""

    name: str
    number: int
    percent: float
    answers: int


def commonest_class(task: Task, data: Data) -> Commonest | None:
    """None where answers are no classes, or are not of rows one by one."""
    labels = task.labels(data, np.arange(len(data)))
    is_class = task.kind.predicts_classes or (task.kind.is_own and bool(task.label_names))
    if not is_class or labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        return None
    count = np.bincount(labels)
    number = int(count.argmax())
    return Commonest(_name(task, number), number, 100.0 * float(count[number]) / len(labels), len(labels))


def _name(task: Task, number: int) -> str:
    """A class's name; its number where it has none."""
    return task.label_names[number] if number < len(task.label_names) else str(number)


def balance_notes(task: Task) -> list[str]:
    """What the plan says where accuracy tells little, as one class dominates validation."""
    common = commonest_class(task, task.validation)
    if common is None or common.percent < DOMINATING or task.metric != ACCURACY or task.own is not None:
        return []
    what = "labelled words" if task.kind.answers_each_token else "rows"
    return [
        f"{common.name!r:.60} is {common.percent:.0f} % of {common.answers} validation {what}, which is what "
        f"always answering it scores: {_better_metrics(task)}"
    ]


def _better_metrics(task: Task) -> str:
    names = [metric.name for metric in task.kind.metrics if metric != ACCURACY]
    return f"--metric {' or '.join(names)} counts the other classes as much"


def check_original(task: Task, values: NDArray[np.float32], *, is_fitted: bool, has_names: bool) -> str:
    """Hold the uncompressed model's answers to validation [m k] against always answering alike.

    Args:
        is_fitted: whether its head was fitted here; else it came with the model.
        has_names: whether the names of the model's classes are the data's, or else labels count by number.

    Returns:
        What to say where it is behind and too few answers tell; else "".

    Raises:
        AutopruneError: where its score is not above the commonest class's, with the likely causes; or where
            labels count by number, and in another order they agree far better with its answers.
    """
    common = commonest_class(task, task.validation)
    labels = task.labels(task.validation, np.arange(len(task.validation)))
    if common is None or values.ndim != 2 or len(values) != len(labels):
        return ""
    metric = ACCURACY if task.own is not None else task.metric
    alike = np.zeros_like(values)
    alike[:, min(common.number, values.shape[1] - 1)] = 1.0
    score, constant = metric.score_answers(values, labels), metric.score_answers(alike, labels)
    if score > constant:
        if not (is_fitted or has_names):
            _check_order(task, values, labels)
        return ""
    answers = f"{common.answers} validation {'words' if task.kind.answers_each_token else 'rows'}"
    told = (
        f"the original model's {metric.told(score)} over {answers} is not above {metric.told(constant)}, "
        f"which always answering {common.name!r:.60} scores"
    )
    if common.answers < FEWEST_ANSWERS:
        return f"{told}; so few rows tell little"
    causes = [*_causes(task, values, labels, common, is_fitted=is_fitted, has_names=has_names)]
    numbered = ". ".join(f"({number}) {cause}" for number, cause in enumerate(causes, 1))
    raise AutopruneError(f"{told}: a search has nothing to keep. Likely: {numbered}")


def _causes(
    task: Task,
    values: NDArray[np.float32],
    labels: NDArray[np.int64],
    common: Commonest,
    *,
    is_fitted: bool,
    has_names: bool,
) -> list[str]:
    """What may be wrong, the likeliest first."""
    causes = []
    if common.percent >= DOMINATING and task.metric == ACCURACY and task.own is None:
        causes.append(
            f"{common.name!r:.60} is {common.percent:.0f} % of the rows, so that accuracy says little: "
            f"{_better_metrics(task)}"
        )
    if is_fitted:
        causes.append(
            "the head that was fitted here learned nothing: give a model that is trained for this task, more "
            "rows, more --teacher-epochs or another --teacher-rate"
        )
        return causes
    if order := _likelier_order(values, labels):
        causes.append(_told_order(task, *order))
    elif not has_names:
        causes.append(
            "the labels are in another order than the model's, whose names of classes are not the data's. "
            "Name the labels as id2label of its config.json does"
        )
    if task.kind.reads_images:
        causes.append(
            "the pictures are prepared otherwise than in its training: see size, mean, std and channel order "
            "of its preprocessor_config.json, and --image-size"
        )
    elif task.kind.is_tokenized:
        causes.append("its text is read otherwise than in its training: see the tokenizer and --text-column")
    share = float(np.bincount(values.argmax(1)).max()) / len(values)
    if share > 0.95:
        causes.append(
            f"its head is not trained, or its inputs are not what it knows: {100 * share:.0f} % of its "
            "answers are one class"
        )
    causes.append("the labels are another task's: see --label-column")
    return causes


def _check_order(task: Task, values: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Raise `AutopruneError` where labels that count by number seem to be in another order.

    The gain must be beyond what an assignment finds by chance among few answers: two standard errors.
    """
    accuracy = 100.0 * float((values.argmax(1) == labels).mean())
    order = _likelier_order(values, labels)
    if order is not None and order[0] - accuracy > AGREEING + 100.0 / len(labels) ** 0.5:
        raise AutopruneError(
            f"no class of the data has a name of the model's, and of {len(labels)} validation answers it has "
            f"{accuracy:.1f} % right. Likely {_told_order(task, *order)}"
        )


def _told_order(task: Task, best: float, pairs: list[tuple[int, int]]) -> str:
    named = ", ".join(f"{_name(task, a)!r:.60} for {_name(task, b)!r:.60}" for a, b in pairs[:5])
    return (
        f"the labels are in another order than the model's: its accuracy is {best:.1f} % if it answers "
        f"{named}. Name the labels as id2label of its config.json does, or number them so"
    )


def _likelier_order(
    values: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[float, list[tuple[int, int]]] | None:
    """Accuracy in percent if the model's classes had other numbers, and which for which.

    None if no order helps. The assignment of largest agreement (Kuhn, The Hungarian method for the
    assignment problem, 1955).
    """
    from scipy.optimize import linear_sum_assignment

    answers, classes = values.argmax(1), values.shape[1]
    if classes > FEW_CLASSES or labels.max() >= classes:
        return None
    agreement = np.zeros((classes, classes), np.int64)
    np.add.at(agreement, (answers, labels), 1)
    rows, columns = linear_sum_assignment(agreement, maximize=True)
    best = 100.0 * float(agreement[rows, columns].sum()) / len(labels)
    commonest = 100.0 * float(np.bincount(labels).max()) / len(labels)
    if best < commonest + AGREEING:
        return None
    moved = [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if a != b and agreement[a, b]]
    return best, moved
