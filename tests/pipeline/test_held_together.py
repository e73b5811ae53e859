"""Model and data held together before a search: classes, tokens and lengths; what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from autoprune.core.errors import AutopruneError
from autoprune.pipeline.inputs import Inputs, read_inputs
from autoprune.run.config import Config
from autoprune.targets.packed import torch_runner
from autoprune.tasks.task import Encoded
from tests.support.checkpoints import WORDS, change_config, word_tokenizer, write_checkpoint, write_table
from tests.support.networks import SegmentingUNet
from tests.support.paths import ROOT

NAMES = {"id2label": {0: "negative", 1: "neutral", 2: "positive"}}
GPT2 = {"n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2, "num_labels": 2}


def read(folder: Path, labels: tuple[str, ...] = ("0", "1"), *, words: int = 12, **settings: Any) -> Inputs:
    """The inputs of a search with the model in `folder`/model, on made-up rows."""
    write_table(folder / "rows.csv", labels, words=words)
    given = {"model": str(folder / "model"), "dataset": str(folder / "rows.csv"), "target": "packed"}
    return read_inputs(Config.of(**{**given, **settings}))


def refused(folder: Path, labels: tuple[str, ...] = ("0", "1"), **settings: Any) -> str:
    with pytest.raises(AutopruneError) as caught:
        read(folder, labels, **settings)
    return str(caught.value)


def head_of(inputs: Inputs) -> torch.Tensor:
    return torch.as_tensor(inputs.loaded.model.get_parameter("classifier.weight"))


# ---- classes ------------------------------------------------------------------------------------


def test_a_head_of_more_classes_stays_and_labels_are_its_numbers(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", num_labels=3, **NAMES)
    inputs = read(tmp_path, ("positive", "negative"))
    assert inputs.loaded.has_head
    assert torch.equal(head_of(inputs), model.get_parameter("classifier.weight"))
    assert inputs.task.label_names == ("negative", "neutral", "positive")
    assert set(inputs.task.train.labels.tolist()) == {0, 2}
    assert any("no row of 1 of them: neutral" in note for note in inputs.notes)


def test_labels_of_a_subset_are_those_of_the_same_rows_read_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=3, **NAMES)
    inputs = read(tmp_path, ("positive", "negative"))
    assert inputs.texts is not None
    by_text = {0: 0, 1: 2}  # the data number negative 0 and positive 1
    assert [by_text[int(label)] for label in inputs.texts.train.labels] == inputs.task.train.labels.tolist()  # type: ignore[arg-type]


def test_classes_that_are_not_the_heads_are_refused_unless_a_new_head_is_asked_for(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=3, **NAMES)
    assert "--new-head" in refused(tmp_path, ("alpha", "beta"))
    inputs = read(tmp_path, ("alpha", "beta"), new_head=True)
    assert not inputs.loaded.has_head
    assert inputs.task.label_names == ("alpha", "beta")
    assert head_of(inputs).shape == (2, 32)
    assert any("3 classes (negative, neutral, positive) is thrown away" in note for note in inputs.notes)


def test_a_new_head_of_as_many_classes_is_drawn_and_the_body_stays(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", num_labels=2)
    kept, new = read(tmp_path, seed=1), read(tmp_path, new_head=True, seed=1)
    assert kept.loaded.has_head
    assert not new.loaded.has_head
    assert not torch.equal(head_of(new), model.get_parameter("classifier.weight"))
    assert new.identity.weights == kept.identity.weights
    assert torch.equal(head_of(new), head_of(read(tmp_path, new_head=True, seed=1)))


def test_a_run_that_began_with_a_head_of_its_own_goes_on_so(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=3, **NAMES)
    read(tmp_path, ("positive", "negative"))
    config = Config.of(model=str(tmp_path / "model"), dataset=str(tmp_path / "rows.csv"), target="packed")
    inputs = read_inputs(config, was_fitted=True)
    assert not inputs.loaded.has_head
    assert inputs.task.label_names == ("negative", "positive")


def test_a_model_without_a_head_gets_one_of_the_datas_classes(tmp_path: Path) -> None:
    model: Any = write_checkpoint(tmp_path / "model", num_labels=3, **NAMES)
    model.bert.save_pretrained(tmp_path / "model")
    inputs = read(tmp_path, ("alpha", "beta", "gamma", "delta"))
    assert not inputs.loaded.has_head
    assert head_of(inputs).shape == (4, 32)
    assert any("no trained head" in note for note in inputs.notes)


@pytest.mark.parametrize("target", ["packed", "openvino"])
def test_storages_that_the_target_lacks_are_said(tmp_path: Path, target: str) -> None:
    write_checkpoint(tmp_path / "model", num_labels=3, **NAMES)
    shipped = (Path(__file__).parents[2] / "search_spaces" / "bert.yaml").read_text("utf-8")
    space = tmp_path / "named.yaml"
    space.write_text(shipped.replace("activations: 8,", "activations: 8, also: [codebook4],"), "utf-8")
    inputs = read(tmp_path, ("positive", "negative"), target=target, space=str(space))
    said = [note for note in inputs.notes if "stores no weight as codebook4" in note]
    assert len(said) == (target == "openvino")


def test_several_labels_a_row_are_refused_by_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=3, problem_type="multi_label_classification", **NAMES)
    message = refused(tmp_path, ("positive", "negative"))
    assert "multi_label_classification" in message
    inputs = read(tmp_path, ("positive", "negative"), new_head=True)
    assert inputs.loaded.architecture.config["problem_type"] is None


def test_a_score_and_classes_are_not_mixed_up(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=1)
    assert "text-regression" in refused(tmp_path, task="text-classification")
    write_checkpoint(tmp_path / "other" / "model", num_labels=3)
    assert "gives 3 numbers" in refused(tmp_path / "other", ("0.5", "1.5"), task="text-regression")


# ---- tokens -------------------------------------------------------------------------------------


def test_a_decoder_without_a_padding_token_gets_one_that_ends_no_text(tmp_path: Path) -> None:
    write_checkpoint(
        tmp_path / "model", "gpt2", tokenizer=word_tokenizer(pad=False), pad_token_id=None, **GPT2
    )
    inputs = read(tmp_path)
    assert inputs.loaded.architecture.config["pad_token_id"] == inputs.task.pad_id == 3
    assert any("no padding token; '[SEP]' (token 3) pads rows" in note for note in inputs.notes)


def test_a_row_padded_by_others_is_answered_as_alone(tmp_path: Path) -> None:
    """A classifier by the last token, on rows of unlike length."""
    write_checkpoint(
        tmp_path / "model", "gpt2", tokenizer=word_tokenizer(pad=False), pad_token_id=None, **GPT2
    )
    inputs = read(tmp_path)
    short = Encoded(
        np.arange(4, 13, dtype=np.int32), np.zeros(9, np.uint8), np.array([0, 7, 9]), np.zeros(2, np.int64)
    )
    run = torch_runner(inputs.loaded.model, inputs.task.kind)
    together = run(inputs.task.batch(short, [0, 1]))
    alone = run({"input_ids": np.array([[11, 12]]), "attention_mask": np.ones((1, 2), np.int64)})
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_the_configs_padding_goes_before_the_tokenizers(tmp_path: Path) -> None:
    """RoBERTa counts places from it: padded otherwise, padding would be taken for text."""
    write_checkpoint(tmp_path / "model", "roberta", num_labels=2, pad_token_id=1)
    inputs = read(tmp_path)
    assert inputs.task.pad_id == 1
    assert any("'[UNK]' (token 1)" in note for note in inputs.notes)


def test_a_padding_token_that_the_model_has_not_is_replaced(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(pad=False)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    write_checkpoint(tmp_path / "model", "gpt2", tokenizer=tokenizer, pad_token_id=None, **GPT2)
    assert read(tmp_path).task.pad_id == 3


def test_a_token_that_the_model_has_not_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=2, tokenizer=word_tokenizer(), vocab_size=150)
    message = refused(tmp_path)
    assert "has 150 tokens and its tokenizer 200" in message
    assert "'w146' (150)" in message


def test_more_tokens_of_which_no_row_has_any_are_said(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=2, tokenizer=word_tokenizer(WORDS + 50))
    assert any("250 tokens, the model 200" in note for note in read(tmp_path).notes)


# ---- lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "given", "pad", "places"), [("bert", 20, 0, 20), ("roberta", 20, 1, 18), ("mpnet", 20, 1, 18)]
)
def test_rows_and_timing_end_where_the_table_of_places_does(
    tmp_path: Path, type: str, given: int, pad: int, places: int
) -> None:
    """Rows in whole eights, as batches are padded to such a width."""
    write_checkpoint(tmp_path / "model", type, num_labels=2, max_position_embeddings=given, pad_token_id=pad)
    inputs = read(tmp_path, words=30)
    assert int(inputs.task.train.lengths.max()) == 16
    assert inputs.sequence == places
    said = " ".join(inputs.notes)
    assert "rows are cut at 16 tokens, not 128" in said
    assert f"latency is timed at {places} tokens, not 128" in said


def test_what_a_model_takes_is_left_as_it_was_asked(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=2)
    inputs = read(tmp_path, max_length=8, sequence=16)
    assert (int(inputs.task.train.lengths.max()), inputs.sequence, inputs.notes) == (8, 16, ())


def test_the_limit_is_kept_beside_the_tokenizer(tmp_path: Path) -> None:
    """An export reads its rows with the saved tokenizer: cut as the search cut them."""
    import transformers

    write_checkpoint(tmp_path / "model", num_labels=2, max_position_embeddings=20)
    read(tmp_path).loaded.save_inputs(tmp_path / "saved")
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.model_max_length == 16


def test_a_model_that_does_not_run_on_the_rows_is_refused_in_one_line(tmp_path: Path) -> None:
    """Segments of pairs, of which the model has one alone."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(195))]
    write_checkpoint(tmp_path / "model", num_labels=2, type_vocab_size=1)
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "model")
    pairs = "\n".join(f"w{k} w{k + 1},w{k + 2},{k % 2}" for k in range(60))
    (tmp_path / "pairs.csv").write_text(f"text1,text2,label\n{pairs}\n", encoding="utf-8")
    message = refused(
        tmp_path, dataset=str(tmp_path / "pairs.csv"), text_columns=("text1", "text2"), max_length=16
    )
    assert "does not run on rows of the data (input_ids [2, 8]" in message


