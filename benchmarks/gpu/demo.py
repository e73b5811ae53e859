"""What is searched on the GPU: the demo's model with its fitted head and its reviews, or a tiny stand-in.

Each is a folder with `model` and `rows.csv`: the machine needs neither the demo's packages nor the fit.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

MODEL, ROWS = "model", "rows.csv"
GROUP = "movie_name"
WORDS = 600


def write_demo(folder: Path) -> dict[str, Any]:
    """The demo's teacher, fitted here or found in the cache, and its rows; what is worth saying of them.

    Split by film the rows give the splits that the demo has.
    """
    from autoprune.core.progress import Progress
    from autoprune.models.split_embedding import whole
    from autoprune.pipeline.inputs import read_inputs
    from autoprune.pipeline.prepare import prepare
    from autoprune.run.config import DEMO_DEFAULTS, Config
    from autoprune.tasks.data.demo import demo_rows

    config = Config.of(**DEMO_DEFAULTS)
    inputs = read_inputs(config)
    prepared = prepare(config, inputs, Progress())
    teacher: Any = whole(prepared.model)
    teacher.save_pretrained(folder / MODEL)
    inputs.loaded.save_inputs(folder / MODEL)
    _write_rows(folder / ROWS, demo_rows())
    return {"model": "all-MiniLM-L6-v2, its head fitted", "data_hash": inputs.data_hash}


def write_tiny(folder: Path) -> dict[str, Any]:
    """A random BERT of 0.1 million weights and rows of random words: never for accuracy."""
    import torch
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{k}" for k in range(WORDS))]
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=128, max_position_embeddings=64, initializer_range=0.125,
        id2label={0: "fresh", 1: "rotten"}, label2id={"fresh": 0, "rotten": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = transformers.BertForSequenceClassification(config)
    model.save_pretrained(folder / MODEL)
    (folder / MODEL / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(folder / MODEL).save_pretrained(folder / MODEL)
    rng = np.random.default_rng(0)
    rows = []
    for k in range(300):
        text = " ".join(f"w{number}" for number in rng.integers(0, WORDS, rng.integers(4, 14)))
        label = ("fresh", "rotten")[int(rng.integers(2))]
        rows.append({"text": text, "label": label, GROUP: f"film {k % 40}"})
    _write_rows(folder / ROWS, rows)
    return {"model": "a tiny random BERT"}


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label", GROUP])
        writer.writeheader()
        writer.writerows(rows)
