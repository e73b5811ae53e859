"""An exported model: a folder that is written whole, checked by hash, and loaded again.

It holds the target's own files, `config.json`, the tokenizer, a model card, and `autoprune.json`: what was
done to each unit, what was measured, and the SHA-256 of every other file. Nothing in it is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.stitch import Stitched, with_whole_vocabulary
from autoprune.core.errors import AutopruneError, ValidationError
from autoprune.core.files import file_hash, is_inside, read_json, reason_of, write_json, written_whole
from autoprune.core.record import checked
from autoprune.core.redaction import redacted
from autoprune.export.arrays import as_input, taking_arrays
from autoprune.export.averaged import Average, Loadable
from autoprune.export.export_record import ExportRecord, UnitRecord
from autoprune.export.family_model import FamilyModel, ServedMember, choose_member, limits_of
from autoprune.models.spec import Architecture
from autoprune.report.text import comma_list
from autoprune.space.budget import Budget
from autoprune.space.levels import Level
from autoprune.targets import Runner, Target, get_target, kept_at, size_on_disk
from autoprune.targets.target import PLAIN
from autoprune.tasks.task import Batch

ABOUT, CARD = "autoprune.json", "README.md"
VERSION = 1
OF_SEVERAL = 2
"""Version of the record of an export that holds several models, which earlier versions cannot open."""


_BEYOND = ("rope_parameters", "relative_attention")
"""Settings of models without a table of places, which answer more tokens than they were trained with."""


@dataclass(frozen=True)
class CompiledModel:
    """A model in a runtime other than torch. Call it as a transformers model, with arrays."""

    run: Runner
    config: Mapping[str, Any]

    def generate(self, input_ids: Any, *, max_new_tokens: int, stop: Sequence[int] = ()) -> NDArray[np.int64]:
        """Tokens [b s] that a language model goes on with, the likeliest each time [b n].

        Args:
            stop: tokens after which a row ends.

        Raises:
            AutopruneError: for a model of another kind.
        """
        if not hasattr(self.run, "generate"):
            raise AutopruneError("this model is no language model: it does not write text")
        ids = np.asarray(input_ids, np.int64)
        return self.run.generate(ids, max_new_tokens=max_new_tokens, stop=stop)  # type: ignore[no-any-return]

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        """Inputs by name [b s], or pixels [b c h w] -> an object with `logits` (or vectors), float32.

        Raises:
            AutopruneError: for more tokens than the model has places for, which a runtime may answer anyhow.
        """
        batch = {name: as_input(value) for name, value in inputs.items()}
        goes_on = any(map(self.config.get, _BEYOND))
        most = None if goes_on else self.config.get("max_position_embeddings")
        if most and "input_ids" in batch and (given := batch["input_ids"].shape[-1]) > most:
            raise AutopruneError(
                f"{given} tokens, and the model has places for {most}: cut texts, as by "
                f"tokenizer(text, truncation=True, max_length={most})"
            )
        return SimpleNamespace(logits=self.run(batch))


def write_artifact(
    stitched: Stitched,
    folder: Path,
    *,
    about: ExportRecord,
    tokenizer: Path,
    example: Batch,
) -> int:
    """Write an exported model to a folder that does not exist yet.

    Args:
        about: its target and storage, and facts for `autoprune.json`; units and hashes are added.
        tokenizer: folder whose files (of a tokenizer, or how pictures are read) are copied beside the model.

    Returns:
        Bytes of the files the runtime opens.

    Raises:
        AutopruneError: when the folder is there already, or the target lacks a level.
    """
    if folder.exists():
        raise AutopruneError(f"{folder} already exists and is kept as it is; give another -o")
    runtime = runtime_of(about.target, about.storage)
    levels = [level for _, level in stitched.levels.items]
    if lacking := {level.storage for level in levels if kept_at(runtime, level) is None}:
        raise AutopruneError(
            f"target {about.target} cannot store weights of {comma_list(lacking)}, which this model has"
        )
    with written_whole(folder) as temporary:
        temporary.mkdir(parents=True)
        stitched.architecture.write(temporary)
        for file in sorted(tokenizer.glob("*")):  # a fetched run has no empty folder
            (temporary / file.name).write_bytes(file.read_bytes())
        runtime.save(_as_kept(stitched, runtime), temporary, example)
        hashes = {file.name: file_hash(file) for file in sorted(temporary.iterdir())}
        units = {
            name: UnitRecord(ratio=level.ratio, bits=level.storage.written)
            for name, level in stitched.levels.items
        }
        added: dict[str, Any] = {
            "version": VERSION,
            "storage": about.storage,
            "units": units,
            "sha256": hashes,
        }
        if stitched.architecture.kind.gives_vectors:
            sentence = stitched.architecture.sentence
            added |= {"pooling": sentence.in_words(), "has_sentence_head": not sentence.is_plain}
        write_json(temporary / ABOUT, about.model_copy(update=added).as_json())
    return size_on_disk(runtime, folder)


def runtime_of(target: str, storage: str = PLAIN, *, builder: str | None = None) -> Target:
    """A target that saves with a storage.

    Args:
        builder: function that may be called for a model that is not from transformers, to load it packed.

    Raises:
        AutopruneError: for a target or storage that does not exist, and for a storage another target lacks.
    """
    return get_target(target, storage=storage, builder=builder if target == "packed" else None)


def write_card(folder: Path, about: ExportRecord, card: str) -> None:
    """Put a model card beside an exported model, and write its record again, with the card's hash."""
    (folder / CARD).write_text(redacted(card), encoding="utf-8")
    hashes = {**about.sha256, CARD: file_hash(folder / CARD)}
    write_json(folder / ABOUT, about.model_copy(update={"sha256": hashes}).as_json())


