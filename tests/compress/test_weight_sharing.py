"""Weights that share the values of a codebook: k-means on a line, codes and values of least error."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as some
import pytest
import torch
from torch import Tensor

from autoprune.compress.codebooks import Shared, nearest
from autoprune.compress.gptq import damped_moment, round_compensated
from autoprune.compress.kmeans import STRETCHES, cluster_values
from autoprune.compress.stored import StoredWeight
from autoprune.compress.ways import stored_in_each, way_of
from autoprune.space.named_storages import Codebook
from tests.support.drawn import random_moment, random_weight

CODEBOOKS = [Codebook(bits, is_shared) for bits in (2, 3, 4) for is_shared in (False, True)]
each = pytest.mark.parametrize("storage", CODEBOOKS, ids=lambda storage: storage.name)
quick = hypothesis.settings(deadline=None, max_examples=40)


def error(stored: StoredWeight, weight: Tensor, moment: Tensor) -> float:
    off = stored.dequantize() - weight
    return float((off @ damped_moment(moment).float() * off).sum())


# ---- k-means on a line ----------------------------------------------------------------------------


def distance(numbers: Tensor, weights: Tensor, values: Tensor) -> float:
    off = (numbers[:, None] - values[None]).abs().amin(1)
    return float((weights * off.square()).sum())


def best_distance(numbers: Tensor, weights: Tensor, k: int) -> float:
    """By trying every way to part the sorted numbers."""
    points, order = numbers.double().sort()
    heavy, least = weights.double()[order], torch.inf
    for cuts in itertools.combinations(range(1, len(points)), min(k, len(points)) - 1):
        bounds, total = [0, *cuts, len(points)], 0.0
        for low, high in itertools.pairwise(bounds):
            mean = (heavy[low:high] * points[low:high]).sum() / heavy[low:high].sum()
            total += float((heavy[low:high] * (points[low:high] - mean).square()).sum())
        least = min(least, total)
    return least


@quick
@hypothesis.given(
    pairs=some.lists(some.tuples(some.integers(-9, 9), some.integers(1, 5)), min_size=1, max_size=9),
    k=some.integers(1, 4),
)
def test_few_numbers_are_clustered_as_well_as_can_be(pairs: list[tuple[int, int]], k: int) -> None:
    numbers, weights = torch.tensor(pairs, dtype=torch.float32).T
    [values] = cluster_values(numbers[None], weights[None], k)
    assert len(values) == k
    assert torch.equal(values, values.sort().values)
    assert distance(numbers, weights, values) <= best_distance(numbers, weights, k) + 1e-4


def test_lines_are_clustered_apart_from_each_other() -> None:
    numbers, weights = random_weight(7, 30), torch.rand(7, 30) + 0.1
    together = cluster_values(numbers, weights, 4)
    alone = [cluster_values(numbers[[k]], weights[[k]], 4) for k in range(7)]
    assert torch.allclose(together, torch.cat(alone))


@pytest.mark.parametrize("k", [4, 8, 16])
def test_many_numbers_are_clustered_nearly_as_well(k: int) -> None:
    """The best of twenty runs of Lloyd's algorithm from random numbers is hardly any better."""
    generator = torch.manual_seed(k)
    numbers = torch.randn(6 * STRETCHES, generator=generator) ** 3
    weights = torch.rand(len(numbers), generator=generator) + 0.01
    [values] = cluster_values(numbers[None], weights[None], k)
    rivals = []
    for _ in range(20):
        rival = numbers[torch.randperm(len(numbers), generator=generator)[:k]].sort().values
        for _ in range(100):
            codes = nearest(rival[None], numbers[None])[0]
            mass = torch.zeros(k).scatter_add_(0, codes, weights)
            means = torch.zeros(k).scatter_add_(0, codes, weights * numbers) / mass.clamp(min=1e-9)
            rival = torch.where(mass > 0, means, rival).sort().values
        rivals.append(distance(numbers, weights, rival))
    assert distance(numbers, weights, values) <= 1.02 * min(rivals)


