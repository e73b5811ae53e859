"""Scores of importance: each against a slow or closed form, and what a unit keeps by them."""

from __future__ import annotations

import itertools
import json
import math
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.compress.importance import IMPORTANCES, Pieces, taylor
from autoprune.compress.library import Library
from autoprune.compress.library_folder import VERSION, Note, holdings
from autoprune.compress.prune_obs import Reader, removal_order
from autoprune.compress.removal import pieces_of
from autoprune.compress.statistics import Statistics, calibrate
from autoprune.compress.stitch import stitch
from autoprune.evaluation.measure import logits_of
from autoprune.models.unit import Unit
from autoprune.space.levels import Level
from autoprune.space.space_file import Importance
from autoprune.space.storage import storages_of
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from tests.support.tiny import Tiny

ROWS, PIECES, EACH, TOKENS = 5, 6, 4, 40
quick = hypothesis.settings(deadline=None, max_examples=25)


def reader(seed: int, *, outputs: int = 7) -> tuple[Reader, Tensor]:
    """A weight and the statistics of random inputs, with these inputs [t i]."""
    torch.manual_seed(seed)
    i = PIECES * EACH
    x = torch.randn(TOKENS, i) @ torch.randn(i, i) + torch.randn(i)
    seen = Reader(
        torch.randn(outputs, i), x.T @ x / TOKENS, x.mean(0), torch.rand(outputs), torch.randn(ROWS, i)
    )
    return seen, x


def pieces(seed: int = 0) -> Pieces:
    first, second = reader(seed)[0], reader(seed + 1000, outputs=3)[0]
    makers = (torch.randn(PIECES * EACH, 9), torch.randn(PIECES * 2, 5))
    return Pieces(makers, (first, second), PIECES, step=1, seed=seed)


def parts_of(of: Pieces, piece: int) -> list[Tensor]:
    """All that goes with a piece: its rows of each maker, its columns of each reader."""
    out = []
    for maker in of.makers:
        each = len(maker) // PIECES
        out.append(maker[piece * each : (piece + 1) * each])
    for one in of.readers:
        out.append(one.weight[:, piece * EACH : (piece + 1) * EACH])
    return out


def slow(name: str, of: Pieces, piece: int) -> float:
    """The same score in loops over single weights."""
    weights = [float(w) for part in parts_of(of, piece) for w in part.flatten()]
    columns = range(piece * EACH, (piece + 1) * EACH)
    if name == "l1":
        return math.fsum(abs(w) for w in weights)
    if name == "l2":
        return math.sqrt(math.fsum(w * w for w in weights))
    if name == "activation":
        return math.fsum(
            abs(float(one.weight[o, j])) * math.sqrt(float(one.moment[j, j]))
            for one in of.readers
            for o in range(len(one.weight))
            for j in columns
        )
    by_row = [
        math.fsum(float(one.contributions[row, j]) for one in of.readers for j in columns)
        for row in range(ROWS)
    ]
    return math.fsum(t * t for t in by_row) / ROWS