def test_a_model_that_answers_no_numbers_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_checkpoint(tmp_path / "model", num_labels=2)
    path = tmp_path / "model" / "model.safetensors"
    state = load_file(path)
    state["classifier.bias"][0] = float("nan")
    save_file(state, path, metadata={"format": "pt"})
    assert "is damaged: classifier.bias holds NaN or Inf" in refused(tmp_path)
    state["classifier.bias"][0] = 0.0
    state["classifier.weight"][0] = 3e38  # each a number, and their sum is none
    save_file(state, path, metadata={"format": "pt"})
    assert "answers NaN" in refused(tmp_path)


def test_answers_at_each_spot_are_of_no_kind_of_task(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name in ("red", "blue"):
        for number in range(12):
            (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
            picture = np.full((32, 32, 3), 20 * number, np.uint8)
            picture[..., 0 if name == "red" else 2] = 255
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{number}.png")
    save_file(SegmentingUNet().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(AutopruneError) as caught:
        read_inputs(
            Config.of(
                model="tests.support.networks:SegmentingUNet", weights=str(tmp_path / "net.safetensors"),
                dataset=str(tmp_path / "pictures"), image_size=32, task="image-classification",
                space=space_of(tmp_path), target="packed",
            )
        )  # fmt: skip
    assert "[2, 3, 32, 32]; task image-classification needs [rows, numbers]" in str(caught.value)
    assert "describe it by --task module:function" in str(caught.value)


def space_of(folder: Path) -> str:
    """A file with one rule for the U-Net."""
    text = "version: 1\nunits:\n  head: {at: down1.conv1, quantize: {bits: [8]}}\n"
    (folder / "space.yaml").write_text(text)
    return str(folder / "space.yaml")


def test_a_config_that_names_no_architecture_still_keeps_its_head(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=3, **NAMES)
    change_config(tmp_path / "model", architectures=None)
    assert read(tmp_path, ("positive", "negative")).loaded.has_head


# ---- the recipe ---------------------------------------------------------------------------------


def space_with_dropout(folder: Path, name: str) -> str:
    """A shipped space whose fine-tunes ask for dropout."""
    text = (ROOT / "search_spaces" / f"{name}.yaml").read_text(encoding="utf-8")
    space = yaml.safe_load(text)
    space["finetune"] = {**space.get("finetune", {}), "dropout": 0.1}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(space, sort_keys=False), encoding="utf-8")
    return str(path)


def test_dropout_is_refused_where_the_model_has_none(tmp_path: Path) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    write_checkpoint(
        tmp_path / "model", "llama", num_labels=2, num_key_value_heads=2, pad_token_id=0, **small
    )
    assert "the model has no dropout layers" in refused(tmp_path, space=space_with_dropout(tmp_path, "llama"))


def test_dropout_is_taken_where_it_has_some(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=2)
    inputs = read(tmp_path, space=space_with_dropout(tmp_path, "bert"))
    assert inputs.file.finetune.dropout == 0.1
