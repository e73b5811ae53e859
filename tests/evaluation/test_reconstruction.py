"""Layer-wise reconstruction: what it refits, what it leaves, and that it is the ridge regression it says."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.compress.integers import Integers
from autoprune.compress.stitch import Stitched
from autoprune.evaluation import reconstruction
from autoprune.evaluation.layer_refit import RIDGES
from autoprune.evaluation.reconstruction import reconstruct_
from autoprune.models.walk import Walk, pausing
from autoprune.space.levels import Candidate, Level
from autoprune.tasks import kinds
from autoprune.tasks.task import Arrays, Task
from tests.support.stored import half_of, integers_of
from tests.support.tiny import Tiny


def reconstructed(tiny: Tiny, stitched: Stitched, *, seed: int = 0) -> Stitched:
    again = Stitched(**{**vars(stitched), "model": copy.deepcopy(stitched.model)})
    return reconstruct_(again, tiny.model, tiny.task, tiny.task.train, rows=24, seed=seed)


def outputs_of_first_layers(tiny: Tiny, model: nn.Module, path: str) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda m, x, y: seen.append(y.detach()))
    inputs = {k: torch.from_numpy(x) for k, x in tiny.task.batch(tiny.task.train, np.arange(8)).items()}
    model(**inputs)
    handle.remove()
    return seen[0]


@pytest.fixture(scope="module")
def before(tiny: Tiny) -> Stitched:
    """A candidate with every kind of level."""
    return tiny.stitched_as(tiny.mixed.with_level(tiny.units[-2].name, Level.of(0.0, 16)))


@pytest.fixture(scope="module")
def after(tiny: Tiny, before: Stitched) -> Stitched:
    return reconstructed(tiny, before)


def test_what_is_stored_is_what_computes(after: Stitched) -> None:
    for path, integers in integers_of(after).items():
        weight: Tensor = after.model.get_submodule(path).weight  # type: ignore[assignment]
        assert torch.equal(integers.dequantize(), weight), path
        assert int(integers.codes.max()) <= 2**integers.bits - 1, path
    for path in half_of(after):
        half: Tensor = after.model.get_submodule(path).weight  # type: ignore[assignment]
        assert torch.equal(half.half().float(), half), path


def test_storages_shapes_and_levels_stay(before: Stitched, after: Stitched) -> None:
    assert after.levels == before.levels
    assert after.activations == before.activations
    assert integers_of(after).keys() == integers_of(before).keys()
    for path, integers in integers_of(before).items():
        new = integers_of(after)[path]
        assert (new.bits, new.shape, new.scale.shape) == (integers.bits, integers.shape, integers.scale.shape)
        assert new.is_symmetric == integers.is_symmetric
    mine, theirs = before.model.state_dict(), after.model.state_dict()
    assert {name: x.shape for name, x in mine.items()} == {name: x.shape for name, x in theirs.items()}


def test_the_teacher_and_all_that_is_no_layer_stay_as_they_are(tiny: Tiny, before: Stitched) -> None:
    teacher = copy.deepcopy(tiny.model.state_dict())
    after = reconstructed(tiny, before)
    assert all(torch.equal(teacher[name], x) for name, x in tiny.model.state_dict().items())
    touched = {f"{path}.{part}" for path in before.touched for part in ("weight", "bias")}
    for name, x in before.model.state_dict().items():
        is_layer = name in touched and isinstance(
            before.model.get_submodule(name.rpartition(".")[0]), nn.Linear
        )
        if not is_layer:
            assert torch.equal(after.model.state_dict()[name], x), name


def test_the_same_seed_gives_the_same_bits(tiny: Tiny, before: Stitched, after: Stitched) -> None:
    again = reconstructed(tiny, before)
    assert all(torch.equal(after.model.state_dict()[k], x) for k, x in again.model.state_dict().items())


def test_no_thread_and_no_hook_is_left(tiny: Tiny, before: Stitched) -> None:
    threads = threading.active_count()
    after = reconstructed(tiny, before)
    assert threading.active_count() == threads
    for model in (after.model, tiny.model):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_each_layer_comes_nearer_to_the_teachers(tiny_bert: Tiny) -> None:
    stitched = tiny_bert.stitched(Level.of(0.0, 2))
    after = reconstructed(tiny_bert, stitched)
    last = [p for p in stitched.touched if isinstance(stitched.model.get_submodule(p), nn.Linear)][-1]
    wanted = outputs_of_first_layers(tiny_bert, tiny_bert.model, last)
    gaps = [
        float((outputs_of_first_layers(tiny_bert, model, last) - wanted).square().mean())
        for model in (stitched.model, after.model)
    ]
    assert gaps[1] < gaps[0]


# ---- floats -------------------------------------------------------------------------------------


class TwoLayers(nn.Module):
    """A linear layer, an activation, and another linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


