"""Lines: simple models on texts that a few words tell apart, as a worker makes, saves and scores them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from autoprune.core.progress import Progress
from autoprune.evaluation.lines import tfidf
from autoprune.evaluation.lines.dynamic import DynamicLine
from autoprune.evaluation.lines.layerless import LayerlessLine, token_table
from autoprune.evaluation.lines.line import FitLine, Line, MeasuredLine, measure_line
from autoprune.evaluation.lines.tfidf import TERM, LabelledTexts, TfidfLine
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.timers import NodeTimer
from autoprune.evaluation.workbench import Workbench
from autoprune.evaluation.worker import Worker, make_worker
from autoprune.models.split_embedding import part_
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.lines import lines_of
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.run.config import Config
from autoprune.targets import size_on_disk
from autoprune.targets.onnx.target import Onnx
from autoprune.tasks.answers import divergence
from autoprune.tasks.kinds import KINDS, TEXT_CLASSIFICATION
from tests.support.tiny import random_model

WORDS, CLASSES, REFERENCE_MS = 300, ("bad", "fair", "good"), 5.0


def write_data(
    folder: Path, *, classes: tuple[str, ...] = CLASSES, pairs: bool = False, **asked_for: Any
) -> Config:
    """A random BERT, and texts most of whose words belong to their class alone."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{k}" for k in range(WORDS - len(words))]
    folder.mkdir()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=128, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, num_labels=len(classes),
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    rng = np.random.default_rng(0)
    lines = ["text,text_pair,label" if pairs else "text,label"]
    for row in range(400):
        k = row % len(classes)
        drawn = [*rng.integers(60 * k, 60 * k + 20, 6), *rng.integers(200, 290, 2)]
        text = [f"w{number}" for number in rng.permutation(drawn)]
        cells = [" ".join(text[:4]), " ".join(text[4:])] if pairs else [" ".join(text)]
        lines.append(",".join([*cells, classes[k]]))
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked_for = {"target": "packed"} | asked_for
    return Config.of(
        model=str(folder), dataset=str(folder / "rows.csv"), max_length=16, sequence=16,
        calibration_rows=16, finetune_steps=2,
        text_columns=("text", "text_pair") if pairs else ("text",), **asked_for,
    )  # fmt: skip


@dataclass(frozen=True)
class Made:
    """What a search has once it is prepared, and a worker of it."""

    prepared: Prepared
    worker: Worker

    @property
    def bench(self) -> Workbench:
        return self.worker.workbench

    @property
    def lines(self) -> list[Line]:
        return lines_of(self.prepared)

    def measured(self, line: Line) -> MeasuredLine:
        result = self.worker(FitLine(line, REFERENCE_MS))
        assert isinstance(result, MeasuredLine)
        return result


