"""Which tokens are whole words that another word may stand for. No torch.

Shapes: v vocabulary, t tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LETTERS = 4
"""Letters of a word that is swapped, at least."""

_BEGINS = ("Ġ", "▁")
"""What begins a word's first token in vocabularies that do not mark the others (byte-level BPE, Unigram)."""


@dataclass(frozen=True)
class WordTokens:
    """What is known of each token of a vocabulary.

    words [v]: whether it is a whole word of letters where another word follows. ends [v]: whether a token
    before it ends its word. same [v]: equal for words that differ in case alone.
    """

    words: NDArray[np.bool_]
    ends: NDArray[np.bool_]
    same: NDArray[np.int64]

    @classmethod
    def of(cls, tokens: Sequence[str | None], special: Iterable[int]) -> WordTokens:
        """From the tokens of a vocabulary by number, and the numbers of special ones.

        >>> found = WordTokens.of(["[SEP]", "film", "##ing", "Film", "."], [0])
        >>> found.words.tolist(), found.ends.tolist(), bool(found.same[1] == found.same[3])
        ([False, True, False, True, False], [True, True, False, True, True], True)
        """
        texts = [token or "" for token in tokens]
        are_pieces = any(text.startswith("##") for text in texts)
        begins = [not text.startswith("##") if are_pieces else text.startswith(_BEGINS) for text in texts]
        bodies = [text if are_pieces else text.lstrip("".join(_BEGINS)) for text in texts]
        words = np.array([first and body.isalpha() and len(body) >= LETTERS
                          for first, body in zip(begins, bodies, strict=True)], bool)  # fmt: skip
        ends = np.array([first or not body.lstrip("#").isalpha()
                         for first, body in zip(begins, bodies, strict=True)], bool)  # fmt: skip
        chosen = [k for k in special if 0 <= k < len(texts)]
        words[chosen], ends[chosen] = False, True
        _, same = np.unique(np.array([body.casefold() for body in bodies]), return_inverse=True)
        return cls(words, ends, same.astype(np.int64))

    def places(self, ids: NDArray[np.int32]) -> NDArray[np.int64]:
        """Places of a row [t] at which a whole word stands."""
        following = np.append(self.ends[ids[1:]], True)
        return np.flatnonzero(self.words[ids] & following)
