"""Words and pairs of words, weighted by tf-idf, and a logistic regression: scikit-learn's.

Shapes: n texts, f terms of the vocabulary, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.lines.line import HeldOut, LoadedLine, listed_numbers
from autoprune.evaluation.workbench import Workbench

VOCABULARIES = (10_000, 30_000)
"""Terms that are kept, the most frequent ones; which of these is decided on validation."""

STRENGTHS = (2.0, 8.0, 32.0)
"""C of the logistic regression; which of these is decided on validation."""

TERM = r"(?u)\b\w+\b"
"""A word: as scikit-learn has it, but those of one letter too."""

_ABSENT = np.float32(-1e9)
"""Logit of a class that no training text has."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts, a pair joined to one, and the number of each one's class."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class TfidfLine:
    """A line that reads text; rows of `validation` and `test` are those of the task, in its order."""

    train: LabelledTexts
    validation: LabelledTexts
    test: LabelledTexts

    @property
    def name(self) -> str:
        return "tf-idf and logistic regression"

    def fit(self, bench: Workbench, path: Path) -> str:
        """Fit it with each vocabulary and strength, and keep what scores best on validation."""
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

        metric, classes = bench.task.metric, len(bench.task.label_names)
        labels = np.asarray(self.train.labels), np.asarray(self.validation.labels)
        counter = CountVectorizer(
            ngram_range=(1, 2), token_pattern=TERM, max_features=VOCABULARIES[-1], dtype=np.float32
        )
        counts = counter.fit_transform(self.train.texts)
        validation = counter.transform(self.validation.texts)
        every = counter.get_feature_names_out()
        most_frequent = np.argsort(-np.asarray(counts.sum(0)).ravel(), kind="stable")
        best: tuple[float, int, float, _Weights] | None = None
        for size in sorted({min(size, len(every)) for size in VOCABULARIES}):
            terms = np.sort(most_frequent[:size])
            weigh = TfidfTransformer(sublinear_tf=True)
            features = weigh.fit_transform(counts[:, terms])
            held_out = weigh.transform(validation[:, terms])
            for strength in STRENGTHS:
                weights = _Weights.fitted(features, labels[0], strength, every[terms], weigh.idf_, classes)
                score = metric.score_answers(weights.logits(held_out), labels[1])
                if best is None or score > best[0]:
                    best = score, size, strength, weights
        assert best is not None
        best[3].save(path)
        return (
            f"{best[1]:,} words and pairs of words ({listed_numbers(VOCABULARIES)} were tried) and C = "
            f"{best[2]:g} ({listed_numbers(STRENGTHS)} were tried), chosen on validation; fitted on "
            f"{len(self.train.texts):,} texts; stored in half floats; its time is from text to classes"
        )

    def load(self, bench: Workbench, path: Path) -> LoadedTfidf:
        """The vocabulary and the coefficients in a file."""
        return LoadedTfidf(_Weights.load(path), self, bench)


class LoadedTfidf(LoadedLine):
    """A line that reads text, from its file."""

    def __init__(self, weights: _Weights, line: TfidfLine, bench: Workbench) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._weights, self._line, self._bench = weights, line, bench
        self._weigh = TfidfVectorizer(
            ngram_range=(1, 2), token_pattern=TERM, sublinear_tf=True, dtype=np.float32,
            vocabulary=weights.terms,
        )  # fmt: skip
        self._weigh.idf_ = weights.idf.astype(np.float32)
        batch, sequence = bench.setting.batch, bench.setting.sequence
        self._timed = [_text_of(line.validation.texts, bench.task.validation.lengths, sequence)] * batch

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits [n k] of texts."""
        return self._weights.logits(self._weigh.transform(texts))

    def score(self, split: HeldOut) -> float:
        rows: LabelledTexts = getattr(self._line, split)
        with self._bench.room.busy():
            return self._bench.task.metric.score_answers(self.logits(rows.texts), np.asarray(rows.labels))

    def call(self) -> NDArray[np.float32]:
        return self.logits(self._timed)


@dataclass(frozen=True)
class _Weights:
    """What the file has: terms, their idf [f], coefficients [f k] as half floats, and biases [k]."""

    terms: Sequence[str]
    idf: NDArray[np.float16]
    coefficients: NDArray[np.float16]
    biases: NDArray[np.float32]

    @classmethod
    def fitted(
        cls,
        features: Any,
        labels: NDArray[Any],
        strength: float,
        terms: NDArray[Any],
        idf: NDArray[Any],
        classes: int,
    ) -> _Weights:
        """Those of a logistic regression on features [n f]. Two classes have one set, of the second."""
        from sklearn.linear_model import LogisticRegression

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped at the last iteration
            model = LogisticRegression(C=strength, max_iter=300).fit(features, labels)
        if classes == 2:
            return cls(list(terms), _halved(idf), _halved(model.coef_.T), model.intercept_.astype(np.float32))
        coefficients = np.zeros((len(terms), classes), np.float16)
        biases = np.full(classes, _ABSENT)
        known = model.classes_
        if len(known) == 2:
            coefficients[:, known[1]], biases[known] = _halved(model.coef_[0]), (0.0, model.intercept_[0])
        else:
            coefficients[:, known], biases[known] = _halved(model.coef_.T), model.intercept_
        return cls(list(terms), _halved(idf), coefficients, biases)

    def logits(self, features: Any) -> NDArray[np.float32]:
        """Logits [n k] of features [n f]."""
        scores = np.asarray(features @ self.coefficients.astype(np.float32) + self.biases, np.float32)
        return np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores

    def save(self, path: Path) -> None:
        """Write all of it to one compressed file."""
        text = np.frombuffer("\n".join(self.terms).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez_compressed(
                file, terms=text, idf=self.idf, coefficients=self.coefficients, biases=self.biases
            )

    @classmethod
    def load(cls, path: Path) -> _Weights:
        """Inverse of `save`."""
        with np.load(path, allow_pickle=False) as file:
            terms = file["terms"].tobytes().decode().split("\n")
            return cls(terms, file["idf"], file["coefficients"], file["biases"])


def _halved(values: NDArray[Any]) -> NDArray[np.float16]:
    return np.asarray(values, np.float16)


def _text_of(texts: Sequence[str], lengths: NDArray[np.int64], tokens: int) -> str:
    """Texts joined until the teacher's tokenizer makes so many tokens of them."""
    count = int(np.searchsorted(np.cumsum(lengths), tokens)) + 1
    return " ".join(texts[:count])
