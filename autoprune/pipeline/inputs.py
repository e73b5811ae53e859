"""What the user named, loaded and understood: model, data, space, and what each unit weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import transformers

from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.core.progress import Progress
from autoprune.evaluation.augmentation import check_augmentable
from autoprune.evaluation.finetune import dropout_layers
from autoprune.models import loading
from autoprune.models.find_space import find_space
from autoprune.models.image_processor import Pixels
from autoprune.models.split_embedding import part_by_use_
from autoprune.models.unit import Unit
from autoprune.models.units import find_units, importance_line, search_space, to_part
from autoprune.pipeline.data_doubts import clean, without
from autoprune.pipeline.held_together import held_together
from autoprune.pipeline.hub_commits import commits_of, with_commits
from autoprune.pipeline.named import encoded, kind_asked_for, load_named, metric_of, read_named
from autoprune.pipeline.other_teacher import OtherTeacher, read_other_teacher
from autoprune.run.config import Config, TaskSettings, TimingSettings, name_of
from autoprune.run.identity import weights_hash
from autoprune.run.run_record import Identity
from autoprune.run.text import size_text
from autoprune.run.whereabouts import paths_of
from autoprune.space.budget import Budget, megabytes
from autoprune.space.costs import Costs
from autoprune.space.levels import SearchSpace
from autoprune.space.space_file import SpaceFile
from autoprune.space.storage import OPTIONAL
from autoprune.targets import check_storage, get_target
from autoprune.targets.coded_sizes import coded_original_bytes
from autoprune.targets.sizes import sizes_of
from autoprune.targets.target import ENTROPY
from autoprune.tasks.alterations import check_alterable, check_attackable
from autoprune.tasks.class_balance import balance_notes
from autoprune.tasks.custom import own_task, task_hash
from autoprune.tasks.data import splits
from autoprune.tasks.data.cleaning import Cleaned
from autoprune.tasks.encoding import encoded_hash
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Encoded, Task


@dataclass(frozen=True)
class Inputs:
    """What was named, loaded and understood, before anything costly: the budget can be checked.

    data_hash: of the rows as they were read. encoded_hash: of what the model is fed, which depends on the
    tokenizer too, or on how pictures are made inputs (`encoding.encoded_hash`). identity: what a run is
    held to. texts: the rows as they were read, of a task whose rows are texts with an answer each. sequence:
    tokens that latency is timed at. notes: lines for the plan: what of the data was left out or may not be
    meant, and what is done otherwise than was asked. cleaned: training rows that --clean-data left out.
    teacher: another than the original, that fine-tunes learn from. groups: of training and of validation
    rows, what stays together where folds are dealt; None where each row is by itself. sizes: of plain files.
    coded_original: bytes of the uncompressed model's file where sizes are those of coded files; what other
    candidates take is known from their variants (`measured_costs`), and is not more than in plain files.
    """

    name: str
    task: Task
    loaded: loading.Loaded
    file: SpaceFile
    space_name: str
    units: tuple[Unit, ...]
    space: SearchSpace
    sizes: Costs
    data_hash: str
    dataset: str
    encoded_hash: str
    identity: Identity
    texts: splits.Splits | None = None
    sequence: int = TimingSettings.sequence
    notes: tuple[str, ...] = ()
    cleaned: Cleaned | None = None
    teacher: OtherTeacher | None = None
    groups: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    coded_original: int | None = None

    @property
    def original_bytes(self) -> int:
        """Bytes of the uncompressed model's files; of coded ones before a missing head is fitted."""
        if self.coded_original is not None:
            return self.coded_original
        return self.sizes.size_bytes(self.space.untouched())


