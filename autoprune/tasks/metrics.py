"""The metrics: what each is called, how it is computed, and what a score of it is to people.

A search maximises a score of 0 to 100, whatever the task. Where more of a metric is better, the score is the
metric in percent. Where less is better, and 1 is the best there can be, it is 100 / value: of perplexity, the
geometric mean of the next token's probability, in percent (Jelinek et al., Perplexity, 1977).

A new metric is one entry of METRICS and the function that computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from autoprune.core.errors import AutopruneError
from autoprune.tasks import scoring

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from autoprune.tasks.answers import Answers

Compute: TypeAlias = "Callable[[NDArray[np.float32], NDArray[Any], Answers | None], float]"
"""From answers [m k], labels [m] and the teacher's answers to a score."""

ByPlace: TypeAlias = "Callable[[NDArray[np.float32], NDArray[Any], Answers | None], NDArray[Any]]"
"""From the same to the score of each answer [m], of which more is better; or of each row [n]."""

AnswerType = Literal["classes", "number", "vector", "next token", "own"]
"""What a model answers: logits of classes, a number, a vector, logits of the next token, or a user's own."""

DASH, MINUS, INFINITY = "\u2013", "\u2212", "\u221e"

LONGEST_NAME = 60
"""Most characters of a metric's name that are shown; a user's own name is no longer than this."""

ONE_ROW = 100.0
"""Points times n that one row of n adds to a share of rows."""


@dataclass(frozen=True)
class Metric:
    """A metric. Two metrics are equal if their names, units and directions are.

    unit: `%`, or empty for a bare number. answers: the answers that it is a metric of. compute: gives the
    score from the answers, the labels and the teacher's answers; None if a user's task does it. in_words: the
    name in a sentence, if it is not `name`. hub_name: what the hub calls it, if not `name`. points_per_row:
    how many points one row of n changes the score by, times n; 0 if the score has no such step. by_place:
    the score of each answer, by which two models are compared row by row; of classes whether it is right.
    """

    name: str
    unit: str = "%"
    higher_is_better: bool = True
    _: KW_ONLY
    answers: AnswerType = field(default="own", compare=False)
    compute: Compute | None = field(default=None, compare=False, repr=False)
    in_words: str = field(default="", compare=False)
    hub_name: str = field(default="", compare=False)
    points_per_row: float = field(default=0.0, compare=False)
    by_place: ByPlace | None = field(default=None, compare=False, repr=False)

    # ---- numbers --------------------------------------------------------------------------------

    def score_answers(
        self, values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None
    ) -> float:
        """The score of answers [m k] with labels [m], or beside the teacher's answers.

        Raises:
            AutopruneError: when nothing here computes this metric.
        """
        if self.compute is None:
            raise AutopruneError(f"only its task computes the metric {self.name!r}")
        return self.compute(values, labels, teacher)

    def shown(self, score: float) -> float:
        """The metric's own number.

        >>> ACCURACY.shown(81.1), METRICS["perplexity"].shown(8.0), METRICS["perplexity"].shown(0.0)
        (81.1, 12.5, inf)
        """
        if self.higher_is_better:
            return score
        return 100.0 / score if score else math.inf

    def score(self, value: float) -> float:
        """The score of the metric's own number: the inverse of `shown`.

        Raises:
            AutopruneError: for a value below 1 where less is better.

        >>> METRICS["perplexity"].score(12.5)
        8.0
        """
        if self.higher_is_better:
            return value
        if value < 1.0:
            raise AutopruneError(
                f"{self.name} came to {value:g}: where less is better, 1 is the best there can be. Give a "
                "score of 0 to 100 of which more is better"
            )
        return 100.0 / value

    def is_ahead(self, score: float, other: float) -> bool:
        """Whether a score is better than another by as much as `signed` shows.

        >>> ACCURACY.is_ahead(81.14, 81.12), ACCURACY.is_ahead(81.2, 81.1)
        (False, True)
        """
        return score > other and bool(self.signed(score, other).strip(f"+{MINUS}0.,"))

    def _step(self, score: float, other: float) -> float:
        """From another score to this one, in the metric's own numbers."""
        return self.shown(score) - self.shown(other)

    @property
    def is_share_of_rows(self) -> bool:
        """Whether a score is a share of rows, whose standard error is the binomial one."""
        return self.points_per_row == ONE_ROW and self.unit == "%" and self.higher_is_better

    # ---- words ----------------------------------------------------------------------------------

    @property
    def word(self) -> str:
        """The name in a sentence."""
        return self.in_words or _harmless(self.name)

    @property
    def title(self) -> str:
        """The name at the start of a line.

        >>> ACCURACY.title, METRICS["matthews"].title
        ('Accuracy', 'Matthews correlation')
        """
        return self.word[:1].upper() + self.word[1:]

    @property
    def label(self) -> str:
        """Name, unit, and which way is better where less is.

        >>> ACCURACY.label, METRICS["perplexity"].label
        ('accuracy %', 'perplexity (lower is better)')
        """
        unit = f" {_harmless(self.unit)}" if self.unit else ""
        return self.word + unit + ("" if self.higher_is_better else " (lower is better)")

    def text(self, score: float | None, digits: int = 1) -> str:
        """The metric's own number; a dash where unknown. digits: decimals of a percentage.

        >>> ACCURACY.text(81.14), [METRICS["perplexity"].text(x) for x in (8.1, 0.05, 0.0, None)]
        ('81.1', ['12.35', '2,000', '∞', '–'])
        """
        if score is None or math.isnan(score):
            return DASH
        value = self.shown(score)
        return f"{value:.{digits}f}".replace("-", MINUS) if self.higher_is_better else _number(value)

    def value(self, score: float | None, digits: int = 1) -> str:
        """The number with its unit.

        >>> ACCURACY.value(81.14), METRICS["perplexity"].value(8.0)
        ('81.1 %', '12.50')
        """
        text, unit = self.text(score, digits), _harmless(self.unit)
        return text if text == DASH or not unit else f"{text} {unit}"

    def told(self, score: float | None, digits: int = 1) -> str:
        """The number in a sentence: with its name, which a plain percentage of accuracy does without.

        >>> ACCURACY.told(81.14), METRICS["f1"].told(81.14), METRICS["perplexity"].told(8.0)
        ('81.1 %', 'F1 81.1 %', 'perplexity 12.50')
        """
        value = self.value(score, digits)
        return value if self == ACCURACY else f"{self.word} {value}"

    def signed(self, score: float, other: float) -> str:
        """From another score to this one, with a sign, as precise as `text`.

        >>> ACCURACY.signed(80.8, 81.1), METRICS["perplexity"].signed(8.0, 10.0)
        ('−0.3', '+2.50')
        """
        step = self._step(score, other)
        if not math.isfinite(step):
            return DASH if math.isnan(step) else f"{'+' if step > 0 else MINUS}{INFINITY}"
        size = f"{abs(step):.1f}" if self.higher_is_better else _number(abs(step))
        if not size.strip("0.,"):
            return size
        return f"{'+' if step > 0 else MINUS}{size}"

    def difference(self, score: float, original: float) -> str:
        """How far a score is from the original's, in words.

        >>> ACCURACY.difference(80.8, 81.1), METRICS["perplexity"].difference(8.0, 10.0)
        ('−0.3 points', 'perplexity +2.50')
        """
        step = self.signed(score, original)
        return f"{step} points" if self.higher_is_better else f"{self.word} {step}"

    # ---- on disk --------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """What `front.json` has under `run.metric`."""
        return {"name": self.name, "higher_is_better": self.higher_is_better, "unit": self.unit}

    @classmethod
    def from_json(cls, data: object) -> Metric:
        """Inverse of `as_json`; nothing is accuracy, a bare name one of METRICS or one's own.

        Raises:
            AutopruneError: for what describes no metric.
        """
        if data is None or data == "":
            return ACCURACY
        if isinstance(data, Metric):
            return data
        if isinstance(data, str):
            return METRICS.get(data) or cls(data, "")
        if isinstance(data, Mapping):
            name, unit, higher = (data.get(key) for key in ("name", "unit", "higher_is_better"))
            known = METRICS.get(name) if isinstance(name, str) else None
            unit = (known.unit if known else "") if unit is None else unit
            higher = (known.higher_is_better if known else True) if higher is None else higher
            if isinstance(name, str) and name and isinstance(unit, str) and isinstance(higher, bool):
                return replace(known or cls(name), unit=unit, higher_is_better=higher)
        raise AutopruneError(
            f"metric {str(data)[:200]!r} is none: give its name, or an object with `name` (text), "
            "`higher_is_better` (true or false) and `unit` (text)"
        )


