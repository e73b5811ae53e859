"""Folders of sentence-transformers: a vector is made as the model makes it, or the folder is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.models.loading import Loaded, load_pretrained
from autoprune.models.outputs import outputs_of
from autoprune.models.sentence_head import POOLINGS, DenseLayer, SentencePooling
from autoprune.models.spec import Architecture
from autoprune.targets import get_target
from autoprune.targets.packed import read_packed
from autoprune.tasks.kinds import SENTENCE_EMBEDDING
from tests.support.checkpoints import word_tokenizer, write_checkpoint

IDS = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
FLAGS = {"cls": "cls_token", "mean": "mean_tokens", "lasttoken": "lasttoken", "max": "max_tokens",
         "mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "weightedmean": "weightedmean_tokens"}  # fmt: skip
TRUTHS: dict[str, Callable[[Tensor], Tensor]] = {
    "cls": lambda x: x[0],
    "mean": lambda x: x.mean(0),
    "lasttoken": lambda x: x[-1],
    "max": lambda x: x.amax(0),
    "mean_sqrt_len_tokens": lambda x: x.sum(0) / len(x) ** 0.5,
    "weightedmean": lambda x: (x * torch.arange(1, len(x) + 1)[:, None]).sum(0) / len(x) / (len(x) + 1) * 2,
}
"""What each pooling makes of the vectors of one row's tokens [s d], without padding."""


