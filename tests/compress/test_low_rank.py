"""Thin factors: the least error that a rank allows, what rounding them costs, and corrections of low bits."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import pytest
import torch
from torch import Tensor

from autoprune.compress.gptq import damped_moment, round_compensated
from autoprune.compress.low_rank import LowRankWay, LowRankWeight, best_factors, fitted_factors
from autoprune.compress.low_rank_correction import CorrectedIntegers, CorrectedWay
from autoprune.compress.stored import StoredWeight
from autoprune.space.low_rank_storages import Corrected, LowRank

WIDE, TALL = (24, 40), (40, 24)
shapes = pytest.mark.parametrize("shape", [WIDE, TALL, (16, 16)])


def weight_of(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(seed))


def moment_of(columns: int, seed: int = 1) -> Tensor:
    """Of inputs that are correlated and of unequal size."""
    x = torch.randn(4 * columns, columns, generator=torch.manual_seed(seed)) * torch.linspace(0.1, 3, columns)
    x = x + x.roll(1, dims=1)
    return x.T @ x / len(x)


def error(value: Tensor, weight: Tensor, moment: Tensor) -> float:
    off = value.double() - weight.double()
    return float((off @ moment.double() * off).sum())


@shapes
def test_the_error_is_that_of_the_singular_values_cut_off(shape: tuple[int, int]) -> None:
    weight, moment = weight_of(shape), damped_moment(moment_of(shape[1]))
    singular = torch.linalg.svdvals(weight.double() @ torch.linalg.cholesky(moment))
    for rank in (1, 5, min(shape) - 1):
        left, right = best_factors(weight, moment, rank)
        assert left.shape == (shape[0], rank)
        assert right.shape == (rank, shape[1])
        assert error(left @ right, weight, moment) == pytest.approx(float(singular[rank:].square().sum()))


@shapes
def test_no_plain_decomposition_of_the_rank_is_as_good(shape: tuple[int, int]) -> None:
    weight, moment = weight_of(shape), damped_moment(moment_of(shape[1]))
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    left, right = best_factors(weight, moment, 6)
    plain = error((u[:, :6] * s[:6]) @ v[:6], weight, moment)
    assert error(left @ right, weight, moment) < 0.9 * plain


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(some.sampled_from([WIDE, TALL]), some.integers(0, 999), some.floats(1e-4, 1.0))
def test_no_change_of_the_factors_is_better(shape: tuple[int, int], seed: int, far: float) -> None:
    weight, moment = weight_of(shape), damped_moment(moment_of(shape[1]))
    left, right = best_factors(weight, moment, 5)
    draws = torch.manual_seed(seed)
    other_left = left + far * torch.randn(left.shape, generator=draws).double()
    other_right = right + far * torch.randn(right.shape, generator=draws).double()
    best = error(left @ right, weight, moment)
    for value in (other_left @ right, left @ other_right, other_left @ other_right):
        assert best <= error(value, weight, moment)


@shapes
def test_with_inputs_all_alike_it_is_the_plain_decomposition_cut_off(shape: tuple[int, int]) -> None:
    weight = weight_of(shape)
    u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
    left, right = best_factors(weight, damped_moment(torch.eye(shape[1])), 5)
    assert torch.allclose(left @ right, (u[:, :5] * s[:5]) @ v[:5], atol=1e-9)


@shapes
def test_at_full_rank_nothing_is_lost(shape: tuple[int, int]) -> None:
    weight = weight_of(shape)
    left, right = best_factors(weight, damped_moment(moment_of(shape[1])), min(shape))
    assert torch.allclose(left @ right, weight.double(), atol=1e-9)


@shapes
def test_rounding_the_factors_costs_little(shape: tuple[int, int]) -> None:
    weight, moment = weight_of(shape), moment_of(shape[1])
    left, right = best_factors(weight, damped_moment(moment), 6)
    rounded = fitted_factors(weight, moment, 6).product()
    assert error(rounded, weight, moment) < 1.01 * error(left @ right, weight, moment)


@pytest.mark.parametrize("value", [0.0, 1e-7, 1e5])
@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (3, 2), (8, 8)])
def test_weights_of_zeros_or_of_one_row_are_stored(shape: tuple[int, int], value: float) -> None:
    weight, moment = torch.full(shape, value), torch.zeros(shape[1], shape[1])
    for way, storage in ((LowRankWay(), LowRank.of_percent(50)), (CorrectedWay(), Corrected(2, 8))):
        stored = way.compensated(weight, moment, [storage], group_size=8)[storage]
        assert stored is not None
        assert torch.allclose(stored.dequantize(), weight, atol=1e-3 + 0.05 * value)
        told = storage.parts(*shape, group_size=8)
        assert {k: x.numel() for k, x in stored.tensors().items() if k.startswith(("left", "right"))} == {
            "left": shape[0] * storage.rank_of(*shape),
            "left_scale": told["left_scale"].shape[0],
            "right": shape[1] * storage.rank_of(*shape),
            "right_scale": told["right_scale"].shape[0],
        }


# ---- integers with a correction -------------------------------------------------------------------


def corrected(storage: Corrected, weight: Tensor, moment: Tensor) -> CorrectedIntegers:
    stored = CorrectedWay().compensated(weight, moment, [storage], group_size=32)[storage]
    assert isinstance(stored, CorrectedIntegers)
    return stored


def test_a_correction_leaves_less_error_the_larger_its_rank() -> None:
    weight, moment = weight_of((64, 64)), moment_of(64)
    [integers] = round_compensated(weight, moment, bits=[2], group_size=32)
    plain = error(integers.dequantize(), weight, moment)
    small, large = (
        error(corrected(Corrected(2, rank), weight, moment).dequantize(), weight, moment) for rank in (8, 16)
    )
    assert large < 0.9 * small < 0.8 * plain


def test_the_correction_is_the_best_of_what_integers_leave_over() -> None:
    weight, moment = weight_of((64, 64)), moment_of(64)
    stored = corrected(Corrected(2, 8), weight, moment)
    assert torch.equal(stored.dequantize(), stored.integers.dequantize() + stored.factors.product())
    rest = weight - stored.integers.dequantize()
    left, right = best_factors(rest, damped_moment(moment), 8)
    assert error(stored.factors.product(), rest, moment) < 1.01 * error(left @ right, rest, moment)


def test_widths_of_one_rank_share_a_pass_and_another_weight_is_stored_likewise() -> None:
    weight, moment = weight_of((16, 64)), moment_of(64)
    storages = [Corrected(2, 8), Corrected(3, 8), Corrected(2, 16)]
    both = CorrectedWay().compensated(weight, moment, storages, group_size=32)
    assert set(both) == set(storages)
    for storage, stored in both.items():
        assert stored is not None
        alone = corrected(Corrected(storage.bits, stored.storage.rank), weight, moment)  # type: ignore[attr-defined]
        again = CorrectedWay().again(stored, weight, moment)
        assert again is not None
        assert torch.equal(stored.dequantize(), alone.dequantize())
        assert torch.equal(stored.dequantize(), again.dequantize())


# ---- rows, and training -----------------------------------------------------------------------------


def stored_in(storage: LowRank | Corrected, weight: Tensor) -> StoredWeight:
    way = LowRankWay() if isinstance(storage, LowRank) else CorrectedWay()
    return way.nearest(weight, storage, group_size=8)


sorts = pytest.mark.parametrize(
    "storage", [LowRank.of_percent(50), Corrected(2, 8)], ids=lambda one: one.name
)


@sorts
def test_rows_fewer_than_the_rank_are_stored_in_the_bytes_of_as_many_rows(
    storage: LowRank | Corrected,
) -> None:
    stored = stored_in(storage, weight_of((32, 16)))
    few = stored.rows(torch.tensor([3, 1, 9]))
    for name, part in storage.parts(3, 16, group_size=8).items():
        if name.startswith(("left", "right")):
            assert few.tensors()[name].numel() * 8 == part.size_bytes * (4 if part.kind == "F16" else 8)
    off = few.dequantize() - stored.dequantize()[[3, 1, 9]]
    if isinstance(storage, Corrected):  # three rows are of rank three
        assert off.abs().max() < 0.05


@sorts
def test_weights_of_other_right_factors_are_not_one(storage: LowRank | Corrected) -> None:
    assert stored_in(storage, weight_of(TALL)).stacked_on(stored_in(storage, weight_of(TALL, 5))) is None


@sorts
def test_training_moves_the_factors_on_their_integers(storage: LowRank | Corrected) -> None:
    weight = weight_of((32, 16))
    stored, goal = stored_in(storage, weight), weight + 0.3 * weight_of((32, 16), 7)
    rounding, trained = stored.rounding(), stored.start(weight)
    before = float((rounding(trained) - goal).square().sum())
    optimizer = torch.optim.Adam(rounding.parameters(), lr=0.005)
    for _ in range(60):
        loss = (rounding(trained) - goal).square().sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = rounding.stored(trained)
    assert after.storage == storage
    assert torch.allclose(after.dequantize(), rounding(trained), atol=1e-5)
    assert not torch.equal(after.tensors()["left"], stored.tensors()["left"])
    assert float((after.dequantize() - goal).square().sum()) < 0.95 * before


def test_the_rank_is_a_share_of_the_smaller_side_and_bytes_follow_from_it() -> None:
    storage = LowRank.of_percent(25)
    assert [storage.rank_of(*shape) for shape in ((384, 1536), (1536, 384), (10, 384), (3, 3))] == [
        96,
        96,
        2,
        1,
    ]
    assert storage.size_bytes(1536, 384, group_size=64) == 96 * (1536 + 384) + 2 * (1536 + 96)
    assert isinstance(stored_in(storage, weight_of(WIDE)), LowRankWeight)
