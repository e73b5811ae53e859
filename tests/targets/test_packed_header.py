"""Bytes of a packed file are predicted with its header, which is an eighth of a file of a few kilobytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.export.checks import SIZE_TOLERANCE, UNIT_TOLERANCE_BYTES
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.targets import size_on_disk
from autoprune.targets.packed import Packed, read_packed
from autoprune.targets.target import ENTROPY, PLAIN
from tests.support.tiny import Tiny, make_tiny

quick = hypothesis.settings(deadline=None, max_examples=40)
Saved = Callable[..., int]

ALONE_BYTES = 12
"""Most that a prediction may be off where one unit changes: the header is padded to whole eight bytes."""


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT of thirty kilobytes."""
    also = ("codebook16", "shared4", "3g32", "ternary", "2of4x4", "rank50", "2r8", "mxfp4", "6sym")
    return make_tiny("bert", tmp_path_factory.mktemp("library"), also=also, hidden=16, ffn=32, vocab=60)


@pytest.fixture(scope="module")
def saved(least: Tiny) -> Saved:
    def size_bytes(candidate: Candidate, storage: str = PLAIN) -> int:
        with tempfile.TemporaryDirectory() as folder:
            target = Packed(storage)
            target.save(least.stitched_as(candidate), Path(folder), {})
            return size_on_disk(target, Path(folder))

    return size_bytes


def candidates(tiny: Tiny) -> some.SearchStrategy[Candidate]:
    """Any level for any unit: emptied ones and 8-bit activations too."""
    levels = [some.sampled_from(list(unit.levels())) for unit in tiny.space.units]
    names = [unit.unit for unit in tiny.space.units]
    return some.tuples(*levels).map(lambda chosen: Candidate(tuple(zip(names, chosen, strict=True))))


def test_a_unit_alone_is_predicted_to_a_few_bytes_at_every_level(least: Tiny, saved: Saved) -> None:
    untouched = least.space.untouched()
    original, levels = saved(untouched), 0
    for unit in least.space.units:
        for level in unit.levels():
            candidate = untouched.with_level(unit.unit, level)
            predicted = least.predicted_bytes(Packed(), candidate, original)
            assert abs(predicted - saved(candidate)) <= ALONE_BYTES, f"{unit.unit} at {level}"
            levels += 1
    assert levels > 50


def test_any_candidate_is_predicted_as_exports_are_checked(least: Tiny, saved: Saved) -> None:
    original = saved(least.space.untouched())

    @quick
    @hypothesis.given(candidates(least))
    def check(candidate: Candidate) -> None:
        predicted, plain = least.predicted_bytes(Packed(), candidate, original), saved(candidate)
        room = max(SIZE_TOLERANCE * predicted, UNIT_TOLERANCE_BYTES * len(least.units))
        assert abs(predicted - plain) <= room
        assert saved(candidate, ENTROPY) <= plain  # what is coded weighs less with what is said of it

    check()


def test_the_original_weighs_the_same_whether_its_units_are_named_or_not(least: Tiny, tmp_path: Path) -> None:
    named = least.stitched_as(least.space.untouched())
    assert named.levels.items
    Packed().save(named, tmp_path, {})
    assert read_packed(tmp_path).levels == Candidate(())


def test_levels_but_untouched_come_back(least: Tiny, tmp_path: Path) -> None:
    mixed = least.with_levels(word_embeddings=Level.of(0.5, 4), attention=Level.of(1.0, 32))
    Packed().save(least.stitched_as(mixed), tmp_path, {})
    changed = tuple((name, level) for name, level in mixed.items if level != UNTOUCHED)
    assert len(changed) == 2
    assert read_packed(tmp_path).levels == Candidate(changed)


@pytest.mark.parametrize("storage", [PLAIN, ENTROPY])
def test_a_model_with_nothing_left_of_a_unit_is_saved_and_read(
    least: Tiny, tmp_path: Path, storage: str
) -> None:
    emptied = least.space.uniform(Level(1.0))
    assert any(level.ratio == 1 for _, level in emptied.items)
    Packed(storage).save(least.stitched_as(emptied), tmp_path, {})
    assert read_packed(tmp_path).model is not None
