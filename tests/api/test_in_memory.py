"""Models and data in memory are written as files that a search reads as if they had always been there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
import torch
import transformers
from torch import nn

from autoprune.api.in_memory import data_source, model_source
from autoprune.core.errors import AutopruneError
from autoprune.core.references import named
from autoprune.models.loading import load_pretrained
from autoprune.tasks.data.tables import local_tables
from tests.support.checkpoints import word_tokenizer
from tests.support.networks import UNet
from tests.support.tiny import random_model

COLUMNS = {"text": ["good", "bad", "fair"], "label": [1, 0, 2]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))


def rows() -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]


@pytest.mark.parametrize(
    "dataset",
    [COLUMNS, rows(), pandas.DataFrame(COLUMNS), datasets.Dataset.from_dict(COLUMNS)],
    ids=["columns", "rows", "frame", "dataset"],
)
def test_rows_in_memory_are_read_back(dataset: Any) -> None:
    table = local_tables(Path(data_source(dataset)))["train"]
    assert {name: table.read(name) for name in table.names} == COLUMNS


def test_splits_stay_apart() -> None:
    other = {name: values[:2] for name, values in COLUMNS.items()}
    for whole in ({"train": COLUMNS, "test": pandas.DataFrame(other)},
                  datasets.DatasetDict(train=datasets.Dataset.from_dict(COLUMNS),
                                       test=datasets.Dataset.from_dict(other))):  # fmt: skip
        tables = local_tables(Path(data_source(whole)))
        assert (tables["train"].read("text"), tables["test"].read("text")) == (COLUMNS["text"], other["text"])


def test_the_same_data_are_written_once_and_other_data_apart() -> None:
    first = data_source(pandas.DataFrame(COLUMNS))
    assert data_source(pandas.DataFrame(COLUMNS)) == first
    assert data_source(pandas.DataFrame({**COLUMNS, "label": [1, 0, 1]})) != first
    assert data_source(pandas.DataFrame({**COLUMNS, "label": ["1", "0", "2"]})) != first


@pytest.mark.parametrize("dataset", [5, [1, 2], [], {"text": ["a"], "label": [1, 2]}, torch.ones(3)])
def test_what_is_no_table_is_refused(dataset: object) -> None:
    with pytest.raises(AutopruneError, match="dataset"):
        data_source(dataset)


@pytest.mark.parametrize("dataset", [pandas.DataFrame(COLUMNS)[:0], {"text": []}, {"train": {"text": []}}])
def test_data_without_rows_are_refused(dataset: object) -> None:
    with pytest.raises(AutopruneError, match=f"dataset is a {type(dataset).__name__} without a row"):
        data_source(dataset)


def test_no_bars_are_printed_and_they_come_back(capfd: pytest.CaptureFixture[str]) -> None:
    transformers.utils.logging.enable_progress_bar()
    model_source(random_model("bert"), word_tokenizer(60))
    data_source(COLUMNS)
    assert capfd.readouterr().err == ""
    assert transformers.utils.logging.is_progress_bar_enabled()
    assert datasets.is_progress_bar_enabled()


def test_a_transformers_model_answers_as_in_memory() -> None:
    model, tokenizer = random_model("bert").eval(), word_tokenizer(60)
    source = model_source(model, tokenizer)
    assert model_source(model, tokenizer) == source
    loaded = load_pretrained(source["model"], labels=3)
    tokens = tokenizer(["w1 w2 w3"], return_tensors="pt")
    tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    assert loaded.has_head
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(**tokens).logits, model(**tokens).logits)
    with pytest.raises(AutopruneError, match="needs processor="):
        model_source(model)
    with pytest.raises(AutopruneError, match="processor is a int"):
        model_source(model, 5)


def test_a_module_is_its_class_and_its_weights() -> None:
    from safetensors.torch import load_model

    model = UNet()
    source = model_source(model)
    again = named(source["model"], what="model")()
    load_model(again, source["weights"])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


def test_what_workers_cannot_import_is_refused() -> None:
    class Inner(nn.Linear):
        pass

    with pytest.raises(AutopruneError, match="cannot import: put it into a module of its own"):
        model_source(Inner(2, 2))
    with pytest.raises(AutopruneError, match="cannot import"):
        data_source(lambda: COLUMNS)
    with pytest.raises(AutopruneError, match="model is a int"):
        model_source(3)
