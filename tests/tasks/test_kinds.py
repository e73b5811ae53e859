"""Every kind of task answers for itself: its name, its inputs, its answers. Nobody compares kinds."""

from __future__ import annotations

import ast
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprune
from autoprune.core.errors import AutopruneError
from autoprune.export.card_usage import with_autoprune
from autoprune.pipeline.named import metric_of
from autoprune.run.config import Config
from autoprune.tasks import kinds
from autoprune.tasks.encoding import pictures
from autoprune.tasks.kinds import KINDS, OWN, TaskKind, task_kind
from autoprune.tasks.metrics import METRICS, ONE_ROW, Metric
from autoprune.tasks.reading import IMAGE_COLUMNS, SCORE_COLUMNS, Reading
from tests.support.splits import splits_of

ALL = (*KINDS, OWN)


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_a_kind_is_found_by_its_name_and_survives_a_pickle(kind: TaskKind) -> None:
    assert task_kind(kind.name) is kind
    again = pickle.loads(pickle.dumps(kind))
    assert again == kind
    assert hash(again) == hash(kind)
    assert [other for other in ALL if other == kind] == [kind]


def test_names_in_files_and_flags_stay() -> None:
    assert [str(kind) for kind in ALL] == [
        "text-classification",
        "token-classification",
        "text-regression",
        "sentence-embedding",
        "causal-lm",
        "image-classification",
        "own",
    ]
    assert task_kind(None).name == "text-classification"
    assert [kind.name for kind in ALL if not kind.key_parts] == ["text-classification"]


@pytest.mark.parametrize("name", ["", "poetry", "Causal-LM", 3, ["own"]])
def test_a_kind_that_does_not_exist_is_refused(name: object) -> None:
    with pytest.raises(AutopruneError, match=r"there is no kind of task .*; there are text-classification, "):
        task_kind(name)


def test_metrics_follow_from_what_a_kind_answers() -> None:
    assert {kind.name: [metric.name for metric in kind.metrics] for kind in ALL} == {
        "text-classification": ["accuracy", "f1", "matthews"],
        "token-classification": ["f1", "accuracy", "matthews"],
        "text-regression": ["spearman"],
        "sentence-embedding": ["agreement"],
        "causal-lm": ["perplexity"],
        "image-classification": ["accuracy", "f1", "matthews"],
        "own": [],
    }
    assert all(metric.compute is not None for metric in METRICS.values())


@pytest.mark.parametrize("kind", ALL, ids=str)
def test_a_kind_has_one_way_to_read_and_one_way_to_answer(kind: TaskKind) -> None:
    assert [kind.is_tokenized, kind.reads_images, kind.is_own].count(True) == 1
    answers = (kind.predicts_classes, kind.predicts_number, kind.predicts_next_token, kind.gives_vectors)
    assert (*answers, kind.is_own).count(True) == 1
    assert kind.place == ("token" if kind.answers_each_token else "row")
    assert bool(kind.reading.labels) == (kind.predicts_classes or kind.predicts_number)
    assert kind.is_own == (kind.auto_class is None)


def test_what_a_model_takes_and_what_its_head_is() -> None:
    names = ["input_ids", "attention_mask"]
    assert {kind.token_inputs(names) for kind in ALL if kind.predicts_next_token} == {("input_ids",)}
    assert {kind.token_inputs(names) for kind in ALL if not kind.predicts_next_token} == {tuple(names)}
    assert [kind.head_options(3) for kind in KINDS] == [
        {"num_labels": 3},
        {"num_labels": 3},
        {"num_labels": 1, "problem_type": "regression"},
        {},
        {},
        {"num_labels": 3},
    ]


IMAGE_REGRESSION = TaskKind(
    name="image-regression",
    reading=Reading(what="image", inputs=IMAGE_COLUMNS, labels=SCORE_COLUMNS),
    answers="number",
    usual_metric=METRICS["spearman"],
    auto_class="AutoModelForImageClassification",
    pipeline="image-classification",
)
"""A kind that the package does not have: a score for each image."""


def test_a_new_kind_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("made_data")
    rng = np.random.default_rng(0)
    pictures_of = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in range(40)]
    module.rows = lambda: [{"image": image, "rating": float(image.mean())} for image in pictures_of]
    monkeypatch.setitem(sys.modules, "made_data", module)
    splits = splits_of("made_data:rows", kind=IMAGE_REGRESSION)
    assert splits.label_names == ()
    task = pictures(splits, lambda images: np.stack(images).astype(np.float32), kind=IMAGE_REGRESSION)
    assert (task.kind, task.metric) == (IMAGE_REGRESSION, METRICS["spearman"])
    assert task.train.labels.dtype == np.float32
    assert not task.is_probable
    assert task.has_labels
    means = task.batch(task.test, range(len(task.test)))["pixel_values"].mean((1, 2, 3))
    assert task.score(task.test, means[:, None]) == pytest.approx(100.0)
    code = with_autoprune("openvino", IMAGE_REGRESSION, "small")
    assert "pixels = " in code
    assert "logits = " in code
    with pytest.raises(AutopruneError, match="rows of image-regression have an image and a label"):
        splits_of("made_data:rows", kind=IMAGE_REGRESSION, text_columns=["rating"])


def test_a_new_metric_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    top2 = Metric(
        "top 2",
        answers="classes",
        compute=lambda values, labels, teacher: (
            100.0
            * float(np.mean([label in row.argsort()[-2:] for row, label in zip(values, labels, strict=True)]))
        ),
        in_words="accuracy of two guesses",
        hub_name="top_2_accuracy",
        points_per_row=ONE_ROW,
    )
    monkeypatch.setitem(METRICS, top2.name, top2)
    asking = [kind for kind in ALL if top2 in kind.metrics]
    assert asking == [kind for kind in ALL if kind.predicts_classes]
    assert all(kind.metrics[0] == kind.usual_metric for kind in asking)
    assert [metric_of(Config.of(metric="top 2"), kind) for kind in asking] == [top2] * len(asking)
    assert top2.score_answers(np.eye(3, dtype=np.float32), np.array([0, 1, 0])) == pytest.approx(200 / 3)
    again = Metric.from_json(top2.as_json())
    assert (again.word, again.hub_name, again.is_share_of_rows) == (
        "accuracy of two guesses",
        "top_2_accuracy",
        True,
    )


def test_no_module_asks_which_kind_it_is() -> None:
    named = {name for name, value in vars(kinds).items() if isinstance(value, TaskKind)} | {"KINDS"}
    words = {kind.name for kind in KINDS}
    asked = []
    for path in Path(autoprune.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Compare):
                continue
            for part in (part for side in (node.left, *node.comparators) for part in ast.walk(side)):
                is_kind = isinstance(part, ast.Name) and part.id in named
                if is_kind or (isinstance(part, ast.Constant) and part.value in words):
                    asked.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert asked == []