@pytest.mark.parametrize("name", ["l1", "l2", "activation", "taylor"])
@quick
@hypothesis.given(seed=some.integers(0, 999))
def test_scores_are_those_of_loops_over_single_weights(name: str, seed: int) -> None:
    of = pieces(seed)
    expected = [slow(name, of, piece) for piece in range(PIECES)]
    np.testing.assert_allclose(IMPORTANCES[name](of).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_second_order_scores_are_places_in_the_order_of_removal() -> None:
    of = pieces()
    order = removal_order(of.readers, pieces=PIECES, step=1)
    assert torch.equal(IMPORTANCES["obs"](of).argsort(), order)


def test_hybrid_is_the_mean_of_ranks() -> None:
    of = pieces()
    ranks = []
    for name in ("l2", "activation", "taylor", "obs"):
        scores = IMPORTANCES[name](of).tolist()
        ranks.append([sum(other < score for other in scores) for score in scores])
    np.testing.assert_allclose(IMPORTANCES["hybrid"](of).numpy(), np.mean(ranks, axis=0))


def test_random_scores_follow_from_the_seed_alone() -> None:
    drawn = [IMPORTANCES["random"](replace(pieces(of), seed=seed)) for of, seed in ((0, 7), (1, 7), (0, 8))]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_names_are_those_of_a_space_file() -> None:
    assert tuple(IMPORTANCES) == get_args(Importance)


def test_taylor_without_recorded_gradients_is_refused() -> None:
    bare = tuple(replace(one, contributions=torch.empty(0, 0)) for one in pieces().readers)
    with pytest.raises(ValueError, match="recorded no gradient"):
        taylor(replace(pieces(), readers=bare))


# ---- of a model ---------------------------------------------------------------------------------


def gate_gradients(tiny: Tiny, unit: Unit, rows: int, seed: int) -> Tensor:
    """Of each calibration row the derivative of the loss by a gate on each piece [n c], row by row.

    Draws the teacher's labels as calibration does.
    """
    model, weight = tiny.model, unit.cols[0]
    module = model.get_submodule(weight.path)
    data = tiny.task.train
    chosen = np.random.default_rng(seed).permutation(len(data))[:rows]
    draws = torch.Generator().manual_seed(seed)
    out = []
    for length in np.unique(data.lengths[chosen]):
        same = chosen[data.lengths[chosen] == length]
        gates = torch.ones(len(same), unit.pieces, requires_grad=True)

        def gated(layer: nn.Module, args: tuple[Tensor, ...], gates: Tensor = gates) -> tuple[Tensor]:
            return (args[0] * gates.repeat_interleave(weight.columns // unit.pieces, 1)[:, None],)

        handle = module.register_forward_pre_hook(gated)
        inputs = {k: torch.from_numpy(v)[:, :length] for k, v in tiny.task.batch(data, same).items()}
        answers = model(**inputs).logits
        labels = torch.multinomial(answers.detach().softmax(-1), 1, generator=draws)[:, 0]
        nn.functional.cross_entropy(answers, labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        handle.remove()
        assert gates.grad is not None
        out.append(gates.grad)
    return torch.cat(out)


@pytest.mark.parametrize("kind", ["attention", "feed_forward"])
def test_taylor_is_the_squared_gradient_of_a_gate_on_each_piece(tiny: Tiny, kind: str) -> None:
    unit = tiny.unit(kind)
    paths = [weight.path for weight in unit.weights]
    seen = calibrate(
        tiny.model, paths, tiny.task, tiny.task.train, rows=20, seed=3, contributions={unit.cols[0].path}
    )
    expected = gate_gradients(tiny, unit, 20, 3).square().mean(0)
    torch.testing.assert_close(
        taylor(pieces_of(unit, tiny.model, seen)), expected, rtol=1e-3, atol=1e-6 * float(expected.max())
    )


def test_statistics_with_contributions_are_otherwise_those_without_and_read_back(tiny_bert: Tiny) -> None:
    path = tiny_bert.unit("feed_forward").cols[0].path
    with_, without = (
        calibrate(
            tiny_bert.model, [path], tiny_bert.task, tiny_bert.task.train, rows=9, seed=1, contributions=of
        )[path].arrays()
        for of in ({path}, set())
    )
    assert set(with_) - set(without) == {"contributions"}
    assert with_["contributions"].shape == (9, with_["moment"].shape[0])
    for name, array in without.items():
        np.testing.assert_array_equal(with_[name], array)
    back = Statistics.from_arrays(with_).arrays()
    np.testing.assert_array_equal(back["contributions"], with_["contributions"])


def seen_with_gradients(tiny: Tiny) -> dict[str, Statistics]:
    paths = list(tiny.statistics)
    cols = {weight.path for unit in tiny.units for weight in unit.cols}
    seen = calibrate(tiny.model, paths, tiny.task, tiny.task.train, rows=24, seed=0, contributions=cols)
    draws = torch.Generator().manual_seed(0)
    for unit in (unit for unit in tiny.units if unit.cols):
        path = unit.cols[0].path
        seen[path] = replace(seen[path], gates=torch.randn(unit.pieces, generator=draws))
    return seen


def test_what_names_no_importance_has_the_library_files_that_it_had(tiny: Tiny) -> None:
    unit = tiny.unit("attention")
    assert "importance" not in unit.described()
    assert tiny.library.path(replace(unit, importance=("obs",)), 0.5) == tiny.library.path(unit, 0.5)
    others = [(name,) for name in IMPORTANCES if name != "obs"] + [("taylor", "obs"), ("obs", "taylor")]
    paths = {tiny.library.path(replace(unit, importance=names), 0.5) for names in others}
    assert len(paths) == len(others)
    assert tiny.library.path(unit, 0.5) not in paths


def test_each_importance_keeps_the_pieces_of_largest_score(tiny_bert: Tiny, tmp_path: Path) -> None:
    seen = seen_with_gradients(tiny_bert)
    library = Library(tmp_path, tiny_bert.model, seen, key="k")
    for kind, name in itertools.product(("attention", "feed_forward"), IMPORTANCES):
        unit = replace(tiny_bert.unit(kind), importance=(name,))
        scores = IMPORTANCES[name](pieces_of(unit, tiny_bert.model, seen, key="k"))
        kept = library.kept(unit, 0.5)
        assert torch.equal(kept, scores.argsort(stable=True)[-len(kept) :].sort().values)
        shapes = {path: tuple(v.weight.shape) for path, v in library.variants(unit, Level(0.5)).items()}
        assert shapes == unit.shapes(0.5)


def test_a_unit_that_is_stored_in_floats_alone_has_variants(tiny_bert: Tiny, tmp_path: Path) -> None:
    library = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="k")
    unit = replace(tiny_bert.unit("feed_forward"), storages=storages_of((16, 32)))
    for level in unit.levels():
        for path, variant in library.variants(unit, level).items():
            assert tuple(variant.value().shape) == unit.shapes(level.ratio)[path]


def test_of_several_importances_each_ratio_has_the_one_that_harms_least(tiny: Tiny, tmp_path: Path) -> None:
    seen = seen_with_gradients(tiny)

    def harm(model: nn.Module) -> float:
        ours, theirs = (logits_of(torch_runner(m), tiny.task, tiny.task.train) for m in (model, tiny.model))
        return divergence(ours, theirs)

    library = Library(tmp_path, tiny.model, seen, key="k", harm=harm)
    names = ("random", "l1", "taylor")
    for kind, ratio in itertools.product(("attention", "feed_forward"), (0.25, 0.5, 0.75)):
        harms, keeps = [], []
        for chosen in [*((name,) for name in names), names]:
            unit = replace(tiny.unit(kind), importance=chosen)
            units = [unit if other.name == unit.name else other for other in tiny.units]
            candidate = tiny.space.untouched().with_level(unit.name, Level(ratio))
            harms.append(harm(stitch(tiny.model, units, candidate, library).model))
            keeps.append(library.kept(unit, ratio))
        assert harms[-1] == pytest.approx(min(harms[:-1]), rel=1e-4)
        least = int(np.argmin(harms[:-1]))
        assert torch.equal(keeps[-1], keeps[least])
        noted = [held.note for held in holdings(tmp_path) if held.path == library.path(unit, ratio)]
        assert [note and (note.importance, note.importances) for note in noted] == [(names[least], names)]


def test_a_file_says_by_which_importance_it_lost_what_it_lost(tiny_bert: Tiny, tmp_path: Path) -> None:
    library = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="k")
    unit = replace(tiny_bert.unit("feed_forward"), importance=("l1",))
    for ratio in (0.0, 0.5):
        library.build(unit, ratio)
    assert {held.note and held.note.importance for held in holdings(tmp_path)} == {"", "l1"}


def test_a_file_of_before_it_was_noted_is_read() -> None:
    note = Note(VERSION, "k", "u", "neuron", 0.5, (4,), 1.0, {"a": 1}, "taylor", ("taylor", "obs"))
    text = json.dumps({key: value for key, value in asdict(note).items() if "importance" not in key})
    old = Note.from_metadata({"autoprune": text, "crc32": str(zlib.crc32(text.encode()))})
    assert old == replace(note, importance="", importances=())
    assert Note.from_metadata(note.metadata()) == note


def test_several_importances_need_a_measure_of_harm(tiny_bert: Tiny, tmp_path: Path) -> None:
    library = Library(tmp_path, tiny_bert.model, tiny_bert.statistics, key="k")
    unit = replace(tiny_bert.unit("feed_forward"), importance=("l1", "random"))
    with pytest.raises(ValueError, match="names several importances"):
        library.kept(unit, 0.5)
