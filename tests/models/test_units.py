"""Space files against models: what is found, what its levels weigh, and what does not fit."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models.canonical import straighten_
from autoprune.models.unit import Unit, Weight
from autoprune.models.units import find_units, search_space
from autoprune.space.levels import Level
from autoprune.space.space_file import SpaceFile, read_space
from autoprune.space.storage import FLOAT_BITS, Storage, storages_of
from tests.support.paths import SPACES
from tests.support.tiny import Tiny

SHIPPED = sorted(SPACES.glob("*.yaml"))
LAYERS = nn.Linear | nn.Embedding | nn.Conv2d

CLASSIFIER, TAGGER, BARE = "SequenceClassification", "TokenClassification", ""
DECODER, PICTURES, SOUNDS = "CausalLM", "ImageClassification", "AudioClassification"
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
           "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}  # fmt: skip
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "bert": ("bert", "bert", CLASSIFIER, {}),
    "bert tagger": ("bert", "bert", TAGGER, {}),
    "bert alone": ("bert", "bert", BARE, {}),
    "distilbert": ("distilbert", "distilbert", CLASSIFIER, {}),
    "distilbert alone": ("distilbert", "distilbert", BARE, {}),
    "roberta": ("roberta", "roberta", CLASSIFIER, {}),
    "xlm-roberta": ("roberta", "xlm-roberta", TAGGER, {}),
    "camembert": ("roberta", "camembert", CLASSIFIER, {}),
    "electra": ("electra", "electra", CLASSIFIER, {}),
    "mpnet": ("mpnet", "mpnet", CLASSIFIER, {}),
    "gpt2": ("gpt2", "gpt2", DECODER, {}),
    "llama": ("llama", "llama", DECODER, {}),
    "smollm2": ("llama", "llama", DECODER, SMOLLM2),
    "mistral": ("llama", "mistral", DECODER, {}),
    "qwen2": ("llama", "qwen2", DECODER, {}),
    "qwen3": ("llama", "qwen3", DECODER, {}),
    "smollm3": ("llama", "smollm3", DECODER, {}),
    "vit": ("vit", "vit", PICTURES, {}),
    "deit": ("vit", "deit", PICTURES, {}),
    "whisper": ("whisper", "whisper", SOUNDS, {}),
    "resnet": ("resnet", "resnet", PICTURES, {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}),
    "resnet-50": ("resnet", "resnet", PICTURES, {}),
    "mobilenet_v2": ("mobilenet_v2", "mobilenet_v2", PICTURES, {}),
    "efficientnet": ("efficientnet", "efficientnet", PICTURES, {}),
}
"""Full-size models: the space for each, its type, its head and what else its config says."""

NEVER_CALLED = "encoder.embed_positions"
"""An embedding of Whisper whose weight, sines of a closed form, is added as it is."""

every_model = pytest.mark.parametrize("name", list(MODELS))


@functools.cache
def on_meta(name: str, **config: Any) -> nn.Module:
    """A full-size model in canonical form but for its norms, without weights."""
    _, kind, head, given = MODELS[name]
    found = transformers.AutoConfig.for_model(kind, **given, **config)
    architectures = getattr(transformers.models.auto.modeling_auto, _MAPPINGS[head])
    with torch.device("meta"):
        model: nn.Module = getattr(transformers, _first(architectures[kind]))(found)
    straighten_(model)
    return model


_MAPPINGS = {
    CLASSIFIER: "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    TAGGER: "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    BARE: "MODEL_MAPPING_NAMES",
    DECODER: "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    PICTURES: "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    SOUNDS: "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
}


def _first(found: str | tuple[str, ...]) -> str:
    return found if isinstance(found, str) else found[0]


@functools.cache
def units_of(name: str) -> tuple[Unit, ...]:
    path = SPACES / f"{MODELS[name][0]}.yaml"
    return find_units(on_meta(name), read_space(path), source=path.name)


def space_of(**units: dict[str, Any]) -> SpaceFile:
    return SpaceFile.model_validate({"version": 1, "units": units})


def misfits(model: nn.Module, **units: dict[str, Any]) -> str:
    with pytest.raises(AutopruneError) as caught:
        find_units(model, space_of(**units), source="mine.yaml")
    return str(caught.value)


FOUR_BITS = {"bits": [4]}


# ---- the shipped files --------------------------------------------------------------------------


def test_a_space_is_shipped_for_each_family() -> None:
    names = {"bert", "distilbert", "roberta", "electra", "mpnet", "gpt2", "llama", "vit", "whisper"}
    names |= {"resnet", "mobilenet_v2", "efficientnet", "torchvision_resnet", "efficientnet_pytorch"}
    assert {path.stem for path in SHIPPED} >= names


@every_model
def test_a_shipped_space_covers_every_large_matrix_of_its_model(name: str) -> None:
    covered = [path for unit in units_of(name) for w in unit.weights for path in (w.path, w.tied) if path]
    sizes = {p: m.weight.numel() for p, m in on_meta(name).named_modules() if isinstance(m, LAYERS)}
    assert len(set(covered)) == len(covered)
    left = {path: size for path, size in sizes.items() if path not in covered and path != NEVER_CALLED}
    assert sum(left.values()) <= 2e-3 * sum(sizes.values()), left


@every_model
def test_units_come_in_the_models_order_and_each_has_its_own_name(name: str) -> None:
    units = units_of(name)
    order = [path for path, _ in on_meta(name).named_modules()]
    places = [order.index(unit.rows[0].path) for unit in units]
    assert places == sorted(places)
    assert len({unit.name for unit in units}) == len(units)


@pytest.mark.parametrize("name", ["bert", "distilbert", "llama", "vit"])
def test_each_layer_has_an_attention_and_a_feed_forward(name: str) -> None:
    layers = {
        kind: sum(unit.kind == kind for unit in units_of(name)) for kind in ("attention", "feed_forward")
    }
    assert set(layers.values()) == {transformers.AutoConfig.for_model(MODELS[name][1]).num_hidden_layers}


@pytest.mark.parametrize("name", ["bert", "distilbert", "vit", "gpt2"])
def test_attention_loses_whole_heads(name: str) -> None:
    attention = next(unit for unit in units_of(name) if unit.kind == "attention")
    assert (attention.pieces, attention.step) == (12, 1)
    assert [attention.kept(ratio) for ratio in (0.0, 0.25, 0.5, 0.75)] == [12, 9, 6, 3]
    assert attention.shapes(0.25)[attention.rows[0].path] == (9 * 64, 768)
    assert attention.shapes(0.25)[attention.cols[0].path] == (768, 9 * 64)


def test_heads_that_share_a_key_and_value_head_are_one_piece() -> None:
    attention = next(unit for unit in units_of("smollm2") if unit.kind == "attention")
    assert attention.pieces == 3
    assert [attention.kept(ratio) for ratio in attention.ratios] == [3, 2, 1, 0]
    query, key, value = (attention.shapes(0.25)[weight.path] for weight in attention.rows)
    assert (query, key, value) == ((6 * 64, 576), (2 * 64, 576), (2 * 64, 576))


def test_ratios_that_keep_as_much_are_offered_once() -> None:
    """Of three groups a quarter and a half are both one gone."""
    for unit in units_of("smollm2"):
        kept = [unit.kept(ratio) for ratio in unit.ratios]
        assert len(set(kept)) == len(kept)
        assert unit.ratios[0] == 0.0


@every_model
def test_the_original_weighs_what_its_matrices_and_biases_do(name: str) -> None:
    model = on_meta(name)
    for unit in units_of(name):
        parts = [p for w in unit.weights for p in model.get_submodule(w.path).parameters()]
        assert unit.size_bytes(Level()) == sum(4 * p.numel() for p in parts)


def weights_alone(unit: Unit) -> list[Storage]:
    """Storages that leave inputs as they are, the narrowest first."""
    return [storage for storage in reversed(unit.storages) if not storage.rounds_inputs]


@every_model
def test_every_unit_weighs_less_with_fewer_bits_and_with_more_rows_gone(name: str) -> None:
    for unit in units_of(name):
        by_bits = [unit.size_bytes(Level(0.0, storage)) for storage in weights_alone(unit)]
        assert by_bits == sorted(set(by_bits))
        by_ratio = [unit.size_bytes(Level.of(ratio, 4)) for ratio in unit.ratios]
        assert by_ratio == sorted(set(by_ratio), reverse=True)


def test_of_an_inverted_residual_all_that_knows_a_channel_goes_together() -> None:
    unit = next(one for one in units_of("efficientnet") if one.prunable)
    assert [(w.path.rpartition(".")[2], w.depthwise, w.kernel) for w in unit.rows] == [
        ("expand_conv", False, 1), ("depthwise_conv", True, 9), ("expand", False, 1)]  # fmt: skip
    assert [w.path.rpartition(".")[2] for w in unit.cols] == ["reduce", "project_conv"]
    kept, shapes = unit.kept(0.5), unit.shapes(0.5)
    assert shapes[unit.rows[1].path] == (kept, 9)
    assert {shapes[w.path][0] for w in unit.rows} == {shapes[w.path][1] for w in unit.cols} == {kept}


def test_a_convolution_is_a_matrix_with_a_column_for_each_channel_and_tap() -> None:
    unit = next(one for one in units_of("resnet") if one.prunable)
    (row,), (col,) = unit.rows, unit.cols
    assert (col.rows, col.columns, col.kernel) == (64, 64 * 9, 9)
    assert unit.shapes(0.5) == {row.path: (32, row.columns), col.path: (64, 32 * 9)}


# ---- levels -------------------------------------------------------------------------------------


def test_shapes_are_those_of_the_stitched_model(tiny: Tiny) -> None:
    for ratio in (0.0, 0.25, 0.5, 0.75, 0.9):
        candidate = tiny.space.uniform(Level.of(ratio, 32))
        model = tiny.stitched_as(candidate).model
        for unit in tiny.units:
            for path, shape in unit.shapes(candidate[unit.name].ratio).items():
                assert tuple(model.get_submodule(path).weight.shape) == shape  # type: ignore[arg-type]


@given(
    each=st.sampled_from((1, 8, 32)),
    pieces=st.integers(1, 300),
    step=st.sampled_from((1, 8, 16, 32, 64, 128)),
    ratio=st.floats(0.0, 0.99),
)
def test_what_is_kept_is_whole_steps_never_none_and_never_more_than_there_are(
    each: int, pieces: int, step: int, ratio: float
) -> None:
    rows = each * pieces
    unit = Unit(
        name="u",
        kind="u",
        rows=(Weight("a", rows, 8, True), Weight("half", 2 * rows, 8, True)),
        cols=(Weight("b", 8, rows, True),),
        pieces=pieces,
        step=min(step, pieces),
        group_size=64,
        ratios=(0.0, ratio, 1.0),
        storages=storages_of((4, FLOAT_BITS)),
    )
    kept = unit.kept(ratio)
    assert 0 < kept <= pieces
    assert kept == pieces or kept % unit.step == 0
    assert abs(kept - pieces * (1 - ratio)) <= unit.step
    assert unit.shapes(ratio) == {"a": (kept * each, 8), "half": (2 * kept * each, 8), "b": (8, kept * each)}
    assert (unit.kept(0.0), unit.kept(1.0)) == (pieces, 0)
    keep = torch.arange(pieces)[:kept]
    assert torch.equal(unit.at(keep, 2 * rows), torch.arange(2 * kept * each))


def test_with_nothing_left_a_unit_weighs_its_outputs_biases() -> None:
    rows, cols = (Weight("a", 64, 8, True),), (Weight("b", 8, 64, True),)
    unit = Unit("u", "u", rows, cols, 64, 64, 64, (0.0, 1.0), storages_of((4, FLOAT_BITS)))
    assert unit.size_bytes(Level.of(1.0, 4)) == unit.size_bytes(Level(1.0)) == 4 * 8


def test_a_unit_that_is_only_quantized_keeps_its_shape(tiny: Tiny) -> None:
    unit = tiny.unit("position_embeddings")
    assert not unit.prunable
    assert unit.shapes(0.0) == {unit.rows[0].path: (32, 64)}


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
    space = search_space(tiny.units, lambda unit, level: level.storage.bits in {4, 8, 32})
    assert {storage.bits for unit in space.units for storage in unit.storages} == {4, 8, 32}
    assert [unit.unit for unit in space.units] == [unit.name for unit in tiny.units]


# ---- rules --------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_takes_the_module() -> None:
    first = {"at": "bert.encoder.layer.0.intermediate.dense", "quantize": {"bits": [8]}}
    rest = {"at": "bert.encoder.layer.*.intermediate.dense", "quantize": {"bits": [2]}}
    model = on_meta("bert", num_hidden_layers=3)
    units = find_units(model, space_of(first=first, rest=rest), source="mine.yaml")
    assert [(unit.kind, [storage.bits for storage in unit.storages]) for unit in units] == [
        ("first", [32, 8]),
        ("rest", [32, 2]),
        ("rest", [32, 2]),
    ]


def test_a_rule_whose_modules_are_all_in_rules_above_is_told() -> None:
    first = {"at": "bert.encoder.layer.*", "rows": ["intermediate.dense"], "cols": ["output.dense"],
             "prune": {"by": "neuron", "ratios": [0.5]}, "quantize": FOUR_BITS}  # fmt: skip
    second = {"at": "bert.encoder.layer.*.output.dense", "quantize": FOUR_BITS}
    model = on_meta("bert", num_hidden_layers=1)
    text = misfits(model, first=first, second=second)
    assert "units.second: a rule above has bert.encoder.layer.0.output.dense, and" in text
    assert find_units(model, space_of(first=first, second=second | {"optional": True}), source="mine.yaml")


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
    assert (
        "units.norm: bert.embeddings.LayerNorm is a LayerNorm; a Linear, Embedding or Conv2d is needed"
        in text
    )
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
    assert "intermediate.dense gives 3072 features, but bert.encoder.layer.0.attention.self.query 768" in text


def test_a_space_for_another_family_names_each_rule() -> None:
    with pytest.raises(AutopruneError) as caught:
        find_units(on_meta("distilbert"), read_space(SPACES / "bert.yaml"), source="bert.yaml")
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        f"units.{kind}"
        for kind in (
            "word_embeddings",
            "position_embeddings",
            "attention",
            "feed_forward",
        )  # a pooler is optional
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


# ---- channels, tokens and shared weights --------------------------------------------------------


def channels(rows: list[str], cols: list[str]) -> dict[str, Any]:
    prune = {"by": "channel", "ratios": [0.5]}
    return {"at": "block", "rows": rows, "cols": cols, "prune": prune, "quantize": FOUR_BITS}


def convolutions(**layers: nn.Module) -> nn.Module:
    return nn.ModuleDict({"block": nn.ModuleDict(layers)})


def test_channels_are_kept_in_steps_that_kernels_like() -> None:
    model = convolutions(a=nn.Conv2d(3, 20, 3), b=nn.Conv2d(20, 4, 3))
    (unit,) = find_units(model, space_of(c=channels(["a"], ["b"])), source="mine.yaml")
    assert (unit.pieces, unit.step, unit.kept(0.5)) == (20, 8, 8)
    assert unit.shapes(0.5) == {"block.a": (8, 27), "block.b": (4, 72)}


def test_a_layer_after_the_picture_is_laid_out_in_a_row_loses_all_spots_of_a_channel() -> None:
    model = convolutions(a=nn.Conv2d(3, 16, 3), fc=nn.Linear(16 * 25, 10))
    (unit,) = find_units(model, space_of(c=channels(["a"], ["fc"])), source="mine.yaml")
    assert unit.shapes(0.5)["block.fc"] == (10, 8 * 25)
    assert unit.at(torch.tensor([0, 3]), 400).tolist() == [*range(25), *range(75, 100)]


def test_convolutions_that_do_not_fit_are_told_why() -> None:
    paired = convolutions(a=nn.Conv2d(4, 16, 3), b=nn.Conv2d(16, 16, 3, groups=4))
    assert "block.b is a convolution in 4 groups" in misfits(paired, c=channels(["a"], ["b"]))
    uneven = convolutions(a=nn.Conv2d(4, 16, 3), b=nn.Conv2d(24, 16, 3))
    assert "block.b takes 24 features, but block.a gives 16" in misfits(uneven, c=channels(["a"], ["b"]))
    deep = convolutions(a=nn.Conv2d(4, 16, 3), b=nn.Conv2d(16, 16, 3, groups=16))
    assert "block.b takes 1 features" in misfits(deep, c=channels(["a"], ["b"]))


def test_tokens_are_rows_of_an_embedding() -> None:
    rule = {"at": "bert.pooler.dense", "prune": {"by": "token", "ratios": [0.5]}, "quantize": FOUR_BITS}
    assert "bert.pooler.dense: tokens are rows of an Embedding" in misfits(on_meta("bert"), tokens=rule)


def test_a_shared_weight_has_to_be_said_and_is_then_one() -> None:
    model = on_meta("smollm2")
    embedding = {"at": "model.embed_tokens", "quantize": FOUR_BITS}
    output = {"at": "lm_head", "quantize": FOUR_BITS}
    assert "shares its weight with lm_head; say so by `tied: lm_head`" in misfits(model, words=embedding)
    assert "cover model.embed_tokens first, with `tied: lm_head`" in misfits(model, output=output)
    tied = embedding | {"tied": "lm_head"}
    (unit,) = find_units(model, space_of(words=tied, output=output), source="mine.yaml")
    assert unit.rows[0].tied == "lm_head"
    apart = find_units(on_meta("llama"), space_of(words=tied, output=output), source="mine.yaml")
    assert [unit.rows[0].tied for unit in apart] == ["", ""]


def test_an_optional_rule_takes_the_places_that_have_all_it_names() -> None:
    stem, narrow, *wide, top, classifier = units_of("efficientnet")
    assert (stem.kind, narrow.kind, top.kind, classifier.kind) == (
        "stem",
        "narrow_block",
        "top",
        "classifier",
    )
    assert {unit.kind: unit.prunable for unit in (narrow, *wide)} == {"narrow_block": False, "channels": True}
    model = on_meta("bert")
    rule = {"at": "bert.encoder.layer.*", "rows": ["crossattention.self.query"], "quantize": FOUR_BITS}
    assert "has no module" in misfits(model, cross=rule)
    pooler = {"at": "bert.pooler.dense", "quantize": FOUR_BITS}
    found = find_units(model, space_of(cross=rule | {"optional": True}, pooler=pooler), source="mine.yaml")
    assert [unit.kind for unit in found] == ["pooler"]
