"""Scores against finite differences, damage against its definition, and what must not change either."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.compress.stitch import stitch
from autoprune.models.unit import Unit
from autoprune.sensitivity import fisher_scores
from autoprune.sensitivity.fisher_directions import DIRECTIONS, factor, of_classes
from autoprune.sensitivity.fisher_scores import Sensitivity, measure_sensitivity
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.space.storage import FLOAT_BITS
from tests.support.tiny import Tiny, assert_same_scores

ROWS, SEED = 10, 3


def measured(tiny: Tiny, units: tuple[Unit, ...] | None = None, *, seed: int = SEED) -> Sensitivity:
    return measure_sensitivity(
        tiny.model, units or tiny.units, tiny.library, tiny.task, tiny.task.train, rows=ROWS, seed=seed
    )


@pytest.fixture(scope="module")
def found(tiny: Tiny) -> Sensitivity:
    return measured(tiny)


def rows_of(tiny: Tiny, seed: int = SEED) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(tiny.task.train))[:ROWS]


def logits_alone(model: nn.Module, tiny: Tiny) -> Tensor:
    """Logits [r k] of the rows of `measured`, each in a batch of its own without padding."""
    out = []
    for row in rows_of(tiny):
        length = int(tiny.task.train.lengths[row])
        batch = tiny.task.batch(tiny.task.train, [row])
        with torch.no_grad():
            out.append(model(**{k: torch.from_numpy(x)[:, :length] for k, x in batch.items()}).logits[0])
    return torch.stack(out)


def changes(tiny: Tiny, unit: Unit, level: Level) -> dict[str, Tensor]:
    """What a level does to the teacher's parameters, in their shapes, by name; from the variants alone."""
    state = tiny.model.state_dict()
    out = {}
    for path, variant in tiny.library.variants(unit, level).items():
        old = state[f"{path}.weight"]
        new, bias = old.clone(), state[f"{path}.bias"].clone() if variant.bias is not None else None
        keep = tiny.library.kept_rows(unit, level.ratio)
        if path in {weight.path for weight in unit.cols}:
            new = torch.zeros_like(old)
            new[:, keep] = variant.value()
            bias = variant.bias
        elif variant.places is not None:
            new = variant.value()[variant.places]
        elif unit.prunable:
            new[keep] = variant.value()
            if bias is not None:
                bias[keep] = variant.bias
        else:
            new, bias = variant.value(), variant.bias
        out[f"{path}.weight"] = new - old
        if bias is not None:
            out[f"{path}.bias"] = bias - state[f"{path}.bias"]
    return out


def slopes(tiny: Tiny, moves: Mapping[str, Tensor], step: float = 1e-4) -> Tensor:
    """Change of the logits [r k] a unit of the move, by central differences in double precision."""
    ends = []
    for sign in (1, -1):
        model = copy.deepcopy(tiny.model).double()
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, move in moves.items():
                parameters[name] += sign * step * move.double()
        ends.append(logits_alone(model, tiny))
    return (ends[0] - ends[1]) / (2 * step)


def directions(logits: Tensor, rows: Sequence[int] | np.ndarray, seed: int) -> Tensor:
    """Those of some rows [r a k], each drawn by a generator of its own."""
    draws = [np.random.default_rng((seed, int(row))) for row in rows]
    return torch.stack(list(of_classes(logits, draws, DIRECTIONS)), 1)