def test_a_float_layer_is_the_ridge_regression_on_its_own_inputs() -> None:
    torch.manual_seed(0)
    teacher = TwoLayers()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.first.weight.add_(0.3 * torch.randn(8, 6))
    old = student.second.weight.detach().clone()
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    data = Arrays({"x": x}, np.zeros(200, np.int64))
    kind = kinds.IMAGE_CLASSIFICATION
    task = Task(data, data, data, ("a", "b", "c"), ("x",), 0, kind, kind.usual_metric)
    stitched = Stitched(student, {}, Candidate(()), touched=("second",))
    reconstruct_(stitched, teacher, task, data, rows=200, seed=0)
    with torch.no_grad():
        inner = torch.tanh(student.first(torch.from_numpy(x)))
        wanted = teacher(torch.from_numpy(x))
        centred, off = inner - inner.mean(0), wanted - inner @ old.T
        gram = centred.T @ centred / 200
        gram += RIDGES[0] * gram.diagonal().mean() * torch.eye(8)
        change = torch.linalg.solve(gram, centred.T @ (off - off.mean(0)) / 200).T
    torch.testing.assert_close(student.second.weight.detach(), old + change, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(student(torch.from_numpy(x)).mean(0), wanted.mean(0), rtol=1e-3, atol=1e-4)


# ---- a pass that pauses -------------------------------------------------------------------------


def test_a_pass_pauses_before_or_after_each_layer_and_sees_changes_made_meanwhile() -> None:
    model, x = TwoLayers(), torch.ones(1, 6)
    ends: list[Tensor] = []
    with pausing(model, ["first", "second"], before=True):
        walk = Walk(lambda: ends.append(model(x)))
        pause = walk.advance()
        assert pause is not None
        assert pause.path == "first"
        assert pause.tensor is x
        pause = walk.advance()
        assert pause is not None
        assert pause.path == "second"
        model.second.weight.data.zero_()
        assert walk.advance() is None
        assert walk.advance() is None
    assert torch.equal(ends[0][0], model.second.bias)


def test_what_a_pass_raises_is_raised_where_it_is_waited_for() -> None:
    def fails() -> None:
        raise ValueError("no such batch")

    with pytest.raises(ValueError, match="no such batch"):
        Walk(fails).advance()


def test_a_pass_that_is_closed_ends() -> None:
    model, threads = TwoLayers(), threading.active_count()
    with pausing(model, ["first"], before=False):
        never_begun, begun = (Walk(lambda: model(torch.ones(1, 6))) for _ in range(2))
        begun.advance()
        never_begun.close()
        begun.close()
    assert threading.active_count() == threads


def test_layers_with_the_same_input_are_refitted_as_if_each_had_its_own(
    tiny: Tiny, before: Stitched, after: Stitched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoprune.evaluation.layer_refit.LayerRefit._shares", lambda layer, x: False)
    apart = reconstructed(tiny, before)
    assert all(torch.equal(after.model.state_dict()[k], x) for k, x in apart.model.state_dict().items())


def test_layers_as_wide_as_a_vocabulary_are_left_as_they_are(
    tiny: Tiny, before: Stitched, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {path: weight.shape[0] for path, weight in integers_of(before).items()}
    monkeypatch.setattr(reconstruction, "WIDEST", max(rows.values()))
    now = integers_of(reconstructed(tiny, before))
    changed = {path for path, weight in integers_of(before).items() if not same(weight, now[path])}
    assert changed
    assert all(rows[path] < max(rows.values()) for path in changed)


def same(one: Integers, other: Integers) -> bool:
    return all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())
