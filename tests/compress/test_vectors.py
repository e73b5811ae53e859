"""Weights in the vectors of a codebook: codes, codebook and training."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from autoprune.compress.gptq import damped_moment
from autoprune.compress.stored import StoredWeight
from autoprune.compress.vector_rounding import VectorWay, _better_codes, _first_codes, _Problem, _solved
from autoprune.compress.vectors import SharedVectors, in_vectors, nearest_vectors
from autoprune.space.named_storages import Vectors
from tests.support.drawn import random_moment, random_weight

KINDS = [Vectors.of(2, 16), Vectors.of(4, 256)]
each = pytest.mark.parametrize("storage", KINDS, ids=lambda storage: storage.name)


def error(stored: StoredWeight, weight: Tensor, moment: Tensor) -> float:
    off = (stored.dequantize() - weight).double()
    return float((off @ damped_moment(moment) * off).sum())


@each
@pytest.mark.parametrize("columns", [16, 13, 1])
def test_a_weight_is_a_value_of_its_vector_times_the_scale_of_its_row(storage: Vectors, columns: int) -> None:
    weight = random_weight(5, columns)
    stored = VectorWay().nearest(weight, storage, group_size=8)
    assert isinstance(stored, SharedVectors)
    assert (stored.storage, stored.shape) == (storage, (5, columns))
    value = stored.dequantize()
    for o, i in itertools.product(range(5), range(columns)):
        code = int(stored.codes[o, i // storage.length])
        told = float(stored.values[code, i % storage.length]) * float(stored.scale[o])
        assert float(value[o, i]) == pytest.approx(told, rel=1e-6)


@each
def test_no_vector_is_nearer(storage: Vectors) -> None:
    weight = random_weight(5, 16)
    stored = VectorWay().nearest(weight, storage, group_size=8)
    assert isinstance(stored, SharedVectors)
    exact = in_vectors(weight / stored.scale.float()[:, None], storage.length)
    off = (exact[:, :, None] - stored.values.float()).square().sum(-1)
    assert torch.allclose(off.gather(2, stored.codes.long()[..., None])[..., 0], off.amin(2), atol=1e-6)


@each
def test_each_step_leaves_less_error_under_the_moment(storage: Vectors) -> None:
    weight, moment = random_weight(96, 31), random_moment(31)
    plain = VectorWay().nearest(weight, storage, group_size=8)
    assert isinstance(plain, SharedVectors)
    problem = _Problem.of(weight, moment, storage.length)

    def coded(vectors: SharedVectors, codes: Tensor) -> SharedVectors:
        return SharedVectors(codes.to(torch.uint8), vectors.values, vectors.scale, vectors.columns)

    steps = [plain, coded(plain, _first_codes(plain, problem))]
    steps.append(coded(plain, _better_codes(steps[-1], problem)))
    steps.append(_solved(steps[-1], problem))
    errors = [error(step, weight, moment) for step in steps]
    assert errors[1] < errors[0]
    assert errors[2] <= errors[1] * (1 + 1e-4)
    assert errors[3] <= errors[2] * (1 + 1e-3)  # values and scales are half floats
    done = VectorWay().compensated(weight, moment, [storage], group_size=8)[storage]
    assert done is not None
    assert error(done, weight, moment) < 0.7 * errors[0]


def test_a_code_is_the_best_with_all_others_as_they_are() -> None:
    weight, moment = random_weight(3, 6), random_moment(6)
    stored = VectorWay().nearest(weight, Vectors.of(2, 16), group_size=8)
    assert isinstance(stored, SharedVectors)
    problem = _Problem.of(weight, moment, 2)
    found = _better_codes(stored, problem)
    for row in range(3):
        codes = stored.codes[row].long()
        for m in range(3):
            errors = []
            for code in range(16):
                tried = codes.clone()
                tried[m] = code
                off = stored.values.float()[tried].flatten() * stored.scale[row].float() - weight[row]
                errors.append(float(off @ problem.moment @ off))
            codes[m] = errors.index(min(errors))
        assert torch.equal(found[row], codes)


@each
def test_another_weight_is_stored_likewise(storage: Vectors) -> None:
    weight, moment = random_weight(64, 32), random_moment(32)
    stored = VectorWay().nearest(weight, storage, group_size=8)
    other = VectorWay().again(stored, weight * 1.1, moment)
    assert other is not None
    assert (other.storage, other.shape) == (storage, stored.shape)
    assert error(other, weight * 1.1, moment) < error(stored, weight * 1.1, moment)


@each
def test_training_begins_at_the_library_s_codes_and_moves_the_codebook(storage: Vectors) -> None:
    weight, moment = random_weight(96, 30), random_moment(30)
    stored = VectorWay().compensated(weight, moment, [storage], group_size=8)[storage]
    assert isinstance(stored, SharedVectors)
    rounding = stored.rounding()
    near = stored.start(weight)
    assert torch.equal(rounding.stored(near).dequantize(), stored.dequantize())
    scale = stored.scale.float()[:, None]
    assert (near * scale - weight).square().sum() < (stored.dequantize() - weight).square().sum()
    trained = near.requires_grad_()
    optimizer = torch.optim.Adam([*rounding.parameters()], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (rounding(trained) - 2 * weight).square().sum().backward()
        optimizer.step()
    after = rounding.stored(trained)
    assert isinstance(after, SharedVectors)
    assert not torch.equal(after.values, stored.values)
    assert torch.equal(after.dequantize(), rounding(trained).detach())


@each
def test_a_matrix_of_few_or_equal_numbers_is_stored(storage: Vectors) -> None:
    for weight in (torch.zeros(3, 9), torch.ones(2, 3), random_weight(3, 2)):
        i = weight.shape[1]
        stored = VectorWay().compensated(weight, torch.eye(i), [storage], group_size=8)[storage]
        assert stored is not None
        assert torch.isfinite(stored.dequantize()).all()
        assert (stored.dequantize() - weight).abs().max() <= 0.5 * weight.abs().max() + 1e-6


def test_of_equally_near_vectors_the_first_is_taken() -> None:
    table = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert nearest_vectors(torch.tensor([[2.0, 1.0], [-3.0, 0.0]]), table).tolist() == [0, 2]
