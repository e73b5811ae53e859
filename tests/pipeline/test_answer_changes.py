"""What points answer otherwise than the original, against counts made one by one."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoprune.evaluation.answer_changes import is_looked_at, looked, looked_at, nearest_others
from autoprune.evaluation.jobs import Original
from autoprune.evaluation.measure import teacher_answers
from autoprune.pipeline.answer_changes import HeldAgainst, sort_of
from autoprune.pipeline.kept_rows import RowsToShow, cut, small_picture
from autoprune.run.answer_changes import LONGEST_PICTURE, MOST_EXAMPLES, AnswerChanges, KeptRow
from autoprune.tasks.answers import Answers, divergence, divergences, spread_of
from autoprune.tasks.kinds import (
    CAUSAL_LM,
    OWN,
    SENTENCE_EMBEDDING,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
    TOKEN_CLASSIFICATION,
    TaskKind,
)
from autoprune.tasks.task import NO_LABEL, Encoded, Task
from tests.support.made_pictures import photograph
from tests.support.tiny_search import OPTIONS, autoprune, environment, write_inputs

ROWS = 60


class Words:
    """A tokenizer whose tokens are numbers."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(f"w{k}" for k in ids)


def task_of(kind: TaskKind = TEXT_CLASSIFICATION, classes: int = 3) -> Task:
    rng = np.random.default_rng(1)
    labels: Any = rng.integers(0, classes, ROWS) if kind != TEXT_REGRESSION else rng.random(ROWS)
    ids = np.arange(ROWS * 2, dtype=np.int32)
    data = Encoded(ids, np.zeros(len(ids), np.uint8), np.arange(0, len(ids) + 1, 2), labels)
    names = tuple(f"c{k}" for k in range(classes)) if kind.predicts_classes else ()
    return Task(data, data, data, names, ("input_ids",), 0, kind)


def answers(classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, classes)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 25])
def test_counts_are_those_of_a_loop(classes: int) -> None:
    task = task_of(classes=classes)
    before, after = answers(classes, 2), answers(classes, 3)
    teacher = Answers.plain(before)
    shown = RowsToShow(task, None, Words())
    point = HeldAgainst(task, looked(task, before, teacher), shown).point(looked(task, after, teacher))
    labels = task.validation.labels
    triples = [
        (int(t), int(a.argmax()), int(b.argmax())) for t, a, b in zip(labels, before, after, strict=True)
    ]
    assert point.changed == sum(a != b for _, a, b in triples)
    assert point.lost == sum(a != b and a == t for t, a, b in triples)
    assert point.won == sum(a != b and b == t for t, a, b in triples)
    assert point.kl == pytest.approx(divergence(after, teacher), rel=1e-5)
    for cell in point.confusion:
        assert cell.now == sum((t, b) == (cell.true, cell.answered) for t, _, b in triples)
        assert cell.original == sum((t, a) == (cell.true, cell.answered) for t, a, _ in triples)
    if classes <= 20:
        assert sum(cell.now for cell in point.confusion) == ROWS
    else:
        assert all(cell.true != cell.answered for cell in point.confusion)
    assert len(point.examples) == min(MOST_EXAMPLES, point.changed or 0)
    is_lost = [example.original == example.expected for example in point.examples]
    assert is_lost == sorted(is_lost, reverse=True)  # what was right comes first
    kls = [example.kl for example, lost in zip(point.examples, is_lost, strict=True) if lost]
    assert kls == sorted(kls, reverse=True)


def test_the_original_against_itself_changes_nothing() -> None:
    task, values = task_of(), answers(3, 2)
    same = looked(task, values, Answers.plain(values))
    point = HeldAgainst(task, same, RowsToShow(task, None, Words())).point(same)
    assert (point.changed, point.lost, point.won, point.examples) == (0, 0, 0, ())
    assert point.kl == pytest.approx(0.0, abs=1e-9)


def test_without_examples_no_row_is_kept() -> None:
    task = task_of()
    before, after = (looked(task, answers(3, seed), Answers.plain(answers(3, 2))) for seed in (2, 3))
    held = HeldAgainst(task, before, RowsToShow(task, None, Words()))
    point = held.point(after, has_examples=False)
    assert point.examples == ()
    assert point.changed


