"""Space files against models: what is found, what its levels weigh, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import SPACES, Tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autoprune.errors import AutopruneError
from autoprune.space import FLOAT_BITS, Level, SpaceFile, read_space
from autoprune.units import Unit, Weight, find_units, search_space

SHIPPED = sorted(SPACES.glob("*.yaml"))
every_space = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)


def on_meta(family: str, **config: Any) -> nn.Module:
    """The full-size model of a family, without weights."""
    with torch.device("meta"):
        return transformers.AutoModelForSequenceClassification.from_config(
            transformers.AutoConfig.for_model(family, **config)
        )


def units_of(path: Path) -> tuple[Unit, ...]:
    return find_units(on_meta(path.stem), read_space(path), source=path.name)


def space_of(**units: dict[str, Any]) -> SpaceFile:
    return SpaceFile.model_validate({"version": 1, "units": units})


def misfits(model: nn.Module, **units: dict[str, Any]) -> str:
    with pytest.raises(AutopruneError) as caught:
        find_units(model, space_of(**units), source="mine.yaml")
    return str(caught.value)


FOUR_BITS = {"bits": [4]}


# ---- the shipped files --------------------------------------------------------------------------


def test_a_space_is_shipped_for_each_family() -> None:
    assert {path.stem for path in SHIPPED} >= {"bert", "distilbert"}


@every_space
def test_a_shipped_space_covers_every_large_matrix_of_its_model(path: Path) -> None:
    model = on_meta(path.stem)
    covered = [w.path for unit in units_of(path) for w in unit.weights]
    linears = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)} - {"classifier"}
    tables = {f"{path.stem}.embeddings.{name}_embeddings" for name in ("word", "position")}
    assert sorted(covered) == sorted(linears | tables)


@every_space
def test_units_come_in_the_models_order_and_each_has_its_own_name(path: Path) -> None:
    units = units_of(path)
    order = [name for name, _ in on_meta(path.stem).named_modules()]
    places = [order.index(unit.rows[0].path) for unit in units]
    assert places == sorted(places)
    assert len({unit.name for unit in units}) == len(units)
    layers = {kind: sum(unit.kind == kind for unit in units) for kind in ("attention", "feed_forward")}
    config = transformers.AutoConfig.for_model(path.stem)
    assert set(layers.values()) == {config.num_hidden_layers}


@every_space
def test_attention_loses_whole_heads(path: Path) -> None:
    attention = next(unit for unit in units_of(path) if unit.kind == "attention")
    assert attention.block == 64
    assert [attention.kept(ratio) // 64 for ratio in (0.0, 0.25, 0.5, 0.75)] == [12, 9, 6, 3]


@every_space
def test_the_original_weighs_what_its_matrices_and_biases_do(path: Path) -> None:
    model = on_meta(path.stem)
    for unit in units_of(path):
        parts = [p for w in unit.weights for p in model.get_submodule(w.path).parameters()]
        assert unit.size_bytes(Level()) == sum(4 * p.numel() for p in parts)


@every_space
def test_every_unit_weighs_less_with_fewer_bits_and_with_more_rows_gone(path: Path) -> None:
    for unit in units_of(path):
        by_bits = [unit.size_bytes(Level(0.0, bits)) for bits in unit.bits]
        assert by_bits == sorted(set(by_bits))
        by_ratio = [unit.size_bytes(Level(ratio, 4)) for ratio in unit.ratios]
        assert by_ratio == sorted(set(by_ratio), reverse=True)


# ---- levels -------------------------------------------------------------------------------------


def test_shapes_are_those_of_the_stitched_model(tiny: Tiny) -> None:
    for ratio in (0.0, 0.25, 0.5, 0.75, 0.9):
        candidate = tiny.space.uniform(Level(ratio, 32))
        model = tiny.stitched_as(candidate).model
        for unit in tiny.units:
            for path, shape in unit.shapes(candidate[unit.name].ratio).items():
                assert tuple(model.get_submodule(path).weight.shape) == shape  # type: ignore[arg-type, union-attr]


@given(
    block=st.sampled_from((1, 8, 32)),
    blocks=st.integers(1, 300),
    multiple=st.sampled_from((8, 16, 32, 64, 128)),
    ratio=st.floats(0.0, 0.99),
)
def test_what_is_kept_is_whole_blocks_never_none_and_never_more_than_there_are(
    block: int, blocks: int, multiple: int, ratio: float
) -> None:
    rows = block * blocks
    unit = Unit(
        name="u",
        kind="u",
        rows=(Weight("a", rows, 8, True),),
        cols=(Weight("b", 8, rows, True),),
        block=block,
        keep_multiple=block if block > 1 else min(multiple, rows),
        group_size=multiple,
        ratios=(0.0, ratio),
        bits=(4, FLOAT_BITS),
    )
    kept = unit.kept(ratio)
    assert 0 < kept <= rows
    assert kept == rows or kept % max(unit.keep_multiple, block) == 0
    assert abs(kept - rows * (1 - ratio)) <= max(unit.keep_multiple, block)
    assert unit.shapes(ratio) == {"a": (kept, 8), "b": (8, kept)}
    assert unit.kept(0.0) == rows


def test_a_unit_that_is_only_quantized_keeps_its_shape(tiny: Tiny) -> None:
    unit = tiny.unit("word_embeddings")
    assert not unit.prunable
    assert unit.shapes(0.0) == {unit.rows[0].path: (200, 64)}


def test_a_rule_that_prunes_nothing_still_quantizes_rows_and_columns() -> None:
    rule = {
        "at": "bert.encoder.layer.*",
        "rows": ["intermediate.dense"],
        "cols": ["output.dense"],
        "quantize": FOUR_BITS,
    }
    (unit,) = find_units(on_meta("bert", num_hidden_layers=1), space_of(ffn=rule), source="mine.yaml")
    assert not unit.prunable
    assert unit.shapes(0.0) == {
        "bert.encoder.layer.0.intermediate.dense": (3072, 768),
        "bert.encoder.layer.0.output.dense": (768, 3072),
    }


def test_bits_that_a_target_cannot_store_are_not_offered(tiny: Tiny) -> None:
    space = search_space(tiny.units, lambda unit, level: level.bits in {4, 8, 32})
    assert {bits for one in space.units for bits in one.bits} == {4, 8, 32}
    assert [one.unit for one in space.units] == [unit.name for unit in tiny.units]


# ---- rules --------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_takes_the_module() -> None:
    first = {"at": "bert.encoder.layer.0.intermediate.dense", "quantize": {"bits": [8]}}
    rest = {"at": "bert.encoder.layer.*.intermediate.dense", "quantize": {"bits": [2]}}
    model = on_meta("bert", num_hidden_layers=3)
    units = find_units(model, space_of(first=first, rest=rest), source="mine.yaml")
    assert [(unit.kind, unit.bits) for unit in units] == [
        ("first", (8, 32)),
        ("rest", (2, 32)),
        ("rest", (2, 32)),
    ]


def test_a_star_is_one_part_of_a_path() -> None:
    rule = {"at": "bert.*.layer.1.*.dense", "quantize": FOUR_BITS}
    units = find_units(on_meta("bert", num_hidden_layers=3), space_of(dense=rule), source="mine.yaml")
    paths = [unit.rows[0].path for unit in units]
    assert paths == [f"bert.encoder.layer.1.{part}.dense" for part in ("intermediate", "output")]


def test_a_space_that_does_not_fit_gives_one_error_with_every_misfit() -> None:
    prune = {"by": "neuron", "ratios": [0.5]}
    text = misfits(
        on_meta("bert", num_hidden_layers=2),
        absent={"at": "vit.layers.*.attention", "quantize": FOUR_BITS},
        norm={"at": "bert.embeddings.LayerNorm", "quantize": FOUR_BITS},
        typo={"at": "bert.encoder.layer.*", "rows": ["intermediate.dens"], "quantize": FOUR_BITS},
        uncoupled={
            "at": "bert.encoder.layer.*",
            "rows": ["intermediate.dense"],
            "cols": ["attention.output.dense"],
            "prune": prune,
            "quantize": FOUR_BITS,
        },
    )
    assert "mine.yaml" in text
    assert "BertForSequenceClassification" in text
    assert "units.absent: no module matches 'vit.layers.*.attention'" in text
    assert "units.norm: bert.embeddings.LayerNorm is a LayerNorm; a Linear or Embedding is needed" in text
    assert "units.typo: the model has no module 'bert.encoder.layer.0.intermediate.dens'" in text
    assert "takes 768 features, but bert.encoder.layer.0.intermediate.dense gives 3072" in text
    assert len(text.splitlines()) == 5


def test_rows_that_lose_features_together_must_have_as_many() -> None:
    uneven = {
        "at": "bert.encoder.layer.*",
        "rows": ["intermediate.dense", "attention.self.query"],
        "cols": ["output.dense"],
        "prune": {"by": "neuron", "ratios": [0.5]},
        "quantize": FOUR_BITS,
    }
    text = misfits(on_meta("bert", num_hidden_layers=1), uneven=uneven)
    assert "attention.self.query gives 768 features, but bert.encoder.layer.0.intermediate.dense 3072" in text


def test_a_space_for_another_family_names_each_rule() -> None:
    with pytest.raises(AutopruneError) as caught:
        find_units(on_meta("distilbert"), read_space(SPACES / "bert.yaml"), source="bert.yaml")
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        f"units.{kind}"
        for kind in ("word_embeddings", "position_embeddings", "attention", "feed_forward", "pooler")
    ]


def test_rows_that_are_not_whole_heads_are_refused() -> None:
    heads = {
        "at": "bert.encoder.layer.*",
        "rows": ["intermediate.dense"],
        "cols": ["output.dense"],
        "prune": {"by": "head", "ratios": [0.5]},
        "quantize": FOUR_BITS,
    }
    text = misfits(on_meta("bert", intermediate_size=100), heads=heads)
    assert "bert.encoder.layer.0.intermediate.dense: 100 rows are not whole heads of 64" in text


def test_a_model_whose_config_lacks_a_head_size_is_refused() -> None:
    model = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    block = nn.ModuleDict({"block": model})
    heads = {
        "at": "block",
        "rows": ["a"],
        "cols": ["b"],
        "prune": {"by": "head", "ratios": [0.5]},
        "quantize": FOUR_BITS,
    }
    assert "config does not say how large a head is" in misfits(block, heads=heads)
