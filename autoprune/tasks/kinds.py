"""The kinds of task. The rest of the package asks a kind, not its name, what differs. No torch.

A new kind is one entry of KINDS. Code elsewhere chooses by a property of a kind, never by which kind it is:
so what one kind does, another one may do too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.tasks.metrics import ACCURACY, METRICS, AnswerType, Metric
from autoprune.tasks.reading import (
    DOCUMENT_COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SCORE_COLUMNS,
    TAG_COLUMNS,
    TEXT_COLUMNS,
    TEXT_PAIRS,
    WORD_COLUMNS,
    Reading,
)


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """A kind of task: what it reads, what a model of it answers, and what transformers and the hub call it.

    name: in flags, files and messages. reading: the columns that it reads. answers: what a model answers.
    answers_each_token: whether a row has an answer at several of its tokens; else a row has one answer.
    usual_metric: the metric if the user names none. auto_class: the class of transformers with the head for
    it. architectures: the ends of the names of transformers' models that are certainly of this kind.
    pipeline: the hub's name of the task. example_text: what the code on a card asks a model of text.
    removable: what a unit of such a model may lose, in words. is_in_keys: whether the cache's keys name it.
    """

    name: str
    reading: Reading
    answers: AnswerType
    answers_each_token: bool = False
    usual_metric: Metric
    auto_class: str | None = None
    architectures: tuple[str, ...] = ()
    pipeline: str | None = None
    example_text: str = "a fine film"
    removable: str = "heads, neurons, channels or tokens"
    is_in_keys: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of its answers, the usual one first; none for a user's own task.

        >>> [metric.name for metric in TOKEN_CLASSIFICATION.metrics]
        ['f1', 'accuracy', 'matthews']
        """
        known = (metric for metric in METRICS.values() if metric.answers == self.answers)
        return tuple(sorted(known, key=lambda metric: metric != self.usual_metric))

    # ---- inputs ---------------------------------------------------------------------------------

    @property
    def is_tokenized(self) -> bool:
        """Whether a tokenizer reads its rows."""
        return self.reading.what in ("text", "tokens")

    @property
    def reads_words(self) -> bool:
        """Whether a row is a list of words, each with a tag."""
        return self.reading.has_words

    @property
    def reads_images(self) -> bool:
        """Whether a row is an image."""
        return self.reading.has_images

    @property
    def is_own(self) -> bool:
        """Whether a function of the user's gives the arrays, the metric and what the answers are."""
        return self.answers == "own"

    def token_inputs(self, names: Iterable[str]) -> tuple[str, ...]:
        """Which of a tokenizer's outputs a model takes.

        One that predicts the next token needs no mask: padding comes after what is answered, and a token
        sees none that comes after it.
        """
        return ("input_ids",) if self.predicts_next_token else tuple(names)

    # ---- answers --------------------------------------------------------------------------------

    @property
    def predicts_next_token(self) -> bool:
        """Whether the answer at each token is the next one: a language model that writes token by token."""
        return self.answers == "next token"

    @property
    def predicts_number(self) -> bool:
        """Whether an answer is a number."""
        return self.answers == "number"

    @property
    def predicts_classes(self) -> bool:
        """Whether an answer is logits of classes that labels name."""
        return self.answers == "classes"

    @property
    def gives_vectors(self) -> bool:
        """Whether an answer is a text's vector, the mean of its tokens'; there are no labels then."""
        return self.answers == "vector"

    @property
    def has_labels(self) -> bool:
        """Whether there is something to learn beside the teacher's answers."""
        return not self.gives_vectors

    @property
    def labels_texts(self) -> bool:
        """Whether a text, or a pair, has one answer, with as many logits as there are labels."""
        has_head = self.predicts_classes or self.predicts_number
        return self.reading.what == "text" and has_head and not self.answers_each_token

    def head_options(self, labels: int) -> dict[str, Any]:
        """What the config of transformers says of a head for so many labels.

        >>> TEXT_REGRESSION.head_options(0), CAUSAL_LM.head_options(5)
        ({'num_labels': 1, 'problem_type': 'regression'}, {})
        """
        if self.predicts_number:
            return {"num_labels": 1, "problem_type": "regression"}
        return {} if self.gives_vectors or self.predicts_next_token else {"num_labels": labels}

    # ---- words ----------------------------------------------------------------------------------

    @property
    def place(self) -> str:
        """What has an answer, over which divergences are means."""
        return "token" if self.answers_each_token else "row"

    @property
    def latency_of(self) -> str | None:
        """What a latency is of, if it is not of a call."""
        return "a token" if self.predicts_next_token else None

    @property
    def key_parts(self) -> tuple[str, ...]:
        """What a cache's key says of the kind: keys of text classification are older than other kinds."""
        return (self.name,) if self.is_in_keys else ()