def made(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Made:
    """A search whose teacher is right about the training rows, whatever its random weights."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(cache))
    config = write_data(folder, **options)
    prepared = prepare(config, read_inputs(config), Progress(quiet=True))
    train, answers = prepared.setting.task.train, prepared.setting.train_answers
    if not prepared.setting.task.kind.predicts_classes:
        return Made(prepared, make_worker({"setting": prepared.setting}))
    right = np.float32(6.0) * np.eye(answers.values.shape[1], dtype=np.float32)[train.labels]
    setting = replace(prepared.setting, train_answers=replace(answers, values=right))
    return Made(replace(prepared, setting=setting), make_worker({"setting": setting}))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Of three classes."""
    folder = tmp_path_factory.mktemp("lines")
    with pytest.MonkeyPatch.context() as patch:
        yield made(folder / "model", folder / "cache", patch)


@pytest.mark.parametrize("options", [{}, {"classes": ("no", "yes")}, {"pairs": True}])
def test_lines_tell_texts_apart_whose_words_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    use = made(tmp_path / "model", tmp_path / "cache", monkeypatch, **options)
    assert [line.name for line in use.lines] == ["tf-idf and logistic regression", "averaged token vectors"]
    for line in use.lines:
        measured = use.measured(line)
        assert min(measured.accuracy, measured.test_accuracy) >= 95, measured
        assert measured.latency_ms is not None
        assert measured.latency_ms > 0
        assert measured.name == line.name
        assert measured.what


def test_size_is_that_of_the_one_file_that_is_loaded(three: Made, tmp_path: Path) -> None:
    for k, line in enumerate(three.lines):
        path = tmp_path / str(k)
        line.fit(three.bench, path)
        assert path.is_file()
        measured = three.measured(line)
        assert measured.size_bytes == path.stat().st_size
        loaded = line.load(three.bench, path)
        assert (loaded.score("validation"), loaded.score("test")) == (
            measured.accuracy,
            measured.test_accuracy,
        )


def test_tfidf_is_scikit_learns_own(three: Made, tmp_path: Path) -> None:
    """Counts cut to a vocabulary, weighted and stored in half floats answer as the plain pipeline does."""
    line = three.lines[0]
    assert isinstance(line, TfidfLine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfidf, "VOCABULARIES", (150,))
        patch.setattr(tfidf, "STRENGTHS", (4.0,))
        line.fit(three.bench, tmp_path / "line")
    loaded = line.load(three.bench, tmp_path / "line")
    plain = TfidfVectorizer(ngram_range=(1, 2), token_pattern=TERM, max_features=150, sublinear_tf=True)
    regression = LogisticRegression(C=4.0, max_iter=300)
    regression.fit(plain.fit_transform(line.train.texts), line.train.labels)
    wanted = regression.predict_log_proba(plain.transform(line.test.texts))
    logits = loaded.logits(line.test.texts)
    ours = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert np.abs(ours - wanted).max() < 0.03


def test_a_class_that_no_training_text_has_is_never_answered(three: Made, tmp_path: Path) -> None:
    line = three.lines[0]
    assert isinstance(line, TfidfLine)
    kept = [k for k, label in enumerate(line.train.labels) if label != 1]
    train = LabelledTexts(tuple(line.train.texts[k] for k in kept), tuple(line.train.labels[k] for k in kept))
    fewer = replace(line, train=train)
    fewer.fit(three.bench, tmp_path / "line")
    answers = fewer.load(three.bench, tmp_path / "line").logits(line.test.texts).argmax(1)
    assert set(answers) == {0, 2}
    labels = np.asarray(line.test.labels)
    assert (answers == labels)[labels != 1].mean() > 0.95


def test_scores_of_tokens_are_the_head_s_answers_to_their_vectors(three: Made, tmp_path: Path) -> None:
    """Every token's score is linear in its vector, but for 8-bit rounding: the head is in the table."""
    line = LayerlessLine()
    line.fit(three.bench, tmp_path / "line")
    loaded = line.load(three.bench, tmp_path / "line")
    table = token_table(three.bench.teacher)
    assert table is not None
    tokens = len(table)
    scores = loaded._scores[:tokens]
    fitted = torch.linalg.lstsq(table, scores).solution
    gap = (table @ fitted - scores).abs().max()
    assert gap < 0.02 * (scores.max() - scores.min())
    batch = three.bench.timing_batch
    means = scores[torch.from_numpy(batch["input_ids"])].mean(1) + loaded._bias
    np.testing.assert_allclose(loaded.call(), means.numpy(), rtol=1e-4, atol=1e-5)


def test_a_table_in_two_parts_is_the_same_table(three: Made) -> None:
    model = random_model("bert", hidden=32, layers=1, heads=2, ffn=64, vocab=WORDS)
    whole = token_table(model)
    part_(model, "bert.embeddings.word_embeddings", torch.randperm(WORDS), 40)
    parted = token_table(model)
    assert whole is not None
    assert parted is not None
    assert torch.equal(whole, parted)
    assert token_table(torch.nn.Linear(2, 2)) is None


def test_no_milliseconds_are_told_where_another_machine_times(three: Made) -> None:
    timer = NodeTimer(three.bench, cast(Any, None))
    measured = measure_line(FitLine(LayerlessLine(), REFERENCE_MS), three.bench, timer)
    assert measured.latency_ms is None
    assert measured == replace(three.measured(LayerlessLine()), latency_ms=None, seconds=measured.seconds)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != TEXT_CLASSIFICATION], ids=str)
def test_other_tasks_have_the_runtime_s_own_quantizer_alone(three: Made, kind: Any) -> None:
    task = replace(three.prepared.setting.task, kind=kind)
    texts = three.prepared.inputs.texts if kind.labels_texts else None
    other = SimpleNamespace(
        inputs=SimpleNamespace(texts=texts),
        setting=SimpleNamespace(task=task, seed=0, target="packed"),
        model=None,
    )
    assert lines_of(cast(Any, other)) == []
    other.setting.target = "onnx"
    assert lines_of(cast(Any, other)) == [DynamicLine()]
    assert three.prepared.inputs.texts is not None


def test_a_target_without_a_quantizer_of_its_own_is_refused(three: Made) -> None:
    with pytest.raises(TypeError, match="target packed has no dynamic quantization"):
        three.measured(DynamicLine())


@pytest.mark.parametrize("task", ["text-classification", "sentence-embedding"])
def test_the_runtime_s_quantizer_is_measured_as_trials_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Bytes, scores and divergence are those of its file, on the target; of vectors too."""
    use = made(tmp_path / "model", tmp_path / "cache", monkeypatch, target="onnx", task=task)
    line = use.lines[0]
    assert line == DynamicLine()
    measured = use.measured(line)
    bench = use.bench
    (folder := tmp_path / "made").mkdir()
    assert isinstance(bench.target, Onnx)
    bench.target.save_dynamic(bench.original_folder(), folder)
    assert measured.size_bytes == size_on_disk(bench.target, folder)
    run, there = bench.target.load(folder), bench.setting.validation_answers
    answers = logits_of(run, bench.task, bench.task.validation)
    assert measured.kl == divergence(answers, there) > 0
    assert measured.accuracy == bench.task.score(bench.task.validation, answers, there)
    assert measured.test_accuracy == bench.scored_on_test(run).score
    assert measured.latency_ms is not None
    assert measured.latency_ms > 0
