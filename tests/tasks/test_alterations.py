"""Altered rows: what each alteration does, how much of it, and that it follows from seed, name and row."""

from __future__ import annotations

import hypothesis.strategies as some
import numpy as np
import pytest
from hypothesis import given, settings

from autoprune.core.errors import AutopruneError
from autoprune.tasks.alterations import (
    BRIGHTER,
    NOISE,
    TEXT_ALTERATIONS,
    TYPO_SHARE,
    alterations_of,
    altered_pictures,
    altered_text,
    check_alterable,
)
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.kinds import CAUSAL_LM, IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION

NUMBERS = np.tile(np.arange(256, dtype=np.float32), (3, 1))


def pictures(count: int = 6, side: int = 40) -> ByteImages:
    rng = np.random.default_rng(0)
    return ByteImages(rng.integers(60, 196, (count, 3, side, side)).astype(np.uint8), NUMBERS)


def edits(a: str, b: str) -> int:
    """Letters to add, take or change to get from one word to another, or neighbours to swap."""
    table = {(i, -1): i + 1 for i in range(-1, len(a))} | {(-1, j): j + 1 for j in range(-1, len(b))}
    for i in range(len(a)):
        for j in range(len(b)):
            ways = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a[i] != b[j])]
            if i and j and a[i] == b[j - 1] and a[i - 1] == b[j]:
                ways.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(ways)
    return table[len(a) - 1, len(b) - 1]


@given(some.text(max_size=200), some.integers(0, 99))
@settings(deadline=None)
def test_any_text_keeps_its_spaces_and_its_short_words(text: str, row: int) -> None:
    for alteration in TEXT_ALTERATIONS:
        altered = altered_text(text, alteration.name, seed=0, row=row)
        assert altered == altered_text(text, alteration.name, seed=0, row=row)
        if alteration.name == "typos":
            assert len(altered.split(" ")) == len(text.split(" "))


def test_a_tenth_of_the_words_have_one_typo_each() -> None:
    words = ["wonderful", "picture", "about", "trains", "going"] * 400
    altered = altered_text(" ".join(words), "typos", seed=1, row=0).split(" ")
    changed = [(a, b) for a, b in zip(words, altered, strict=True) if a != b]
    assert abs(len(changed) / len(words) - TYPO_SHARE) < 0.025
    assert all(edits(a, b) == 1 and a[0] == b[0] for a, b in changed)
    assert altered_text("a b abc", "typos", seed=1, row=0) == "a b abc"


def test_rows_and_seeds_have_typos_of_their_own() -> None:
    text = "wonderful picture about trains going nowhere " * 20
    assert len({altered_text(text, "typos", seed=seed, row=row) for seed in (0, 1) for row in (0, 1)}) == 4


def test_noise_is_of_its_deviation_and_blur_takes_it_away() -> None:
    plain, rows = pictures(), np.arange(6)
    as_floats = plain.bytes.astype(float)
    noisy = altered_pictures(plain, "noise", seed=0, rows=rows)
    assert abs((noisy.bytes - as_floats).std() - NOISE) < 1.0
    bright = altered_pictures(plain, "brightness", seed=0, rows=rows)
    assert np.allclose(bright.bytes - as_floats, BRIGHTER, atol=0.51)
    blurred = altered_pictures(plain, "blur", seed=0, rows=rows)
    assert blurred.bytes.std() < 0.8 * plain.bytes.std()
    assert abs(blurred.bytes.mean() - plain.bytes.mean()) < 0.5
    assert (noisy.numbers == plain.numbers).all()


def test_a_picture_is_altered_alike_whichever_others_are_asked_about() -> None:
    plain = pictures()
    whole = altered_pictures(plain, "noise", seed=3, rows=np.arange(6))
    part = altered_pictures(plain.pick(np.array([4, 1])), "noise", seed=3, rows=np.array([4, 1]))
    assert (part.bytes == whole.bytes[[4, 1]]).all()
    assert (whole.bytes[0] != whole.bytes[1]).any()


def test_what_is_not_altered_is_refused() -> None:
    check_alterable(TEXT_CLASSIFICATION)
    check_alterable(IMAGE_CLASSIFICATION)
    assert alterations_of(CAUSAL_LM) == ()
    with pytest.raises(AutopruneError, match="causal-lm"):
        check_alterable(CAUSAL_LM)
    with pytest.raises(ValueError, match="no alteration of texts"):
        altered_text("a", "shouting", seed=0, row=0)
    with pytest.raises(ValueError, match="no alteration of pictures"):
        altered_pictures(pictures(), "fog", seed=0, rows=np.arange(6))
