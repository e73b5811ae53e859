"""Packing, integers, rounding and removal: against closed forms, slow truths and OpenVINO itself."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.compress.gptq import DAMPING, round_compensated
from autoprune.compress.integers import Integers, choose_scale, round_nearest
from autoprune.compress.packing import Bytes, pack_dense, pack_openvino, unpack_dense
from autoprune.compress.prune_obs import Reader, refit, removal_order
from autoprune.compress.surgery import replace_
from autoprune.compress.variants import make_variants
from autoprune.models.unit import Unit, Weight
from autoprune.space.levels import Level
from autoprune.space.storage import group_size_for, storage_of
from tests.support.tiny import Tiny, logits

WIDTHS = (2, 3, 4, 6, 8)
LENGTHS = tuple(range(1, 26))  # every remainder of 2, 4 and 8 codes a step

every_width = pytest.mark.parametrize("bits", WIDTHS)


def assert_equal_answers(ours: Tensor, theirs: Tensor) -> None:
    """Within what float32 rounds to, which depends on the processor's kernels."""
    assert (ours - theirs).abs().max() <= 1e-6 * max(1.0, float(theirs.abs().max()))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_codes(count: int, bits: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 2**bits, count, dtype=np.uint8)


def correlated(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Inputs [rows columns] that share a few directions and have a mean, as activations do."""
    shared = drawn(rows, 4, seed=seed) @ drawn(4, columns, seed=seed + 1)
    return shared + 0.3 * drawn(rows, columns, seed=seed + 2) + drawn(columns, seed=seed + 3)


def moment_of(x: Tensor) -> Tensor:
    return x.T @ x / len(x)


def output_error(gap: Tensor, x: Tensor) -> float:
    return float((x.double() @ gap.double().T).square().mean())


# ---- packing ------------------------------------------------------------------------------------


@given(st.sampled_from(WIDTHS), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_dense_codes_come_back_from_exactly_the_bytes_they_need(bits: int, count: int, seed: int) -> None:
    codes = random_codes(count, bits, seed)
    packed = pack_dense(codes, bits)
    assert packed.nbytes == -(-count * bits // 8)
    assert (unpack_dense(packed, bits, count) == codes).all()


@every_width
def test_a_stream_of_another_length_is_refused(bits: int) -> None:
    packed = pack_dense(random_codes(16, bits), bits)
    for wrong in (packed[:-1], np.append(packed, np.uint8(0))):
        with pytest.raises(ValueError, match=f"do not hold 16 codes of {bits} bits"):
            unpack_dense(wrong, bits, 16)


@every_width
def test_dense_packing_is_one_little_endian_number(bits: int) -> None:
    codes = random_codes(37, bits)
    number = sum(int(code) << (bits * place) for place, code in enumerate(codes))
    assert int.from_bytes(pack_dense(codes, bits).tobytes(), "little") == number


@every_width
def test_openvino_packing_is_what_openvino_packs_itself(bits: int) -> None:
    kind = getattr(ov.Type, f"u{bits}")
    for count in LENGTHS:
        codes = random_codes(count, bits, seed=count)
        theirs = ov.op.Constant(kind, ov.Shape([count]), codes.tolist()).data.tobytes()
        assert pack_openvino(codes, bits).tobytes() == theirs, count


# ---- integers -----------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.sampled_from((8, 16, 32, 64, 128)))
def test_a_group_size_divides_the_row_and_is_the_wanted_one_if_it_can(columns: int, wanted: int) -> None:
    size = group_size_for(columns, wanted)
    assert columns % size == 0
    assert size == wanted if columns % wanted == 0 else size in (columns, *range(8, wanted))


@every_width
@pytest.mark.parametrize("columns", [64, 96, 50, 7])
def test_stored_bytes_are_the_packed_bytes(bits: int, columns: int) -> None:
    one = round_nearest(drawn(5, columns), bits=bits, group_size=64)
    parts = (pack_dense(one.codes.numpy(), bits), one.scale.numpy(), pack_dense(one.zero.numpy(), bits))
    assert storage_of(bits).size_bytes(5, columns, group_size=64) == sum(part.nbytes for part in parts)


def test_floats_are_stored_as_two_or_four_bytes() -> None:
    assert storage_of(16).size_bytes(5, 7, group_size=64) == 70
    assert storage_of(32).size_bytes(5, 7, group_size=64) == 140


@every_width
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
def test_a_weight_that_is_not_clipped_is_within_half_a_scale(bits: int, shift: float) -> None:
    weight = drawn(16, 128) + shift
    one = round_nearest(weight, bits=bits, group_size=64)
    scale = one.scale.float().repeat_interleave(64, dim=1)
    wanted = (weight / scale).round() + one.zero.float().repeat_interleave(64, dim=1)
    inside = (wanted >= 0) & (wanted <= 2**bits - 1)
    assert inside.float().mean() > 0.5
    assert ((one.dequantize() - weight).abs() <= 0.5001 * scale)[inside].all()


def test_error_falls_with_every_bit_more() -> None:
    weight = drawn(32, 128)
    errors = [
        float((round_nearest(weight, bits=b, group_size=64).dequantize() - weight).abs().mean())
        for b in WIDTHS
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[WIDTHS.index(4)]


@every_width
def test_zeros_and_rows_of_zeros_stay_exactly_zero(bits: int) -> None:
    weight = drawn(4, 64)
    weight[:, ::3] = 0.0
    weight[2] = 0.0
    assert (round_nearest(weight, bits=bits, group_size=64).dequantize()[weight == 0] == 0).all()


@every_width
def test_scales_are_the_half_floats_that_are_stored(bits: int) -> None:
    top = torch.tensor([float(2**bits - 1)])
    scale, zero = choose_scale(drawn(9, 64), top, torch.ones(64))
    assert torch.equal(scale, scale.half().float())
    assert torch.equal(zero, zero.round())
    assert zero.min() >= 0
    assert zero.max() <= top


# ---- rounding with compensated error ------------------------------------------------------------


@every_width
def test_with_uncorrelated_inputs_it_is_plain_nearest_rounding(bits: int) -> None:
    weight = drawn(24, 128)
    (one,) = round_compensated(weight, torch.eye(128), bits=[bits], group_size=64)
    nearest = round_nearest(weight, bits=bits, group_size=64)
    for field in ("codes", "scale", "zero"):
        assert torch.equal(getattr(one, field), getattr(nearest, field)), field


@every_width
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_on_correlated_inputs_its_output_error_is_the_lower(bits: int, seed: int) -> None:
    weight, x = drawn(24, 128, seed=seed), correlated(500, 128, seed=seed + 1)
    (one,) = round_compensated(weight, moment_of(x), bits=[bits], group_size=64)
    nearest = round_nearest(weight, bits=bits, group_size=64)
    assert output_error(weight - one.dequantize(), x) < output_error(weight - nearest.dequantize(), x)


@every_width
def test_it_is_optimal_brain_quantization_in_the_order_of_the_columns(bits: int) -> None:
    weight, moment = drawn(12, 64), moment_of(correlated(300, 64))
    (one,) = round_compensated(weight, moment, bits=[bits], group_size=16, sweeps=0)
    wanted = brain_quantized(weight, moment, bits, size=16)
    assert (one.dequantize() == wanted).float().mean() > 0.99  # a tie may fall to either side
    torch.testing.assert_close(one.dequantize(), wanted, rtol=0, atol=float(one.scale.max()) * 1.01)


def brain_quantized(weight: Tensor, moment: Tensor, bits: int, *, size: int) -> Tensor:
    """Column by column, each error spread over all later columns, H^-1 updated by elimination."""
    left, out = weight.double(), torch.empty_like(weight)
    hessian = moment.double() + 0.01 * moment.diagonal().double().mean() * torch.eye(len(moment))
    inverse = torch.linalg.inv(hessian)
    top = torch.tensor([float(2**bits - 1)])
    for j in range(weight.shape[1]):
        if j % size == 0:
            group = left[:, j : j + size].float()
            scale, zero = choose_scale(group, top, moment.diagonal()[j : j + size])
        code = ((left[:, j] / scale).round() + zero).clamp(0, float(top))
        out[:, j] = (code - zero) * scale
        left = left - torch.outer(left[:, j] - out[:, j], inverse[j] / inverse[j, j])
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return out


@every_width
@pytest.mark.parametrize("reach", [None, 1])
def test_no_sweep_makes_the_output_error_larger(bits: int, reach: int | None) -> None:
    weight, x = drawn(12, 64), correlated(300, 64)
    errors = []
    for sweeps in range(4):
        (one,) = round_compensated(
            weight, moment_of(x), bits=[bits], group_size=16, reach=reach, sweeps=sweeps
        )
        errors.append(damped_error(weight - one.dequantize(), x))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < errors[0]


@every_width
def test_after_many_sweeps_no_other_code_for_any_weight_is_better(bits: int) -> None:
    weight, x = drawn(4, 32), correlated(200, 32)
    (one,) = round_compensated(weight, moment_of(x), bits=[bits], group_size=16, sweeps=60)
    least = damped_error(weight - one.dequantize(), x)
    for row in range(4):
        for column in range(32):
            for other in (int(one.codes[row, column]) + step for step in (-1, 1)):
                if 0 <= other < 2**bits:
                    codes = one.codes.clone()
                    codes[row, column] = other
                    error = damped_error(weight - replace(one, codes=codes).dequantize(), x)
                    assert error >= least * (1 - 1e-6)


def damped_error(gap: Tensor, x: Tensor) -> float:
    """Squared output error of a gap in the weight, with the damping that rounding assumes."""
    moment = moment_of(x).double()
    moment += DAMPING * moment.diagonal().mean() * torch.eye(len(moment))
    return float((gap.double() @ moment * gap.double()).sum())


def test_several_widths_at_once_equal_one_at_a_time() -> None:
    weight, moment = drawn(24, 96), moment_of(correlated(300, 96))
    together = round_compensated(weight, moment, bits=WIDTHS, group_size=32)
    for variant, bits in zip(together, WIDTHS, strict=True):
        (alone,) = round_compensated(weight, moment, bits=[bits], group_size=32)
        assert variant.bits == bits
        assert torch.equal(variant.scale, alone.scale)
        assert torch.equal(variant.zero, alone.zero)
        assert torch.equal(variant.codes, alone.codes)


@pytest.mark.parametrize(("columns", "wanted", "groups"), [(128, 64, 2), (96, 64, 3), (50, 64, 1)])
def test_a_row_has_one_scale_a_group(columns: int, wanted: int, groups: int) -> None:
    moment = moment_of(correlated(200, columns))
    (one,) = round_compensated(drawn(6, columns), moment, bits=[4], group_size=wanted)
    assert one.scale.shape == one.zero.shape == (6, groups)
    assert one.group_size * groups == columns


@every_width
def test_codes_are_within_range_and_the_input_is_left_alone(bits: int) -> None:
    weight, moment = drawn(8, 64) * 5, moment_of(correlated(100, 64))
    copies = weight.clone(), moment.clone()
    (one,) = round_compensated(weight, moment, bits=[bits], group_size=64)
    assert int(one.codes.max()) <= 2**bits - 1
    assert torch.equal(weight, copies[0])
    assert torch.equal(moment, copies[1])


def test_columns_that_were_never_seen_are_rounded_too() -> None:
    x = correlated(200, 64)
    x[:, 10:20] = 0.0
    (one,) = round_compensated(drawn(8, 64), moment_of(x), bits=[4], group_size=64)
    assert torch.isfinite(one.dequantize()).all()
    (unseen,) = round_compensated(drawn(8, 64), torch.zeros(64, 64), bits=[4], group_size=64)
    assert torch.equal(unseen.codes, round_nearest(drawn(8, 64), bits=4, group_size=64).codes)


# ---- removal ------------------------------------------------------------------------------------


def ordered(weight: Tensor, x: Tensor, *, block: int = 1, step: int = 1) -> list[int]:
    reader = Reader(weight, moment_of(x), x.mean(0), torch.ones(len(weight)))
    order = removal_order([reader], pieces=weight.shape[1] // block, step=step)
    return [int(piece) for piece in order]


def lstsq_error(weight: Tensor, x: Tensor, keep: list[int]) -> float:
    """Output error of the best weight and bias on the kept columns, from the data themselves."""
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    seen = torch.cat([x[:, keep].double(), ones], dim=1)
    target = x.double() @ weight.double().T
    return float((seen @ torch.linalg.lstsq(seen, target).solution - target).square().sum())


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("seed", [0, 50])
def test_each_step_removes_the_block_that_least_squares_spares_best(block: int, seed: int) -> None:
    weight, x = drawn(5, 12, seed=seed), correlated(400, 12, seed=seed + 1)
    alive = list(range(12 // block))

    def cost_without(gone: int) -> float:
        keep = [b * block + k for b in alive if b != gone for k in range(block)]
        return lstsq_error(weight, x, keep)

    for chosen in ordered(weight, x, block=block)[:-1]:
        costs = {piece: cost_without(piece) for piece in alive}
        assert costs[chosen] <= 1.02 * min(costs.values()) + 1e-6  # the ridge blurs near ties
        alive.remove(chosen)


@pytest.mark.parametrize("step", [1, 4, 7])
def test_every_block_comes_once_in_the_order(step: int) -> None:
    assert sorted(ordered(drawn(5, 20), correlated(200, 20), step=step)) == list(range(20))


def test_a_column_that_others_make_up_goes_first_and_costs_next_to_nothing() -> None:
    x = drawn(500, 10)
    x[:, 7] = x[:, 1] - 2 * x[:, 4]
    weight, bias = drawn(6, 10, seed=1), drawn(6, seed=2)
    first = ordered(weight, x)[0]
    assert first in (1, 4, 7)
    keep = torch.tensor([k for k in range(10) if k != first])
    new, new_bias = refit(weight, bias, moment_of(x), x.mean(0), keep)
    error = (x[:, keep] @ new.T + new_bias - x @ weight.T - bias).square().mean()
    assert error < 1e-6 * (x @ weight.T).square().mean()


def test_a_row_that_does_not_matter_does_not_decide() -> None:
    weight = torch.zeros(2, 6)
    weight[0], weight[1] = torch.arange(1, 7), torch.arange(6, 0, -1) * 100
    moment, mean = torch.eye(6), torch.zeros(6)
    order = removal_order([Reader(weight, moment, mean, torch.tensor([1.0, 0.0]))], pieces=6, step=1)
    assert order.tolist() == list(range(6))


@pytest.mark.parametrize("blocks", [(1, 1), (1, 4), (3, 2)])
def test_costs_of_several_readers_add_up(blocks: tuple[int, int]) -> None:
    """Layers that all read the same pieces, in columns of their own number."""
    pieces, readers = 6, []
    for k, block in enumerate(blocks):
        x = correlated(400, pieces * block, seed=10 * k)
        readers.append((drawn(5, pieces * block, seed=k), x, block))

    def cost_without(keep: list[int]) -> float:
        columns = [[b * block + k for b in keep for k in range(block)] for _, _, block in readers]
        return sum(lstsq_error(w, x, c) / len(x) for (w, x, _), c in zip(readers, columns, strict=True))

    given = [Reader(w, moment_of(x), x.mean(0), torch.ones(5)) for w, x, _ in readers]
    alive = list(range(pieces))
    for chosen in removal_order(given, pieces=pieces, step=1).tolist()[:-1]:
        costs = {piece: cost_without([b for b in alive if b != piece]) for piece in alive}
        assert costs[chosen] <= 1.02 * min(costs.values()) + 1e-6
        alive.remove(chosen)


@pytest.mark.parametrize("seed", range(5))
def test_refit_is_least_squares_on_the_same_data_and_never_worse_than_slicing(seed: int) -> None:
    x, weight, bias = correlated(600, 20, seed=seed), drawn(7, 20, seed=seed), drawn(7, seed=seed)
    keep = torch.tensor([0, 2, 3, 5, 8, 9, 13, 14, 19])
    new, new_bias = refit(weight, bias, moment_of(x), x.mean(0), keep)
    target = x @ weight.T + bias
    best = lstsq_error(weight, x, keep.tolist())
    error = float((x[:, keep] @ new.T + new_bias - target).double().square().sum())
    sliced = float((x[:, keep] @ weight[:, keep].T + bias - target).double().square().sum())
    assert best <= error * (1 + 1e-5)
    assert error <= 1.01 * best
    assert error <= sliced


def test_refit_solves_the_ridge_problem_that_it_states() -> None:
    x, weight, bias = correlated(300, 8).double(), drawn(4, 8).double(), drawn(4).double()
    keep = torch.tensor([1, 2, 4, 7])
    ridge = 1e-4 * x.square().mean() * len(x)
    seen = torch.cat([x[:, keep], torch.ones(300, 1)], dim=1)
    pull = torch.cat([ridge.sqrt() * torch.eye(4), torch.zeros(4, 1)], dim=1)
    target = torch.cat([x @ weight.T + bias, ridge.sqrt() * weight[:, keep].T])
    solution = torch.linalg.lstsq(torch.cat([seen, pull]), target).solution.T
    new, new_bias = refit(weight, bias, moment_of(x), x.mean(0), keep)
    assert new_bias is not None
    torch.testing.assert_close(torch.cat([new, new_bias[:, None]], 1), solution, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_refit_without_a_bias_is_least_squares_through_the_origin(seed: int) -> None:
    x, weight = correlated(600, 20, seed=seed), drawn(7, 20, seed=seed)
    keep = torch.tensor([0, 2, 3, 5, 8, 9, 13, 14, 19])
    new, none = refit(weight, None, moment_of(x), x.mean(0), keep)
    assert none is None
    seen, target = x[:, keep].double(), x.double() @ weight.double().T
    best = float((seen @ torch.linalg.lstsq(seen, target).solution - target).square().sum())
    assert best <= float((seen @ new.double().T - target).square().sum()) <= 1.01 * best + 1e-9


def test_refit_of_all_columns_changes_nothing() -> None:
    x, weight, bias = correlated(300, 8), drawn(4, 8), drawn(4)
    new, new_bias = refit(weight, bias, moment_of(x), x.mean(0), torch.arange(8))
    torch.testing.assert_close(new, weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(new_bias, bias, rtol=0, atol=1e-6)


def test_the_bias_takes_over_constant_neurons() -> None:
    x = correlated(400, 10).double()
    x[:, 3], x[:, 8] = 2.5, -1.25
    weight, bias = drawn(6, 10).double(), drawn(6).double()
    keep = torch.tensor([0, 1, 2, 4, 5, 6, 7, 9])
    new, new_bias = refit(weight, bias, moment_of(x), x.mean(0), keep)
    torch.testing.assert_close(new, weight[:, keep], rtol=0, atol=1e-9)
    moved = bias + 2.5 * weight[:, 3] - 1.25 * weight[:, 8]
    torch.testing.assert_close(new_bias, moved, rtol=0, atol=1e-9)
    assert set(ordered(weight.float(), x.float())[:2]) == {3, 8}


# ---- removal in a whole model -------------------------------------------------------------------


def masked(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    return lambda module, args: (args[0] * mask,)


@pytest.mark.parametrize("kind", ["attention", "feed_forward"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_removing_rows_equals_masking_them(tiny: Tiny, kind: str, share: float) -> None:
    smaller, full = copy.deepcopy(tiny.model), copy.deepcopy(tiny.model)
    for unit in (unit for unit in tiny.units if unit.kind == kind):
        keep = unit.at(pieces_to_keep(unit, share), unit.rows[0].rows)
        for weight in unit.rows:
            old: nn.Linear = tiny.model.get_submodule(weight.path)  # type: ignore[assignment]
            replace_(smaller, weight.path, old.weight[keep], old.bias[keep])
        for weight in unit.cols:
            old = tiny.model.get_submodule(weight.path)  # type: ignore[assignment]
            replace_(smaller, weight.path, old.weight[:, keep], old.bias)
            mask = torch.zeros(weight.columns).index_fill(0, keep, 1.0)
            full.get_submodule(weight.path).register_forward_pre_hook(masked(mask))
    batch = tiny.task.batch(tiny.task.test, range(8))
    assert_equal_answers(logits(smaller, batch), logits(full, batch))


def pieces_to_keep(unit: Unit, share: float) -> Tensor:
    """Random heads or neurons, `share` of them gone."""
    order = torch.randperm(unit.pieces, generator=torch.Generator().manual_seed(0))
    return order[round(unit.pieces * share) :].sort().values


@pytest.mark.parametrize("kind", ["attention", "feed_forward"])
def test_a_pruned_variant_is_the_masked_layer_with_refitted_columns(tiny: Tiny, kind: str) -> None:
    stitched = tiny.stitched_as(tiny.with_levels(**{kind: Level.of(0.5, 32)}))
    unit = tiny.unit(kind)
    keep = kept_rows(tiny, stitched.model, unit)
    full = copy.deepcopy(tiny.model)
    for weight in unit.cols:
        new: nn.Linear = stitched.model.get_submodule(weight.path)  # type: ignore[assignment]
        spread = torch.zeros(weight.rows, weight.columns)
        spread[:, keep] = new.weight.detach()
        replace_(full, weight.path, spread, new.bias)
    batch = tiny.task.batch(tiny.task.test, range(8))
    assert_equal_answers(logits(stitched.model, batch), logits(full, batch))


@pytest.mark.parametrize("kind", ["attention", "feed_forward"])
def test_what_a_higher_ratio_keeps_a_lower_ratio_keeps_too(tiny: Tiny, kind: str) -> None:
    unit = tiny.unit(kind)
    kept = []
    for ratio in unit.ratios:
        model = tiny.stitched_as(tiny.with_levels(**{kind: Level.of(ratio, 32)})).model
        rows = kept_rows(tiny, model, unit)
        assert torch.equal(rows, tiny.library.kept_rows(unit, ratio))
        kept.append(set(rows.tolist()))
        assert len(kept[-1]) == unit.kept(ratio) * unit.rows[0].rows // unit.pieces
    assert all(fewer <= more for more, fewer in itertools.pairwise(kept))


@pytest.mark.parametrize("kind", ["attention", "feed_forward"])
def test_what_is_kept_matters_more_than_what_is_removed(tiny: Tiny, kind: str) -> None:
    unit = tiny.unit(kind)
    keep = kept_rows(tiny, tiny.stitched_as(tiny.with_levels(**{kind: Level.of(0.5, 32)})).model, unit)
    pieces = tiny.library.kept(unit, 0.5)
    assert torch.equal(unit.at(pieces, unit.rows[0].rows), keep)
    rest = torch.tensor(sorted(set(range(unit.pieces)) - set(pieces.tolist())))
    made = [make_variants(unit, some, tiny.model, tiny.statistics) for some in (pieces, rest)]
    harms = [sum(harm_at(tiny, unit, tensors, weight) for weight in unit.cols) for tensors in made]
    assert 0 < harms[0] < harms[1]
    assert torch.equal(made[0]["keep"], pieces)
    for path, variant in tiny.library.variants(unit, Level.of(0.5, 32)).items():
        assert torch.equal(variant.value(), made[0][f"{path}.weight"])


def harm_at(tiny: Tiny, unit: Unit, tensors: Mapping[str, Tensor], col: Weight) -> float:
    """sum_o g_o E[(D x + c)^2]_o of a matrix that lost columns, in double precision."""
    path, columns = col.path, unit.at(tensors["keep"], col.columns)
    module: nn.Linear = tiny.model.get_submodule(path)  # type: ignore[assignment]
    seen = tiny.statistics[path]
    moment, mean, gradient = (tensor.double() for tensor in (seen.moment, seen.mean, seen.gradient))
    gap = -module.weight.detach().double()
    gap[:, columns] += tensors[f"{path}.weight"].double()
    moved = (tensors[f"{path}@32.bias"] - module.bias.detach()).double()
    error = ((gap @ moment) * gap).sum(1) + 2 * moved * (gap @ mean) + moved.square()
    return float(gradient @ error)


def kept_rows(tiny: Tiny, model: nn.Module, unit: Unit) -> Tensor:
    """Numbers of the teacher's rows that a stitched model still has, found by their values."""
    found = []
    for weight in unit.rows:
        teacher: Tensor = tiny.model.get_submodule(weight.path).weight  # type: ignore[assignment]
        mine: Tensor = model.get_submodule(weight.path).weight  # type: ignore[assignment]
        equal = (mine[:, None] == teacher[None]).all(-1)
        assert (equal.sum(1) == 1).all()
        found.append(equal.long().argmax(1))
    assert all(torch.equal(found[0], other) for other in found)
    return found[0]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(WIDTHS), st.integers(1, 9), st.sampled_from((8, 24, 50, 64)), st.floats(1e-4, 1e3))
def test_integers_keep_their_range_at_any_size_of_weight(
    bits: int, rows: int, columns: int, size: float
) -> None:
    weight = drawn(rows, columns) * size
    one: Integers = round_nearest(weight, bits=bits, group_size=8)
    assert int(one.codes.max()) <= 2**bits - 1
    assert torch.isfinite(one.dequantize()).all()
    assert (one.dequantize() - weight).abs().max() <= weight.abs().max()
