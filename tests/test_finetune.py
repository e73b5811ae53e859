"""The brief fine-tune: what may move, what may not, and that what is stored is what computes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import Tiny
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.finetune import Recipe, finetune
from autoprune.measure import logits_of
from autoprune.space import Level
from autoprune.stitch import Stitched
from autoprune.targets.packed import torch_runner
from autoprune.task import divergence

FEW = Recipe(steps=6, batch_size=8, learning_rate=3e-3)
MANY = Recipe(steps=80, batch_size=24, learning_rate=2e-3)


def sure_teacher(tiny: Tiny) -> NDArray[np.float32]:
    """Logits that say each row's label almost surely: far from any random model."""
    return np.eye(3, dtype=np.float32)[tiny.task.train.labels] * 6


def own_logits(tiny: Tiny, model: nn.Module) -> NDArray[np.float32]:
    return logits_of(torch_runner(model), tiny.task, tiny.task.train)


def distance(tiny: Tiny, one: Stitched, teacher: NDArray[np.float32]) -> float:
    return divergence(own_logits(tiny, one.model), teacher)


def tuned(tiny: Tiny, stitched: Stitched, recipe: Recipe = FEW, *, seed: int = 0) -> Stitched:
    return finetune(stitched, tiny.task, tiny.task.train, sure_teacher(tiny), recipe, seed=seed)


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def weight_at(stitched: Stitched, path: str) -> Tensor:
    weight: Tensor = stitched.model.get_submodule(path).weight  # type: ignore[assignment]
    return weight


def is_embedding(stitched: Stitched, path: str) -> bool:
    return isinstance(stitched.model.get_submodule(path), nn.Embedding)


@pytest.fixture(scope="module")
def before(tiny: Tiny) -> Stitched:
    """A candidate with every kind of level."""
    candidate = tiny.mixed.with_level(tiny.units[-2].name, Level(0.0, 16))
    return tiny.stitched_as(candidate)


@pytest.fixture(scope="module")
def after(tiny: Tiny, before: Stitched) -> Stitched:
    """That candidate after a few steps."""
    return tuned(tiny, before)


def test_no_steps_give_the_same_model(tiny: Tiny, before: Stitched) -> None:
    assert tuned(tiny, before, Recipe(steps=0, batch_size=8, learning_rate=1e-3)) is before


def test_integers_are_within_range_and_are_exactly_what_computes(after: Stitched) -> None:
    for path, one in after.integers.items():
        assert int(one.codes.max()) <= 2**one.bits - 1, path
        assert one.codes.dtype == one.zero.dtype == torch.uint8
        assert one.scale.dtype == torch.float16
        assert torch.equal(one.dequantize(), weight_at(after, path)), path


def test_half_weights_are_still_half_floats(after: Stitched) -> None:
    assert after.half
    for path in after.half:
        assert torch.equal(weight_at(after, path).half().float(), weight_at(after, path)), path


def test_scales_zero_points_bits_and_levels_stay(before: Stitched, after: Stitched) -> None:
    assert after.integers.keys() == before.integers.keys()
    assert after.half == before.half
    assert after.levels == before.levels
    for path, one in before.integers.items():
        assert torch.equal(after.integers[path].scale, one.scale)
        assert torch.equal(after.integers[path].zero, one.zero)
        assert after.integers[path].bits == one.bits


def test_the_result_has_the_inputs_modules_and_shapes(before: Stitched, after: Stitched) -> None:
    mine, theirs = before.model.state_dict(), after.model.state_dict()
    assert {name: x.shape for name, x in mine.items()} == {name: x.shape for name, x in theirs.items()}
    for path in before.integers:
        assert type(after.model.get_submodule(path)) in (nn.Linear, nn.Embedding)
    assert not after.model.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in after.model.parameters())


def test_the_input_is_left_as_it_is(tiny: Tiny, before: Stitched) -> None:
    model, integers = copy.deepcopy(before.model), copy.deepcopy(before.integers)
    floats = copy.deepcopy(before.floats)
    tuned(tiny, before)
    assert states_equal(before.model, model)
    assert all(p.requires_grad and p.grad is None for p in before.model.parameters())
    assert all(torch.equal(before.integers[p].codes, integers[p].codes) for p in integers)
    assert all(torch.equal(before.floats[p], floats[p]) for p in floats)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    tiny: Tiny, before: Stitched, after: Stitched
) -> None:
    again = tuned(tiny, before)
    assert states_equal(again.model, after.model)
    assert all(torch.equal(again.integers[p].codes, after.integers[p].codes) for p in after.integers)
    assert not states_equal(tuned(tiny, before, seed=1).model, after.model)


def test_the_global_random_state_does_not_matter(tiny: Tiny, before: Stitched, after: Stitched) -> None:
    torch.manual_seed(123)
    np.random.seed(123)
    assert states_equal(tuned(tiny, before).model, after.model)


