"""Weights of which some are zero: which stay, what they are, and the error that compensation leaves."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import pytest
import torch
from torch import Tensor

from autoprune.compress.gptq import damped_moment
from autoprune.compress.sparsity import SparseIntegers, SparseWay, kept_mask
from autoprune.compress.stored import StoredWeight
from autoprune.space.named_storages import Sparse

HALF, TWO_OF_FOUR = Sparse.of_kept(4, 32, 64), Sparse.of_kept(4, 2, 4)
WEIGHT = torch.randn(24, 128, generator=torch.manual_seed(0))
both = pytest.mark.parametrize("storage", [HALF, TWO_OF_FOUR], ids=lambda storage: storage.name)
quick = hypothesis.settings(deadline=None, max_examples=40)


def random_moment(i: int) -> Tensor:
    x = torch.randn(4 * i, i, generator=torch.manual_seed(1)) @ torch.randn(i, i)
    return x.T @ x / len(x)


def error(stored: StoredWeight, moment: Tensor) -> float:
    off = stored.dequantize() - WEIGHT
    return float((off @ damped_moment(moment).float() * off).sum())


@quick
@hypothesis.given(columns=some.integers(1, 40), kept=some.integers(1, 4), rows=some.integers(1, 3))
def test_of_each_stretch_the_highest_scores_stay(columns: int, kept: int, rows: int) -> None:
    kind = Sparse.of_kept(4, kept, 4)
    scores = torch.rand(rows, columns)
    mask = kept_mask(scores, kind)
    assert (mask.sum(1) == kind.kept_of(columns)).all()
    for start in range(0, columns, 4):
        own, chosen = scores[:, start : start + 4], mask[:, start : start + 4]
        for row, stays in zip(own, chosen, strict=True):
            if stays.all():
                continue
            assert row[stays].min() >= row[~stays].max()


@both
def test_nearest_keeps_the_largest_of_each_stretch_and_rounds_them(storage: Sparse) -> None:
    stored = SparseWay().nearest(WEIGHT, storage, group_size=32)
    assert isinstance(stored, SparseIntegers)
    assert torch.equal(stored.mask, kept_mask(WEIGHT.abs(), storage))
    value, scales = stored.dequantize(), stored.integers.scale.float()
    assert (value[~stored.mask] == 0).all()
    size = WEIGHT.shape[1] // scales.shape[1]
    assert size == 64
    off = (value - WEIGHT).abs() / scales.repeat_interleave(size, 1)
    assert off[stored.mask].median() < 0.3


@both
def test_values_are_those_of_the_parts_one_by_one(storage: Sparse) -> None:
    stored = SparseWay().compensated(WEIGHT, random_moment(128), [storage], group_size=32)[storage]
    assert stored is not None
    parts = stored.tensors()
    codes = iter(parts["codes"].tolist())
    value, size = stored.dequantize(), WEIGHT.shape[1] // parts["scale"].shape[1]
    for o, i in torch.cartesian_prod(torch.arange(24), torch.arange(128)).tolist():
        want = 0.0
        if parts["mask"][o, i]:
            zero, scale = int(parts["zero"][o, i // size]), float(parts["scale"][o, i // size])
            want = (next(codes) - zero) * scale
        assert float(value[o, i]) == pytest.approx(want, rel=1e-6)
    assert next(codes, None) is None


@both
def test_compensation_leaves_less_error_than_the_largest_weights(storage: Sparse) -> None:
    moment = random_moment(128)
    stored = SparseWay().compensated(WEIGHT, moment, [storage], group_size=32)[storage]
    assert stored is not None
    assert error(stored, moment) < 0.6 * error(SparseWay().nearest(WEIGHT, storage, group_size=32), moment)


def test_all_but_unstructured_leaves_less_error_than_two_of_four() -> None:
    moment = random_moment(128)
    free, bound = (
        SparseWay().compensated(WEIGHT, moment, [storage], group_size=32)[storage]
        for storage in (HALF, TWO_OF_FOUR)
    )
    assert free is not None
    assert bound is not None
    assert error(free, moment) < error(bound, moment)


@both
def test_training_moves_no_zero(storage: Sparse) -> None:
    stored = SparseWay().nearest(WEIGHT, storage, group_size=32)
    assert isinstance(stored, SparseIntegers)
    rounding, trained = stored.rounding(), stored.start(WEIGHT).requires_grad_()
    (rounding(trained) - 2 * WEIGHT).square().sum().backward()
    assert trained.grad is not None
    assert (trained.grad[~stored.mask] == 0).all()
    after = rounding.stored((trained - 0.9 * trained.grad.sign()).detach())
    assert isinstance(after, SparseIntegers)
    assert torch.equal(after.mask, stored.mask)
    assert (after.dequantize()[~stored.mask] == 0).all()
    assert not torch.equal(after.integers.codes, stored.integers.codes)