TEXT_CLASSIFICATION = TaskKind(
    name="text-classification",
    reading=Reading(what="text", inputs=TEXT_COLUMNS, labels=LABEL_COLUMNS, pairs=TEXT_PAIRS, most=2),
    answers="classes",
    usual_metric=ACCURACY,
    auto_class="AutoModelForSequenceClassification",
    pipeline="text-classification",
    removable="heads and neurons",
    is_in_keys=False,
)
TOKEN_CLASSIFICATION = TaskKind(
    name="token-classification",
    reading=Reading(what="tokens", inputs=WORD_COLUMNS, labels=TAG_COLUMNS),
    answers="classes",
    answers_each_token=True,
    usual_metric=METRICS["f1"],
    auto_class="AutoModelForTokenClassification",
    architectures=("ForTokenClassification",),
    pipeline="token-classification",
)
TEXT_REGRESSION = TaskKind(
    name="text-regression",
    reading=Reading(
        what="text",
        inputs=TEXT_COLUMNS,
        labels=(*SCORE_COLUMNS, *LABEL_COLUMNS),
        pairs=TEXT_PAIRS,
        most=2,
    ),
    answers="number",
    usual_metric=METRICS["spearman"],
    auto_class="AutoModelForSequenceClassification",
    pipeline="text-classification",
)
SENTENCE_EMBEDDING = TaskKind(
    name="sentence-embedding",
    reading=Reading(what="text", inputs=TEXT_COLUMNS, pairs=TEXT_PAIRS, most=2, is_each_text_a_row=True),
    answers="vector",
    usual_metric=METRICS["agreement"],
    auto_class="AutoModel",
    pipeline="feature-extraction",
)
CAUSAL_LM = TaskKind(
    name="causal-lm",
    reading=Reading(what="text", inputs=DOCUMENT_COLUMNS),
    answers="next token",
    answers_each_token=True,
    usual_metric=METRICS["perplexity"],
    auto_class="AutoModelForCausalLM",
    architectures=("ForCausalLM", "LMHeadModel"),
    pipeline="text-generation",
    example_text="Once upon a time",
)
IMAGE_CLASSIFICATION = TaskKind(
    name="image-classification",
    reading=Reading(what="image", inputs=IMAGE_COLUMNS, labels=LABEL_COLUMNS),
    answers="classes",
    usual_metric=ACCURACY,
    auto_class="AutoModelForImageClassification",
    architectures=("ForImageClassification",),
    pipeline="image-classification",
)
OWN = TaskKind(
    name="own",
    reading=Reading(what="arrays"),
    answers="own",
    usual_metric=Metric("own", ""),
)
"""A task that a function of the user's describes."""

KINDS = (
    TEXT_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    TEXT_REGRESSION,
    SENTENCE_EMBEDDING,
    CAUSAL_LM,
    IMAGE_CLASSIFICATION,
)
"""What `--task` may name, beside `module:function` for one's own."""


def task_kind(name: object) -> TaskKind:
    """The kind that a file names; without a name text classification, the only kind that old files know.

    Raises:
        AutopruneError: when there is no such kind.

    >>> task_kind("causal-lm").latency_of, str(task_kind(None))
    ('a token', 'text-classification')
    """
    if name is None:
        return TEXT_CLASSIFICATION
    known = {kind.name: kind for kind in (*KINDS, OWN)}
    if not isinstance(name, str) or name not in known:
        raise AutopruneError(f"there is no kind of task {str(name)[:200]!r}; there are {', '.join(known)}")
    return known[name]
