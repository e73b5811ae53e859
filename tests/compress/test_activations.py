"""8-bit activations: their grid, the layers that compute on it, and what they cost."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
import torch

from autoprune.compress.activations import TOP, Activations, RoundedInput, integer_class
from autoprune.compress.gptq import round_compensated
from autoprune.compress.integers import PRODUCT_REACH
from autoprune.compress.stitch import stitch
from autoprune.core.errors import AutopruneError
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.sensitivity.fisher_scores import measure_sensitivity
from autoprune.space.levels import UNTOUCHED, Candidate, Choices, Level, SearchSpace
from autoprune.space.space_file import read_space
from autoprune.space.storage import STATIC8, storages_of
from autoprune.tasks.answers import Answers, divergence
from tests.support.stored import integers_of
from tests.support.tiny import Tiny, logits

quick = hypothesis.settings(deadline=None, max_examples=60)
ends = some.floats(-50.0, 50.0)
W8A8 = Level.of(0.0, "w8a8")


# ---- the grid -----------------------------------------------------------------------------------


@quick
@hypothesis.given(ends, ends)
def test_a_grid_holds_its_ends_and_zero_and_is_no_coarser_than_it_must_be(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    grid = Activations.of(low, high)
    assert 0 <= grid.zero <= TOP
    x = torch.tensor([low, high, 0.0])
    gap = (grid.round(x) - x).abs()
    assert gap[2] == 0.0
    assert gap.max() <= grid.scale * 1.001  # the zero point is a whole number, which may move both ends
    assert grid.scale <= max((max(high, 0.0) - min(low, 0.0)) / TOP, 1e-8) * 1.001


def test_within_its_range_a_grid_is_off_by_half_a_step_and_beyond_it_clips() -> None:
    grid = Activations.of(-1.0, 3.0)
    x = torch.linspace(-1.0, 3.0, 1001)
    assert (grid.round(x) - x).abs().max() <= grid.scale * 0.501 + grid.scale  # at the ends
    assert (grid.round(x[5:-5]) - x[5:-5]).abs().max() <= grid.scale * 0.501
    assert grid.round(torch.tensor([99.0, -99.0])).tolist() == pytest.approx([3.0, -1.0], abs=grid.scale)


def test_the_gradient_passes_within_the_range() -> None:
    x = torch.tensor([-5.0, 0.3, 5.0], requires_grad=True)
    Activations.of(-1.0, 1.0).round(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


# ---- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_symmetric_integers_have_one_scale_a_row_and_no_zero_point(seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(12, 40) * torch.logspace(-3, 2, 12)[:, None]
    (one,) = round_compensated(weight, torch.eye(40), bits=[8], group_size=40, reach=PRODUCT_REACH)
    assert one.is_symmetric
    assert one.scale.shape == (12, 1)
    assert (one.zero == 128).all()
    assert one.codes.min() == 64  # the farthest that is safe, either way
    assert one.codes.max() == 192
    assert 2 * 255 * PRODUCT_REACH < 2**15  # two products with inputs of 8 bits, added in 16
    gap = (one.dequantize() - weight).abs() / one.scale.float()
    assert gap.median() <= 0.51
    plain = round_compensated(weight, torch.eye(40), bits=[8], group_size=40)[0]
    assert not plain.is_symmetric
    assert plain.ends == (0, 255)


# ---- levels -------------------------------------------------------------------------------------


def written(choices: Choices) -> list[int | str]:
    return [storage.written for storage in choices.storages]


def test_a_level_with_8_bit_activations_stands_beside_8_bits_and_reads_back() -> None:
    one = Choices("a", (0.0, 0.5), storages_of((4, 8, 32, "w8a8")))
    assert written(one) == [32, 8, "w8a8", 4]
    assert [str(level) for level in one.levels()][:4] == ["0x32b", "0x8b", "0xw8a8", "0x4b"]
    candidate = Candidate((("a", Level.of(0.5, "w8a8")), ("b", UNTOUCHED)))
    assert candidate.params() == {"a.ratio": 0.5, "a.bits": "w8a8", "b.ratio": 0.0, "b.bits": 32}
    assert Candidate.from_params(candidate.params()) == candidate
    assert written(Choices("a", (0.0,), storages_of((4, 32, "w8a8")))) == [32, "w8a8", 4]


def test_where_it_is_not_offered_8_bits_are_nearest() -> None:
    space = SearchSpace(
        (Choices("a", (0.0,), storages_of((4, 8, 32, "w8a8"))), Choices("b", (0.0,), storages_of((4, 8, 32))))
    )
    assert [str(level) for _, level in space.uniform(W8A8).items] == ["0xw8a8", "0x8b"]
    with pytest.raises(AutopruneError, match="b: level 0xw8a8 is not offered"):
        space.check(Candidate((("a", W8A8), ("b", W8A8))))
    assert [written(unit) for unit in space.only({*storages_of((4, 8))}).units] == [[32, 8, 4]] * 2
    assert [written(unit) for unit in space.only({STATIC8}).units] == [[32, "w8a8"], [32]]


def test_a_space_that_asks_for_it_without_8_bits_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "version: 1\nunits:\n  a: {at: x.*, quantize: {bits: [4], activations: 8}}\n", encoding="utf-8"
    )
    with pytest.raises(AutopruneError, match="`activations: 8` goes with 8-bit weights"):
        read_space(path)


# ---- models -------------------------------------------------------------------------------------


def test_a_stitched_model_rounds_the_inputs_of_the_layers_it_says_and_no_others(tiny: Tiny) -> None:
    stitched = tiny.stitched_as(tiny.with_levels(attention=Level.of(0.5, "w8a8")))
    unit = tiny.unit("attention")
    assert set(stitched.activations) == {weight.path for weight in unit.weights}
    for path, grid in stitched.activations.items():
        layer = stitched.model.get_submodule(path)
        assert isinstance(layer, RoundedInput)
        assert type(layer) is integer_class(torch.nn.Linear)
        assert isinstance(layer, torch.nn.Linear)
        x = torch.randn(3, layer.in_features)
        wanted = torch.nn.functional.linear(grid.round(x), layer.weight, layer.bias)
        assert torch.equal(layer(x), wanted)
        assert integers_of(stitched)[path].is_symmetric


def test_a_convolution_rounds_its_input_too() -> None:
    plain = torch.nn.Conv2d(3, 4, 3, padding=1)
    layer = integer_class(torch.nn.Conv2d)(3, 4, 3, padding=1)
    layer.load_state_dict(plain.state_dict())
    layer.activations = grid = Activations.of(-1.0, 2.0)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(layer(x), plain(grid.round(x)))
    assert not torch.equal(layer(x), plain(x))


def test_the_grid_of_columns_that_stay_is_no_wider_than_that_of_all(tiny: Tiny) -> None:
    """What a removed neuron said need not be held."""
    unit = tiny.unit("feed_forward")
    col = unit.cols[0].path
    grids = [
        tiny.stitched_as(tiny.with_levels(feed_forward=Level.of(ratio, "w8a8"))).activations.get(col)
        for ratio in unit.ratios
    ]
    assert unit.ratios[-1] == 1.0
    assert grids.pop() is None  # with nothing left there is nothing to round
    scales = [grid.scale for grid in grids if grid is not None]
    assert len(scales) == len(grids)
    assert scales == sorted(scales, reverse=True)


def test_its_damage_counts_what_rounding_inputs_does(tiny: Tiny) -> None:
    """The prediction follows what is measured when grids are made coarser, weights being the same."""
    space_unit = tiny.unit("feed_forward")
    found = measure_sensitivity(
        tiny.model, [space_unit], tiny.library, tiny.task, tiny.task.train, rows=24, seed=0
    ).damage()[space_unit.name]
    assert found[W8A8] > found[Level.of(0.0, 8)]
    batch = tiny.task.batch(tiny.task.train, list(range(24)))
    plain = logits(tiny.model, batch).numpy()
    candidate = tiny.with_levels(feed_forward=W8A8)
    moved = logits(stitch(tiny.model, tiny.units, candidate, tiny.library).model, batch).numpy()
    assert found[W8A8] == pytest.approx(divergence(moved, plain), rel=1.0)


def test_a_fine_tune_keeps_the_grids_and_the_signs(tiny: Tiny) -> None:
    before = tiny.stitched(W8A8)
    sure = Answers.plain(np.eye(3, dtype=np.float32)[tiny.task.train.labels] * 6)
    after = finetune(before, Lesson(tiny.task, tiny.task.train, sure), Recipe(6, 8, 3e-3), seed=0)
    assert after is not before
    assert after.activations == before.activations
    for path, integers in integers_of(after).items():
        if path in after.activations:
            assert integers.is_symmetric
            assert integers.codes.min() >= 1
            assert torch.equal(after.model.get_submodule(path).weight, integers.dequantize())
