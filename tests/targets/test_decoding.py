"""A language model as a function with a past: the same logits in one piece, in several, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.surgery import replace_
from autoprune.core.errors import AutopruneError
from autoprune.models.spec import Architecture
from autoprune.targets.decoding import Decoder, Decoding, heads_of
from autoprune.tasks.kinds import CAUSAL_LM

LENGTH, VOCABULARY, WINDOW = 9, 300, 4
SAME = 1e-5
"""Of logits whose spread is about 1: order of summation alone."""

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "head_dim": 8,
    "initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, transformers.PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(**COMMON, tie_word_embeddings=True),
    "qwen2": transformers.Qwen2Config(**COMMON, tie_word_embeddings=True),
    "qwen2-some-layers-windowed": transformers.Qwen2Config(
        **COMMON, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": transformers.Qwen3Config(**COMMON),
    "mistral-windowed": transformers.MistralConfig(**COMMON, sliding_window=WINDOW),
    "gpt2": transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=32, initializer_range=0.15,
        bos_token_id=1, eos_token_id=2,
    ),
}  # fmt: skip
ATTENTION = {
    "llama": ("model.layers.{}.self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj"),
    "gpt2": ("transformer.h.{}.attn", ("c_attn.query", "c_attn.key", "c_attn.value"), "c_proj"),
}


def language_model(family: str) -> Any:
    """A random one in canonical form."""
    torch.manual_seed(0)
    model = Architecture(CAUSAL_LM, CONFIGS[family].to_dict()).empty()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def keep_pieces_(model: nn.Module, family: str, layer: int, kept: int) -> None:
    """Leave the first `kept` of a layer's groups of heads (or heads), in place."""
    from autoprune.models.canonical import settle_

    at, rows, col = ATTENTION[family]
    pieces = 2 if family == "llama" else 4
    for path in (f"{at.format(layer)}.{name}" for name in (*rows, col)):
        old: Any = model.get_submodule(path)
        if path.endswith(col):
            replace_(model, path, old.weight[:, : old.weight.shape[1] // pieces * kept], old.bias)
        else:
            left = len(old.weight) // pieces * kept
            replace_(model, path, old.weight[:left], None if old.bias is None else old.bias[:left])
    settle_(model)


def tokens(rows: int = 2, length: int = LENGTH) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def in_pieces(run: Any, decoding: Decoding, ids: Tensor, ends: Sequence[int]) -> Tensor:
    """Logits of all tokens, fed in pieces, each with the keys and values of those before."""
    past: Sequence[Tensor] = decoding.example(ids, 0)[1:]
    out, start = [], 0
    for end in ends:
        logits, *past = run(ids[:, start:end], *past)
        out.append(logits)
        start = end
    return torch.cat(out, 1)


def in_torch(decoding: Decoding) -> Decoder:
    """The model itself as what a runtime would give."""

    def step(ids: NDArray[np.int64], past: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            out = decoding(torch.from_numpy(ids), *(torch.from_numpy(tensor) for tensor in past))
        return [tensor.numpy() for tensor in out]

    return Decoder(step, [shape for shape in decoding.heads.values() for _ in range(2)])


@torch.no_grad()
@pytest.mark.parametrize("family", CONFIGS)
def test_whole_and_in_pieces_it_says_what_the_model_says(family: str) -> None:
    model, ids = language_model(family), tokens()
    wanted = model(input_ids=ids, use_cache=False).logits
    decoding = Decoding(model)
    assert wanted.std() > 0.3
    assert (decoding(*decoding.example(ids, 0))[0] - wanted).abs().max() < SAME
    for ends in ((3, 4, LENGTH), range(1, LENGTH + 1)):
        assert (in_pieces(decoding, decoding, ids, ends) - wanted).abs().max() < SAME


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen2-some-layers-windowed", "gpt2"])
@pytest.mark.filterwarnings("ignore")
def test_a_trace_holds_for_every_length(family: str) -> None:
    model = language_model(family)
    decoding = Decoding(model)
    traced = torch.jit.trace(decoding, decoding.example(tokens(2, 5)), check_trace=False)  # type: ignore[no-untyped-call]
    for rows, length in ((1, 12), (3, LENGTH)):
        ids = tokens(rows, length)
        wanted = model(input_ids=ids, use_cache=False).logits
        assert (in_pieces(traced, decoding, ids, (1, 6, 7, length)) - wanted).abs().max() < SAME


@torch.no_grad()
@pytest.mark.parametrize("family", ATTENTION)
@pytest.mark.parametrize("kept", [(0, 1), (1, 0), (1, 2)], ids=str)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_layers_may_keep_unlike_numbers_of_heads(family: str, kept: tuple[int, int], attention: str) -> None:
    model, ids = language_model(family), tokens()
    for layer, count in enumerate(kept):
        keep_pieces_(model, family, layer, count)
    model.set_attn_implementation(attention)
    decoding = Decoding(model)
    assert decoding.heads == {layer: (count, 8) for layer, count in enumerate(kept) if count}
    assert decoding.inputs[1:] == tuple(
        f"past.{k}.{x}" for k, n in enumerate(kept) if n for x in ("key", "value")
    )
    assert [name.replace("past", "present") for name in decoding.inputs[1:]] == list(decoding.outputs[1:])
    wanted = model(input_ids=ids, use_cache=False).logits
    assert (in_pieces(decoding, decoding, ids, (3, 4, LENGTH)) - wanted).abs().max() < SAME


@pytest.mark.parametrize("family", ATTENTION)
def test_it_writes_what_the_model_writes(family: str) -> None:
    model, ids = language_model(family), tokens(3, 4)
    wanted = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    decoder = in_torch(Decoding(model))
    assert decoder.generate(ids.numpy(), max_new_tokens=8).tolist() == wanted.tolist()
    assert decoder.generate(ids.numpy(), max_new_tokens=0).tolist() == ids.tolist()


@pytest.mark.parametrize("family", ATTENTION)
def test_it_writes_without_any_head(family: str) -> None:
    model, ids = language_model(family), tokens(2, 4)
    for layer in range(2):
        keep_pieces_(model, family, layer, 0)
    assert heads_of(model) == {}
    wanted = ids
    with torch.no_grad():
        for _ in range(5):
            wanted = torch.cat([wanted, model(input_ids=wanted).logits[:, -1:].argmax(-1)], 1)
    assert in_torch(Decoding(model)).generate(ids.numpy(), max_new_tokens=5).tolist() == wanted.tolist()


def test_it_stops_once_each_row_has_ended() -> None:
    decoder = in_torch(Decoding(language_model("llama")))
    ids = tokens(1, 4).numpy()
    whole = decoder.generate(ids, max_new_tokens=8)[0]
    end = int(whole[6])
    first = 4 + whole[4:].tolist().index(end)
    assert decoder.generate(ids, max_new_tokens=8, stop=[end])[0].tolist() == whole[: first + 1].tolist()


def test_past_tokens_are_timed_without_being_computed() -> None:
    decoder = in_torch(Decoding(language_model("llama")))
    ids = tokens(2, 1).numpy()
    after = decoder({"input_ids": ids, "past_tokens": np.array(6)})
    assert after.shape == (2, 1, VOCABULARY)
    assert not np.array_equal(after, decoder({"input_ids": ids}))
    assert np.array_equal(after, decoder({"input_ids": ids, "past_tokens": np.array(6)}))
    with pytest.raises(AutopruneError, match="needs input 'input_ids'; given were ids"):
        decoder({"ids": ids})


@pytest.mark.parametrize(
    "config",
    [
        transformers.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4),
        transformers.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2),
    ],
    ids=["mamba", "bloom"],
)
def test_another_kind_of_past_is_refused(config: transformers.PreTrainedConfig) -> None:
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(AutopruneError, match=f"a {type(model).__name__} cannot be exported: of its past"):
        Decoding(model)
