"""A model's answers: which of its outputs they are, and at which places of a batch they stand."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.models.sentence_head import vectors_of
from autoprune.tasks.kinds import TaskKind


def outputs_of(model: nn.Module, inputs: Mapping[str, Tensor], kind: TaskKind) -> Float[Tensor, "*b k"]:
    """A model's answers: logits [b k] or [b s k], or for sentences unit vectors [b d].

    A sentence's vector is what the model's own `SentenceHead` makes of its tokens', or else their mean.
    """
    if kind.reads_images and not hasattr(model, "config"):
        out = model(*inputs.values())
    elif kind.predicts_next_token or _keeps_past(model):
        out = model(**inputs, use_cache=False)
    else:
        out = model(**inputs)
    if kind.gives_vectors:
        return vectors_of(model, out.last_hidden_state, inputs["attention_mask"])
    return answers_in(out)


def answers_in(out: Any) -> Tensor:
    """The answers in what a model gave: a tensor, an output of transformers, or a tuple of them first."""
    answers: Tensor = out if isinstance(out, Tensor) else out.logits if hasattr(out, "logits") else out[0]
    return answers


def _keeps_past(model: nn.Module) -> bool:
    """Whether a model of transformers keeps keys and values to go on from, which no answer of a row needs.

    So does a classifier on a decoder; its past is no part of a graph that can be exported.
    """
    keeps = getattr(getattr(model, "config", None), "use_cache", False)
    return bool(keeps) and "past_key_values" in inspect.signature(model.forward).parameters


class Answering(nn.Module):
    """A model as a function from its inputs, in the order of `names`, to its answers alone: to be traced."""

    def __init__(self, model: nn.Module, kind: TaskKind, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.kind, self.names = model, kind, names
        self.eval()

    def forward(self, *inputs: Tensor) -> Float[Tensor, "*b k"]:
        return outputs_of(self.model, dict(zip(self.names, inputs, strict=True)), self.kind)


def answered(
    output: Float[Tensor, "*b k"], places: tuple[NDArray[np.int64], NDArray[np.int64]] | None
) -> Float[Tensor, "m k"]:
    """The answers among a model's outputs: all, or those at `places` (see `Task.answered`)."""
    return output if places is None else output[torch.from_numpy(places[0]), torch.from_numpy(places[1])]
