"""Embeddings for a search engine: does a smaller encoder still find what the original finds?

    python -m examples.search_engine [--full]

Shows: `--task sentence-embedding`, which needs texts and no labels, and recall before and after on a real
question that the search never saw: films' plots are the documents, reviews are the queries, and the plot
of the review's film is what should be among the first ten. Beside it the share of the original's own
first ten that the smaller model finds too. Small is 150 plots and few levels; full is all 1,083 plots,
and every level of the shipped space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.tasks.data.demo import demo_rows
from examples.commands import Example, example, sizes
from examples.inputs import FEW_LEVELS, minilm, plots, write_table

FIRST, LONGEST = 10, 128
Vectors = NDArray[np.float32]


def unit_vectors(model: Any, tokenizer: Any, texts: list[str]) -> Vectors:
    """Vectors [n d] of length 1, 16 texts at a time. model: tokens to vectors [n d]."""
    parts = []
    for start in range(0, len(texts), 16):
        tokens = tokenizer(
            texts[start : start + 16], padding=True, truncation=True, max_length=LONGEST, return_tensors="np"
        )
        parts.append(np.asarray(model(tokens)))
    vectors = np.concatenate(parts)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def firsts(queries: Vectors, documents: Vectors) -> NDArray[np.int64]:
    """The nearest documents of each query [n 10]."""
    found: NDArray[np.int64] = np.argsort(-queries @ documents.T, axis=1)[:, :FIRST]
    return found


def recall(found: NDArray[np.int64], wanted: NDArray[np.int64]) -> float:
    """Percent of the wanted [n k] that are among those found [n 10].

    >>> recall(np.array([[1, 2], [3, 4]]), np.array([[2], [5]]))
    50.0
    """
    return 100 * float(np.mean([np.isin(want, got).mean() for got, want in zip(found, wanted, strict=True)]))


def questions(*, small: bool) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Documents, queries, and the document [n 1] that each query is about. A query does not name its film."""
    story = dict(list(plots().items())[: 150 if small else None])
    names = list(story)
    asked = [row for row in demo_rows() if row["movie_name"] in story and len(row["text"].split()) > 12]
    asked = [asked[k] for k in np.random.default_rng(0).permutation(len(asked))[: 150 if small else 1000]]
    about = np.array([[names.index(row["movie_name"])] for row in asked])
    return list(story.values()), [row["text"] for row in asked], about


def words_of_search(asked: Example, texts: Path) -> list[object]:
    """What `autoprune search` is told."""
    words: list[object] = [minilm(), "--dataset", texts, "--task", "sentence-embedding"]
    if not asked.small:
        return [*words, "--max-length", 64, "--budget", "8MB", "--finetune-steps", 100, "--trials", 24]
    words += ["--space", FEW_LEVELS, "--budget", "12MB", "--trials", 1, "--finetune-steps", 0, "--workers", 0]
    return [*words, "--limit-rows", 64, 100, 100, "--calibration-rows", 32, "--max-length", 32]


def main() -> None:
    """Search, export, and ask both models the same questions."""
    import torch
    import transformers

    from autoprune import load

    asked = example(__doc__, "search-engine")
    texts = asked.work / "texts.csv"
    write_table(texts, [{"text": row["text"]} for row in demo_rows()])
    front = asked.search("run", *words_of_search(asked, texts))
    folder = asked.export("run", "encoder")
    print(sizes(front))

    documents, queries, about = questions(small=asked.small)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    original, smaller = transformers.AutoModel.from_pretrained(minilm()).eval(), load(folder)

    def mean_of_tokens(tokens: Any) -> Vectors:
        given = {name: torch.from_numpy(values) for name, values in tokens.items()}
        with torch.inference_mode():
            hidden, seen = original(**given).last_hidden_state, given["attention_mask"][..., None]
        mean: Vectors = ((hidden * seen).sum(1) / seen.sum(1)).numpy()
        return mean

    ways = {"original": mean_of_tokens, "smaller": lambda tokens: smaller(**tokens).logits}
    found = {
        name: firsts(unit_vectors(ask, tokenizer, queries), unit_vectors(ask, tokenizer, documents))
        for name, ask in ways.items()
    }
    for name, got in found.items():
        print(
            f"{name:9} has the film's plot among its first {FIRST} for {recall(got, about):.1f} % of reviews"
        )
    both = recall(found["smaller"], found["original"])
    print(f"of the original's first {FIRST} the smaller one has {both:.1f} %")


if __name__ == "__main__":
    main()
