"""Which tokens go first, and whose rows stand for them."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import pytest
import torch

from autoprune.compress import prune_tokens
from autoprune.compress.prune_tokens import nearest_rows, sparing_order


def vocabulary(seed: int, rows: int = 50) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))


@hypothesis.given(some.lists(some.sampled_from([0.0, 1.0, 2.0, torch.inf]), min_size=2, max_size=50))
@hypothesis.settings(max_examples=50, deadline=None)
def test_a_token_that_is_used_more_goes_later(uses: list[float]) -> None:
    order = sparing_order(torch.tensor(uses), vocabulary(0, len(uses)))
    assert sorted(order.tolist()) == list(range(len(uses)))
    used = torch.tensor(uses)[order]
    assert bool((used[1:] >= used[:-1]).all())


def test_of_tokens_used_as_often_those_go_first_whose_rows_another_stands_for() -> None:
    weight = vocabulary(0)
    weight[[10, 40]] = weight[[3, 7]]  # two pairs of one row each
    weight[20:23] *= 1e-3  # rows that training never moved
    weight[20:23] += 1e-2
    order = sparing_order(torch.zeros(50), weight).tolist()
    assert set(order[:7]) == {3, 10, 7, 40, 20, 21, 22}


def test_parts_of_a_product_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, keep = vocabulary(1), torch.arange(0, 50, 3)
    order, places = sparing_order(torch.zeros(50), weight), nearest_rows(weight, keep)
    monkeypatch.setattr(prune_tokens, "ROWS_AT_ONCE", 7)
    assert torch.equal(sparing_order(torch.zeros(50), weight), order)
    assert torch.equal(nearest_rows(weight, keep), places)
    assert torch.equal(places[keep], torch.arange(len(keep)))
    alike = torch.nn.functional.cosine_similarity(weight[:, None], weight[keep][None], dim=2)
    assert torch.equal(places.long(), alike.argmax(1))
    assert torch.equal(nearest_rows(weight, torch.arange(50)), torch.arange(50, dtype=torch.int32))