def write_modules(
    folder: Path,
    *,
    pooling: dict[str, Any],
    more: Sequence[str] = (),
    dense: dict[str, Any] | None = None,
    type: str = "bert",
) -> nn.Module:
    """A tiny encoder with a `modules.json` of a Transformer, a Pooling and more; the encoder."""
    model = write_checkpoint(folder, type, kind=SENTENCE_EMBEDDING)
    chain = ["Transformer", "Pooling", *more]
    modules = [
        {
            "idx": k,
            "name": str(k),
            "path": f"{k}_{name}" if k else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for k, name in enumerate(chain)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    for k, name in enumerate(chain[1:], 1):
        (folder / f"{k}_{name}").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    if dense is not None:
        place = folder / f"{chain.index('Dense')}_Dense"
        (place / "config.json").write_text(json.dumps(dense), encoding="utf-8")
        layer = nn.Linear(dense["in_features"], dense["out_features"], bias=dense["bias"])
        save_file(
            {f"linear.{name}": x for name, x in layer.state_dict().items()}, place / "model.safetensors"
        )
    return model


def flags(*used: str) -> dict[str, Any]:
    """A pooling's config as sentence-transformers write it."""
    return {"word_embedding_dimension": 32, "include_prompt": True} | {
        f"pooling_mode_{flag}": name in used for name, flag in FLAGS.items()
    }


DENSE = {"in_features": 32, "out_features": 12, "bias": True,
         "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip


def loaded(folder: Path) -> Loaded:
    return load_pretrained(str(folder), labels=0, kind=SENTENCE_EMBEDDING)


def vectors(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return outputs_of(model, {"input_ids": IDS, "attention_mask": MASK}, SENTENCE_EMBEDDING)


def hidden_rows(model: nn.Module) -> list[Tensor]:
    """Vectors of each row's tokens, each row run alone."""
    with torch.no_grad():
        return [
            model(input_ids=ids[None, :n]).last_hidden_state[0] for ids, n in zip(IDS, (5, 3), strict=True)
        ]


def refused(folder: Path) -> str:
    with pytest.raises(AutopruneError) as caught:
        loaded(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", POOLINGS)
def test_vectors_are_pooled_as_the_model_says(tmp_path: Path, name: str) -> None:
    model = write_modules(tmp_path, pooling=flags(name), more=["Normalize"])
    truth = torch.stack([nn.functional.normalize(TRUTHS[name](x), dim=0) for x in hidden_rows(model)])
    found = loaded(tmp_path)
    torch.testing.assert_close(vectors(found.model), truth, atol=1e-5, rtol=1e-4)
    assert found.architecture.sentence.pooling == name
    assert SentencePooling(name).in_words() in found.notes[0]


def test_padding_on_the_left_has_the_same_last_token(tmp_path: Path) -> None:
    write_modules(tmp_path, pooling=flags("lasttoken"))
    head: Any = loaded(tmp_path).model.sentence_head
    hidden = torch.randn(1, 4, 32)
    torch.testing.assert_close(head(hidden, torch.tensor([[0, 0, 1, 1]]))[0], hidden[0, 3])
    torch.testing.assert_close(head(hidden, torch.tensor([[1, 1, 0, 0]]))[0], hidden[0, 1])


def test_the_newer_name_of_a_pooling_is_read(tmp_path: Path) -> None:
    write_modules(tmp_path, pooling={"embedding_dimension": 32, "pooling_mode": "cls"})
    assert loaded(tmp_path).architecture.sentence == SentencePooling("cls")


def test_a_dense_layer_is_part_of_the_model(tmp_path: Path) -> None:
    write_modules(tmp_path, pooling=flags("mean"), more=["Dense", "Normalize"], dense=DENSE)
    found = loaded(tmp_path)
    assert found.architecture.sentence == SentencePooling("mean", (DenseLayer(32, 12),))
    got = vectors(found.model)
    assert got.shape == (2, 12)
    head: Any = found.model.sentence_head
    by_hand = torch.stack([torch.tanh(head.dense[0](x.mean(0))) for x in hidden_rows(found.model)])
    torch.testing.assert_close(got, nn.functional.normalize(by_hand, dim=-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("target", ["packed", "openvino", "onnx"])
def test_a_saved_model_pools_as_the_one_that_was_searched(tmp_path: Path, target: str) -> None:
    write_modules(tmp_path / "model", pooling=flags("cls"), more=["Dense"], dense=DENSE)
    found, out = loaded(tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    runtime = get_target(target)
    batch = {"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()}
    runtime.save(Stitched.plain(found.model, found.architecture), out, batch)
    np.testing.assert_allclose(runtime.load(out)(batch), vectors(found.model).numpy(), atol=1e-4)


def test_a_pooling_without_layers_is_kept_for_transformers_too(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    write_modules(tmp_path / "model", pooling=flags("cls"), type="distilbert")
    found, out = loaded(tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    runtime = get_target("compressed-tensors")
    batch = {"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()}
    runtime.save(Stitched.plain(found.model, found.architecture), out, batch)
    np.testing.assert_allclose(runtime.load(out)(batch), vectors(found.model).numpy(), atol=1e-4)


def test_a_dense_layer_that_transformers_would_not_have_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    write_modules(tmp_path / "model", pooling=flags("cls"), more=["Dense"], dense=DENSE)
    found, out = loaded(tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    with pytest.raises(AutopruneError, match="dense layer"):
        get_target("compressed-tensors").save(Stitched.plain(found.model, found.architecture), out, {})


def test_the_description_says_how_it_pools_and_reads_back(tmp_path: Path) -> None:
    how = SentencePooling("lasttoken", (DenseLayer(32, 8, has_bias=False, activation="Identity"),))
    described = Architecture(SENTENCE_EMBEDDING, {"model_type": "bert"}, sentence=how)
    described.write(tmp_path)
    assert Architecture.read(tmp_path) == described


def test_the_mean_alone_is_described_as_by_earlier_versions() -> None:
    described = Architecture(SENTENCE_EMBEDDING, {"model_type": "bert"}).described()
    assert set(described["autoprune"]) == {"kind", "builder", "image", "folded"}


def test_a_folder_without_modules_takes_the_mean_and_says_so(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, kind=SENTENCE_EMBEDDING)
    found = loaded(tmp_path)
    assert found.architecture.sentence == SentencePooling()
    assert "has no modules.json" in found.notes[0]


@pytest.mark.parametrize(
    ("pooling", "more", "said"),
    [
        (flags("mean", "max"), (), "pools by mean, max"),
        (flags(), (), "pools by nothing"),
        (flags("mean"), ("LayerNorm",), "module LayerNorm"),
        (flags("mean"), ("Normalize", "Dense"), "module Dense"),
        ({"pooling_mode": "attention"}, (), "pools by attention"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, pooling: dict[str, Any], more: tuple[str, ...], said: str
) -> None:
    dense = DENSE if "Dense" in more else None
    write_modules(tmp_path, pooling=pooling, more=more, dense=dense)
    assert said in refused(tmp_path)


def test_an_activation_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_modules(
        tmp_path,
        pooling=flags("mean"),
        more=["Dense"],
        dense={**DENSE, "activation_function": "own.module.Odd"},
    )
    assert "activation Odd" in refused(tmp_path)


def test_a_dense_layer_in_a_pickle_is_refused(tmp_path: Path) -> None:
    write_modules(tmp_path, pooling=flags("mean"), more=["Dense"], dense=DENSE)
    (tmp_path / "2_Dense" / "model.safetensors").rename(tmp_path / "2_Dense" / "pytorch_model.bin")
    assert "no model.safetensors" in refused(tmp_path)


def test_rows_are_cut_where_the_model_cuts_them(tmp_path: Path) -> None:
    write_modules(tmp_path, pooling=flags("mean"))
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 24}', encoding="utf-8")
    assert loaded(tmp_path).tokenizer.model_max_length == 24


def test_lower_case_that_the_tokenizer_does_not_do_is_refused(tmp_path: Path) -> None:
    write_modules(tmp_path, pooling=flags("mean"))
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["A"])
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    assert "do_lower_case" in refused(tmp_path)


def test_a_prompt_and_another_similarity_are_said(tmp_path: Path) -> None:
    write_modules(tmp_path, pooling=flags("mean"))
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings), encoding="utf-8")
    said = " ".join(loaded(tmp_path).notes)
    assert "'query: '" in said
    assert "by dot" in said


def test_a_packed_model_has_its_head_again(tmp_path: Path) -> None:
    write_modules(tmp_path / "model", pooling=flags("lasttoken"), more=["Dense"], dense=DENSE)
    found, out = loaded(tmp_path / "model"), tmp_path / "out"
    out.mkdir()
    batch = {"input_ids": IDS.numpy(), "attention_mask": MASK.numpy()}
    found.architecture.write(out)
    get_target("packed").save(Stitched.plain(found.model, found.architecture), out, batch)
    assert torch.equal(vectors(read_packed(out).model), vectors(found.model))
