"""gguf: blocks hold our values, metadata is what llama.cpp asks for, and llama.cpp gives our logits."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from autoprune.compress.fixed_grid_rounding import FixedGridWay
from autoprune.compress.fixed_grids import FixedGridWeight
from autoprune.compress.integers import PRODUCT_REACH, Integers, round_nearest
from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.space.fixed_grid_storages import MicroscalingFloats
from autoprune.space.levels import Candidate, Level
from autoprune.targets import Target, get_target, size_on_disk
from autoprune.targets.gguf.file import gguf_name
from autoprune.tasks.task import Batch
from tests.support.families import make_case
from tests.support.stored import integers_of
from tests.support.tiny import Tiny, logits, make_tiny

gguf = pytest.importorskip("gguf", reason="gguf is not installed")

WIDTHS: tuple[int | str, ...] = (4, "mxfp4", "w8a8", 16, 32)
FLOAT_TOLERANCE = 0.005
"""Of the logits' spread: llama.cpp's GELU is the tanh approximation."""

needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)


@pytest.fixture(scope="module")
def target() -> Target:
    return get_target("gguf")


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny BERT of other tests, with 4-bit floats offered."""
    return make_tiny("bert", tmp_path_factory.mktemp("library"), also=("mxfp4", "nf4"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file decoded and run by torch, whether llama.cpp is here or not."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)


def uniform(tiny: Tiny, target: Target, width: int | str) -> Candidate:
    """Every unit at a width where it is offered, else untouched."""
    candidate, level = tiny.space.untouched(), Level.of(0.0, width)
    for unit in tiny.units:
        if target.offers(unit, level) and level in unit.levels():
            candidate = candidate.with_level(unit.name, level)
    return candidate


def saved(tiny: Tiny, target: Target, candidate: Candidate, folder: Path) -> Stitched:
    stitched = tiny.stitched_as(candidate)
    folder.mkdir(exist_ok=True)
    target.save(stitched, folder, tiny.task.batch(tiny.task.validation, [0, 1]))
    return stitched


def tensors_of(folder: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(folder / "model.gguf").tensors}


def value_of(tensor: Any) -> torch.Tensor:
    """A tensor as the format's own package decodes it."""
    return torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type)))


def field(folder: Path, key: str) -> Any:
    found = gguf.GGUFReader(folder / "model.gguf").get_field(key)
    return None if found is None else found.contents()


class TestBlocks:
    @pytest.mark.parametrize("group_size", [32, 64, 128])
    def test_4_bits_are_ours_to_the_half_float_of_the_minimum(self, group_size: int) -> None:
        from autoprune.targets.gguf.file import _q4_1

        torch.manual_seed(0)
        one = round_nearest(torch.randn(7, 256) + torch.randn(7, 1), bits=4, group_size=group_size)
        kind = gguf.GGMLQuantizationType.Q4_1
        value = torch.from_numpy(gguf.dequantize(_q4_1(one), kind))
        minimum = (one.scale.float() * one.zero.float()).repeat_interleave(group_size, 1)
        assert one.group_size == group_size
        assert ((value - one.dequantize()).abs() <= minimum * 2.0**-11 + 1e-6).all()

    def test_4_bits_are_the_blocks_that_the_package_makes_of_the_same_values(self) -> None:
        from autoprune.targets.gguf.file import _q4_1

        codes = torch.arange(16).repeat(2, 4).to(torch.uint8)  # each block has codes 0 and 15
        one = Integers(codes, torch.full((2, 1), 0.5).half(), torch.full((2, 1), 6).to(torch.uint8), 4)
        wanted = gguf.quants.quantize(one.dequantize().numpy(), gguf.GGMLQuantizationType.Q4_1)
        assert np.array_equal(_q4_1(one), wanted)

    def test_8_bits_are_ours_exactly(self) -> None:
        from autoprune.targets.gguf.file import _q8_0

        torch.manual_seed(0)
        one = round_nearest(torch.randn(5, 96), bits=8, group_size=96, reach=PRODUCT_REACH)
        assert one.is_symmetric
        value = gguf.dequantize(_q8_0(one), gguf.GGMLQuantizationType.Q8_0)
        assert np.array_equal(value, one.dequantize().numpy())

    def test_4_bit_floats_are_ours_exactly(self) -> None:
        from autoprune.targets.gguf.file import _mxfp4

        weight = torch.randn(5, 96, generator=torch.manual_seed(0)) * torch.logspace(-6, 6, 5)[:, None]
        one = FixedGridWay().nearest(weight, MicroscalingFloats(), group_size=64)
        assert isinstance(one, FixedGridWeight)
        value = gguf.dequantize(_mxfp4(one), gguf.GGMLQuantizationType.MXFP4)
        assert np.array_equal(value, one.dequantize().numpy())

    def test_4_bit_floats_are_the_blocks_that_the_package_makes_of_the_same_values(self) -> None:
        from autoprune.targets.gguf.file import _mxfp4

        values = torch.tensor([value / 8 for value in MicroscalingFloats().values]).repeat(2, 3)[:, :32]
        one = FixedGridWay().nearest(values, MicroscalingFloats(), group_size=32)
        assert isinstance(one, FixedGridWeight)
        wanted = gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType.MXFP4)
        assert np.array_equal(_mxfp4(one), wanted)


