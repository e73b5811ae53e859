"""Checkpoints of tiny random models as users have them: a folder with weights, a config and a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from autoprune.models.spec import auto_class
from autoprune.tasks.kinds import TEXT_CLASSIFICATION, TaskKind

WORDS = 200
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
SMALL = {"vocab_size": WORDS, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32,
         "intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.2}  # fmt: skip


def word_tokenizer(words: int = WORDS, *, pad: bool = True, longest: int | None = None) -> Any:
    """Words `w0`, `w1`, ... after the special tokens; no token is added to a text.

    pad: whether it has a padding token; without one, it has an end token.
    """
    known = [*SPECIAL, *(f"w{k}" for k in range(words - len(SPECIAL)))]
    inner = Tokenizer(models.WordLevel({word: k for k, word in enumerate(known)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = {"pad_token": "[PAD]"} if pad else {"eos_token": "[SEP]"}
    more: dict[str, Any] = {} if longest is None else {"model_max_length": longest}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", **ends, **more)


def random_of(kind: TaskKind, type: str, **config: Any) -> nn.Module:
    """A random model of a type of transformers, with the head for a kind of task."""
    torch.manual_seed(0)
    described = transformers.AutoConfig.for_model(type, **{**SMALL, **config})
    model: nn.Module = auto_class(kind).from_config(described).eval()
    return model


def write_checkpoint(
    folder: Path, type: str = "bert", *, kind: TaskKind = TEXT_CLASSIFICATION, tokenizer: Any = None,
    **config: Any,
) -> nn.Module:  # fmt: skip
    """Write a random model and a tokenizer into a folder; the model."""
    model: Any = random_of(kind, type, **config)
    model.save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return model  # type: ignore[no-any-return]


def change_config(folder: Path, **settings: Any) -> None:
    """Write other settings into a folder's `config.json`."""
    path = folder / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text(encoding="utf-8")), **settings}), encoding="utf-8"
    )


def write_table(path: Path, labels: tuple[str, ...], *, rows: int = 80, words: int = 12) -> None:
    """A csv of texts of random words, and labels in turn."""
    draws = torch.randint(0, WORDS - len(SPECIAL), (rows, words), generator=torch.Generator().manual_seed(0))
    lines = [
        f"{' '.join(f'w{k}' for k in row)},{labels[n % len(labels)]}" for n, row in enumerate(draws.tolist())
    ]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