def test_embeddings_are_not_touched(before: Stitched, after: Stitched) -> None:
    tables = [path for path, m in before.model.named_modules() if isinstance(m, nn.Embedding)]
    assert len(tables) >= 2
    for path in tables:
        assert torch.equal(weight_at(after, path), weight_at(before, path)), path


def test_the_gradient_reaches_every_weight_through_its_rounding(before: Stitched, after: Stitched) -> None:
    for path, one in before.integers.items():
        if not is_embedding(before, path):
            assert not torch.equal(after.integers[path].codes, one.codes), path
    for path in before.half:
        if not is_embedding(before, path):
            assert not torch.equal(weight_at(after, path), weight_at(before, path)), path
    moved = dict(after.model.named_parameters())
    for name, old in before.model.named_parameters():
        if name.endswith("bias") and ".k_lin." not in name and ".key." not in name:
            assert not torch.equal(old, moved[name]), name  # softmax cannot see a key's bias


def test_a_step_too_small_to_turn_a_code_keeps_the_librarys_codes(tiny: Tiny, before: Stitched) -> None:
    still = tuned(tiny, before, Recipe(steps=2, batch_size=8, learning_rate=1e-12))
    for path, one in before.integers.items():
        assert torch.equal(still.integers[path].codes, one.codes), path


def test_a_model_of_floats_alone_trains_too(tiny_bert: Tiny) -> None:
    stitched = tiny_bert.stitched_as(tiny_bert.space.untouched())
    result = tuned(tiny_bert, stitched)
    assert not result.integers
    assert not states_equal(result.model, stitched.model)


def test_with_many_steps_on_few_rows_it_learns_what_the_teacher_says(tiny: Tiny) -> None:
    stitched, teacher = tiny.stitched(Level(0.5, 3)), sure_teacher(tiny)
    result = tuned(tiny, stitched, MANY)
    assert distance(tiny, stitched, teacher) > 1.0
    assert distance(tiny, result, teacher) < 0.2 * distance(tiny, stitched, teacher)


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 1e-1, 10.0])
def test_no_learning_rate_makes_it_worse_on_the_rows_it_saw(tiny_bert: Tiny, rate: float) -> None:
    stitched = tiny_bert.stitched(Level(0.0, 4))
    teacher = own_logits(tiny_bert, tiny_bert.model)
    recipe = Recipe(steps=6, batch_size=8, learning_rate=rate)
    data = tiny_bert.task.train
    result = finetune(stitched, tiny_bert.task, data, teacher, recipe, seed=0)
    assert distance(tiny_bert, result, teacher) <= distance(tiny_bert, stitched, teacher)


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_is_the_teacher_already_can_be_tuned(tiny_bert: Tiny, seed: int) -> None:
    stitched = tiny_bert.stitched_as(tiny_bert.space.untouched())
    noise = np.random.default_rng(seed).normal(0, 1e-7, (24, 3)).astype(np.float32)
    teacher = own_logits(tiny_bert, tiny_bert.model) + noise
    result = finetune(stitched, tiny_bert.task, tiny_bert.task.train, teacher, FEW, seed=0)
    assert distance(tiny_bert, result, teacher) < 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_teacher_that_is_not_finite_is_an_error(tiny_bert: Tiny, bad: float) -> None:
    stitched = tiny_bert.stitched(Level(0.0, 4))
    teacher = np.full((24, 3), bad, np.float32)
    with pytest.raises(FloatingPointError, match=r"nan|inf"):
        finetune(stitched, tiny_bert.task, tiny_bert.task.train, teacher, FEW, seed=0)


def test_a_learning_rate_that_blows_up_is_an_error_with_its_step(tiny_bert: Tiny) -> None:
    stitched = tiny_bert.stitched(Level(0.0, 32))
    recipe = Recipe(steps=8, batch_size=8, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"loss became (nan|inf) at fine-tune step \d"):
        tuned(tiny_bert, stitched, recipe)


def test_every_step_is_made_within_the_room(tiny_bert: Tiny) -> None:
    entered = []

    @contextlib.contextmanager
    def room() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    stitched = tiny_bert.stitched(Level(0.0, 4))
    data = tiny_bert.task.train
    finetune(stitched, tiny_bert.task, data, sure_teacher(tiny_bert), FEW, seed=0, step_room=room)
    assert len(entered) >= 2 * FEW.steps
    assert entered == ["in", "out"] * (len(entered) // 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_it_trains_and_the_result_comes_back_whole(tiny: Tiny, before: Stitched) -> None:
    teacher, cuda = sure_teacher(tiny), torch.device("cuda")
    result = finetune(before, tiny.task, tiny.task.train, teacher, MANY, seed=0, device=cuda)
    assert all(p.device.type == "cpu" for p in result.model.parameters())
    for path, one in result.integers.items():
        assert one.codes.device.type == "cpu"
        assert torch.equal(one.dequantize(), weight_at(result, path)), path
    assert distance(tiny, result, teacher) < 0.2 * distance(tiny, before, teacher)
