"""Vector codebooks chosen for a weight, and its codes, their error compensated.

The codebook is that of weighted k-means over vectors of neighbouring weights (`lloyd`), which count by the
second moment of their input. Codes are assigned as GPTQ does, a vector at a time (GPTVQ, van Baalen et al.,
arXiv 2402.15319, section 3). Then, as in AQLM (Egiazarian et al., arXiv 2401.06118, section 3), the codebook
is solved for by least squares under the moment and the codes are improved by coordinate descent, in turn.

Shapes: o output features (rows), i input features (columns), filled up to m vectors of d; k vectors of a
codebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoprune.compress.codebooks import as_scale
from autoprune.compress.gptq import damped_moment, importance_of, inverse_factor
from autoprune.compress.lloyd import cluster, spread_out
from autoprune.compress.stored import Parts, StoredWeight
from autoprune.compress.vectors import SharedVectors, in_vectors, nearest_codes, nearest_vectors
from autoprune.space.named_storages import Vectors
from autoprune.space.storage import Storage

MOST_VECTORS = 2**15
"""Vectors of a matrix, evenly spread, that its codebook is clustered from."""

ROUNDS = 12
"""Of Lloyd's algorithm."""

TURNS = 2
"""Of the codebook's least squares and of the codes' descent."""

FILLED = 1e-5
"""Of the mean moment, that of columns which only fill up the last vector of a row."""

SOLVER_STEPS = 12
"""Of conjugate gradients."""


class VectorWay:
    """Weights in the vectors of a codebook: see `ways.Way`."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """The weight in each storage."""
        importance = importance_of(moment)
        chosen = {storage: _chosen(weight, importance, cast(Vectors, storage)) for storage in storages}
        return {storage: _compensated(vectors, weight, moment) for storage, vectors in chosen.items()}

    def nearest(self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int) -> StoredWeight:
        """Each vector at the nearest of the codebook."""
        return _chosen(weight, torch.ones(weight.shape[1], device=weight.device), cast(Vectors, storage))

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight, with the codebook that one had to begin with."""
        assert isinstance(stored, SharedVectors)
        scale = _row_scales(weight, importance_of(moment))
        codes = nearest_codes(weight / scale.float()[:, None], stored.values.float()).to(torch.uint8)
        return _compensated(SharedVectors(codes, stored.values, scale, weight.shape[1]), weight, moment)

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight:
        """What was written."""
        storage = cast(Vectors, storage)
        told = storage.parts(*shape, group_size=0)
        tensors = {name: parts.tensor(name) for name in ("values", "scale")}
        for name, tensor in tensors.items():
            if (tensor.dtype, tuple(tensor.shape)) != (torch.half, told[name].shape):
                raise ValueError(f"{name} of {storage.name} are {tensor.dtype} of {tuple(tensor.shape)}")
        codes = parts.codes("codes", storage.code_bits, (shape[0], storage.codes_of(shape[1])))
        return SharedVectors(codes, tensors["values"], tensors["scale"], shape[1])


def _row_scales(weight: Float[Tensor, "o i"], importance: Float[Tensor, " i"]) -> Tensor:
    """Of each row the root of its mean square."""
    return as_scale((weight.square() @ importance / importance.sum()).sqrt())


def _chosen(weight: Float[Tensor, "o i"], importance: Float[Tensor, " i"], storage: Vectors) -> SharedVectors:
    """A codebook by k-means, and each vector at the nearest of it."""
    scale = _row_scales(weight, importance)
    unit = scale.float()[:, None]
    vectors = in_vectors(weight / unit, storage.length)
    heavy = in_vectors(importance * unit.square(), storage.length)
    draws = torch.Generator().manual_seed(0)
    some = torch.randperm(vectors[..., 0].numel(), generator=draws)[:MOST_VECTORS].to(weight.device)
    points = vectors.flatten(0, 1)[some]
    weights = heavy.flatten(0, 1)[some].clamp(min=1e-30 + 1e-8 * float(heavy.mean()))
    clusters = cluster(points, weights, spread_out(points, weights, storage.values, draws), rounds=ROUNDS)
    values = clusters.centroids.half()
    codes = nearest_codes(weight / unit, values.float())
    return SharedVectors(codes.to(torch.uint8), values, scale, weight.shape[1])


