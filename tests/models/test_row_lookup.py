"""Embeddings with a way of their own to look rows up: a factor is kept, all else is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.compress.surgery import FewerTokens, replace_
from autoprune.core.errors import AutopruneError
from autoprune.models.row_lookup import lookup_obstacle, row_factor, row_factors, with_rows
from autoprune.models.split_embedding import join_, part_
from autoprune.models.units import find_units
from autoprune.space.space_file import SpaceFile

IDS = torch.tensor([[0, 5, 2, 5], [9, 1, 7, 3]])


class Scaled(nn.Embedding):
    """As transformers' scaled word embeddings."""

    def __init__(self, rows: int, features: int, factor: float) -> None:
        super().__init__(rows, features)
        self.register_buffer("embed_scale", torch.tensor(factor), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.embed_scale


class Shifted(nn.Embedding):
    """As transformers' learned positions: its input are no numbers of its rows."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + 2)


def model_of(embedding: nn.Embedding) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(embedding), nn.Linear(8, 3)).eval()


def test_the_factor_of_rows_is_known() -> None:
    model = model_of(Scaled(10, 8, 5.0))
    assert row_factor(model[0][0]) == 5.0  # type: ignore[index]
    assert row_factors(model, ["0.0", "1"]) == {"0.0": 5.0}
    assert row_factors(model_of(nn.Embedding(10, 8)), ["0.0"]) == {}


def test_other_rows_are_looked_up_as_the_first_were_and_those_stay() -> None:
    old = Scaled(10, 8, 5.0)
    before = old(IDS).clone()
    new = with_rows(old, 2 * old.weight[:, :4])
    assert torch.equal(new(IDS), 2 * before[..., :4])
    assert (new.num_embeddings, new.embedding_dim) == (10, 4)
    assert torch.equal(old(IDS), before)


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_a_layer_put_in_the_place_of_another_keeps_the_factor(factor: float) -> None:
    model: Any = model_of(Scaled(10, 8, factor))
    rows, wanted = model[0][0].weight.detach().clone(), model(IDS).detach()
    replace_(model, "0.0", rows, None)
    assert torch.equal(model(IDS), wanted)
    places = torch.arange(10).clamp(max=6)
    replace_(model, "0.0", rows[:7], None, places=places)
    assert isinstance(model[0][0], FewerTokens)
    assert torch.equal(model[0][0](IDS), factor * rows[places[IDS]])
    replace_(model, "0.0", rows, None)
    assert type(model[0][0]) is Scaled
    assert torch.equal(model(IDS), wanted)


def test_a_vocabulary_in_parts_keeps_the_factor() -> None:
    model: Any = model_of(Scaled(10, 8, 5.0))
    wanted = model(IDS).detach()
    part_(model, "0.0", torch.tensor([5, 2, 9, 0, 1, 3, 4, 6, 7, 8]), 3)
    assert torch.equal(model(IDS), wanted)
    join_(model, ["0.0"])
    assert torch.equal(model(IDS), wanted)


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        (Shifted(12, 8), "0.0 is a Shifted, which looks its rows up in a way of its own: leave it out"),
        (nn.Embedding(12, 8, max_norm=1.0), "0.0 shortens its rows at each call (max_norm): leave it out"),
    ],
)
def test_a_way_that_is_not_known_is_refused_by_name(embedding: nn.Embedding, said: str) -> None:
    assert lookup_obstacle(embedding)
    rule = {"at": "0.0", "quantize": {"bits": [8]}}
    space = SpaceFile.model_validate({"version": 1, "units": {"rows": rule}})
    with pytest.raises(AutopruneError) as caught:
        find_units(model_of(embedding), space, source="mine.yaml")
    assert said in str(caught.value)
