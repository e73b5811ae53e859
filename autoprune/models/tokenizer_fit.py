"""A tokenizer held to its model: what pads a row, which tokens there are, how long a row may be.

Each is settled here once, before anything is encoded, and the tokenizer that is saved beside an exported
model has it too.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import PAD_TO

_POSITIONS = re.compile(r"^(?!.*rel).*(position|pos_emb|wpe)")
"""The last part of the path of an embedding that is looked up by place, not by the distance of two."""


def fit_tokenizer_(tokenizer: Any, model: nn.Module, kind: TaskKind, source: str) -> tuple[str, ...]:
    """Settle padding, longest row and inputs of a model's tokenizer, in place; of the config its padding.

    Returns:
        Lines for the plan, of what was settled otherwise than the two say.

    Raises:
        AutopruneError: where no token can pad a row.
    """
    notes = [] if kind.predicts_next_token else _settle_padding_(tokenizer, model, source)
    if kind.predicts_next_token and tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # what is padded is never answered
    known = set(inspect.signature(model.forward).parameters)
    if extra := [name for name in tokenizer.model_input_names if name not in known]:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in known]
        tokenizer.init_kwargs["model_input_names"] = list(tokenizer.model_input_names)
        notes.append(f"its tokenizer gives {', '.join(extra)}, which the model does not take: left out")
    if (places := longest_row(model)) is not None:
        limit = places // PAD_TO * PAD_TO or places  # a batch is padded to such a width
        tokenizer.model_max_length = min(limit, tokenizer.model_max_length)
    return tuple(notes)


def _settle_padding_(tokenizer: Any, model: nn.Module, source: str) -> list[str]:
    """See that the tokenizer pads with what the model takes for padding, in place.

    A classifier by the last token finds it by the config's padding token, and RoBERTa counts places from it:
    so the config's goes before the tokenizer's. Where the config has none, it gets the tokenizer's, or one of
    the special tokens that the tokenizer does not put at the end of a text itself.
    """
    config: Any = model.config
    rows = vocabulary_rows(model)
    told = getattr(config, "pad_token_id", None)
    if told is not None and 0 <= told < rows:
        before = tokenizer.pad_token
        if tokenizer.pad_token_id == told:
            return []
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(int(told))
        said = f"rows are padded with {tokenizer.pad_token!r} (token {told}), as its config says"
        return [] if before is None else [f"{said}; its tokenizer says {before!r}"]
    own = tokenizer.pad_token_id
    if own is not None and own < rows:
        config.pad_token_id = int(own)
        return []
    last = tokenizer("a", truncation=True)["input_ids"][-1:]
    for name in ("eos_token", "unk_token", "bos_token"):
        token, number = getattr(tokenizer, name, None), getattr(tokenizer, f"{name}_id", None)
        if token is not None and number is not None and number < rows and [number] != last:
            tokenizer.pad_token, config.pad_token_id = token, int(number)
            return [f"it has no padding token; {token!r} (token {number}) pads rows"]
    raise AutopruneError(
        f"model {source!r} has no padding token, and its tokenizer no special token that could be one: give "
        "its tokenizer a pad_token that is among the model's tokens, and save it again"
    )


def vocabulary_rows(model: nn.Module) -> int:
    """Rows of the embedding that tokens are looked up in."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(embedding.weight.shape[0])


def longest_row(model: nn.Module) -> int | None:
    """Most tokens of a row: of the table of places (less RoBERTa's two) and as the config says; None: any."""
    config: Any = model.config
    limits = []
    told = getattr(config, "max_position_embeddings", None)
    if isinstance(told, int) and told > 0:
        limits.append(told)
    for path, module in model.named_modules():
        if not isinstance(module, nn.Embedding) or not _POSITIONS.match(path.rpartition(".")[2]):
            continue
        before = 0 if module.padding_idx is None else module.padding_idx + 1
        limits.append(len(module.weight) - before)
    return min(limits, default=None)


def check_tokens(ids: NDArray[np.int32], tokenizer: Any, model: nn.Module, source: str) -> tuple[str, ...]:
    """Hold the tokens of all rows to the model's embedding.

    Returns:
        A line for the plan where the tokenizer has tokens more than the model, none of them in the rows.

    Raises:
        AutopruneError: where a row has such a token.
    """
    rows = vocabulary_rows(model)
    if (beyond := np.unique(ids[ids >= rows])).size:
        names = ", ".join(f"{tokenizer.convert_ids_to_tokens(int(k))!r} ({k})" for k in beyond[:3])
        raise AutopruneError(
            f"model {source!r} has {rows} tokens and its tokenizer {len(tokenizer)}: rows of the data have "
            f"{names}, which the model does not know. Give the tokenizer that it was trained with, or train "
            "it with model.resize_token_embeddings(len(tokenizer)) first"
        )
    if len(tokenizer) > rows:
        return (f"its tokenizer has {len(tokenizer)} tokens, the model {rows}; no row has one of the others",)
    return ()
