"""A causal language model as a function of new tokens and of the keys and values of earlier ones.

Traced once, it serves whole windows (nothing before), a step of one token, and anything between: no length is
part of it. A layer whose attention has no heads left keeps no keys, and has no part in the past.

Shapes: b rows, s new tokens, p past tokens, h heads of keys and values (layers differ in their number),
d size of a head, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.core.errors import AutopruneError
from autoprune.tasks.task import Batch

INPUT, LOGITS = "input_ids", "logits"
PAST, PRESENT = "past", "present"
"""How inputs and outputs are called: `past.{layer}.key` and `.value`, `present.{layer}.key` and `.value`."""

FULL, SLIDING = "full_attention", "sliding_attention"
"""What transformers calls attention to all tokens before, and to a window of them."""


@dataclass
class Cache:
    """Keys and values [b h p+s d] of each layer, as transformers' attention adds to them and reads them.

    past: what came before, by layer; a layer that is not there begins with nothing.
    """

    past: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    present: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Add a layer's new keys and values [b h s d]; gives all of them."""
        before = self.past.get(layer_idx)
        if before is None and self.past:  # a layer without heads, as long as the others all the same
            other = next(iter(self.past.values()))[0][:, :0, :, :1]
            before = (other.expand(-1, -1, -1, key.shape[-1]), other.expand(-1, -1, -1, value.shape[-1]))
        if before is not None:
            key, value = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
        self.present[layer_idx] = (key, value)
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens before; asked for where no positions are given, which they always are here."""
        return next((int(key.shape[2]) for key, _ in self.past.values()), 0)


class Decoding(nn.Module):
    """A model as a function (ids [b s], keys and values [b h p d] of each layer) -> (logits [b s v], the same
    [b h p+s d]); `inputs` and `outputs` name them in order.

    Raises:
        AutopruneError: where the model keeps something else than keys and values of its past.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()
        self.heads = heads_of(model)
        """Heads and their size (h, d) of each layer that has any, by number."""
        self.inputs = (INPUT, *names_of(PAST, self.heads))
        self.outputs = (LOGITS, *names_of(PRESENT, self.heads))

    def example(self, ids: Int64[Tensor, "b s"], past_tokens: int = 3) -> tuple[Tensor, ...]:
        """Inputs to trace with: these ids after a past of zeros."""
        shapes = [shape for shape in self.heads.values() for _ in range(2)]
        return (ids, *(torch.zeros(len(ids), h, past_tokens, d) for h, d in shapes))

    def forward(self, input_ids: Int64[Tensor, "b s"], *past: Float[Tensor, "b h p d"]) -> tuple[Tensor, ...]:
        cache = Cache({layer: (past[2 * k], past[2 * k + 1]) for k, layer in enumerate(self.heads)})
        logits = _logits(self.model, input_ids, cache)
        return (logits, *(tensor for layer in self.heads for tensor in cache.present[layer]))


def _logits(model: Any, ids: Tensor, cache: Cache) -> Tensor:
    """Logits [b s v] of new tokens; the cache then holds theirs, too."""
    places, mask = _places_and_masks(model.config, ids, next((key for key, _ in cache.past.values()), None))
    out = model(
        input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
    )
    logits: Tensor = out.logits
    return logits


def names_of(what: str, layers: Sequence[int] | dict[int, Any]) -> list[str]:
    """Names of the keys and values of some layers, in order."""
    return [f"{what}.{layer}.{tensor}" for layer in layers for tensor in ("key", "value")]


def heads_of(model: nn.Module) -> dict[int, tuple[int, int]]:
    """Heads of keys and their size (h, d) of each layer that has any, by the layer's number.

    Raises:
        AutopruneError: where the model keeps something else than keys and values of its past.
    """
    cache = Cache()
    try:
        with torch.no_grad():
            _logits(model, torch.zeros(1, 1, dtype=torch.int64), cache)
        if not cache.present or any(key.shape != value.shape for key, value in cache.present.values()):
            raise ValueError("its layers' keys and values are not of one shape")
    except (AttributeError, TypeError, ValueError, LookupError, RuntimeError) as error:
        raise AutopruneError(
            f"a {type(model).__name__} cannot be exported: of its past it must keep keys and values alone, "
            f"for attention to all tokens or to a window of them, as Llama and GPT-2 do ({error})"
        ) from error
    shapes = {layer: key.shape for layer, (key, _) in sorted(cache.present.items())}
    return {layer: (int(shape[1]), int(shape[3])) for layer, shape in shapes.items() if shape[1]}


