"""A trial's seed follows from the run's seed and its candidate, so the worker does not matter."""

from __future__ import annotations

import hashlib

from autoprune.space.levels import Candidate
from autoprune.space.storage import OPTIONAL, Storage


def candidate_seed(seed: int, candidate: Candidate) -> int:
    """A trial's seed: from the run's and the candidate alone, whatever worker it meets."""
    digest = hashlib.sha256(f"{seed}:{candidate_text(candidate)}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def candidate_text(candidate: Candidate) -> str:
    """The candidate as text. Another text would give another seed, and a trial made again another model."""
    levels = [
        f"({unit!r}, Level(ratio={level.ratio!r}, bits={level.storage.bits}, "
        f"activations={level.storage.input_bits}{_kind(level.storage)}))"
        for unit, level in candidate.items
    ]
    return f"({', '.join(levels)}{',' if len(levels) == 1 else ''})"


def _kind(storage: Storage) -> str:
    """What tells a storage from others of as many bits; nothing where bits told all in earlier versions."""
    return f", kind={storage.name!r}" if storage in OPTIONAL else ""