# ---- a weight -------------------------------------------------------------------------------------


@each
def test_a_weight_is_the_value_of_its_code(storage: Codebook) -> None:
    weight = random_weight(6, 40)
    stored = way_of(storage).nearest(weight, storage, group_size=8)
    assert isinstance(stored, Shared)
    for o, i in itertools.product(range(6), range(40)):
        value = float(stored.values[0 if storage.is_shared else o, int(stored.codes[o, i])])
        scale = 1.0 if stored.scale is None else float(stored.scale[o])
        assert float(stored.dequantize()[o, i]) == pytest.approx(value * scale, rel=1e-6)


@each
def test_no_value_is_nearer(storage: Codebook) -> None:
    weight = random_weight(6, 40)
    stored = way_of(storage).nearest(weight, storage, group_size=8)
    assert isinstance(stored, Shared)
    off = (stored.dequantize() - weight).abs()
    assert torch.allclose(off, (stored.table[:, None] - weight[..., None]).abs().amin(-1), atol=1e-6)


@each
def test_compensated_codes_are_of_less_error_and_all_in_one_pass(storage: Codebook) -> None:
    weight, moment = random_weight(24, 64), random_moment(64)
    together = stored_in_each(weight, moment, [*reversed(CODEBOOKS)], group_size=32)
    alone = stored_in_each(weight, moment, [storage], group_size=32)
    compensated, again = together[storage], alone[storage]
    plain = way_of(storage).nearest(weight, storage, group_size=32)
    assert compensated is not None
    assert again is not None
    assert plain is not None
    assert error(compensated, weight, moment) < 0.6 * error(plain, weight, moment)
    assert error(again, weight, moment) == pytest.approx(error(compensated, weight, moment), rel=0.05)


@pytest.mark.parametrize("bits", [2, 3])
def test_a_codebook_a_row_is_of_less_error_than_integers_with_a_scale_a_row(bits: int) -> None:
    weight, moment = random_weight(32, 64), random_moment(64)
    storage = Codebook(bits)
    shared = stored_in_each(weight, moment, [storage], group_size=64)[storage]
    [integers] = round_compensated(weight, moment, bits=[bits], group_size=64)
    assert shared is not None
    assert error(shared, weight, moment) < error(integers, weight, moment)


@each
def test_another_weight_is_stored_likewise(storage: Codebook) -> None:
    weight, moment = random_weight(8, 32), random_moment(32)
    stored = way_of(storage).nearest(weight, storage, group_size=8)
    assert stored is not None
    other = way_of(storage).again(stored, weight + 0.1, moment)
    assert other is not None
    assert (other.storage, other.shape) == (storage, stored.shape)


@each
def test_a_matrix_of_few_or_equal_numbers_is_stored(storage: Codebook) -> None:
    for weight in (torch.zeros(3, 9), torch.ones(2, 3), random_weight(3, 2)):
        stored = way_of(storage).compensated(weight, torch.eye(weight.shape[1]), [storage], group_size=8)[
            storage
        ]
        assert stored is not None
        assert torch.isfinite(stored.dequantize()).all()
        assert (stored.dequantize() - weight).abs().max() <= 0.5 * weight.abs().max()


def test_values_are_trained_and_stay_half_floats_in_order() -> None:
    stored = way_of(Codebook(2)).nearest(random_weight(5, 16), Codebook(2), group_size=8)
    assert stored is not None
    rounding = stored.rounding()
    trained = stored.start(None).requires_grad_()
    optimizer = torch.optim.Adam([*rounding.parameters()], lr=0.01)
    before = rounding(trained).detach()
    for _ in range(5):
        optimizer.zero_grad()
        (rounding(trained) - 2 * before).square().sum().backward()
        optimizer.step()
    after = rounding.stored(trained)
    assert isinstance(after, Shared)
    assert not torch.equal(after.values, stored.values)  # type: ignore[attr-defined]
    assert torch.equal(after.values, after.values.sort(dim=1).values)
    assert torch.equal(after.dequantize(), rounding(trained).detach())