def read_inputs(
    config: Config,
    earlier: Pixels | None = None,
    *,
    was_fitted: bool = False,
    left_out: Cleaned | None = None,
    progress: Progress | None = None,
) -> Inputs:
    """Load model, data and space file, and settle what each unit weighs on the target.

    Args:
        earlier: how a run of an earlier version makes pictures inputs, which it goes on with.
        was_fitted: whether the run that is taken up began with a head of its own fitting, whatever the model
            has.
        left_out: training rows that the run that is taken up left out by --clean-data.

    Raises:
        AutopruneError: for whatever the user named that is not there or does not fit.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    target = get_target(config.search.target)
    check_storage(target.name, config.search.file_storage)
    if config.task.name != TaskSettings().name:  # what its kind cannot have is said before the hub is asked
        _check_kind(config, kind_asked_for(config))
    config = with_commits(config)
    kind = kind_asked_for(config)
    metric = metric_of(config, kind)
    _check_kind(config, kind)
    texts: splits.Splits | None = None
    rows: splits.Splits | None = None
    notes: tuple[str, ...] = ()
    left_out = left_out if config.training.clean_data else None
    if kind.is_own:
        if config.training.clean_data:
            raise AutopruneError(
                "--clean-data: rows of a task of your own are arrays; clean them in its function"
            )
        task = own_task(str(config.task.name))
        loaded, name, data_hash = load_named(config, kind, task=task), str(config.task.name), task_hash(task)
    else:
        rows, loaded, task = read_named(config, kind, metric, earlier, was_fitted=was_fitted)
        name, data_hash, notes = rows.name, rows.fingerprint, rows.notes
        if config.training.clean_data:
            if left_out is None:
                held_together(config, loaded, task)  # it is seen before that the model takes the rows
                said, seed = progress or Progress(), config.search.seed
                left_out = clean(
                    rows, loaded, task, what=config.training.clean_data, seed=seed, progress=said
                )
            again = partial(
                encoded, loaded=loaded, max_length=config.task.max_length, kind=kind, metric=metric
            )
            rows, task = without(rows, task, left_out, again)
            notes = (*notes, left_out.line())
        notes = (*notes, *balance_notes(task))
        texts = rows if kind.labels_texts else None
    read = data_hash if left_out is None else content_key(data_hash, left_out.kept)
    fed = encoded_hash(task, data_hash=read, pixels=loaded.pixels)
    identity = _identity(config, loaded, task, fed)  # before embeddings are parted by the data
    task, sequence, told = held_together(config, loaded, task)
    other = read_other_teacher(config, rows, task, loaded, data_hash=read)
    if other is not None:
        identity = identity.model_copy(update={"teacher": other.weights})
    file, space_name = find_space(config.search.space, loaded.model)
    if file.finetune.dropout and not dropout_layers(loaded.model):
        raise AutopruneError(
            f"finetune.dropout is {file.finetune.dropout:g} in {space_name}, and the model has no dropout "
            "layers. Leave it out"
        )
    if target.parts:
        _part_(loaded, file, task)
    units = find_units(loaded.model, file, source=space_name)
    removed_by = importance_line(units)
    if removed_by:  # or `run.json` of other runs would have a field more
        identity = identity.model_copy(update={"importance": removed_by})
    space = search_space(units, target.offers)
    sizes = sizes_of(loaded, units, space, target, task)
    doubts = [*told, *_passed_over(units, space, target.name)]
    doubts += [f"removed are {removed_by}"] if removed_by else []
    coded = None
    if config.search.file_storage == ENTROPY:
        coded = coded_original_bytes(loaded.model, loaded.architecture)
    return Inputs(
        name_of(config), task, loaded, file, space_name, units, space, sizes, data_hash, name, fed,
        identity, texts, sequence, (*notes, *doubts),
        left_out, other, _groups(rows, task), coded,
    )  # fmt: skip


def _passed_over(units: Sequence[Unit], space: SearchSpace, target: str) -> list[str]:
    """A line about storages that the space file names and the target lacks; none where it has all."""
    named = {storage for unit in units for storage in unit.storages if storage in OPTIONAL}
    lacking = named.difference(storage for choices in space.units for storage in choices.storages)
    if not lacking:
        return []
    names = ", ".join(sorted(storage.name for storage in lacking))
    return [f"target {target} stores no weight as {names}: what the space file names so is passed over"]


def _groups(rows: splits.Splits | None, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The groups of training and validation rows, or else their texts or pictures."""
    if rows is None or len(rows.train) != len(task.train) or len(rows.validation) != len(task.validation):
        return None  # arrays of the user's own, or windows of text
    return tuple(rows.train.held_together()), tuple(rows.validation.held_together())


def _check_kind(config: Config, kind: TaskKind) -> None:
    """Raise AutopruneError where rows of a kind cannot be altered or augmented, and that was asked for."""
    if config.search.robustness:
        check_alterable(kind)
    if config.search.attacks:
        check_attackable(kind)
    if config.training.augment:
        check_augmentable(kind)


def _identity(config: Config, loaded: loading.Loaded, task: Task, fed: str) -> Identity:
    """Hashes of the weights and data that were read, and where they lie."""
    state, body = loaded.model.state_dict(), getattr(loaded.model, "base_model", loaded.model)
    inside = body.state_dict()
    prefix = "" if body is loaded.model else f"{loaded.model.base_model_prefix}."
    head = {name: tensor for name, tensor in state.items() if name.removeprefix(prefix) not in inside}
    return Identity(
        weights=weights_hash(inside),
        head=weights_hash(head) if head and loaded.has_head else None,
        data=content_key(fed, task.label_names),
        paths=paths_of(config),
        commits=commits_of(config),
        folder=str(Path.cwd()),
    )


def _part_(loaded: loading.Loaded, file: SpaceFile, task: Task) -> None:
    """Part the vocabularies that a space file has in two, by the training text, in place."""
    if not isinstance(task.train, Encoded) or loaded.tokenizer is None:
        return
    for path, share in to_part(loaded.model, file).items():
        uses = np.zeros(len(loaded.model.get_submodule(path).weight))  # type: ignore[arg-type]
        counts = np.bincount(task.train.ids)[: len(uses)]
        uses[: len(counts)] = counts
        uses[[token for token in loaded.tokenizer.all_special_ids if token < len(uses)]] = np.inf
        part_by_use_(loaded.model, path, uses, share)


CODED_SHARE = 0.25
"""Share of its plain bytes that no coded file is expected to be below: a limit below is refused at once."""


def check_budget(inputs: Inputs, budget: Budget, coded: Costs | None = None) -> int:
    """Bytes of the smallest candidate.

    Args:
        coded: bytes in coded files, once they are measured. Where these count, only a limit that is far off
            is refused until then.

    Raises:
        BudgetError: when even that is over the budget; says how small the model can get, and why.
    """
    sizes = coded or inputs.sizes
    smallest = sizes.smallest(inputs.space)
    size = sizes.size_bytes(smallest)
    is_bound = coded is None and inputs.coded_original is not None
    if budget.size_bytes is not None and size * (CODED_SHARE if is_bound else 1) > budget.size_bytes:
        parts = {u: sizes.levels[u][level].size_bytes for u, level in smallest.items}
        unit = max(parts, key=lambda name: parts[name])
        bits = smallest[unit].storage.name
        raise BudgetError(
            f"budget {megabytes(budget.size_bytes)} cannot be met: the smallest candidate of "
            f"{inputs.space_name} on this model is {size_text(size)} ({unit} {size_text(parts[unit])} at "
            f"{bits} bits, {size_text(sizes.fixed_bytes)} outside all units). "
            "Raise --budget, or allow fewer bits or higher ratios in the space file."
        )
    return size