class TestFile:
    def test_every_tensor_has_a_name_that_the_format_knows(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path
    ) -> None:
        stitched = saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        wanted = stitched.model.state_dict()
        found = tensors_of(tmp_path)
        assert found.keys() == {gguf_name(name) for name in wanted}
        assert len(found) == len(wanted)
        kinds = gguf.MODEL_TENSORS[gguf.MODEL_ARCH.BERT]
        known = {gguf.TENSOR_NAMES[kind].format(bid=layer) for kind in kinds for layer in range(2)}
        assert {name.rpartition(".")[0] for name in found} <= known
        assert all(torch.equal(value_of(found[gguf_name(name)]), x) for name, x in wanted.items())

    def test_it_says_what_llama_cpp_asks_for(self, tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
        saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        config: Any = tiny_bert.model.config
        assert field(tmp_path, "general.architecture") == "bert"
        assert field(tmp_path, "bert.block_count") == config.num_hidden_layers
        assert field(tmp_path, "bert.attention.head_count") == config.num_attention_heads
        assert field(tmp_path, "bert.embedding_length") == config.hidden_size
        assert field(tmp_path, "bert.feed_forward_length") == config.intermediate_size
        assert field(tmp_path, "bert.context_length") == config.max_position_embeddings
        assert field(tmp_path, "bert.attention.layer_norm_epsilon") == pytest.approx(config.layer_norm_eps)
        assert field(tmp_path, "bert.attention.causal") is False
        assert field(tmp_path, "bert.pooling_type") == gguf.PoolingType.RANK
        assert field(tmp_path, "bert.classifier.output_labels") == ["LABEL_0", "LABEL_1", "LABEL_2"]
        assert field(tmp_path, "tokenizer.ggml.model") == "no_vocab"
        assert field(tmp_path, "bert.vocab_size") == config.vocab_size

    @pytest.mark.parametrize("width", WIDTHS, ids=str)
    def test_a_units_bytes_are_those_it_takes_in_the_file(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, width: int | str
    ) -> None:
        saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path / "original")
        candidate = uniform(tiny_bert, target, width)
        saved(tiny_bert, target, candidate, tmp_path / "small")
        original = size_on_disk(target, tmp_path / "original")
        predicted = tiny_bert.predicted_bytes(target, candidate, original)
        assert predicted == size_on_disk(target, tmp_path / "small")

    @pytest.mark.usefixtures("decoded")
    @pytest.mark.parametrize("width", WIDTHS, ids=str)
    def test_decoded_it_gives_the_stitched_models_logits(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, width: int | str
    ) -> None:
        stitched = saved(tiny_bert, target, uniform(tiny_bert, target, width), tmp_path)
        batch = tiny_bert.task.batch(tiny_bert.task.validation, [0, 1, 2])
        wanted = logits(stitched.model, batch).numpy()
        got = target.load(tmp_path)(batch)
        if width in (16, 32):
            assert np.array_equal(got, wanted)
        assert np.abs(got - wanted).max() <= target.tolerance * wanted.std()

    @pytest.mark.parametrize("damage", ["name", "shape", "magic", "config"])
    def test_what_does_not_fit_is_refused(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, damage: str
    ) -> None:
        saved(tiny_bert, target, uniform(tiny_bert, target, 4), tmp_path)
        file, config = tmp_path / "model.gguf", tmp_path / "config.json"
        if damage == "config":
            config.write_text("{")
        elif damage == "shape":
            config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 64}))
        else:
            old, new = (b"ffn_up", b"ffn_xx") if damage == "name" else (b"GGUF", b"FUGG")
            file.write_bytes(file.read_bytes().replace(old, new))
        with pytest.raises(AutopruneError) as caught:
            target.load(tmp_path)
        assert str(config if damage == "config" else file) in str(caught.value)
        if damage in ("name", "shape"):
            assert "blk.0.ffn_up" in str(caught.value)


