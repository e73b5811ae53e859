"""Where the points to choose from answer otherwise than the original: counts, confusion, worst rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.report.text import DASH, MINUS, nats, percent, plural, score_text
from autoprune.run.answer_changes import (
    MOST_CLASSES,
    MOST_EXAMPLES,
    AnswerChanges,
    Cell,
    Example,
    KeptRow,
    PointChanges,
)
from autoprune.run.front_schema import Front

PLACES = {
    "class": ("row", "rows"),
    "tag": ("word with a tag", "words with a tag"),
    "token": ("token", "tokens"),
    "number": ("row", "rows"),
    "vector": ("text", "texts"),
}
"""What has an answer, by `AnswerChanges.sort`."""

_SIDES = "Lost: the original was right, and the point is wrong; won: the other way"
MEANT = {
    "class": f", those whose likeliest class is not the original\u2019s. {_SIDES}",
    "tag": f", those whose likeliest tag is not the original\u2019s. {_SIDES}",
    "token": ", those whose likeliest next token is not the original\u2019s. Lost: it was the token that "  # nosec B105 # a sort of answer
    "came, and no longer is; won: the other way. The percentages are of the token that came. A vocabulary "
    "is too large for a table of confusions",
    "number": ". Answers are numbers, which all change a little: those that moved furthest are shown, and "
    "there is no table of confusions",
    "vector": ". Answers are vectors: one counts as changed where another text is nearest, among the first "
    "1,000. The percentages are cosines with the original\u2019s vector. There is no table of confusions",
}
"""What counts as changed, in words."""

USUAL = (
    (0.001, "hard to tell from the original"),
    (0.01, "few answers change"),
    (0.1, "some answers change"),
    (math.inf, "a good many answers change"),
)
"""What a mean KL below each of these, in nats, usually comes to (docs/report.md)."""


@dataclass(frozen=True)
class ChangeRow:
    """A point: its score beside its KL, and how many answers changed. kl_words: what such a KL means."""

    point: str
    words: str
    score: str
    kl: str
    kl_words: str
    changed: str
    lost: str
    won: str


@dataclass(frozen=True)
class ShownExample:
    """A changed answer: what stands of its row, and what should be, was and is answered.

    label: what a screen reader says of a picture.
    """

    row: str
    text: str
    word: str
    picture: str
    label: str
    expected: str
    original: str
    now: str


@dataclass(frozen=True)
class ConfusionCell:
    """A count, its change against the original, and how it is drawn: right, more, less or empty."""

    count: str
    change: str
    look: str


@dataclass(frozen=True)
class Confusion:
    """A matrix of all classes, or of many classes the largest wrong cells.

    cells: true class, answered class, count and change.
    """

    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, tuple[ConfusionCell, ...]], ...] = ()
    cells: tuple[tuple[str, str, ConfusionCell], ...] = ()


@dataclass(frozen=True)
class PointDetail:
    """What is folded away of a point."""

    title: str
    examples: tuple[ShownExample, ...]
    confusion: Confusion | None


@dataclass(frozen=True)
class ChangesSection:
    """All of the section. heads: of the columns of examples: expected, original, now."""

    rows: tuple[ChangeRow, ...]
    details: tuple[PointDetail, ...]
    heads: tuple[str, str, str]
    note: str
    has_counts: bool
    has_sides: bool


def changes_section(front: Front) -> ChangesSection | None:
    """The section; None where no answers were compared."""
    what = front.answer_changes
    if what is None:
        return None
    points = [
        (trial, ", ".join(words), what.points[str(trial.number)])
        for trial, words in front.named
        if str(trial.number) in what.points
    ]
    if not points:
        return None
    metric = front.run.metric
    rows = tuple(
        ChangeRow(
            point=trial.label.capitalize(),
            words=words,
            score=score_text(metric, trial.accuracy),
            kl=nats(point.kl),
            kl_words=kl_words(point.kl, what.sort),
            changed=_share(point.changed, what.places),
            lost=DASH if point.lost is None else f"{point.lost:,}",
            won=DASH if point.won is None else f"{point.won:,}",
        )
        for trial, words, point in points
    )
    return ChangesSection(
        rows=rows,
        details=tuple(
            _detail(f"{t.label.capitalize()} ({words})", point, what) for t, words, point in points
        ),
        heads=_heads(what.sort),
        note=_note(what),
        has_counts=any(point.changed is not None for *_, point in points),
        has_sides=any(point.lost is not None for *_, point in points),
    )


def not_compared(front: Front) -> str:
    """Why there is no section, where it is the task; empty where there may be one."""
    run = front.run
    if front.answer_changes is not None or not run.task.is_own or run.labels:
        return ""
    return (
        "Which answers changed is not shown: this task is your own, and what its answers are is not known. "
        "Give it label_names to have them compared as classes."
    )


def kl_words(kl: float, sort: str) -> str:
    """What a mean KL usually comes to, and how far it lets answers be.

    Of probabilities, by Pinsker's inequality (Cover and Thomas, Elements of Information Theory, lemma
    11.6.1), a mean KL of d nats lets the probability of any set of answers move by sqrt(d / 2) on average. Of
    numbers and vectors d is half the mean squared distance in variances of the original's answers.

    >>> kl_words(0.0002, "class").replace("\N{NO-BREAK SPACE}", " ")
    'hard to tell from the original; a probability moves by at most 1.0 % on average'
    >>> kl_words(0.02, "number")
    'answers are 0.20 standard deviations off (root mean square)'
    """
    kl = max(kl, 0.0)
    if sort in ("number", "vector"):
        return f"answers are {math.sqrt(2.0 * kl):.2f} standard deviations off (root mean square)"
    usual = next(words for most, words in USUAL if kl < most or math.isinf(most))
    bound = 100.0 * math.sqrt(kl / 2.0)
    return usual if bound >= 100 else f"{usual}; a probability moves by at most {percent(bound)} on average"


def _share(count: int | None, of: int) -> str:
    if count is None:
        return DASH
    return f"{count:,} ({percent(100.0 * count / of)})" if of else f"{count:,}"


def _heads(sort: str) -> tuple[str, str, str]:
    if sort == "token":
        return "Token that came", "Original\u2019s likeliest", "Likeliest now"
    if sort == "vector":
        return "", "Nearest other text before", "Nearest now"
    return ("Label", "Original", "Now")


def _note(what: AnswerChanges) -> str:
    one, many = PLACES.get(what.sort, PLACES["class"])
    kept = "" if what.examples else " Rows of the data were not kept (--no-examples)."
    places = f"{what.places:,} validation {one if what.places == 1 else many}"
    return f"Of {places}{MEANT.get(what.sort, '')}.{kept}"


def _detail(title: str, point: PointChanges, what: AnswerChanges) -> PointDetail:
    total = point.changed
    shown = len(point.examples)
    if shown and total is not None:
        worst = f"the worst {shown} of {total:,}" if total > shown else plural(shown, "changed answer")
        title = f"{title}: {worst}"
    elif shown:
        title = f"{title}: the {shown} that moved most"
    elif point.confusion:
        title = f"{title}: confusion"
    examples = tuple(_shown(example, what) for example in point.examples[:MOST_EXAMPLES])
    return PointDetail(title, examples, _confusion(point.confusion, what.classes))


def _shown(example: Example, what: AnswerChanges) -> ShownExample:
    row = what.rows.get(example.key, KeptRow())
    place = "" if example.place is None else f", {example.place + 1}"
    return ShownExample(
        row=f"{example.row + 1}{place}",
        text=row.text,
        word=row.word,
        picture=row.picture,
        label=f"validation row {example.row + 1}",
        expected=example.expected,
        original=_sure(example.original, example.original_sure),
        now=_sure(example.now, example.now_sure),
    )


def _sure(answer: str, sure: float | None) -> str:
    return answer if sure is None else f"{answer} ({percent(100.0 * sure)})"


def _confusion(cells: Sequence[Cell], classes: Sequence[str]) -> Confusion | None:
    if not cells:
        return None
    if len(classes) > MOST_CLASSES:
        return Confusion(cells=tuple((classes[c.true], classes[c.answered], _cell(c)) for c in cells))
    known = {(cell.true, cell.answered): cell for cell in cells}
    places = range(len(classes))
    rows = tuple(
        (classes[i], tuple(_cell(known.get((i, j), Cell(i, j, 0, 0))) for j in places)) for i in places
    )
    return Confusion(heads=tuple(classes), rows=rows)


def _cell(cell: Cell) -> ConfusionCell:
    step = cell.now - cell.original
    change = f"{'+' if step > 0 else MINUS}{abs(step):,}" if step else ""
    is_right = cell.true == cell.answered
    look = "right" if is_right else "empty" if not cell.now and not step else ""
    if step and not look:
        look = "more" if step > 0 else "less"
    return ConfusionCell(f"{cell.now:,}", change, look)
