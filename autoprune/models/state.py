"""A model's state as a dict of tensors, without names that stand for the same tensor."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from autoprune.models.split_embedding import part_as_


def aliases(model: nn.Module) -> dict[str, str]:
    """Names of parameters that share an earlier parameter's tensor -> the name of that parameter."""
    first: dict[int, str] = {}
    state = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            state[name] = first[id(parameter)]
    return state


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by name, each once."""
    shared = aliases(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in shared}


def load_state_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors as `state_of` gives them, in place; shared and parted tensors stay so.

    Raises:
        RuntimeError: where names or shapes differ.
    """
    part_as_(model, state)
    shared = aliases(model)
    whole = {**state, **{name: state[other] for name, other in shared.items() if other in state}}
    model.load_state_dict(whole, strict=True, assign=True)
    tie_(model, shared)


def tie_(model: nn.Module, shared: Mapping[str, str]) -> None:
    """Share tensors between parameters, as `aliases` names them, in place."""
    for name, other in shared.items():
        path, _, last = name.rpartition(".")
        setattr(model.get_submodule(path), last, model.get_parameter(other))