@dataclass(frozen=True)
class _Problem:
    """A weight and the moment its error counts by, columns filled up to whole vectors."""

    weight: Float[Tensor, "o i"]
    moment: Float[Tensor, "i i"]
    factor: Float[Tensor, "i i"]
    length: int

    @classmethod
    def of(cls, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"], length: int) -> _Problem:
        damped = damped_moment(moment)
        fill = -len(moment) % length
        filled = nn.functional.pad(damped, (0, fill, 0, fill))
        filled.diagonal()[len(moment) :] = FILLED * float(damped.diagonal().mean())
        factor = inverse_factor(filled)
        flat = in_vectors(weight, length).flatten(1)
        return cls(flat, filled.to(weight.dtype), factor.to(weight.dtype), length)

    def blocks(self) -> range:
        """The first column of each vector of a row."""
        return range(0, len(self.moment), self.length)


def _compensated(vectors: SharedVectors, weight: Float[Tensor, "o i"], moment: Tensor) -> SharedVectors:
    """The weight on a codebook like that of `vectors`, of little error under the moment."""
    problem = _Problem.of(weight, moment, vectors.values.shape[1])
    vectors = replace(vectors, codes=_first_codes(vectors, problem).to(torch.uint8))
    for _ in range(TURNS):
        vectors = _solved(vectors, problem)
        vectors = replace(vectors, codes=_better_codes(vectors, problem).to(torch.uint8))
    return vectors


def _first_codes(vectors: SharedVectors, problem: _Problem) -> Int[Tensor, "o m"]:
    """Codes of one vector after another, whose errors those that follow make up for.

    What is left of an error e after that is |e U^-1|^2, with U the block of the factor of the inverse moment.
    """
    table, unit = vectors.values.float(), vectors.scale.float()[:, None]
    left, codes = problem.weight.clone(), torch.empty_like(vectors.codes, dtype=torch.long)
    for m, start in enumerate(problem.blocks()):
        at = slice(start, start + problem.length)
        upper = problem.factor[at, at]
        exact = torch.linalg.solve_triangular(upper, left[:, at] / unit, upper=True, left=False)
        seen = torch.linalg.solve_triangular(upper, table, upper=True, left=False)
        codes[:, m] = nearest_vectors(exact, seen)
        errors = (exact - seen[codes[:, m]]) * unit
        left[:, at.stop :] -= errors @ problem.factor[at, at.stop :]
    return codes


def _better_codes(vectors: SharedVectors, problem: _Problem) -> Int[Tensor, "o m"]:
    """Each vector's best code with all others as they are, one vector after another.

    So the error under the moment never grows.
    """
    table, unit = vectors.values.float(), vectors.scale.float()[:, None]
    codes = vectors.codes.long()
    error = problem.weight - table[codes].flatten(1) * unit
    pull = error @ problem.moment  # half of the error's fall along each weight
    for m, start in enumerate(problem.blocks()):
        at = slice(start, start + problem.length)
        own = problem.moment[at, at]
        root = torch.linalg.cholesky(own)
        old = table[codes[:, m]]
        wanted = old + torch.linalg.solve(own, pull[:, at] / unit, left=False)
        codes[:, m] = nearest_vectors(wanted @ root, table @ root)
        moved = (table[codes[:, m]] - old) * unit
        pull -= moved @ problem.moment[at]
    return codes


def _solved(vectors: SharedVectors, problem: _Problem) -> SharedVectors:
    """Codebook, then scales, of the least error under the moment, with the codes as they are.

    By conjugate gradients, as a product with the moment is all that the equations are needed for.
    """
    codes, unit = vectors.codes.long(), vectors.scale.float()[:, None]
    flat, wanted = codes.flatten(), problem.weight @ problem.moment
    k, d = vectors.values.shape

    def gathered(rows: Float[Tensor, "o i"]) -> Float[Tensor, "k d"]:
        sums = torch.zeros(k, d, device=rows.device)
        return sums.index_add_(0, flat, (rows * unit).reshape(-1, d))

    def spread(values: Float[Tensor, "k d"]) -> Float[Tensor, "o i"]:
        return values[codes].flatten(1) * unit

    values = vectors.values.float()
    bend = gathered(problem.moment.diagonal().expand_as(problem.weight) * unit)
    rest = gathered(wanted - spread(values) @ problem.moment)
    step = eased = torch.where(bend > 0, rest / bend.clamp(min=1e-30), 0.0)
    slope = (rest * eased).sum()
    for _ in range(SOLVER_STEPS):
        pushed = gathered(spread(step) @ problem.moment)
        curve = (step * pushed).sum()
        if float(curve) <= 0:
            break
        values, rest = values + slope / curve * step, rest - slope / curve * pushed
        eased = torch.where(bend > 0, rest / bend.clamp(min=1e-30), 0.0)
        new = (rest * eased).sum()
        step, slope = eased + new / slope.clamp(min=1e-30) * step, new
    halves = values.half()
    plain = halves.float()[codes].flatten(1)
    power = (plain * (plain @ problem.moment)).sum(1)
    best = torch.where(power > 0, (plain * wanted).sum(1) / power.clamp(min=1e-30), vectors.scale.float())
    return replace(vectors, values=halves, scale=as_scale(best))
