"""Rows that several tokens share: whose they are, what they are, and that they harm less than the nearest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import torch
from torch import Tensor

from autoprune.compress.gptq import damped_moment
from autoprune.compress.library import Library
from autoprune.compress.prune_tokens import nearest_rows, sparing_order
from autoprune.compress.stitch import Stitched
from autoprune.compress.token_centroids import RowCentroids, expected_uses, row_centroids
from autoprune.models.units import importance_line
from autoprune.space.levels import Level
from autoprune.targets.packed import WEIGHTS, Packed, read_packed
from tests.support.tiny import Tiny, make_tiny

quick = hypothesis.settings(deadline=None, max_examples=40)


def vocabulary(seed: int, rows: int = 60, features: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, uses of a few tokens that are most of a text, and information at the output."""
    draws = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, features, generator=draws)
    uses = (100 * torch.rand(rows, generator=draws) ** 8).floor()
    uses[:2] = torch.inf
    x = torch.randn(50, features, generator=draws) @ torch.randn(features, features, generator=draws)
    return weight, uses, x.T @ x / 50


def kept(weight: Tensor, uses: Tensor, k: int) -> Tensor:
    return sparing_order(uses, weight)[len(weight) - k :].sort().values


def harm(weight: Tensor, uses: Tensor, fisher: Tensor, rows: Tensor, places: Tensor) -> float:
    off = weight - rows[places.long()]
    return float((expected_uses(uses)[:, None] * (off @ damped_moment(fisher).float()) * off).sum())


@quick
@hypothesis.given(some.integers(0, 500), some.integers(4, 60))
def test_every_row_has_a_token_and_a_row_of_one_token_is_its_own(seed: int, k: int) -> None:
    weight, uses, fisher = vocabulary(seed)
    keep = kept(weight, uses, k)
    made = row_centroids(weight, uses, fisher, keep)
    sizes = torch.bincount(made.places.long(), minlength=k)
    assert (len(made.rows), len(sizes), made.places.dtype) == (k, k, torch.int32)
    assert bool((sizes > 0).all())
    assert torch.equal(made.tokens, made.tokens.unique())
    assert torch.equal(made.places[made.tokens].long(), torch.arange(k))
    alone = sizes[made.places.long()] == 1
    assert torch.equal(made.rows[made.places.long()][alone], weight[alone])
    for token in torch.arange(60)[~alone].tolist():
        same = made.places == made.places[token]
        assert uses[made.tokens[made.places[token]]] == uses[same].max()


@quick
@hypothesis.given(some.integers(0, 500), some.integers(4, 59), some.integers(0, 6))
def test_it_harms_no_more_than_rows_that_stay(seed: int, k: int, rounds: int) -> None:
    weight, uses, fisher = vocabulary(seed)
    keep = kept(weight, uses, k)
    made = row_centroids(weight, uses, fisher, keep, rounds=rounds)
    before = harm(weight, uses, fisher, weight[keep], nearest_rows(weight, keep))
    assert harm(weight, uses, fisher, made.rows, made.places) <= before * (1 + 1e-5) + 1e-9


def test_the_most_used_tokens_keep_their_rows() -> None:
    weight, uses, fisher = vocabulary(3)
    made = row_centroids(weight, uses, fisher, kept(weight, uses, 30))
    most = uses.argsort(descending=True, stable=True)[:22]
    assert torch.equal(made.rows[made.places[most].long()], weight[most])


def test_equal_rows_leave_no_row_without_a_token_and_no_removal_changes_nothing() -> None:
    weight, uses, fisher = vocabulary(4)
    weight[10:50] = weight[10]
    made: RowCentroids = row_centroids(weight, torch.zeros(60), torch.zeros_like(fisher), torch.arange(40))
    assert bool((torch.bincount(made.places.long(), minlength=40) > 0).all())
    assert torch.allclose(made.rows[made.places.long()][10:50], weight[10:50], atol=1e-6)
    whole = row_centroids(weight, uses, fisher, torch.arange(60))
    assert torch.equal(whole.rows[whole.places.long()], weight)
    assert torch.equal(whole.tokens, torch.arange(60))


# ---- in a model -----------------------------------------------------------------------------------


def with_centroids(folder: Path) -> Tiny:
    """A model whose vocabulary may lose tokens, which are then looked up as centroids."""
    tiny = make_tiny("bert", folder / "nearest", vocab=300)
    units = tuple(replace(unit, fallback="centroid") if unit.by_token else unit for unit in tiny.units)
    library = Library(folder / "centroid", tiny.model, tiny.statistics, key="k")
    return replace(tiny, units=units, library=library)


def saved_bytes(stitched: Stitched, folder: Path) -> int:
    folder.mkdir()
    Packed().save(stitched, folder, {})
    return (folder / WEIGHTS).stat().st_size


def test_a_model_of_centroids_takes_the_predicted_bytes_and_comes_back(tmp_path: Path) -> None:
    tiny = with_centroids(tmp_path)
    unit = next(unit for unit in tiny.units if unit.by_token)
    ratio = max(unit.ratios)
    original = saved_bytes(tiny.stitched_as(tiny.space.untouched()), tmp_path / "original")
    for storage in (unit.storages[0], unit.storages[-1]):
        candidate = tiny.space.untouched().with_level(unit.name, Level(ratio, storage))
        stitched = tiny.stitched_as(candidate)
        size = saved_bytes(stitched, tmp_path / storage.name)
        assert abs(tiny.predicted_bytes(Packed(), candidate, original) - size) <= 0.005 * size
        back = read_packed(tmp_path / storage.name)
        mine, theirs = stitched.model.state_dict(), back.model.state_dict()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    path = unit.rows[0].path
    [weight] = [tiny.library.variants(unit, Level(ratio))[path]]
    assert weight.places is not None
    assert len(weight.weight) == unit.kept(ratio) == len(tiny.library.kept(unit, ratio))


def test_another_fallback_has_variants_of_its_own_and_none_named_the_ones_it_had(tmp_path: Path) -> None:
    tiny = with_centroids(tmp_path)
    unit = next(unit for unit in tiny.units if unit.by_token)
    nearest = replace(unit, fallback="nearest")
    assert "fallback" not in nearest.described()
    assert unit.described()["fallback"] == "centroid"
    assert tiny.library.path(unit, 0.5) != tiny.library.path(nearest, 0.5)


def test_a_run_says_that_its_tokens_have_centroids(tmp_path: Path) -> None:
    assert importance_line(with_centroids(tmp_path).units) == "word_embeddings by centroid"
