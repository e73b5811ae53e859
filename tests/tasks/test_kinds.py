"""Every kind of task answers for itself: its name, its inputs, its answers. Nobody compares kinds."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import autoprune
from autoprune.core.errors import AutopruneError
from autoprune.tasks import kinds
from autoprune.tasks.kinds import KINDS, OWN, TaskKind, task_kind
from autoprune.tasks.metrics import METRICS

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
