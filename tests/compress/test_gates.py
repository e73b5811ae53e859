"""Learned gates: the share that is closed, what they find, and that a model stays as it was."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import hypothesis
import hypothesis.strategies as some
import pytest
import torch

from autoprune.compress.gates import learn_gates, with_closed
from autoprune.compress.importance import learned_gates
from autoprune.compress.removal import pieces_of
from autoprune.compress.statistics import Statistics
from autoprune.models.layer_io import matrix_of
from tests.support.tiny import Tiny

KINDS = ("attention", "feed_forward")


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    gates=some.lists(some.floats(-20, 20), min_size=2, max_size=50), share=some.floats(0.02, 0.98)
)
def test_gates_are_shifted_together_until_this_share_is_closed(gates: list[float], share: float) -> None:
    given = torch.tensor(gates)
    shifted = with_closed(given, share)
    torch.testing.assert_close(shifted - given, torch.full_like(given, float(shifted[0] - given[0])))
    # of the hard concrete distribution (arXiv 1712.01312, eq. 12): a gate is not 0 with this probability
    shift = 2 / 3 * math.log(0.1 / 1.1)
    is_open = [1 / (1 + math.exp(-(float(gate) - shift))) for gate in shifted]
    assert sum(is_open) / len(is_open) == pytest.approx(1 - share, abs=1e-3)


def means_of(tiny: Tiny) -> dict[str, torch.Tensor]:
    return {path: seen.mean for path, seen in tiny.statistics.items()}


def without_some(tiny: Tiny, kind: str) -> tuple[Tiny, list[int]]:
    """The model with every other piece of a unit read by nobody, and the numbers of these pieces."""
    unit, model = tiny.unit(kind), copy.deepcopy(tiny.model)
    unread = list(range(0, unit.pieces, 2))
    for weight in unit.cols:
        each = weight.columns // unit.pieces
        matrix = matrix_of(model.get_submodule(weight.path))
        with torch.no_grad():
            matrix *= 20.0  # or what is read would hardly matter, either, to a random model
            for piece in unread:
                matrix[:, piece * each : (piece + 1) * each] = 0
    return replace(tiny, model=model), unread


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_that_nobody_reads_are_worth_the_least(tiny: Tiny, kind: str) -> None:
    changed, unread = without_some(tiny, kind)
    unit = changed.unit(kind)
    learned = learn_gates(
        changed.model, [unit], tiny.task, tiny.task.train, means_of(changed), seed=0, steps=40
    )[unit.name]
    read = [piece for piece in range(unit.pieces) if piece not in unread]
    assert float(learned[unread].mean()) < float(learned[read].mean())
    if kind == "attention":  # four heads; of 256 neurons many only undo what others of a random model do
        assert float(learned[unread].max()) < float(learned[read].min())


def test_the_model_and_what_follows_from_a_seed_stay(tiny_bert: Tiny) -> None:
    model, units = tiny_bert.model, [tiny_bert.unit(kind) for kind in KINDS]
    model.train()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = [
        learn_gates(
            model, units, tiny_bert.task, tiny_bert.task.train, means_of(tiny_bert), seed=seed, steps=3
        )
        for seed in (1, 1, 2)
    ]
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()].count(False) == 1
    first.requires_grad_(True)
    model.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [len(found[0][unit.name]) for unit in units] == [unit.pieces for unit in units]
    assert all(torch.equal(found[0][unit.name], found[1][unit.name]) for unit in units)
    assert not torch.equal(found[0][units[0].name], found[2][units[0].name])


def test_scores_are_what_was_learned_and_are_read_back(tiny_bert: Tiny) -> None:
    unit = tiny_bert.unit("feed_forward")
    path, learned = unit.cols[0].path, torch.randn(unit.pieces)
    seen = dict(tiny_bert.statistics)
    seen[path] = Statistics.from_arrays(replace(seen[path], gates=learned).arrays())
    assert torch.equal(learned_gates(pieces_of(unit, tiny_bert.model, seen)), learned)
    with pytest.raises(ValueError, match="no gates were trained"):
        learned_gates(pieces_of(unit, tiny_bert.model, tiny_bert.statistics))
