"""An exported model of a few kilobytes, and damage to its files: header, metadata, weights, config."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hypothesis.strategies as some
import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.core.files import file_hash
from autoprune.export.artifact import ABOUT, load
from autoprune.space.levels import Candidate
from autoprune.targets.packed import WEIGHTS, Packed, read_packed
from autoprune.tasks.kinds import TEXT_CLASSIFICATION
from tests.support.damage import OTHER_VALUES, STRAY, changed_json, check_message, damaged_bytes, damaged_json
from tests.support.tiny import Tiny, make_tiny

CONFIG = "config.json"
PREFIX = 8
"""Bytes before the header, which hold its length (https://github.com/huggingface/safetensors, "Format")."""

OF_CONFIG = tuple(value for value in OTHER_VALUES if value != 10**30)
"""Nobody waits for so many layers."""

Answers = NDArray[np.float32]


@dataclass(frozen=True)
class MadeExport:
    """An exported folder that is whole: its files by name, and what its model answers."""

    files: dict[str, bytes]
    answers: Answers


@dataclass(frozen=True)
class Damage:
    """Other contents of some of an export's files; None is a file that is missing."""

    files: dict[str, bytes | None]


def make_tiny_export(folder: Path, storage: Literal["plain", "entropy"], hidden: int = 16) -> MadeExport:
    """A random BERT of mixed levels, its record with the hash of each file."""
    tiny = make_tiny("bert", folder / "library", hidden=hidden, ffn=2 * hidden, vocab=10 * hidden)
    levels = dict(tiny.mixed.items)
    offered = tuple((unit.unit, unit.nearest(levels[unit.unit])) for unit in tiny.space.units)
    return _exported(tiny, Candidate(offered), folder / "export", storage)


def _exported(tiny: Tiny, levels: Candidate, folder: Path, storage: str) -> MadeExport:
    folder.mkdir(parents=True)
    stitched = tiny.stitched_as(levels)
    Packed(storage).save(stitched, folder, {})
    config: Any = tiny.model.config
    described = {"autoprune": {"kind": TEXT_CLASSIFICATION.name}} | json.loads(config.to_json_string())
    (folder / CONFIG).write_text(json.dumps(described), encoding="utf-8")
    hashes = {name: file_hash(folder / name) for name in (WEIGHTS, CONFIG)}
    about = {"version": 1, "target": "packed", "storage": storage, "sha256": hashes}
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return MadeExport(files, answers_of(load(folder)))


def answers_of(model: Any) -> Answers:
    """Logits [2 k] of two fixed rows."""
    tokens = torch.arange(14).reshape(2, 7) + 5
    with torch.inference_mode():
        return np.asarray(model(input_ids=tokens).logits.numpy(), np.float32)


@some.composite
def damages(draw: some.DrawFn, export: MadeExport) -> Damage:
    """Damage to one file of an export, or to the weights alone, in each of their parts."""
    name = draw(some.sampled_from([WEIGHTS] * 4 + [CONFIG, ABOUT]))
    if draw(some.integers(0, 29)) == 0:
        return Damage({name: None})
    if name == ABOUT:
        return Damage({name: draw(damaged_json(export.files[name]))})
    if name == CONFIG:
        return Damage({name: draw(damaged_json(export.files[name], OF_CONFIG))})
    return Damage({name: draw(_weights(export.files[name]))})


@some.composite
def _weights(draw: some.DrawFn, data: bytes) -> bytes:
    """A file of weights with another header, other metadata, another length, or other bytes."""
    size = int.from_bytes(data[:PREFIX], "little")
    header, payload = json.loads(data[PREFIX : PREFIX + size]), data[PREFIX + size :]
    part = draw(some.sampled_from(["header", "metadata", "metadata", "length", "text", "payload", "bytes"]))
    if part == "length":
        other = draw(some.sampled_from([0, 1, size - 1, size + 1, len(data), 2**31, 2**63, 2**64 - 1]))
        return other.to_bytes(PREFIX, "little") + data[PREFIX:]
    if part == "text":
        text = draw(damaged_bytes(data[PREFIX : PREFIX + size]))
        return len(text).to_bytes(PREFIX, "little") + text + payload
    if part == "payload":
        return data[: PREFIX + size] + draw(damaged_bytes(payload))
    if part == "bytes":
        return draw(some.one_of(damaged_bytes(data), some.sampled_from(STRAY).map(lambda more: data + more)))
    if part == "header":
        header = draw(changed_json(header))
    else:
        about = draw(changed_json(json.loads(header["__metadata__"]["autoprune"])))
        header["__metadata__"]["autoprune"] = json.dumps(about)
    text = json.dumps(header).encode()
    return len(text).to_bytes(PREFIX, "little") + text + payload


def check_export(export: MadeExport, damage: Damage, folder: Path) -> str:
    """How a damaged export ends: "accepted", "refused", or "refused by its hash" alone.

    Raises:
        AssertionError: where it is loaded and answers otherwise.
        Exception: whatever a reader raises that is no AutopruneError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in (export.files | damage.files).items():
        if content is not None:
            (folder / name).write_bytes(content)
    try:
        answers = answers_of(load(folder))
    except AutopruneError as error:
        check_message(error)
    else:
        assert np.array_equal(answers, export.answers), "it is loaded and answers otherwise"
        return "accepted"
    if ABOUT in damage.files:
        return "refused"
    try:
        read_packed(folder)
    except AutopruneError as error:
        check_message(error)
        return "refused"
    return "refused by its hash"