ACCURACY = Metric("accuracy", answers="classes", compute=scoring.accuracy, points_per_row=ONE_ROW,
                  by_place=scoring.right_answers)  # fmt: skip

METRICS = {
    metric.name: metric
    for metric in (
        ACCURACY,
        # The binary F1 and Matthews' correlation of balanced classes move by up to twice as much as the
        # accuracy.
        Metric("f1", answers="classes", compute=scoring.f1, in_words="F1", points_per_row=2 * ONE_ROW,
               by_place=scoring.right_answers),
        Metric("matthews", answers="classes", compute=scoring.matthews, in_words="Matthews correlation",
               hub_name="matthews_correlation", points_per_row=2 * ONE_ROW, by_place=scoring.right_answers),
        Metric("spearman", answers="number", compute=scoring.spearman, in_words="Spearman correlation",
               hub_name="spearmanr", by_place=scoring.rank_losses),
        Metric("agreement", answers="vector", compute=scoring.similarity_agreement,
               in_words="agreement with the original", by_place=scoring.agreement_losses),
        Metric("perplexity", "", higher_is_better=False, answers="next token", compute=scoring.next_token,
               by_place=scoring.log_probabilities_of_next),
    )
}  # fmt: skip
"""The metrics of this package, by name. The order is that of `--metric` in the help."""


def own_metric(name: str, *, unit: str = "", higher_is_better: bool = True) -> Metric:
    """A user's metric; one of METRICS where it has that name.

    Raises:
        AutopruneError: for a name or unit that is not one short line of text.
    """
    if name in METRICS:
        return METRICS[name]
    for what, text, most in (("name", name, LONGEST_NAME), ("unit", unit, 10)):
        if text != text.strip() or not text.isprintable() or len(text) > most or not (text or what == "unit"):
            raise AutopruneError(
                f"the {what} of a metric is {text[:200]!r}: give one line of at most {most} characters"
            )
    return Metric(name, unit, higher_is_better)


def _harmless(text: str) -> str:
    """One short line that no terminal takes for a command.

    >>> _harmless("a\\n" + chr(27) + "[31mb")
    'a �[31mb'
    """
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "\u2026"


def _number(value: float) -> str:
    """A number of at least 1, with four digits or whole; dom.js has the same.

    >>> [_number(x) for x in (12.344, 123.44, 1234.4, 2.5e7, float("inf"))]
    ['12.34', '123.4', '1,234', '2.5e+07', '∞']
    """
    if not math.isfinite(value):
        return DASH if math.isnan(value) else INFINITY
    if value >= 999_999.5:
        return f"{value:.1e}"
    digits = 2 if value < 99.995 else 1 if value < 999.95 else 0
    return f"{value:,.{digits}f}"
