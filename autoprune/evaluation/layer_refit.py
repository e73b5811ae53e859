"""One layer refitted: its weight moved towards the teacher's output at the candidate's own input.

Ridge regression around the weight there was, with the ridge that is best on batches held out: where the
layers before are hardly off there is little to learn, and few rows would teach noise.

Shapes: o output features, i input features of a weight as a matrix, n tokens or spots of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoprune.compress.activations import RoundedInput
from autoprune.compress.statistics import SPOTS
from autoprune.compress.stitch import Stitched
from autoprune.compress.stored import StoredWeight
from autoprune.compress.ways import way_of
from autoprune.models.layer_io import inputs_of, matrix_of, output_matrix

RIDGES = (0.1, 0.5, 2.5)
"""Of the mean of the input's variances: how strongly a weight may be held to what it was. Figures:
docs/decisions/026-layer-wise-reconstruction.md."""

HELD_EVERY = 4
"""The last of so many batches is held out to choose the ridge by; then all of them teach."""


@dataclass
class Moments:
    """Sums over the places seen: xx [i i] and x [i] of the input, yx [o i] and y [o] of the wanted output."""

    count: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, count: int, new: Mapping[str, Tensor]) -> None:
        """Count more places."""
        self.count += count
        for name, value in new.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def joined(self, other: Moments) -> Moments:
        """Both together."""
        both = Moments(self.count, dict(self.sums))
        both.add(other.count, other.sums)
        return both

    @property
    def moment(self) -> Float[Tensor, "i i"]:
        """Second moment of the input."""
        return self.sums["xx"] / self.count

    @property
    def mean(self) -> Float[Tensor, " i"]:
        """Mean of the input."""
        return self.sums["x"] / self.count

    def off(self, weight: Float[Tensor, "o i"]) -> Float[Tensor, " o"]:
        """Mean of the wanted output less that of a weight."""
        return self.sums["y"] / self.count - weight @ self.mean

    def regressed(
        self, weight: Float[Tensor, "o i"], *, has_bias: bool
    ) -> tuple[Float[Tensor, "i i"], Float[Tensor, "o i"]]:
        """Moment of the input, and its product with what a weight is off by; with a bias, about means."""
        moment, wanted = self.moment, self.sums["yx"] / self.count
        if has_bias:
            moment = moment - torch.outer(self.mean, self.mean)
            wanted = wanted - torch.outer(self.sums["y"] / self.count, self.mean)
        return moment, wanted - weight @ moment


@dataclass
class LayerRefit:
    """A layer with the moments of what was seen: of its input and of the teacher's output.

    rows: those of the teacher's output that it still has, None for all. inputs: of each batch, as they came.
    after: the layer before, whose moments are taken where its inputs were the same: those of query, key and
    value are. parts: moments of the batches that teach, and of those held out.
    """

    module: nn.Module
    weight: Float[Tensor, "o i"]
    rows: Tensor | None
    after: LayerRefit | None
    inputs: list[Tensor] = field(default_factory=list)
    parts: tuple[Moments, Moments] = field(default_factory=lambda: (Moments(), Moments()))

    @classmethod
    def of(cls, stitched: Stitched, path: str, *, after: LayerRefit | None) -> LayerRefit:
        """That of one layer of a stitched model, with nothing seen yet."""
        module = stitched.model.get_submodule(path)
        weight = stitched.floats.get(path)
        weight = (matrix_of(module) if weight is None else weight).to(module.weight.device)  # type: ignore[arg-type]
        if after is not None:
            after.after = None
        return cls(module, weight.float(), stitched.rows.get(path), after)

    def add(self, x: Tensor, wanted: Tensor, lengths: Tensor | None) -> None:
        """Count a batch: the layer's input, and the teacher's output there."""
        is_shared = self._shares(x)
        part = len(self.inputs) % HELD_EVERY == HELD_EVERY - 1
        self.inputs.append(x)
        y = output_matrix(self.module, wanted)
        x = inputs_of(self.module, x, wanted)
        if isinstance(self.module, nn.Conv2d) and x.shape[1] > SPOTS:
            spots = torch.linspace(0, x.shape[1] - 1, SPOTS).long()
            x, y = x[:, spots], y[:, spots]
        x, y = _without_padding(x, lengths), _without_padding(y, lengths)
        if isinstance(self.module, RoundedInput):
            x = self.module.activations.round(x)
        if self.rows is not None:
            y = y[:, self.rows]
        new = {"yx": y.T @ x, "y": y.sum(0)}
        if is_shared and self.after is not None:
            known = self.after.parts[part].sums
            self.parts[part].sums |= {name: known[name] for name in ("xx", "x")}
        else:
            new |= {"xx": x.T @ x, "x": x.sum(0)}
        self.parts[part].add(len(x), new)

    def _shares(self, x: Tensor) -> bool:
        """Whether the layer before had the same input in this batch, and multiplied it as it was."""
        if self.after is None or not all(type(layer.module) is nn.Linear for layer in (self, self.after)):
            return False
        batch = len(self.inputs)
        return batch < len(self.after.inputs) and self.after.inputs[batch] is x

    def settle(self, stored: StoredWeight | None) -> tuple[Float[Tensor, "o i"], StoredWeight | None]:
        """Refit and round the layer, which computes with the result from now on.

        Returns:
            The refitted weight, and what is stored of it: None for float32.
        """
        teach, held = self.parts
        moments = teach.joined(held) if held.count else teach
        refitted = self._refitted(moments)
        return refitted, self._rounded(refitted, moments, stored)

    def _refitted(self, moments: Moments) -> Float[Tensor, "o i"]:
        """The weight of least squared error, by ridge regression around what it was."""
        teach, held = self.parts
        has_bias = self._bias() is not None
        ridge: float | None = RIDGES[0]
        if held.count:
            taught = teach.regressed(self.weight, has_bias=has_bias)
            moment, cross = held.regressed(self.weight, has_bias=has_bias)
            errors: dict[float | None, float] = {None: 0.0}
            for tried in RIDGES:
                step = _step(*taught, tried)
                if step is not None:
                    errors[tried] = float((step * (step @ moment - 2 * cross)).sum())
            ridge = min(errors, key=lambda tried: errors[tried])
        if ridge is None:
            return self.weight
        step = _step(*moments.regressed(self.weight, has_bias=has_bias), ridge)
        return self.weight if step is None else self.weight + step

    def _rounded(
        self, weight: Float[Tensor, "o i"], moments: Moments, stored: StoredWeight | None
    ) -> StoredWeight | None:
        """The weight in the layer's storage, None for float32, put into the layer."""
        kept = None
        if stored is not None:
            kept = way_of(stored.storage).again(stored, weight, moments.moment)
        value = weight if kept is None else kept.dequantize()
        parameter: nn.Parameter = self.module.weight  # type: ignore[assignment]
        parameter.data = value.reshape(parameter.shape).to(parameter)
        bias = self._bias()
        if bias is not None:
            # Neither refit nor rounding moves the output's mean from the teacher's.
            bias.data = moments.off(value)
        return kept

    def _bias(self) -> nn.Parameter | None:
        return getattr(self.module, "bias", None)


def _step(
    moment: Float[Tensor, "i i"], cross: Float[Tensor, "o i"], ridge: float
) -> Float[Tensor, "o i"] | None:
    """How far the weight moves; None where the moment has no inverse."""
    held = moment.clone()
    held.diagonal().add_(ridge * float(moment.diagonal().mean()) + 1e-8)
    factor, failed = torch.linalg.cholesky_ex(held)
    return None if int(failed) else torch.cholesky_solve(cross.T, factor).T


def _without_padding(x: Float[Tensor, "b t i"], lengths: Tensor | None) -> Float[Tensor, "n i"]:
    """Rows of all tokens laid end to end, padding left out; all rows where they are not one a token."""
    if lengths is None or x.shape[0] * x.shape[1] % len(lengths):
        return x.flatten(0, 1)
    apart = x.reshape(len(lengths), -1, x.shape[-1])
    if apart.shape[1] < int(lengths.max()):
        return apart.flatten(0, 1)
    return apart[torch.arange(apart.shape[1]) < lengths[:, None]]