class TestRefusals:
    def test_what_no_kind_of_block_can_hold_is_not_offered(self, tiny_bert: Tiny, target: Target) -> None:
        widths: tuple[int | str, ...] = (2, 3, 4, "mxfp4", "nf4", 6, 8, "w8a8", 16, 32)
        embedding, attention = tiny_bert.unit("word_embeddings"), tiny_bert.unit("attention")
        offered = [w for w in widths if target.offers(attention, Level.of(0.0, w))]
        assert offered == [4, "mxfp4", "w8a8", 16, 32]
        assert [w for w in widths if target.offers(embedding, Level.of(0.0, w))] == [4, "mxfp4", 16, 32]
        assert not any(target.offers(attention, Level.of(0.5, w)) for w in widths)

    def test_groups_that_are_no_whole_blocks_are_not_offered(self, tiny_bert: Tiny, target: Target) -> None:
        small = dataclasses.replace(tiny_bert.unit("attention"), group_size=16)
        assert not target.offers(small, Level.of(0.0, 4))
        assert target.offers(small, Level.of(0.0, "w8a8"))
        assert target.offers(small, Level.of(0.0, "mxfp4"))  # whose blocks are 32 whatever a unit's groups

    @pytest.mark.parametrize("bits", [2, 3, 6, 8])
    def test_other_widths_are_refused(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, bits: int
    ) -> None:
        stitched = tiny_bert.stitched_as(tiny_bert.with_levels(attention=Level.of(0.0, bits)))
        with pytest.raises(AutopruneError, match=rf"cannot store \S*query with {bits} bits .*it has 4 bits"):
            target.save(stitched, tmp_path, {})
        assert not list(tmp_path.iterdir())

    def test_another_fixed_grid_is_refused(self, tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
        stitched = tiny_bert.stitched_as(tiny_bert.with_levels(attention=Level.of(0.0, "nf4")))
        with pytest.raises(AutopruneError, match=r"cannot store \S*query as nf4 .*it has mxfp4"):
            target.save(stitched, tmp_path, {})
        assert not list(tmp_path.iterdir())

    def test_removed_rows_are_refused(self, tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
        stitched = tiny_bert.stitched_as(tiny_bert.with_levels(attention=Level(0.5)))
        with pytest.raises(AutopruneError, match=r"cannot store .*attention with rows removed"):
            target.save(stitched, tmp_path, {})

    def test_another_architecture_is_refused(
        self, tiny_distilbert: Tiny, target: Target, tmp_path: Path
    ) -> None:
        stitched = tiny_distilbert.stitched_as(tiny_distilbert.space.untouched())
        with pytest.raises(AutopruneError, match=r"takes BertForSequenceClassification alone.*DistilBert"):
            target.save(stitched, tmp_path, {})

    def test_another_activation_is_refused(self, tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
        stitched = tiny_bert.stitched_as(tiny_bert.space.untouched())
        stitched.model.config.hidden_act = "relu"  # type: ignore[union-attr]
        with pytest.raises(AutopruneError, match=r"models with GELU.*'relu'"):
            target.save(stitched, tmp_path, {})

    def test_pairs_of_texts_are_refused(self, tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
        stitched = saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        batch: Batch = tiny_bert.task.timing_batch(1, 6)
        batch["token_type_ids"][0, 3:] = 1
        for refuse in (lambda: target.save(stitched, tmp_path, batch), lambda: target.load(tmp_path)(batch)):
            with pytest.raises(AutopruneError, match="takes single texts"):
                refuse()

    def test_without_its_package_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(AutopruneError, match=r"pip install 'autoprune\[gguf\]'"):
            get_target("gguf")


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789.,!'"]
PIECES = ["good", "film", "##s", "##ing", "##ly", "act", "bad", "the", "is", "cafe", "un", "##even"]
TEXTS = ["The film is GOOD!", "acting unevenly, café's films", "zzz 42 bad.", "", "un un\tthe\n"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    """A small uncased WordPiece tokenizer, in `tmp_path`."""
    tokens = [*WORDS, *(f"##{word}" for word in WORDS[5:]), *PIECES]
    made = transformers.BertTokenizer(vocab={token: k for k, token in enumerate(tokens)}, do_lower_case=True)
    made.save_pretrained(tmp_path)
    return made


class TestVocabulary:
    def test_tokens_are_marked_where_a_word_begins(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, tokenizer: Any
    ) -> None:
        saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        tokens = field(tmp_path, "tokenizer.ggml.tokens")
        assert len(tokens) == tiny_bert.model.config.vocab_size  # type: ignore[union-attr]
        assert field(tmp_path, "tokenizer.ggml.model") == "bert"
        assert field(tmp_path, "tokenizer.ggml.normalizer.lowercase") is True
        ids = tokenizer.get_vocab()
        for token, written in [("good", "\u2581good"), ("##ing", "ing"), ("[CLS]", "[CLS]")]:
            assert tokens[ids[token]] == written
        kinds = field(tmp_path, "tokenizer.ggml.token_type")
        assert kinds[ids["[SEP]"]] == gguf.TokenType.CONTROL
        assert kinds[-1] == gguf.TokenType.UNUSED
        assert field(tmp_path, "tokenizer.ggml.seperator_token_id") == ids["[SEP]"]

    @pytest.mark.parametrize("change", ["type", "normalizer", "too many", "not JSON"])
    def test_another_tokenizer_is_left_out(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, tokenizer: Any, change: str
    ) -> None:
        path = tmp_path / "tokenizer.json"
        data = json.loads(path.read_text())
        if change == "type":
            data["model"]["type"] = "BPE"
        elif change == "normalizer":
            data["normalizer"] = None
        elif change == "too many":
            data["model"]["vocab"]["more"] = 10**6
        path.write_text(json.dumps(data) if change != "not JSON" else "{")
        saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        assert field(tmp_path, "tokenizer.ggml.model") == "no_vocab"

    @needs_llama
    def test_llama_cpp_makes_the_same_tokens(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, tokenizer: Any
    ) -> None:
        import ctypes

        import llama_cpp

        saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        options = llama_cpp.llama_model_default_params()
        options.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(bytes(tmp_path / "model.gguf"), options)
        vocabulary = llama_cpp.llama_model_get_vocab(model)
        for text in TEXTS:
            raw, ids = text.encode(), (ctypes.c_int32 * 64)()
            count = llama_cpp.llama_tokenize(vocabulary, raw, len(raw), ids, 64, True, False)
            assert list(ids[:count]) == tokenizer(text)["input_ids"]
        llama_cpp.llama_model_free(model)


@needs_llama
class TestLlama:
    """The file in llama.cpp itself."""

    @pytest.mark.parametrize("width", WIDTHS, ids=str)
    def test_it_gives_the_stitched_models_logits(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path, width: int | str
    ) -> None:
        stitched = saved(tiny_bert, target, uniform(tiny_bert, target, width), tmp_path)
        batch = tiny_bert.task.batch(tiny_bert.task.validation, [0, 1, 2, 3])
        wanted = logits(stitched.model, batch).numpy()
        share = np.abs(target.load(tmp_path)(batch) - wanted).max() / wanted.std()
        assert share <= (target.tolerance if integers_of(stitched) else FLOAT_TOLERANCE)
        assert share > 0  # it is not torch that ran

    def test_padding_changes_nothing(self, tiny_bert: Tiny, target: Target, tmp_path: Path) -> None:
        saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        run, short = target.load(tmp_path), tiny_bert.task.timing_batch(2, 7)
        padded = {name: np.pad(x, ((0, 0), (0, 5))) for name, x in short.items()}
        assert np.array_equal(run(short), run(padded))

    def test_a_text_that_is_too_long_is_refused(
        self, tiny_bert: Tiny, target: Target, tmp_path: Path
    ) -> None:
        saved(tiny_bert, target, tiny_bert.space.untouched(), tmp_path)
        with pytest.raises(AutopruneError, match="has 33 tokens; the model takes 1 to 32"):
            target.load(tmp_path)(tiny_bert.task.timing_batch(1, 33))


@pytest.mark.parametrize("name", ["llama", "torchvision", "bert-tokens"])
def test_models_of_other_kinds_are_refused(tmp_path: Path, target: Target, name: str) -> None:
    tiny = make_case(name, tmp_path / "library").tiny
    stitched = tiny.stitched_as(tiny.space.untouched())
    with pytest.raises(AutopruneError, match=f"this model is a {type(tiny.model).__name__}"):
        target.save(stitched, tmp_path, tiny.task.batch(tiny.task.validation, [0, 1]))
    kernels = [unit for unit in tiny.units if any(weight.is_conv for weight in unit.weights)]
    assert not any(target.offers(unit, level) for unit in kernels for level in unit.levels()[1:])
