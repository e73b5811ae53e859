"""The kinds of task, by name: what a model answers, and how far apart two answers are. No torch."""

from __future__ import annotations

CLASSES, REGRESSION = "text-classification", "text-regression"
TOKENS, EMBEDDING = "token-classification", "sentence-embedding"
CAUSAL_LM, IMAGES, OWN = "causal-lm", "image-classification", "own"

PAIRED_TEXT = (CLASSES, REGRESSION)
"""Of one text or two, each row with one answer."""

KINDS = (CLASSES, TOKENS, REGRESSION, EMBEDDING, CAUSAL_LM, IMAGES)
"""What `--task` may say, beside `module:function` for one's own."""

TEXT = (CLASSES, TOKENS, REGRESSION, EMBEDDING, CAUSAL_LM)
"""Of texts, which a tokenizer reads."""

BY_PLACE = (TOKENS, CAUSAL_LM)
"""A row has an answer at several of its places."""

METRICS = {
    CLASSES: ("accuracy", "f1", "matthews"),
    TOKENS: ("f1", "accuracy", "matthews"),
    REGRESSION: ("spearman",),
    EMBEDDING: ("agreement",),
    CAUSAL_LM: ("perplexity",),
    IMAGES: ("accuracy", "f1", "matthews"),
}
"""Metrics of each kind, the usual one first."""
