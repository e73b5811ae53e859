"""Fewer rows for a vocabulary than tokens: centroids by weighted k-means, in place of some tokens' own rows.

The tokens that are used most keep their own row, and the others share what is left: each is looked up as the
centroid that harms least in its place. A row that is off by e does the harm e^T F e wherever it is looked up,
with F the Fisher information at the embedding's output, so distances are taken under F, and tokens count by
how often they are used. As many bytes as with rows of tokens that stay (`prune_tokens`).

Shapes: v tokens, k rows of them, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from autoprune.compress.gptq import damped_moment
from autoprune.compress.lloyd import Clusters, cluster

OWN_SHARE = 0.75
"""Of the rows, those that the most used tokens keep as they are."""

UNSEEN = 0.2
"""Uses that each token has beside those that were counted, in units of the fewest of one that has some.

Other text has some of the tokens that this one has not. By Good's estimate (The population frequencies of
species, Biometrika 40, 1953) it has as many of them together as tokens were seen once: in the demo's reviews
3,745, and 17,660 were never seen.
"""

ROUNDS = 3
"""Of Lloyd's algorithm."""


@dataclass(frozen=True)
class RowCentroids:
    """The rows of a vocabulary with fewer rows than tokens.

    rows: in the order of `tokens`. places: for each token the row it is looked up by. tokens: of each row the
    most used token that is looked up by it, ascending.
    """

    rows: Float[Tensor, "k d"]
    places: Int32[Tensor, " v"]
    tokens: Int[Tensor, " k"]


def row_centroids(
    weight: Float[Tensor, "v d"],
    uses: Float[Tensor, " v"],
    fisher: Float[Tensor, "d d"],
    keep: Int[Tensor, " k"],
    *,
    rounds: int = ROUNDS,
) -> RowCentroids:
    """As many centroids as tokens that would stay.

    Args:
        weight: the rows.
        uses: how often each token is looked up; infinite for those that keep their row in any case.
        fisher: information at the embedding's output; zeros where it is not known.
        keep: the tokens whose rows clusters begin with.
        rounds: of Lloyd's algorithm.
    """
    heavy = expected_uses(uses)
    by_use = keep[uses[keep].argsort(descending=True, stable=True)]
    own = max(int(uses[keep].isinf().sum()), round(OWN_SHARE * len(keep)))
    is_own = torch.zeros(len(weight), dtype=torch.bool).index_fill_(0, by_use[:own], True)
    others = (~is_own).nonzero()[:, 0]
    if not len(others):
        return RowCentroids(weight[keep], _ranks(keep, len(weight)), keep)
    flat = weight @ _metric(fisher)
    clusters = cluster(flat[others], heavy[others, None], flat[by_use], rounds=rounds, fixed=own)
    places = torch.empty(len(weight), dtype=torch.long)
    places[by_use[:own]] = torch.arange(own)
    places[others] = _without_empty(clusters, own)
    return _centroids(weight, heavy, uses, places, own, by_use)


def expected_uses(uses: Float[Tensor, " v"]) -> Float[Tensor, " v"]:
    """How often tokens are to be expected in other text, in no unit; those that are infinite count as unseen.

    >>> [round(x, 1) for x in expected_uses(torch.tensor([0.0, 2.0, 6.0, torch.inf])).tolist()]
    [0.2, 1.2, 3.2, 0.2]
    """
    seen = torch.where(uses.isinf(), 0.0, uses)
    fewest = seen[seen > 0].amin() if bool((seen > 0).any()) else torch.tensor(1.0)
    return seen / fewest + UNSEEN


def _metric(fisher: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """A factor L by which distances of rows x L are those under the information, which is L L^T."""
    if not bool(fisher.any()):
        return torch.eye(len(fisher))
    factor: Tensor = torch.linalg.cholesky(damped_moment(fisher))
    return factor.to(fisher.dtype)


def _without_empty(clusters: Clusters, own: int) -> Int[Tensor, " n"]:
    """Places in which each free cluster has a point: points that are worst off get an empty one alone."""
    places, sizes = clusters.places.clone(), clusters.sizes()
    for empty in (sizes[own:] == 0).nonzero()[:, 0].tolist():
        spare = (sizes[places] > 1) | (places < own)
        point = int(torch.where(spare, clusters.distances, -1.0).argmax())
        sizes[places[point]] -= 1
        places[point] = own + empty
        sizes[own + empty] = 1
    return places


def _centroids(
    weight: Float[Tensor, "v d"],
    heavy: Float[Tensor, " v"],
    uses: Float[Tensor, " v"],
    places: Int[Tensor, " v"],
    own: int,
    by_use: Int[Tensor, " k"],
) -> RowCentroids:
    """Means of the tokens at each place, the first `own` rows as they are; in the order of their tokens."""
    k = len(by_use)
    mass = torch.zeros(k, dtype=torch.float64).index_add_(0, places, heavy.double())
    pull = torch.zeros(k, weight.shape[1], dtype=torch.float64)
    pull.index_add_(0, places, weight.double() * heavy.double()[:, None])
    rows = (pull / mass[:, None]).to(weight.dtype)
    rows[:own] = weight[by_use[:own]]
    ascending = uses.argsort(stable=True)
    rank = _ranks(ascending, len(uses)).long()
    most = ascending[torch.zeros(k, dtype=torch.long).scatter_reduce(0, places, rank, "amax")]
    most[:own] = by_use[:own]
    tokens, order = most.sort()
    return RowCentroids(rows[order], _ranks(order, k)[places], tokens)


def _ranks(order: Int[Tensor, " k"], size: int) -> Int32[Tensor, " n"]:
    """Of each of `size` numbers its place in an order of some of them."""
    ranks = torch.zeros(size, dtype=torch.int32)
    ranks[order] = torch.arange(len(order), dtype=torch.int32)
    return ranks
