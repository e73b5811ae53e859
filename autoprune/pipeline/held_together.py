"""Model and data held together before anything costly: classes, tokens, lengths, and one run on real rows."""

from __future__ import annotations

import numpy as np
import torch

from autoprune.core.errors import AutopruneError
from autoprune.models.checkpoint import first_line
from autoprune.models.loading import Loaded
from autoprune.models.outputs import outputs_of
from autoprune.models.tokenizer_fit import check_tokens, longest_row
from autoprune.pipeline.head_classes import with_head_classes
from autoprune.run.config import Config
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Encoded, Task


def held_together(config: Config, loaded: Loaded, task: Task) -> tuple[Task, int, tuple[str, ...]]:
    """See that a model takes the rows, and number the labels as its head does.

    Returns:
        The task, the tokens that latency is timed at, and lines for the plan.

    Raises:
        AutopruneError: naming what of the data the model does not take.
    """
    source = config.model.name or "the demo's model"
    sequence, notes = config.timing.sequence, list(loaded.notes)
    if loaded.tokenizer is not None:
        parts = (part for part in (task.train, task.validation, task.test) if isinstance(part, Encoded))
        ids = np.concatenate([part.ids for part in parts])
        notes += check_tokens(ids, loaded.tokenizer, loaded.model, source)
        sequence, said = _lengths(config, loaded, task)
        notes += said
    task, of_classes = with_head_classes(task, loaded)
    prove(loaded, task, source)
    return task, sequence, (*notes, *of_classes)


def _lengths(config: Config, loaded: Loaded, task: Task) -> tuple[int, list[str]]:
    """Tokens that latency is timed at, and what is shorter than was asked."""
    notes, limit = [], int(loaded.tokenizer.model_max_length)
    longest = max(int(rows.lengths.max()) for rows in (task.train, task.validation, task.test))
    if config.task.max_length > limit and longest >= limit:
        notes.append(f"rows are cut at {limit} tokens, not {config.task.max_length}: the model takes no more")
    sequence, places = config.timing.sequence, longest_row(loaded.model)
    if places is not None:
        most = places - 1 if task.kind.predicts_next_token else places
        if most < 1:
            raise AutopruneError(f"it has {places} place: no token after others can be timed")
        if sequence > most:
            notes.append(f"latency is timed at {most} tokens, not {sequence}: the model has {places} places")
            sequence = most
    return sequence, notes


def _axes(kind: TaskKind) -> tuple[str, ...] | None:
    """The axes that answers of a kind of task have; None where a function of the user's says."""
    if kind.is_own:
        return None
    rows = ("rows", "tokens") if kind.answers_each_token else ("rows",)
    return (*rows, "features" if kind.gives_vectors else "numbers")


def prove(loaded: Loaded, task: Task, source: str) -> None:
    """Run the model once on the longest and the shortest validation row.

    Raises:
        AutopruneError: where it does not take them, or answers in another shape or what is no number.
    """
    lengths = task.validation.lengths
    rows = np.array([int(lengths.argmax()), int(lengths.argmin())])
    batch = task.batch(task.validation, rows)
    shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in batch.items())
    try:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
            answers = outputs_of(loaded.model, inputs, task.kind)
    except Exception as error:  # a model may raise anything
        raise AutopruneError(
            f"model {source!r} does not run on rows of the data ({shapes}): {first_line(error)}"
        ) from error
    wanted = _axes(task.kind)
    if wanted is not None and answers.ndim != len(wanted):
        raise AutopruneError(
            f"model {source!r} answers rows of the data ({shapes}) with {list(answers.shape)}; task "
            f"{task.kind} needs [{', '.join(wanted)}]. What answers each spot of a picture, or boxes in it, "
            "is of no kind of task known here: describe it by --task module:function"
        )
    if not bool(torch.isfinite(answers).all()):
        raise AutopruneError(
            f"model {source!r} answers NaN or Inf to rows of the data ({shapes}): its weights are damaged, "
            "or it does not take such inputs"
        )