def test_numbers_and_vectors_have_no_confusion() -> None:
    number = task_of(TEXT_REGRESSION)
    before, after = answers(1, 2), answers(1, 3)
    teacher = Answers(before, np.arange(ROWS + 1), spread=spread_of(before))
    shown = RowsToShow(number, None, Words())
    point = HeldAgainst(number, looked(number, before, teacher), shown).point(looked(number, after, teacher))
    assert (sort_of(number), point.changed, point.confusion) == ("number", None, ())
    far = int(np.abs(after - before)[:, 0].argmax())
    assert point.examples[0].row == far
    vector = task_of(SENTENCE_EMBEDDING)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (answers(4, 2), answers(4, 3))]
    teacher = Answers(unit[0], np.arange(ROWS + 1), spread=spread_of(unit[0]))
    shown = RowsToShow(vector, None, Words())
    point = HeldAgainst(vector, looked(vector, unit[0], teacher), shown).point(
        looked(vector, unit[1], teacher)
    )
    near = [nearest_others(x) for x in unit]
    assert near[0] is not None
    assert point.changed == int((near[0] != near[1]).sum())
    assert (
        point.examples[0].original
        == f"w{2 * near[0][point.examples[0].row]} w{2 * near[0][point.examples[0].row] + 1}"
    )


def test_the_divergences_have_the_mean_that_is_measured() -> None:
    before, after = answers(5, 2), answers(5, 3)
    teacher = Answers.plain(before)
    assert divergences(after, teacher).mean() == pytest.approx(divergence(after, teacher), rel=1e-12)


def test_rows_are_cut_and_pictures_are_small() -> None:
    assert len(cut("word " * 100)) <= 200
    picture = np.moveaxis(photograph(0, 240, 320), -1, 0)
    uri = small_picture(np.ascontiguousarray(picture))
    assert len(uri) <= LONGEST_PICTURE
    assert KeptRow(picture=uri).picture.startswith("data:image/webp;base64,")
    assert not is_looked_at(task_of(OWN))


def test_points_that_are_gone_take_their_rows_along() -> None:
    task = task_of()
    held = HeldAgainst(
        task, looked(task, answers(3, 2), Answers.plain(answers(3, 2))), RowsToShow(task, None, Words())
    )
    record = AnswerChanges(sort="class", places=ROWS, classes=task.label_names)
    for number, seed in ((4, 3), (7, 5)):
        point = held.point(looked(task, answers(3, seed), Answers.plain(answers(3, 2))))
        record = record.with_point(number, point, {e.key: held.shown.row(e.row) for e in point.examples})
    left = record.of_points({"7"})
    assert set(left.points) == {"7"}
    assert set(left.rows) == {example.key for example in left.points["7"].examples}


def test_a_language_model_is_asked_batch_by_batch_and_shows_what_came_before() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30, 60).astype(np.int32)
    data = Encoded(ids, np.zeros(60, np.uint8), np.array([0, 20, 35, 60]), np.zeros(3))
    task = Task(data, data, data, (), ("input_ids",), 0, CAUSAL_LM)
    tables = [rng.normal(size=(30, 40)).astype(np.float32) for _ in range(2)]
    runs = [lambda batch, table=table: table[batch["input_ids"]] for table in tables]
    teacher = teacher_answers(runs[0], task, data)

    def bench(run: Any) -> Any:
        return SimpleNamespace(
            task=task, setting=SimpleNamespace(validation_answers=teacher),
            room=SimpleNamespace(busy=nullcontext), runners=lambda model: nullcontext([run]),
        )  # fmt: skip

    then, now = (looked_at(Original(), bench(run)) for run in runs)
    point = HeldAgainst(task, then, RowsToShow(task, None, Words())).point(now)
    assert (sort_of(task), point.confusion) == ("token", ())
    before = np.concatenate([ids[a : b - 1] for a, b in ((0, 20), (20, 35), (35, 60))])
    came = np.concatenate([ids[a + 1 : b] for a, b in ((0, 20), (20, 35), (35, 60))])
    likeliest = [table[before].argmax(1) for table in tables]
    assert point.changed == int((likeliest[0] != likeliest[1]).sum())
    assert point.lost == int(((likeliest[0] != likeliest[1]) & (likeliest[0] == came)).sum())
    example = point.examples[0]
    assert example.place is not None
    start = int(data.starts[example.row])
    assert example.expected == f"w{ids[start + example.place + 1]}"
    kept = RowsToShow(task, None, Words()).row(example.row, example.place)
    assert kept.text.endswith(f"w{ids[start + example.place]}")
    assert then.kl.max() == pytest.approx(0.0, abs=1e-5)


