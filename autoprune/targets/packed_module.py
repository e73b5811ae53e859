"""A module filled with what a packed file has: layers get the file's shapes, then a strict load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.core.errors import AutopruneError
from autoprune.models.spec import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    from autoprune.compress.activations import Activations

PLACES = ".places"
"""Ending of the name of the numbers by which the tokens of an embedding that lost some are looked up."""


def empty_module(folder: Path, architecture: Architecture, builder: str | None) -> Any:
    """The model that `config.json` describes, uncompressed, its weights still to come."""
    if architecture.builder and architecture.builder != builder:
        raise AutopruneError(
            f"{folder} holds a model that {architecture.builder} builds, which is somebody's own code and is "
            f"not called unasked: load(DIR, builder={architecture.builder!r})"
        )
    try:
        return architecture.empty()
    except AutopruneError as error:
        raise AutopruneError(f"{folder / 'config.json'} describes no model: {error}") from error


def fill_(model: Any, state: dict[str, Tensor], grids: dict[str, Activations], path: Path) -> None:
    """Give the model's layers the file's shapes and grids, and load strictly."""
    from torch import nn

    from autoprune.compress.surgery import replace_
    from autoprune.models.attention import separate_state
    from autoprune.models.canonical import settle_
    from autoprune.models.split_embedding import part_as_
    from autoprune.models.state import aliases, load_state_, tie_

    try:
        part_as_(model, state := separate_state(model, state))
    except (AttributeError, LookupError, RuntimeError, ValueError) as error:
        raise AutopruneError(f"{path} does not fit the config beside it: {error}") from error
    shared = aliases(model)
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in shared}
    places = {name.removesuffix(PLACES): state.pop(name) for name in list(state) if name.endswith(PLACES)}
    if unlike := sorted(own.keys() ^ state.keys()):
        where = "not in the file" if unlike[0] in own else "not in the model"
        raise AutopruneError(f"{path} does not fit the config beside it: {unlike[0]} is {where}")
    try:
        for name, tensor in list(state.items()):
            stem, _, last = name.rpartition(".")
            if last != "weight" or own[name].ndim < 2:
                continue
            state[name] = tensor = _shaped(model.get_submodule(stem), tensor)
            if isinstance(model.get_submodule(stem), nn.Embedding):
                _check_rows(stem, own[name], tensor, places.get(stem))
            if own[name].shape != tensor.shape or stem in grids or stem in places:
                bias = state.get(f"{stem}.bias")
                replace_(model, stem, tensor.flatten(1), bias, grids.get(stem), places=places.get(stem))
        state |= {f"{stem}{PLACES}": place for stem, place in places.items()}
        tie_(model, shared)
        settle_(model)
        load_state_(model, state)
    except (RuntimeError, AttributeError, LookupError, ValueError) as error:
        raise AutopruneError(f"{path} does not fit the config beside it: {error}") from error


def _check_rows(path: str, own: Tensor, weight: Tensor, places: Tensor | None) -> None:
    """Raise `ValueError` where an embedding would look up a row that is not there."""
    if places is None:
        if own.shape != weight.shape:
            raise ValueError(f"{path} has {list(weight.shape)} weights, and no places of {list(own.shape)}")
    elif len(places) != len(own) or not 0 <= int(places.min()) <= int(places.max()) < len(weight):
        raise ValueError(f"{path}: its places are not those of {len(own)} tokens among {len(weight)}")


def _shaped(layer: Any, weight: Tensor) -> Tensor:
    """A weight as its layer has it: a convolution's integers are kept as a matrix."""
    from torch import nn

    if not isinstance(layer, nn.Conv2d) or weight.ndim != 2:
        return weight
    return weight.reshape(len(weight), -1, *layer.kernel_size)


def check_answers(model: Any, architecture: Architecture, path: Path) -> None:
    """See that a model of text runs, and gives as many logits as its config has labels."""
    import torch

    from autoprune.models.outputs import outputs_of

    if not architecture.kind.labels_texts:
        return
    try:
        with torch.inference_mode():
            tokens = {"input_ids": torch.zeros(1, 2, dtype=torch.int64)}
            shape = tuple(outputs_of(model, tokens, architecture.kind).shape)
    except (RuntimeError, IndexError) as error:
        raise AutopruneError(f"{path} does not fit the config beside it: {error}") from error
    if shape != (1, model.config.num_labels):
        raise AutopruneError(
            f"{path} gives {shape[-1]} logits; its config has {model.config.num_labels} labels"
        )
