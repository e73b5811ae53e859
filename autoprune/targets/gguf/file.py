"""A BERT classifier as a .gguf file, and back: names, metadata, blocks, vocabulary.

Shapes: o output features, i input features, n blocks of 32 weights in a row. Names and metadata are those
that llama.cpp's loader asks for (`llama-arch.cpp`, `models/bert.cpp`), blocks are as in `ggml-common.h`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autoprune.compress.fixed_grids import FixedGridWeight
    from autoprune.compress.integers import Integers
    from autoprune.compress.stitch import Stitched


BLOCK = 32
"""Weights of a row that share a scale in Q4_1, Q8_0 and MXFP4."""

_TAKEN = "BertForSequenceClassification"
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh")
_WHOLE = {
    "bert.embeddings.word_embeddings": "token_embd",
    "bert.embeddings.position_embeddings": "position_embd",
    "bert.embeddings.token_type_embeddings": "token_types",
    "bert.embeddings.LayerNorm": "token_embd_norm",
    "bert.pooler.dense": "cls",
    "classifier": "cls.output",
}
_OF_A_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_LAYERS = "bert.encoder.layer."


def check_architecture(model: nn.Module) -> None:
    """Raise `AutopruneError` where llama.cpp would not compute what the model does."""
    kind = type(model).__name__
    if kind != _TAKEN:
        raise AutopruneError(
            f"target gguf takes {_TAKEN} alone, and this model is a {kind}, whose classifier llama.cpp does "
            "not compute. Use target openvino, onnx or packed"
        )
    config: Any = model.config
    if config.hidden_act not in _ACTIVATIONS:
        raise AutopruneError(
            f"target gguf takes models with GELU, which llama.cpp's BERT computes; this one has "
            f"{config.hidden_act!r}. Use target openvino, onnx or packed"
        )


def gguf_name(name: str) -> str:
    """A parameter's name in the file.

    >>> gguf_name("bert.encoder.layer.3.attention.self.query.bias")
    'blk.3.attn_q.bias'
    """
    stem, _, last = name.rpartition(".")
    if stem.startswith(_LAYERS):
        number, _, part = stem.removeprefix(_LAYERS).partition(".")
        return f"blk.{number}.{_OF_A_LAYER[part]}.{last}"
    return f"{_WHOLE[stem]}.{last}"


def write_gguf(stitched: Stitched, path: Path, *, tokenizer: Path) -> None:
    """Write a stitched BERT classifier, with the vocabulary in `tokenizer` where that is WordPiece."""
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFWriter

    from autoprune.compress.fixed_grids import FixedGridWeight
    from autoprune.compress.integers import Integers
    from autoprune.compress.stored import HalfFloats

    writer = GGUFWriter(path, "bert")
    _add_metadata(writer, stitched.model.config)
    _add_vocabulary(writer, tokenizer, stitched.model.config)
    for name, tensor in stitched.model.state_dict().items():
        stem, _, last = name.rpartition(".")
        weight = stitched.stored.get(stem) if last == "weight" else None
        if isinstance(weight, FixedGridWeight):
            writer.add_tensor(gguf_name(name), _mxfp4(weight), raw_dtype=Kind.MXFP4)
        elif not isinstance(weight, Integers):
            is_half = isinstance(weight, HalfFloats)
            writer.add_tensor(gguf_name(name), _floats(tensor.half() if is_half else tensor))
        elif weight.bits == 8:
            writer.add_tensor(gguf_name(name), _q8_0(weight), raw_dtype=Kind.Q8_0)
        else:
            writer.add_tensor(gguf_name(name), _q4_1(weight), raw_dtype=Kind.Q4_1)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _floats(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())


def _q4_1(integers: Integers) -> NDArray[np.uint8]:
    """Blocks [o, 20 n] of 4-bit codes: scale and minimum as half floats, then two codes a byte."""
    o, i = integers.codes.shape
    scale, zero = integers.scale.float(), integers.zero.float()
    halves = _per_block(np.stack([scale.numpy(), (-scale * zero).numpy()], axis=-1).astype(np.float16), i)
    return np.concatenate([halves.view(np.uint8), _nibbles(integers.codes)], axis=-1).reshape(o, -1)


def _mxfp4(weight: FixedGridWeight) -> NDArray[np.uint8]:
    """Blocks [o, 17 n] of 4-bit floats: the exponent of the scale, then two codes a byte."""
    exponent = weight.scale.numpy()[..., None]
    codes = _nibbles(weight.tensors()["codes"])
    return np.concatenate([exponent, codes], axis=-1).reshape(len(codes), -1)


def _nibbles(codes: Tensor) -> NDArray[np.uint8]:
    """Codes [o i] of blocks, two a byte [o n 16]: the first half of a block lies low."""
    o, i = codes.shape
    halves = codes.numpy().reshape(o, i // BLOCK, 2, BLOCK // 2)
    nibbles: NDArray[np.uint8] = halves[:, :, 0] | (halves[:, :, 1] << np.uint8(4))
    return nibbles


def _q8_0(integers: Integers) -> NDArray[np.uint8]:
    """Blocks [o, 34 n] of signed 8-bit codes: the scale as a half float, then a code a byte."""
    o, i = integers.codes.shape
    scale = _per_block(integers.scale.numpy()[..., None], i)
    codes = (integers.codes.numpy().astype(np.int16) - 128).astype(np.int8).reshape(o, i // BLOCK, BLOCK)
    return np.concatenate([scale.view(np.uint8), codes.view(np.uint8)], axis=-1).reshape(o, -1)


def _per_block(groups: NDArray[np.float16], columns: int) -> NDArray[np.float16]:
    """Values of groups [o g k], repeated for each of their blocks [o n k]."""
    return np.repeat(groups, columns // BLOCK // groups.shape[1], axis=1)


def _add_metadata(writer: Any, config: Any) -> None:
    """What llama.cpp reads of a BERT classifier (`load_hparams`)."""
    from gguf import GGML_QUANT_VERSION, PoolingType

    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_classifier_output_labels([str(config.id2label[k]) for k in range(config.num_labels)])
    writer.add_vocab_size(config.vocab_size)
    writer.add_token_type_count(config.type_vocab_size)


def _add_vocabulary(writer: Any, path: Path, config: Any) -> None:
    """The vocabulary of a WordPiece tokenizer as llama.cpp has it; none where there is no such file."""
    from gguf import TokenType

    data = _wordpiece(path, config.vocab_size)
    if data is None:
        writer.add_tokenizer_model("no_vocab")
        return
    ids: dict[str, int] = data["model"]["vocab"]
    special = {token["content"] for token in data["added_tokens"] if token["special"]}
    tokens = [f"[hole{k}]" for k in range(config.vocab_size)]
    kinds = [TokenType.UNUSED] * config.vocab_size
    for token, k in ids.items():
        kinds[k] = TokenType.CONTROL if token in special else TokenType.NORMAL
        tokens[k] = token if token in special else _with_space(token)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_pad_token_id(ids["[PAD]"])
    lowercase, strip = (data["normalizer"].get(key) for key in ("lowercase", "strip_accents"))
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", bool(lowercase))
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", bool(lowercase if strip is None else strip))


def _with_space(token: str) -> str:
    """A WordPiece token as llama.cpp looks it up: marked where a word begins, not where one goes on."""
    return token[2:] if token.startswith("##") else "\u2581" + token


def _wordpiece(path: Path, size: int) -> dict[str, Any] | None:
    """A `tokenizer.json` that llama.cpp tokenizes like; None for another, or where there is none."""
    try:
        data: dict[str, Any] = read_json(path)
        model, ids = data["model"], data["model"]["vocab"]
        is_bert = (model["type"], data["normalizer"]["type"]) == ("WordPiece", "BertNormalizer")
        fits = {"[CLS]", "[SEP]", "[UNK]", "[PAD]"} <= ids.keys() and max(ids.values()) < size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data if is_bert and fits and model["continuing_subword_prefix"] == "##" else None


class GgufFile:
    """An open file that was found to hold the model of the config beside it."""

    def __init__(self, path: Path) -> None:
        """Read names and shapes.

        Raises:
            AutopruneError: when the file is missing, damaged, or does not fit the config.
        """
        self._tensors = _tensors(path)
        self._config = _config(path.parent)
        for name, own in self._model("meta").state_dict().items():
            tensor = self._tensors.get(gguf_name(name))
            shape = None if tensor is None else tensor.shape[::-1].tolist()  # the file has columns first
            if shape != list(own.shape):
                came = "is missing" if shape is None else f"is {shape}, not {list(own.shape)}"
                raise AutopruneError(f"{path} does not fit the config beside it: {gguf_name(name)} {came}")

    def decoded(self) -> nn.Module:
        """The model, its weights decoded to float32."""
        import torch
        from gguf import dequantize

        model = self._model("cpu")
        state = {}
        for name in model.state_dict():
            tensor = self._tensors[gguf_name(name)]
            state[name] = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), np.float32))
        model.load_state_dict(state, strict=True, assign=True)
        return model.eval()

    def _model(self, device: str) -> nn.Module:
        import torch
        import transformers

        with torch.device(device):
            model: nn.Module = transformers.AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
                self._config, dtype=torch.float32, trust_remote_code=False
            )
        check_architecture(model)
        return model


def _config(folder: Path) -> Any:
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(  # nosec B615 # a folder here: nothing is downloaded
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds
        raise AutopruneError(f"{folder / 'config.json'} describes no model: {error}") from error


def _tensors(path: Path) -> dict[str, Any]:
    """All tensors of a file by name (`ReaderTensor`), their data mapped into memory."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        end = max(tensor.data_offset + tensor.n_bytes for tensor in reader.tensors)
        if len(reader.data) < -(-end // reader.alignment) * reader.alignment:
            raise ValueError("it ends early")
    except (OSError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise AutopruneError(f"{path} is not a GGUF file that can be read: {error}") from error
    return {tensor.name: tensor for tensor in reader.tensors}
