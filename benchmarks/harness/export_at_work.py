"""An export at work, with OpenVINO and `tokenizers` alone: text of a language model, logits of a sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Tokenizer

from autoprune.tasks.data.demo import demo_rows

NEW_TOKENS = 24
PAST, PRESENT = "past.", "present."  # as in autoprune/decoding.py
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def generate(folder: Path, prompt: str) -> str:
    """The likeliest next token, `NEW_TOKENS` times; keys and values [1 h p d] are handed on."""
    model, tokenizer = _loaded(folder)
    shapes = {port.any_name: port.partial_shape for port in model.inputs}
    past = {
        name: np.zeros((1, shape[1].get_length(), 0, shape[3].get_length()), np.float32)
        for name, shape in shapes.items()
        if name.startswith(PAST)
    }
    new: list[int] = tokenizer.encode(prompt).ids
    written: list[int] = []
    for _ in range(NEW_TOKENS):
        found = model({"input_ids": np.array([new], np.int64), **past})
        past = {name: found[model.output(PRESENT + name.removeprefix(PAST))] for name in past}
        new = [int(found[model.output("logits")][0, -1].argmax())]
        written += new
    return str(tokenizer.decode(written))


def answer(folder: Path, text: str) -> list[float]:
    """The logits of a sentence."""
    model, tokenizer = _loaded(folder)
    logits: NDArray[np.float32] = model(_inputs(model, tokenizer.encode(text).ids))[0]
    return [float(x) for x in logits[0]]


def unseen_words(folder: Path, count: int = 12) -> str:
    """A sentence of whole words of the vocabulary that no review of the demo holds."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    seen = {
        k for encoding in tokenizer.encode_batch([row["text"] for row in demo_rows()]) for k in encoding.ids
    }
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
    }
    return {port.any_name: known[port.any_name] for port in model.inputs}