def _places_and_masks(config: Any, ids: Tensor, past: Tensor | None) -> tuple[Tensor, Any]:
    """Places of the new tokens [1 s], and what is added to scores [1 1 s p+s], by kind of layer if several.

    All as operations on shapes, so that a trace holds for every length.
    """
    new = torch.ones_like(ids[0]).cumsum(0) - 1
    before = new[:0] if past is None else torch.ones_like(past[0, 0, :, 0], dtype=torch.int64)
    places = new + before.sum()
    every = torch.cat([before, torch.ones_like(new)]).cumsum(0) - 1
    distance = places[:, None] - every[None, :]
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [SLIDING if window else FULL])
    if unknown := kinds - {FULL, SLIDING}:
        raise ValueError(f"it has layers of {sorted(unknown)[0]}")
    masks = {kind: _mask(distance, window if kind == SLIDING else None) for kind in sorted(kinds)}
    return places[None], masks if len(masks) > 1 else next(iter(masks.values()))


def _mask(distance: Tensor, window: int | None) -> Tensor:
    """0 where a token [s, first axis] sees another [p+s, second], the lowest float where not."""
    hidden = distance < 0
    if window is not None:
        hidden = hidden | (distance >= window)
    lowest = torch.finfo(torch.float32).min
    return (hidden.to(torch.float32) * lowest)[None, None]


Step = Callable[[NDArray[np.int64], Sequence[NDArray[np.float32]]], list[NDArray[np.float32]]]
"""A model in a runtime: ids [b s] and its past -> logits [b s v] and all keys and values, in order; the next
call may write over what it gave."""


class Decoder:
    """A language model in a runtime: gives logits as a `Runner` does, and continues text.

    shapes: (h, d) of each input of keys or of values, in the graph's order.
    """

    def __init__(self, step: Step, shapes: Sequence[tuple[int, int]]) -> None:
        self._step, self._shapes = step, tuple(shapes)
        self._zeros: tuple[tuple[int, int], list[NDArray[np.float32]]] | None = None

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [b s v] of the ids; after `past_tokens` others, whose keys and values are zeros, for timing.

        Raises:
            AutopruneError: when there are no `input_ids`.
        """
        if INPUT not in batch:
            raise AutopruneError(f"a language model needs input {INPUT!r}; given were {', '.join(batch)}")
        ids = batch[INPUT]
        tokens = int(batch["past_tokens"]) if "past_tokens" in batch else 0
        return np.array(self._step(ids, self._past(len(ids), tokens))[0], np.float32)

    def _past(self, rows: int, tokens: int) -> list[NDArray[np.float32]]:
        if self._zeros is None or self._zeros[0] != (rows, tokens):
            zeros = [np.zeros((rows, h, tokens, d), np.float32) for h, d in self._shapes]
            self._zeros = ((rows, tokens), zeros)
        return self._zeros[1]

    def generate(
        self, ids: NDArray[np.int64], *, max_new_tokens: int, stop: Sequence[int] = ()
    ) -> NDArray[np.int64]:
        """Continue each row [b s] by its likeliest token, `max_new_tokens` times; all tokens [b s+n].

        All rows are as long. Ends early once each has one of the tokens in `stop`.
        """
        ids = np.asarray(ids, np.int64)
        past, new = self._past(len(ids), 0), ids
        ended = np.zeros(len(ids), bool)
        for _ in range(max_new_tokens):
            logits, *past = (np.array(tensor, np.float32) for tensor in self._step(new, past))
            new = logits[:, -1].argmax(-1)[:, None].astype(np.int64)
            ids = np.concatenate([ids, new], 1)
            ended |= np.isin(new[:, 0], stop)
            if ended.all():
                break
            if not self._shapes:  # nothing is kept of what came before
                new = ids
        return ids