def _as_kept(stitched: Stitched, runtime: Target) -> Stitched:
    """The same model with weights in storages that a target has; the values are the same."""
    stitched = stitched if runtime.parts else with_whole_vocabulary(stitched)
    stored = {}
    for path, weight in stitched.stored.items():
        kept = kept_at(runtime, Level(0.0, weight.storage))
        stored[path] = weight if kept is None else weight.widened(kept.storage)
    return replace(stitched, stored=stored)


def read_export_record(folder: Path) -> ExportRecord:
    """What `autoprune.json` says.

    Raises:
        AutopruneError: when it is missing, damaged or of another version.
    """
    try:
        written = read_json(folder / ABOUT)
        _ = dict(written["sha256"]), written["target"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AutopruneError(
            f"{folder} is no exported model: {ABOUT} is missing or damaged ({reason_of(error)})"
        ) from error
    if written.get("version") not in (VERSION, OF_SEVERAL):
        raise AutopruneError(
            f"{folder} has version {written.get('version')}; {VERSION} and {OF_SEVERAL} can be read"
        )
    about = checked(ExportRecord, written, str(folder / ABOUT))
    if (about.version == OF_SEVERAL) != (about.ensemble is not None or about.family is not None):
        raise AutopruneError(
            f"{folder / ABOUT} is damaged: version {OF_SEVERAL} and several models go together"
        )
    return about


def read_about(folder: Path) -> ExportRecord:
    """What `autoprune.json` says, every file checked against its hash.

    Raises:
        AutopruneError: naming the file that is missing or is not what was written.
    """
    about = read_export_record(folder)
    for name, expected in about.sha256.items():
        file = folder / name
        if not _is_of_export(name, about) or not is_inside(file, folder) or not file.is_file():
            raise ValidationError(f"{file} is missing; export the model again")
        if file_hash(file) != expected:
            raise ValidationError(f"{file} is not the file that was exported (its SHA-256 differs)")
    return about


def _is_of_export(name: str, about: ExportRecord) -> bool:
    """Whether a record may name a file so: in the folder itself, or in that of an ensemble's member."""
    members = () if about.ensemble is None else [member.name for member in about.ensemble.members]
    *folder, file = PurePosixPath(name).parts or ("",)
    is_plain = "/".join([*folder, file]) == name and file not in ("", "..", "/")
    return is_plain and (not folder or (len(folder) == 1 and folder[0] in members))


def served_by(about: ExportRecord, *, member: str = "", builder: str | None = None) -> Loadable:
    """What opens an exported folder: its target, all members of an ensemble as one, or a family's member.

    member: its name; "" is the most accurate.
    """
    if about.family is not None:
        name = member or choose_member(about.family.members, Budget()).name
        return ServedMember(name, builder)
    target = runtime_of(about.target, builder=builder)
    if about.ensemble is None:
        return target
    folders = tuple(member.name for member in about.ensemble.members)
    return Average(target, folders, about.ensemble.weights, about.data.kind)


def builder_needed(folder: Path, about: ExportRecord) -> str | None:
    """The function, `module:function`, that `load` must be given for a folder; None where it needs none.

    Files of target packed hold tensors alone, so that a model of somebody's own code is built by that code.
    """
    return Architecture.read(folder).builder if about.target == "packed" else None


def load(
    folder: str | Path,
    *,
    threads: int = 1,
    builder: str | None = None,
    budget: str | None = None,
    latency: str | None = None,
) -> Any:
    """Load an exported model, ready to call: `load(DIR)(**tokens).logits`.

    A `packed` export gives a torch module, another target's a `CompiledModel`, and so does an ensemble,
    which answers with the average of its members; a family gives a `FamilyModel`. Every file is checked by
    hash first; no pickle and no code from the folder is used.

    Args:
        builder: function that builds the empty model of a `packed` export that is not from transformers.
        budget, latency: of a family, the limits, as `6MB` and `5ms`, within which the most accurate member
            is loaded.

    Raises:
        AutopruneError: when a file is missing or changed, or does not fit the others.
        BudgetError: when no member is within the limits.
    """
    path = Path(folder)
    about = read_about(path)
    limits = limits_of(budget, latency)
    if about.family is not None:
        return FamilyModel(path, about.family, limits, builder)
    if limits != Budget():
        raise AutopruneError(
            f"{path} holds no family of models: load it without budget and latency, or export one with "
            "autoprune export RUN --family"
        )
    if about.target == "packed" and about.ensemble is None:
        from autoprune.targets.packed import read_packed

        return taking_arrays(read_packed(path, builder=builder).model)
    runner = served_by(about, builder=builder).load(path, threads=threads)
    return CompiledModel(runner, read_json(path / "config.json"))
