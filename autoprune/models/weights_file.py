"""Weights of a model that a function builds, from a `.safetensors` file saved in one of many ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from autoprune.core.errors import AutopruneError
from autoprune.models.checkpoint import WRAPPERS

_LISTED = 5
"""Names of tensors that a message gives of those that do not fit."""


def load_weights_(model: nn.Module, weights: str, builder: str) -> tuple[str, ...]:
    """Load a file's tensors into a model, in place.

    The file may have been written by `safetensors.torch.save_file` of a `state_dict()`, or by `save_model`,
    which stores tensors that layers share once; and its names may have one prefix more than the model's, as
    DataParallel, torch.compile and training frameworks put it there.

    Returns:
        A line for the plan where names were changed.

    Raises:
        AutopruneError: when there is no such file, or it does not fit the model.
    """
    path = Path(weights)
    if path.suffix != ".safetensors":
        raise AutopruneError(
            f"weights {weights!r}: only .safetensors is read (safetensors.torch.save_file writes a "
            "state_dict() so)"
        )
    own = model.state_dict()
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise AutopruneError(f"weights {weights!r} cannot be loaded into {builder}: {reason:.400}") from error
    shared = _sharing(own)
    renamed, prefix = _without_prefix(state, own, shared)
    whole = _with_shared(renamed, shared, weights)
    _check_names(whole, own, f"weights {weights!r} cannot be loaded into {builder}")
    try:
        model.load_state_dict(whole, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise AutopruneError(f"weights {weights!r} cannot be loaded into {builder}: {reason:.400}") from error
    return (f"the names in {path.name} are read without their prefix {prefix!r}",) if prefix else ()


def _sharing(own: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of a model's tensors that are the same memory seen alike, in groups of two and more."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in own.items():
        if tensor.numel():
            where = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            groups.setdefault(where, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _with_shared(state: Mapping[str, Tensor], sharing: list[list[str]], weights: str) -> dict[str, Tensor]:
    """All names of shared tensors, where the file has one of them.

    Raises:
        AutopruneError: where the file has two that are not equal: the model was not built as it was saved.
    """
    whole = dict(state)
    for names in sharing:
        have = [name for name in names if name in state]
        for name in have[1:]:
            if not torch.equal(state[name], state[have[0]]):
                raise AutopruneError(
                    f"weights {weights!r} have other numbers for {name} than for {have[0]}, which the "
                    "model that "
                    "is built shares: build it as it was trained"
                )
        whole |= {name: state[have[0]] for name in names if have}
    return whole


def _without_prefix(
    state: dict[str, Tensor], own: Mapping[str, Tensor], sharing: list[list[str]]
) -> tuple[dict[str, Tensor], str]:
    """The tensors under the model's names, and the prefix that was left out for it."""
    if not own.keys() - state.keys() and not state.keys() - own.keys():
        return state, ""
    without = {_unwrapped(name): tensor for name, tensor in state.items()}
    if len(without) == len(state) and _fits(without, own, sharing):
        wrapper = next((name for name in state if name not in without), "")
        return without, "".join(w for w in WRAPPERS if w in wrapper) if wrapper else ""
    first = next(iter(state), "")
    for end in (k + 1 for k, letter in enumerate(first) if letter == "."):
        prefix = first[:end]
        if not all(name.startswith(prefix) for name in state):
            break
        cut = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        if _fits(cut, own, sharing):
            return cut, prefix
    return state, ""


def _unwrapped(name: str) -> str:
    """A name without what wrappers put into it: DataParallel before it, torch.compile anywhere."""
    return name.removeprefix(WRAPPERS[0]).replace(WRAPPERS[1], "").removeprefix(WRAPPERS[0])


def _fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor], sharing: list[list[str]]) -> bool:
    """Whether names are the model's, once shared ones are filled in."""
    filled = set(state)
    for names in sharing:
        filled |= set(names) if filled & set(names) else set()
    return filled == own.keys()


def _check_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """Raise `AutopruneError` with names that one side has and the other has not."""
    lacking, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if lacking or extra:
        sides = [("the file lacks", lacking), ("the model has no", extra)]
        said = [f"{what} {_some(names)}" for what, names in sides if names]
        raise AutopruneError(f"{where}: {'; '.join(said)}")


def _some(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