def fisher(logits: Tensor) -> Tensor:
    p = logits.softmax(-1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def some_levels(unit: Unit) -> list[Level]:
    ratios = {unit.ratios[0], unit.ratios[-1], unit.ratios[len(unit.ratios) // 2]}
    return [Level.of(ratio, bits) for ratio in sorted(ratios) for bits in (4, FLOAT_BITS)]


def test_scores_are_finite_differences_of_the_logits(tiny: Tiny, found: Sensitivity) -> None:
    vectors = directions(logits_alone(tiny.model, tiny), range(ROWS), SEED).double()
    for unit in tiny.units:
        for level in some_levels(unit):
            slope = slopes(tiny, changes(tiny, unit, level))
            truth = torch.einsum("rak,rk->ra", vectors, slope).flatten().numpy()
            score = found.scores[unit.name][level]
            assert score.dtype == np.float32
            np.testing.assert_allclose(score, truth, rtol=2e-3, atol=2e-5 * (1 + abs(truth).max()))


def test_damage_is_half_the_fisher_norm_of_the_change(tiny: Tiny, found: Sensitivity) -> None:
    matrix = fisher(logits_alone(tiny.model, tiny).double())
    for unit in tiny.units:
        for level in some_levels(unit):
            slope = slopes(tiny, changes(tiny, unit, level))
            truth = 0.5 * float(torch.einsum("rk,rkl,rl->r", slope, matrix, slope).mean())
            assert found.damage()[unit.name][level] == pytest.approx(truth, rel=2e-3, abs=1e-12)


def test_the_damage_of_a_small_change_is_its_measured_divergence(tiny: Tiny, found: Sensitivity) -> None:
    teacher = logits_alone(copy.deepcopy(tiny.model).double(), tiny).log_softmax(-1)
    for unit in tiny.units:
        candidate = tiny.space.untouched().with_level(unit.name, Level.of(0.0, 8))
        model = stitch(tiny.model, tiny.units, candidate, tiny.library).model.double()
        student = logits_alone(model, tiny).log_softmax(-1)
        kl = float((teacher.exp() * (teacher - student)).sum(-1).mean())
        assert found.damage()[unit.name][Level.of(0.0, 8)] == pytest.approx(kl, rel=0.05)


def test_damage_falls_with_every_bit_more(tiny: Tiny, found: Sensitivity) -> None:
    for unit in tiny.units:
        by_bits = [
            found.damage()[unit.name][Level(0.0, storage)]
            for storage in reversed(unit.storages)
            if not storage.rounds_inputs
        ]
        assert all(more > less for more, less in itertools.pairwise(by_bits)), unit.name
        assert by_bits[0] > 10 * found.damage()[unit.name][Level.of(0.0, 8)] > 0


def test_damage_rises_with_the_ratio(tiny: Tiny, found: Sensitivity) -> None:
    for unit in tiny.units:
        by_ratio = [found.damage()[unit.name][Level.of(ratio, FLOAT_BITS)] for ratio in unit.ratios]
        assert by_ratio == sorted(by_ratio), unit.name
        assert not unit.cols or by_ratio[-1] > 2 * by_ratio[1] > 0
        assert not unit.by_token or by_ratio[-1] > 0  # the first to go are in none of the rows


def test_an_untouched_unit_does_nothing_at_all(tiny: Tiny, found: Sensitivity) -> None:
    for unit in tiny.units:
        assert not found.scores[unit.name][UNTOUCHED].any()
        assert found.damage()[unit.name][UNTOUCHED] == 0.0


def test_every_level_of_every_unit_is_scored(tiny: Tiny, found: Sensitivity) -> None:
    for unit, choices in zip(tiny.units, tiny.space.units, strict=True):
        assert set(found.scores[unit.name]) == set(choices.levels())
        assert {len(score) for score in found.scores[unit.name].values()} == {ROWS * 2}  # 3 classes


@pytest.mark.parametrize("batch", [1, 4])
def test_batches_make_no_difference(
    tiny: Tiny, found: Sensitivity, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoprune.sensitivity.fisher_directions.BATCH", batch)
    assert_same_scores(measured(tiny), found)


def test_who_does_which_units_makes_no_difference(tiny: Tiny, found: Sensitivity) -> None:
    parts = [measured(tiny, tiny.units[k::3]) for k in range(3)]
    merged = Sensitivity.merged(parts)
    assert_same_scores(merged, found)
    assert merged.together(tiny.mixed) == pytest.approx(found.together(tiny.mixed), rel=1e-4)


def test_little_memory_makes_no_difference(
    tiny: Tiny, found: Sensitivity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fisher_scores, "CHANGES_BYTES", 1)
    assert_same_scores(measured(tiny), found)


def test_the_seed_settles_the_rows(tiny_bert: Tiny) -> None:
    first, again, other = (measured(tiny_bert, seed=seed) for seed in (0, 0, 1))
    level, unit = Level.of(0.0, 4), tiny_bert.units[0].name
    for name, table in first.scores.items():
        for key, score in table.items():
            np.testing.assert_array_equal(score, again.scores[name][key])
    assert not np.allclose(first.scores[unit][level], other.scores[unit][level])


def test_the_model_is_left_as_it_was(tiny_bert: Tiny) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_bert.model.state_dict().items()}
    tiny_bert.model.train()
    try:
        measured(tiny_bert, tiny_bert.units[:1])
        assert tiny_bert.model.training
    finally:
        tiny_bert.model.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_bert.model.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_bert.model.parameters())
    assert not any(module._forward_hooks for module in tiny_bert.model.modules())


def test_units_together_add_their_scores() -> None:
    level = Level.of(0.5, 4)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8)).astype(np.float32)
    zero = np.zeros(8, np.float32)
    both = Sensitivity({"a": {UNTOUCHED: zero, level: a}, "b": {UNTOUCHED: zero, level: b}})
    alone = both.damage()
    expected = alone["a"][level] + alone["b"][level] + float(np.mean(a * b))
    assert both.together(Candidate((("a", level), ("b", level)))) == pytest.approx(expected, rel=1e-5)
    single = both.together(Candidate((("a", level), ("b", UNTOUCHED))))
    assert single == pytest.approx(alone["a"][level], rel=1e-12)
    assert both.together(Candidate((("a", UNTOUCHED), ("b", UNTOUCHED)))) == 0.0


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("sharpness", [0.1, 3.0, 40.0])
def test_few_classes_are_factored_exactly(classes: int, sharpness: float) -> None:
    torch.manual_seed(classes)
    given = torch.randn(64, classes) * sharpness
    vectors = factor(given.softmax(-1))
    assert vectors.shape == (64, classes - 1, classes)
    torch.testing.assert_close(vectors.mT @ vectors, fisher(given), rtol=1e-4, atol=1e-6)
    drawn = directions(given, np.arange(64), 0)
    torch.testing.assert_close(drawn.mT @ drawn / (classes - 1), fisher(given), rtol=1e-4, atol=1e-6)


def test_a_certain_teacher_gives_finite_directions() -> None:
    certain = torch.tensor([[200.0, 0.0, -200.0], [0.0, 200.0, -200.0], [-200.0, 0.0, 200.0]])
    assert torch.isfinite(factor(certain.softmax(-1))).all()


def test_two_classes_have_one_direction() -> None:
    p = torch.tensor([[0.9, 0.1]])
    torch.testing.assert_close(factor(p), torch.tensor([[[0.3, -0.3]]]))


def test_many_classes_have_the_fisher_as_expectation() -> None:
    given = torch.randn(1, 7, generator=torch.Generator().manual_seed(0)).expand(20_000, 7)
    drawn = directions(given, np.arange(20_000), 0)
    mean = torch.einsum("bak,bal->kl", drawn, drawn) / (20_000 * drawn.shape[1])
    torch.testing.assert_close(mean, fisher(given[:1])[0], rtol=0.0, atol=3e-3)
    one_by_one = torch.cat([directions(given[:1], np.array([k]), 0) for k in range(5)])
    torch.testing.assert_close(drawn[:5], one_by_one)
