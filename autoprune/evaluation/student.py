"""A stitched model made trainable behind what is stored of it, and stored again.

What is trained: weights behind their codes, in units of the scale; scales; biases, norms, the head, and
whatever else is kept in float32. Embeddings are frozen: training harms them
(docs/decisions/017-training-in-units-of-the-scale.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from autoprune.compress.stitch import Stitched


@dataclass(frozen=True)
class Student:
    """A model in training.

    codes: weights in units of their scale, of layers that lost rows or columns; scales: logarithms of how
    far scales have grown; vectors: norms and biases; matrices: weights that are kept as floats.
    """

    stitched: Stitched
    model: nn.Module
    codes: tuple[nn.Parameter, ...]
    scales: tuple[nn.Parameter, ...]
    vectors: tuple[nn.Parameter, ...]
    matrices: tuple[nn.Parameter, ...]

    @classmethod
    def of(cls, stitched: Stitched) -> Student:
        """A student that trains `stitched.model` itself, and computes at first as that does."""
        model = stitched.model.eval()
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                module.weight.requires_grad_(False)
        for path, stored in stitched.stored.items():
            module = model.get_submodule(path)
            if isinstance(module, nn.Embedding):
                continue
            weight: Tensor = module.weight  # type: ignore[assignment]
            floats = stitched.floats.get(path)
            start = stored.start(floats).to(weight.device)
            module.weight = nn.Parameter(start.reshape_as(weight))
            rounding = stored.rounding().to(weight.device)
            parametrize.register_parametrization(module, "weight", rounding, unsafe=True)
        return cls(stitched, model, *_sorted(model, stitched.pruned))

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """All that is trained."""
        return self.codes + self.scales + self.vectors + self.matrices

    def state(self) -> list[Tensor]:
        """A copy of what is trained, as it is now."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def return_to(self, state: Sequence[Tensor]) -> None:
        """Be again as `state` was."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state, strict=True):
                parameter.copy_(value)

    def settled(self) -> Stitched:
        """The student as a plain module on the CPU, with the stored weights that it computes with."""
        model, stored = self.model.cpu(), dict(self.stitched.stored)
        for path, module in list(model.named_modules()):
            if not parametrize.is_parametrized(module, "weight"):
                continue
            holder: Any = module.parametrizations["weight"]
            stored[path] = holder[0].stored(holder.original)
            value = stored[path].dequantize().reshape(holder.original.shape)
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
            module.weight = nn.Parameter(value)
        model.requires_grad_(True)
        return replace(self.stitched, model=model.eval(), stored=stored, floats={})


def _sorted(model: nn.Module, pruned: AbstractSet[str]) -> tuple[tuple[nn.Parameter, ...], ...]:
    """Weights in units of their scale, scales, vectors and matrices.

    The codes of a layer that is only rounded are frozen: they are a good solution already, which training
    shakes them out of.
    """
    codes: list[nn.Parameter] = []
    scales: list[nn.Parameter] = []
    behind: set[int] = set()
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module, "weight"):
            continue
        holder: Any = module.parametrizations["weight"]
        grown = list(holder[0].parameters())
        if not grown:
            continue
        scales += grown
        behind.add(id(holder.original))
        if path in pruned:
            codes.append(holder.original)
        else:
            holder.original.requires_grad_(False)
    known = behind | {id(parameter) for parameter in scales}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    vectors = tuple(parameter for parameter in rest if parameter.dim() < 2)
    matrices = tuple(parameter for parameter in rest if parameter.dim() >= 2)
    return tuple(codes), tuple(scales), vectors, matrices
