"""A candidate's text, which its seed follows from, tells it from all others, and stays what it was."""

from __future__ import annotations

from autoprune.evaluation.seeds import candidate_text
from autoprune.space.levels import Candidate, Level
from autoprune.space.storage import FLOAT16, FLOAT32, OPTIONAL, STATIC8, GroupedIntegers


def text(ratio: float, written: object) -> str:
    return candidate_text(Candidate((("a", Level.of(ratio, written)),)))


def test_every_storage_gives_another_text() -> None:
    storages = [FLOAT32, FLOAT16, STATIC8, *map(GroupedIntegers, (2, 3, 4, 6, 8)), *OPTIONAL]
    assert len({text(0.5, storage.written) for storage in storages}) == len(storages)


def test_the_text_of_what_earlier_versions_knew_is_theirs() -> None:
    assert text(0.5, 4) == "(('a', Level(ratio=0.5, bits=4, activations=32)),)"
    assert text(0.0, "w8a8") == "(('a', Level(ratio=0.0, bits=8, activations=8)),)"
    both = Candidate((("a", Level()), ("b.c", Level.of(0.25, 8))))
    assert candidate_text(both) == (
        "(('a', Level(ratio=0.0, bits=32, activations=32)), "
        "('b.c', Level(ratio=0.25, bits=8, activations=32)))"
    )
