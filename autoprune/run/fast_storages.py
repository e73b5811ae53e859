"""Storages that a target computes with faster than with floats, in `run.json`, and for people."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from autoprune.space.levels import SearchSpace
from autoprune.space.storage import FLOAT32, STATIC8, Storage, storage_of, widest_first

if TYPE_CHECKING:
    from autoprune.run.run_record import RunFacts


def fast_facts(fast: AbstractSet[Storage]) -> dict[str, Any]:
    """What `run.json` says: all but w8a8 as files hold them, narrowest first, and whether w8a8 is fast.

    >>> fast_facts({STATIC8, storage_of(8), storage_of(4)})
    {'fast_bits': [4, 8], 'integer': True}
    """
    return {
        "fast_bits": [storage.written for storage in sorted(fast - {STATIC8})],
        "integer": STATIC8 in fast,
    }


def fast_of(facts: RunFacts) -> AbstractSet[Storage] | None:
    """The fast storages in `run.json` (inverse of `fast_facts`); None where an old run does not say."""
    if facts.fast_bits is None:
        return None
    return {storage_of(written) for written in facts.fast_bits} | ({STATIC8} if facts.integer else set())


def speed_record(space: SearchSpace, fast: AbstractSet[Storage] | None) -> dict[str, Any]:
    """Storages below float32 that a target computes faster than it, and the others; None where not known."""
    if fast is None:
        return {"fast": None, "bytes_alone": None}
    offered = widest_first(storage for choices in space.units for storage in choices.storages)
    compressed = [storage for storage in offered if storage != FLOAT32]
    return {
        "fast": [storage.written for storage in compressed if storage in fast],
        "bytes_alone": [storage.written for storage in compressed if storage not in fast],
    }
