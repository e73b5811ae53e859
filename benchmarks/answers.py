"""An export at work, with OpenVINO and `tokenizers` alone: text of a language model, logits of a sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Tokenizer

from autoprune.demo import demo_rows

NEW_TOKENS = 24
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def generate(folder: Path, prompt: str) -> str:
    """The likeliest next token, `NEW_TOKENS` times; the whole text is read again for each."""
    model, tokenizer = _loaded(folder)
    ids: list[int] = tokenizer.encode(prompt).ids
    begun = len(ids)
    for _ in range(NEW_TOKENS):
        logits = model(_inputs(model, ids))[0]
        ids.append(int(logits[0, -1].argmax()))
    return tokenizer.decode(ids[begun:])


def answer(folder: Path, text: str) -> list[float]:
    """The logits of a sentence."""
    model, tokenizer = _loaded(folder)
    logits: NDArray[np.float32] = model(_inputs(model, tokenizer.encode(text).ids))[0]
    return [float(x) for x in logits[0]]


def unseen_words(folder: Path, count: int = 12) -> str:
    """A sentence of whole words of the vocabulary that no review of the demo holds."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    seen = {k for one in tokenizer.encode_batch([row["text"] for row in demo_rows()]) for k in one.ids}
    words = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    return " ".join(
        itertools.islice((w for w, k in words if k not in seen and w.isalpha() and len(w) > 5), count)
    )


def _loaded(folder: Path) -> tuple[Any, Tokenizer]:
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", SETTINGS)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return model, tokenizer


def _inputs(model: Any, ids: list[int]) -> dict[str, NDArray[np.int64]]:
    """One row, under the names that the model asks for."""
    row = np.array([ids], dtype=np.int64)
    known = {
        "input_ids": row,
        "attention_mask": np.ones_like(row),
        "token_type_ids": np.zeros_like(row),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
    }
    return {port.any_name: known[port.any_name] for port in model.inputs}
