"""Texts that are nearly the same: MinHash with bands, and the exact likeness of what these bring together.

A text is the set of its shingles, the runs of `SHINGLE` characters, and two texts are as alike as their sets
are: Jaccard's index, what both have of what either has (Broder, On the resemblance and containment of
documents, 1997). Of random orders of all shingles the first of a text is that of another with a probability
that is this index. So texts that agree on all hashes of one band are looked at (Indyk and Motwani,
Approximate nearest neighbors, 1998; Leskovec et al., Mining of Massive Datasets, section 3.4), and counted as
alike where the index itself, over the shingles, is large enough: no pair is told that is not.

Shapes: n texts, s distinct shingles of a text, m hashes, b bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SHINGLE = 5
"""Characters of a shingle: short texts too have many, and a word that changed takes few of them away."""

LIKENESS = 0.8
"""Jaccard's index from which texts are nearly the same, as Lee et al. have it (Deduplicating training data
makes language models better, 2022)."""

BANDS, HASHES_PER_BAND = 20, 6
"""Two texts of index j are looked at with probability 1 - (1 - j^6)^20: 0.998 at 0.8, 0.27 at 0.5."""

MOST_FIRSTS = 64
"""Groups that a text is compared with in one bucket at most, so that a bucket of any size takes linear
time."""

_PIECE = 2048
"""Shingles hashed at a time."""


def shingles(text: str) -> NDArray[np.uint32]:
    """Hashes of the distinct shingles of a text [s], sorted; of a shorter text that of all of it.

    >>> len(shingles("abcdefg")), len(shingles("aaaaaaaaa")), len(shingles(""))
    (3, 1, 1)
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    if len(codes) < SHINGLE:
        codes = np.pad(codes, (0, SHINGLE - len(codes)))
    count = len(codes) - SHINGLE + 1
    hashes = np.zeros(count, np.uint64)
    for k in range(SHINGLE):
        hashes = hashes * np.uint64(0x100000001B3) + codes[k : k + count]
    return np.unique((_mixed(hashes) >> np.uint64(32)).astype(np.uint32))


def likeness(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> float:
    """Jaccard's index of two sets of shingles, 0 to 1.

    >>> likeness(shingles("abcdefg"), shingles("abcdefh"))
    0.5
    """
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


class MinHash:
    """Random orders of all shingles, [m] of them, and the first of a set by each.

    An order is a multiply-shift hash, (a x + b mod 2^64) div 2^32 with odd a (Dietzfelbinger et al., A
    reliable randomized algorithm for the closest-pair problem, 1997).
    """

    def __init__(self, count: int = BANDS * HASHES_PER_BAND, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self._factors = random.integers(0, 2**64, count, np.uint64) | np.uint64(1)
        self._offsets = random.integers(0, 2**64, count, np.uint64)

    def __call__(self, of_text: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The least hash of a set of shingles by each order [m]."""
        least = np.full(len(self._factors), 2**32 - 1, np.uint64)
        for start in range(0, len(of_text), _PIECE):
            piece = of_text[start : start + _PIECE, None].astype(np.uint64)
            hashes = (piece * self._factors + self._offsets) >> np.uint64(32)
            np.minimum(least, hashes.min(0), out=least)
        return least.astype(np.uint32)


def band_keys(signature: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A number for the hashes of each band [b]: equal for equal bands."""
    bands = signature.reshape(-1, HASHES_PER_BAND).astype(np.uint64)
    keys = np.zeros(len(bands), np.uint64)
    for column in bands.T:
        keys = _mixed(keys * np.uint64(0x100000001B3) + column)
    return keys


def near_duplicates(texts: Sequence[str], least: float = LIKENESS, *, seed: int = 0) -> list[list[int]]:
    """Groups of the numbers of texts that are nearly the same, each in order, the first groups first.

    Each text of a group is as alike as `least` to another of it; so a group's first and last may differ.
    Of equal texts one is enough.
    """
    hasher = MinHash(seed=seed)
    keys = np.empty((len(texts), BANDS), np.uint64)
    for k, text in enumerate(texts):
        keys[k] = band_keys(hasher(shingles(text)))
    of_text = lru_cache(4096)(lambda k: shingles(texts[k]))
    groups = Groups(len(texts))
    refused: set[tuple[int, int]] = set()

    def is_alike(a: int, b: int) -> bool:
        if (a, b) in refused:
            return False
        if likeness(of_text(a), of_text(b)) >= least:
            return True
        refused.add((a, b))
        return False

    for band in range(BANDS):
        for bucket in _buckets(keys[:, band]):
            _join(bucket, groups, is_alike)
    return groups.of_several()


def _join(bucket: Sequence[int], groups: Groups, is_alike: Callable[[int, int], bool]) -> None:
    """Join each text of a bucket to the first group in it with whose first text it is alike."""
    firsts: list[int] = []
    for text in bucket:
        near = next((first for first in firsts if groups.are_one(first, text)), None)
        near = next((first for first in firsts if is_alike(first, text)), None) if near is None else near
        if near is not None:
            groups.join(near, text)
        elif len(firsts) < MOST_FIRSTS:
            firsts.append(text)


def _buckets(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
    """The numbers of texts with one key, in order, where there are several."""
    order = np.argsort(keys, kind="stable")
    edges = np.flatnonzero(np.diff(keys[order])) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(order)]])
    for start, end in zip(starts, ends, strict=True):
        if end - start > 1:
            yield order[start:end].tolist()


class Groups:
    """Numbers 0 to n - 1 in groups that are joined two by two (Galler and Fischer, An improved equivalence
    algorithm, 1964)."""

    def __init__(self, count: int, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._above = list(range(count))
        for a, b in pairs:
            self.join(a, b)

    def first(self, number: int) -> int:
        """The least number of a number's group."""
        above = self._above
        while above[number] != number:
            above[number] = above[above[number]]
            number = above[number]
        return number

    def are_one(self, a: int, b: int) -> bool:
        """Whether two numbers are in one group."""
        return self.first(a) == self.first(b)

    def join(self, a: int, b: int) -> None:
        """Make one group of two."""
        low, high = sorted((self.first(a), self.first(b)))
        self._above[high] = low

    def of_several(self) -> list[list[int]]:
        """The groups of two numbers or more.

        >>> Groups(6, [(4, 1), (5, 4), (2, 0)]).of_several()
        [[0, 2], [1, 4, 5]]
        """
        members: dict[int, list[int]] = {}
        for number in range(len(self._above)):
            members.setdefault(self.first(number), []).append(number)
        return [group for group in members.values() if len(group) > 1]


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers whose bits all depend on all bits (the finalizer of MurmurHash3, Appleby 2011)."""
    for shift, factor in ((33, 0xFF51AFD7ED558CCD), (33, 0xC4CEB9FE1A85EC53)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    mixed: NDArray[np.uint64] = numbers ^ (numbers >> np.uint64(33))
    return mixed
