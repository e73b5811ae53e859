"""An exported model: a folder that is written whole, checked by hash, and loaded again.

It holds the target's own files, `config.json`, the tokenizer, a model card, and `autoprune.json`: what was
done to each unit, what was measured, and the SHA-256 of every other file. Nothing in it is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.stitch import Stitched, with_whole_vocabulary
from autoprune.core.errors import AutopruneError, ValidationError
from autoprune.core.files import file_hash, read_json, reason_of, write_json, written_whole
from autoprune.core.record import checked
from autoprune.core.redaction import redacted
from autoprune.export.export_record import ExportRecord, UnitRecord
from autoprune.report.text import comma_list
from autoprune.space.levels import Level
from autoprune.targets import Runner, Target, get_target, kept_at, size_on_disk
from autoprune.targets.packed import PLAIN, STORAGES, Packed
from autoprune.tasks.task import Batch

ABOUT, CARD = "autoprune.json", "README.md"
VERSION = 1


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
        """Inputs by name [b s], or pixels [b c h w] -> an object with `logits` (or vectors), float32."""
        batch = {name: _as_input(value) for name, value in inputs.items()}
        return SimpleNamespace(logits=self.run(batch))


def _as_input(value: Any) -> NDArray[Any]:
    """Numbers as models take them: pixels as float32, all else as 64-bit integers."""
    array = np.asarray(value)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


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
        for file in sorted(tokenizer.iterdir()):
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
    if storage not in STORAGES:
        raise AutopruneError(f"storage {storage!r} does not exist; choose one of {', '.join(STORAGES)}")
    if storage == PLAIN:
        return get_target(target) if target != "packed" else Packed(builder=builder)
    if target != "packed":
        raise AutopruneError(
            f"storage {storage} is of target packed alone: {target} opens its files as they are. Give "
            "--target packed with it"
        )
    return Packed(storage, builder)


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
    if written.get("version") != VERSION:
        raise AutopruneError(f"{folder} has version {written.get('version')}; {VERSION} can be read")
    return checked(ExportRecord, written, str(folder / ABOUT))


def read_about(folder: Path) -> ExportRecord:
    """What `autoprune.json` says, every file checked against its hash.

    Raises:
        AutopruneError: naming the file that is missing or is not what was written.
    """
    about = read_export_record(folder)
    for name, expected in about.sha256.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise ValidationError(f"{file} is missing; export the model again")
        if file_hash(file) != expected:
            raise ValidationError(f"{file} is not the file that was exported (its SHA-256 differs)")
    return about


def load(folder: str | Path, *, threads: int = 1, builder: str | None = None) -> Any:
    """Load an exported model, ready to call: `load(DIR)(**tokens).logits`.

    A `packed` export gives a torch module, another target's a `CompiledModel`. Every file is
    checked by hash first; no pickle and no code from the folder is used.

    Args:
        builder: function that builds the empty model of a `packed` export that is not from transformers.

    Raises:
        AutopruneError: when a file is missing or changed, or does not fit the others.
    """
    path = Path(folder)
    about = read_about(path)
    if about.target == "packed":
        from autoprune.targets.packed import read_packed

        return read_packed(path, builder=builder).model
    runner = get_target(about.target).load(path, threads=threads)
    return CompiledModel(runner, read_json(path / "config.json"))
