"""An exported model: a folder that is written whole, checked by hash, and loaded again.

It holds the target's own files, `config.json`, the tokenizer, and `autoprune.json`: what was done
to each unit, what was measured, and the SHA-256 of every other file. Nothing in it is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from autoprune.errors import AutopruneError
from autoprune.files import file_hash, read_json, write_json, written_whole
from autoprune.stitch import Stitched
from autoprune.targets import Runner, get_target, size_on_disk
from autoprune.task import Batch

ABOUT = "autoprune.json"
VERSION = 1


@dataclass(frozen=True)
class CompiledModel:
    """A model in a runtime other than torch. Call it as a transformers model, with arrays."""

    run: Runner
    config: Mapping[str, Any]

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        """Inputs by name [b s] -> an object with `logits` [b k], float32."""
        batch = {name: np.asarray(value, dtype=np.int64) for name, value in inputs.items()}
        return SimpleNamespace(logits=self.run(batch))


def write_artifact(
    stitched: Stitched,
    folder: Path,
    *,
    target: str,
    tokenizer: Path,
    example: Batch,
    about: Mapping[str, object],
) -> int:
    """Write an exported model to a folder that does not exist yet.

    Args:
        tokenizer: folder whose files are copied beside the model.
        about: facts for `autoprune.json`.

    Returns:
        Bytes of the files the runtime opens.

    Raises:
        AutopruneError: when the folder is there already, or the target lacks a level.
    """
    if folder.exists():
        raise AutopruneError(f"{folder} already exists and is kept as it is; give another -o")
    runtime = get_target(target)
    if lacking := sorted({level.bits for _, level in stitched.levels.items} - runtime.bits):
        raise AutopruneError(f"target {target} cannot store {lacking} bits")
    with written_whole(folder) as temporary:
        temporary.mkdir(parents=True)
        stitched.model.config.save_pretrained(temporary)  # type: ignore[union-attr, operator]
        for file in sorted(tokenizer.iterdir()):
            (temporary / file.name).write_bytes(file.read_bytes())
        runtime.save(stitched, temporary, example)
        hashes = {file.name: file_hash(file) for file in sorted(temporary.iterdir())}
        units = {name: {"ratio": lv.ratio, "bits": lv.bits} for name, lv in stitched.levels.items}
        record = {"version": VERSION, "target": target, **about, "units": units, "sha256": hashes}
        write_json(temporary / ABOUT, record)
    return size_on_disk(runtime, folder)


def read_about(folder: Path) -> dict[str, Any]:
    """What `autoprune.json` says, every file checked against its hash.

    Raises:
        AutopruneError: naming the file that is missing or is not what was written.
    """
    try:
        about = read_json(folder / ABOUT)
        hashes, _ = dict(about["sha256"]), about["target"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AutopruneError(
            f"{folder} is no exported model: {ABOUT} is missing or damaged ({error})"
        ) from error
    if about.get("version") != VERSION:
        raise AutopruneError(f"{folder} has version {about.get('version')}; {VERSION} can be read")
    for name, expected in hashes.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise AutopruneError(f"{file} is missing; export the model again")
        if file_hash(file) != expected:
            raise AutopruneError(f"{file} is not the file that was exported (its SHA-256 differs)")
    return dict(about)


def load(folder: str | Path, *, threads: int = 1) -> Any:
    """Load an exported model, ready to call: `load(DIR)(**tokens).logits`.

    A `packed` export gives a torch module, another target's a `CompiledModel`. Every file is
    checked by hash first; no pickle and no code from the folder is used.

    Raises:
        AutopruneError: when a file is missing or changed, or does not fit the others.
    """
    path = Path(folder)
    about = read_about(path)
    if about["target"] == "packed":
        from autoprune.targets.packed import read_packed

        return read_packed(path).model
    runner = get_target(about["target"]).load(path, threads=threads)
    return CompiledModel(runner, read_json(path / "config.json"))