def test_a_tag_shows_its_word_in_its_text() -> None:
    labels = np.array([NO_LABEL, 0, 1, NO_LABEL, NO_LABEL, 1, 0, NO_LABEL])
    data = Encoded(np.arange(8, dtype=np.int32), np.zeros(8, np.uint8), np.array([0, 4, 8]), labels)
    task = Task(data, data, data, ("O", "B"), ("input_ids",), 0, TOKEN_CLASSIFICATION)
    values = [np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32), np.array([[1, 0]] * 4, np.float32)]
    teacher = Answers(values[0], np.array([0, 2, 4]))
    shown = RowsToShow(task, None, Words())
    then, now = (looked(task, each, teacher) for each in values)
    point = HeldAgainst(task, then, shown).point(now)
    assert (sort_of(task), point.changed, point.lost, point.won) == ("tag", 2, 2, 0)
    assert {(example.row, example.place) for example in point.examples} == {(0, 1), (1, 0)}
    assert shown.row(0, 1) == KeptRow(text="w0 w1 w2 w3", word="w2")
    assert shown.row(1, 0).word == "w5"


@pytest.mark.slow
def test_a_search_keeps_what_its_points_change_and_no_row_where_none_is_wanted(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    env = environment(tmp_path / "cache")
    words = ["search", "model", *OPTIONS, "--dataset", "rows.csv"]
    for name, more in (("run", ()), ("private", ("--no-examples",))):
        autoprune([*words, *more, "-o", name], cwd=tmp_path, env=env)
        check_run(tmp_path / name, has_examples=not more)
    autoprune(["report", "run", "private", "-o", "both.html"], cwd=tmp_path, env=env)
    assert "paired test" in (tmp_path / "both.html").read_text(encoding="utf-8")


def check_run(run: Path, *, has_examples: bool) -> None:
    """That a run's records of changed answers agree with its other records."""
    record = json.loads((run / "answer_changes.json").read_text(encoding="utf-8"))
    front = json.loads((run / "front.json").read_text(encoding="utf-8"))
    page = (run / "report.html").read_text(encoding="utf-8")
    numbers = {str(number) for number in front["points"].values() if number is not None}
    assert set(record["points"]) == set(front["answer_changes"]["points"]) == numbers
    trials = {str(trial["number"]): trial for trial in front["trials"]}
    original = next(trial for trial in front["trials"] if trial["name"] == "original")
    for number, point in record["points"].items():
        gained = (point["won"] - point["lost"]) * 100 / record["places"]
        assert trials[number]["accuracy"] - original["accuracy"] == pytest.approx(gained, abs=1e-6)
        assert trials[number]["kl"] == pytest.approx(point["kl"], rel=1e-3, abs=1e-6)
        right = sum(count for true, answered, count, _ in point["confusion"] if true == answered)
        assert trials[number]["accuracy"] == pytest.approx(100 * right / record["places"])
        assert bool(point["examples"]) == (has_examples and point["changed"] > 0)
    texts = [row["text"] for row in record["rows"].values()]
    assert has_examples or not texts
    assert all(text in page for text in texts)
    assert not front["answer_changes"]["rows"]
    assert "Answers that changed" in page
    scores = json.loads((run / "row_scores.json").read_text(encoding="utf-8"))
    assert set(scores["test"]) <= set(scores["validation"])
    assert str(original["number"]) in scores["test"]
    assert set(front["ties"]["numbers"]) >= {int(number) for number in numbers}
