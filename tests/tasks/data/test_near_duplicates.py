"""Near duplicates: hashes against exact likeness, planted copies, and what must not be told."""

from __future__ import annotations

from itertools import combinations

import hypothesis.strategies as some
import numpy as np
from hypothesis import given, settings

from autoprune.tasks.data.near_duplicates import (
    BANDS,
    HASHES_PER_BAND,
    LIKENESS,
    MinHash,
    band_keys,
    likeness,
    near_duplicates,
    shingles,
)

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nrst"]


def exact(a: str, b: str, size: int = 5) -> float:
    """Jaccard's index of the sets of runs of characters, with strings in the place of hashes."""
    one, other = (
        {t.ljust(size, "\0")[k : k + size] for k in range(max(1, len(t) - size + 1))} for t in (a, b)
    )
    return len(one & other) / len(one | other)


def text(rng: np.random.Generator, words: int) -> str:
    return " ".join(rng.choice(WORDS, words))


def edited(rng: np.random.Generator, whole: str, words: int) -> str:
    """A text of which some words are others."""
    parts = whole.split(" ")
    for k in rng.choice(len(parts), words, replace=False):
        parts[k] = str(rng.choice(WORDS))
    return " ".join(parts)


@given(some.text(min_size=5, max_size=40), some.text(min_size=5, max_size=40))
def test_the_likeness_of_hashed_shingles_is_that_of_the_shingles(a: str, b: str) -> None:
    assert abs(likeness(shingles(a), shingles(b)) - exact(a, b)) < 1e-12


@given(some.integers(0, 10_000), some.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_the_share_of_equal_hashes_is_the_likeness_to_within_its_error(seed: int, words: int) -> None:
    """The share of m hashes that agree has a standard error of the root of j (1 - j) / m."""
    rng = np.random.default_rng(seed)
    a = text(rng, 40)
    b = edited(rng, a, words)
    hasher = MinHash(count=2000, seed=seed)
    share = float((hasher(shingles(a)) == hasher(shingles(b))).mean())
    j = exact(a, b)
    assert abs(share - j) <= 5 * (j * (1 - j) / 2000) ** 0.5 + 1e-9


def test_bands_bring_pairs_together_as_often_as_the_formula_says() -> None:
    rng = np.random.default_rng(0)
    seen, expected = [], []
    for k in range(400):
        a = text(rng, 30)
        b = edited(rng, a, int(rng.integers(1, 9)))
        hasher = MinHash(seed=k)
        keys = band_keys(hasher(shingles(a))), band_keys(hasher(shingles(b)))
        seen.append((keys[0] == keys[1]).any())
        expected.append(1 - (1 - exact(a, b) ** HASHES_PER_BAND) ** BANDS)
    assert abs(np.mean(seen) - np.mean(expected)) < 0.06


def test_groups_are_those_of_all_pairs_compared() -> None:
    """Planted: 60 of 400 texts have one to three copies with a word or two changed.

    Recall over the pairs that are alike is 0.98 or more, and no text is told that is alike to none (precision
    1: candidates are compared exactly).
    """
    rng = np.random.default_rng(3)
    texts = [text(rng, int(rng.integers(8, 60))) for _ in range(400)]
    for k in range(60):
        texts += [edited(rng, texts[k], int(rng.integers(0, 3))) for _ in range(int(rng.integers(1, 4)))]
    texts = [texts[k] for k in rng.permutation(len(texts))]
    groups = near_duplicates(texts)
    alike = [
        pair for pair in combinations(range(len(texts)), 2) if exact(*(texts[k] for k in pair)) >= LIKENESS
    ]
    group_of = {k: number for number, group in enumerate(groups) for k in group}
    kept = sum(a in group_of and group_of[a] == group_of.get(b) for a, b in alike)
    assert len(alike) > 60
    assert kept / len(alike) >= 0.98
    partners = {k for pair in alike for k in pair}
    assert set(group_of) <= partners
    assert groups == sorted(map(sorted, groups))


def test_a_bucket_of_a_thousand_copies_is_one_group() -> None:
    rng = np.random.default_rng(1)
    base = text(rng, 60)
    texts = [f"{base} {k}" for k in range(1000)]
    groups = near_duplicates([*texts, *(text(rng, 20) for _ in range(50))])
    assert len(groups) == 1
    assert len(groups[0]) >= 995


def test_texts_of_any_kind_have_shingles() -> None:
    odd = ["", "a", "é", "\ud800", "日本語のテキスト", " " * 50]
    assert all(len(shingles(one)) >= 1 for one in odd)
    assert near_duplicates([]) == []
    assert near_duplicates(["short", "shore"]) == []


def test_the_same_texts_give_the_same_groups() -> None:
    rng = np.random.default_rng(2)
    texts = [text(rng, 20) for _ in range(100)]
    texts += [edited(rng, one, 1) for one in texts[:20]]
    assert near_duplicates(texts) == near_duplicates(texts)
