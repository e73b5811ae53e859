"""Another teacher than the original: what does not fit is refused by name, and what fits is learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.models.outputs import outputs_of
from autoprune.pipeline.inputs import Inputs, read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import Config
from tests.support.made_run import write_rows
from tests.support.tiny import random_model
from tests.support.tiny_search import (
    OPTIONS,
    WORDS,
    autoprune,
    change_weights,
    environment,
    write_inputs,
)

CLASSES = ("bad", "fair", "good")


def write_model(folder: Path, names: tuple[str, ...] = CLASSES, *, words: list[str] | None = None) -> Path:
    """A BERT of three layers with named classes, and a vocabulary of its own where one is given."""
    words = words or ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(WORDS - 5))]
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, id2label=dict(enumerate(names)), initializer_range=0.3,
        label2id={name: k for k, name in enumerate(names)},
    )  # fmt: skip
    torch.manual_seed(7)
    folder.mkdir(parents=True)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    write_model(folder / "model")
    write_model(folder / "teacher", ("good", "bad", "fair"))
    write_rows(folder / "rows.csv", rows=200)
    return folder


def config_of(base: Path, teacher: Path | str | None, **more: Any) -> Config:
    settings: dict[str, Any] = {
        "model": str(base / "model"), "dataset": str(base / "rows.csv"), "target": "packed", "max_length": 16,
        "sequence": 16, "calibration_rows": 32, "limit_rows": (64, 20, 20),
        "teacher": None if teacher is None else str(teacher),
    }  # fmt: skip
    return Config.of(**{**settings, **more})


def read(base: Path, teacher: Path | str | None, **more: Any) -> Inputs:
    return read_inputs(config_of(base, teacher, **more), progress=Progress(quiet=True))


def refused(base: Path, teacher: Path | str | None, **more: Any) -> str:
    with pytest.raises(AutopruneError) as error:
        read(base, teacher, **more)
    assert str(error.value).startswith(("--teacher", "--augment"))
    return str(error.value)


def test_another_tokenizer_is_refused_with_the_row_that_tells(base: Path, tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{WORDS - 6 - k}" for k in range(WORDS - 5))]
    told = refused(base, write_model(tmp_path / "other", words=words))
    assert "reads text with another tokenizer: row 1 of the training rows is" in told
    assert "leave --teacher out" in told


def test_other_classes_are_refused(base: Path, tmp_path: Path) -> None:
    told = refused(base, write_model(tmp_path / "four", ("bad", "fair", "good", "best")))
    assert "its head tells apart 4 classes (bad, fair, good, best), the model 3 (bad, fair, good)" in told
    told = refused(base, write_model(tmp_path / "named", ("bad", "fair", "superb")))
    assert "of which it does not know good" in told


def test_another_task_is_refused(base: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tags")
    path = folder / "config.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**described, "architectures": ["BertForTokenClassification"]}))
    told = refused(base, folder)
    assert "is for task token-classification, and the model is searched for text-classification" in told


def test_a_model_without_a_head_is_refused(base: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "body")
    transformers.BertModel.from_pretrained(folder).save_pretrained(folder)
    assert "it has no trained head for task text-classification: fine-tune it first" in refused(base, folder)


def test_what_does_not_go_together_is_refused(base: Path, tmp_path: Path) -> None:
    assert "asked once" in refused(base, base / "teacher", augment=True)
    assert "go with --teacher" in refused(base, None, teacher_weights="x.safetensors")
    assert "does not exist" in refused(base, tmp_path / "none")


def test_its_answers_are_in_the_order_of_the_models_classes_and_only_what_is_taught(base: Path) -> None:
    config = config_of(base, base / "teacher")
    inputs = read_inputs(config, progress=Progress(quiet=True))
    assert inputs.teacher is not None
    assert inputs.teacher.columns == (1, 2, 0)  # by name
    assert "its answers alone are distilled" in inputs.teacher.note
    prepared = prepare(config, inputs, Progress(quiet=True))
    setting, rows = prepared.setting, np.arange(8)
    teacher = transformers.BertForSequenceClassification.from_pretrained(base / "teacher").eval()
    batch = {k: torch.from_numpy(x) for k, x in setting.task.batch(setting.task.train, rows).items()}
    with torch.inference_mode():
        theirs = outputs_of(teacher, batch, setting.task.kind).numpy()[:, [1, 2, 0]]
    assert setting.taught_answers is not None
    np.testing.assert_allclose(setting.taught_answers.values[rows], theirs, atol=1e-5)
    plain = config_of(base, None)
    alone = prepare(plain, read_inputs(plain, progress=Progress(quiet=True)), Progress(quiet=True)).setting
    assert alone.taught_answers is None
    assert alone.key == setting.key
    for ours, others in ((alone.validation_answers, setting.validation_answers),):
        np.testing.assert_array_equal(ours.values, others.values)


@pytest.mark.slow
def test_a_search_records_it_and_resumes_with_the_same_alone(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    write_model(tmp_path / "large", tuple(f"LABEL_{k}" for k in range(3)))
    env = environment(tmp_path / "cache")
    words = ["search", "model", *OPTIONS, "--dataset", "rows.csv", "--teacher", "large", "-o", "run"]
    done = autoprune(words, cwd=tmp_path, env=env)
    assert "Teacher   large" in done.stderr + done.stdout
    about = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert about["config"]["teacher"] == about["facts"]["teacher"] == "large"
    assert len(about["inputs"]["teacher"]) == 64
    assert about["inputs"]["paths"]["teacher"] == str(tmp_path / "large")
    front = json.loads((tmp_path / "run" / "front.json").read_text(encoding="utf-8"))
    assert front["agreement"] == []
    trained = [trial for trial in front["trials"] if trial["rung"]]
    assert trained
    assert all(trial["kl"] is not None for trial in trained)  # to the original
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Fine-tunes learned the answers of large" in page
    autoprune(["resume", "run", "--trials", "+1"], cwd=tmp_path, env=env)
    change_weights(tmp_path / "large")
    told = autoprune(["resume", "run", "--trials", "+1"], cwd=tmp_path, env=env, code=2).stderr
    assert f"changed: the teacher (large, {tmp_path / 'large'}: SHA-256 " in told


def test_a_teacher_in_memory_is_a_folder_like_any(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from autoprune.api.functions import _teacher_source

    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))
    tokenizer = transformers.BertTokenizer.from_pretrained(write_model(tmp_path / "m"))
    model = random_model("bert", layers=1)
    given = _teacher_source(model, None, tokenizer)
    assert set(given) == {"teacher"}
    assert (Path(given["teacher"]) / "tokenizer.json").is_file()
    assert given == _teacher_source(model, tokenizer, None)
    with pytest.raises(AutopruneError, match="goes with a teacher in memory"):
        _teacher_source(None, tokenizer, None)
