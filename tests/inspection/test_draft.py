"""Drafted search spaces: what is coupled is found, proven, written once, and matched when it is read back.

Random weights show structure and arithmetic, never accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner, Result
from torch import Tensor, nn

from autoprune.cli import main
from autoprune.core.errors import AutopruneError
from autoprune.inspection.coupling import find_groups, is_summed
from autoprune.inspection.draft import draft
from autoprune.inspection.draft_rules import Draft, text_of
from autoprune.inspection.removal_check import faults_of
from autoprune.models.canonical import fold_norms_, straighten_
from autoprune.models.units import find_units
from autoprune.space.space_file import SpaceFile, read_space

torch.set_num_threads(1)

IDS = torch.randint(3, 60, (2, 8), generator=torch.Generator().manual_seed(0))
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ENCODER: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "max_position_embeddings": 20, "num_labels": 3,
}  # fmt: skip
DECODER: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


def plain_cnn() -> nn.Module:
    """A network of plain torch, with activations in place and a picture laid out in a row."""
    features = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3), nn.ReLU(inplace=True), nn.Conv2d(32, 8, 3),
    )  # fmt: skip
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 20), nn.ReLU(), nn.Linear(20, 5))
    return _Net(features, head)


class _Net(nn.Module):
    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


def roberta() -> nn.Module:
    return transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**ENCODER))


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**ENCODER))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=60, n_positions=20, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER, tie_word_embeddings=True))


def phi3() -> nn.Module:
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**DECODER))


def mpnet() -> nn.Module:
    return transformers.MPNetForSequenceClassification(transformers.MPNetConfig(**ENCODER))


def vit() -> nn.Module:
    config = {**ENCODER, "image_size": 32, "patch_size": 16}
    for name in ("vocab_size", "max_position_embeddings"):
        del config[name]
    return transformers.ViTForImageClassification(transformers.ViTConfig(**config))


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], layer_type="bottleneck", num_labels=3
    )
    return transformers.ResNetForImageClassification(config)


def mobilenet() -> nn.Module:
    config = transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.25, num_labels=3)
    return transformers.MobileNetV2ForImageClassification(config)


def efficientnet() -> nn.Module:
    config = transformers.EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320, num_labels=3
    )
    return transformers.EfficientNetForImageClassification(config)


def convnext() -> nn.Module:
    config = transformers.ConvNextConfig(
        num_stages=2, hidden_sizes=[16, 32], depths=[2, 2], image_size=32, num_labels=3
    )
    return transformers.ConvNextForImageClassification(config)


BUILDERS = (
    bert, roberta, mpnet, gpt2, llama, phi3, vit, resnet, mobilenet, efficientnet, convnext, plain_cnn
)  # fmt: skip
QKV = ["query", "key", "value"]
HIDDEN = ["0.convolution"], ["1.convolution"]
BLOCK = ["expansion.expand_conv", "depthwise_conv.depthwise_conv", "squeeze_excite.expand"]
EXPECTED: dict[str, list[tuple[str, str, list[str], list[str], list[int]]]] = {
    "bert": [
        ("bert.encoder.layer.*.attention", "head", [f"self.{x}" for x in QKV], ["output.dense"], [3, 3]),
        ("bert.encoder.layer.*", "neuron", ["intermediate.dense"], ["output.dense"], [40, 40]),
    ],
    "roberta": [
        ("roberta.encoder.layer.*.attention", "head", [f"self.{x}" for x in QKV], ["output.dense"], [3, 3]),
        ("roberta.encoder.layer.*", "neuron", ["intermediate.dense"], ["output.dense"], [40, 40]),
        ("classifier", "neuron", ["dense"], ["out_proj"], [24]),
    ],
    "mpnet": [  # one table of relative positions has a column for each head of every layer
        ("mpnet.encoder.layer.*", "neuron", ["intermediate.dense"], ["output.dense"], [40, 40]),
        ("classifier", "neuron", ["dense"], ["out_proj"], [24]),
    ],
    "gpt2": [
        ("transformer.h.*.attn", "head", [f"c_attn.{x}" for x in QKV], ["c_proj"], [3, 3]),
        ("transformer.h.*.mlp", "neuron", ["c_fc"], ["c_proj"], [96, 96]),
    ],
    "llama": [  # two heads share each key and value head
        ("model.layers.*.self_attn", "head", ["q_proj", "k_proj", "v_proj"], ["o_proj"], [2, 2]),
        ("model.layers.*.mlp", "neuron", ["gate_proj", "up_proj"], ["down_proj"], [40, 40]),
    ],
    "phi3": [],  # fused layers: a piece is no run of rows
    "vit": [
        ("vit.layers.*.attention", "head", ["q_proj", "k_proj", "v_proj"], ["o_proj"], [3, 3]),
        ("vit.layers.*.mlp", "neuron", ["fc1"], ["fc2"], [40, 40]),
    ],
    "resnet": [("resnet.encoder.stages.*.layers.*.layer", "channel", *HIDDEN, [8, 8, 16, 16])],
    "convnext": [
        ("convnext.encoder.stages.0.layers.*", "neuron", ["pwconv1"], ["pwconv2"], [64, 64]),
        ("convnext.encoder.stages.1.layers.*", "neuron", ["pwconv1"], ["pwconv2"], [128, 128]),
    ],
    "plain_cnn": [
        ("features", "channel", ["0"], ["3"], [16]),
        ("features", "channel", ["7"], ["9"], [32]),
        ("head", "neuron", ["1"], ["3"], [20]),
    ],
}
"""Rules that prune, in order: where, what, rows, columns, and the pieces of their units."""


def answers(model: nn.Module) -> Tensor:
    """The model's answers to the example: a picture or text, as its kind takes it."""
    name = type(model).__name__
    if isinstance(model, transformers.PreTrainedModel):
        given: dict[str, Any] = {"input_ids": IDS} if model.main_input_name == "input_ids" else {}
        given |= {"use_cache": False} if "LM" in name else {}
        out: Tensor = model(**(given or {"pixel_values": PIXELS})).logits
        return out
    result: Tensor = model(PIXELS)
    return result


@pytest.fixture(scope="module")
def made() -> Callable[[str], tuple[nn.Module, Draft]]:
    """A canonical model whose answers depend on every weight, and its draft, by name; each made once."""
    known: dict[str, tuple[nn.Module, Draft]] = {}

    def make(name: str) -> tuple[nn.Module, Draft]:
        if name not in known:
            model = shaken(next(build for build in BUILDERS if build.__name__ == name)())
            known[name] = model, draft(model, answers)
        return known[name]

    return make


def shaken(model: nn.Module) -> nn.Module:
    """The model with no bias zero and no norm one, in canonical form."""
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=draws) * (0.1 if parameter.ndim == 1 else 0.02)
            )
    straighten_(model.eval())
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        fold_norms_(model, answers)
    return model


Made = Callable[[str], tuple[nn.Module, Draft]]


# ---- what is found ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_what_can_be_pruned_is_found(name: str, made: Made) -> None:
    _, found = made(name)
    pruned = [
        (rule.at, rule.by, list(rule.rows), list(rule.cols), [unit.pieces for unit in found.units[key]])
        for key, rule in found.rules.items()
        if rule.by
    ]
    assert sorted(pruned) == sorted(EXPECTED[name])


def test_depthwise_partners_and_squeeze_excite_are_in_the_unit_of_their_block(made: Made) -> None:
    _, found = made("efficientnet")
    (blocks,) = [rule for rule in found.rules.values() if rule.at == "efficientnet.encoder.blocks.*"]
    assert (list(blocks.rows), list(blocks.cols)) == (
        BLOCK,
        ["squeeze_excite.reduce", "projection.project_conv"],
    )
    assert blocks.optional  # the first block does not expand
    _, found = made("mobilenet")
    (layers,) = [rule for rule in found.rules.values() if rule.at == "mobilenet_v2.layer.*"]
    assert layers.rows == ("expand_1x1.convolution", "conv_3x3.convolution")
    assert layers.cols == ("reduce_1x1.convolution",)
    streams = [left_group for left_group in found.left if "residual stream" in left_group.why]
    assert any("mobilenet_v2.layer.3.reduce_1x1.convolution" in left_group.paths for left_group in streams)


def test_a_weight_that_an_output_layer_shares_is_named_once(made: Made) -> None:
    _, found = made("llama")
    (tied,) = [rule for rule in found.rules.values() if rule.tied]
    assert (tied.at, tied.tied) == ("model.embed_tokens", "lm_head")
    assert all(rule.at != "lm_head" for rule in found.rules.values())
    assert 2 not in tied.bits  # it gives the answers


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda one: one.__name__)
def test_every_layer_is_in_one_unit_or_named_with_a_reason(builder: Any, made: Made) -> None:
    model, found = made(builder.__name__)
    units = [unit for some in found.units.values() for unit in some]
    taken = [path for unit in units for w in unit.weights for path in (w.path, w.tied) if path]
    assert len(taken) == len(set(taken))
    left = {path for left_group in found.left for path in left_group.paths if not left_group.stored}
    for path, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            assert (path in taken) != ((path or type(model).__name__) in left), path
    pruned = {weight.path for unit in units if unit.prunable for weight in unit.rows}
    kept = {path for left_group in found.left for path in left_group.paths if left_group.stored}
    assert pruned | kept == set(taken)
    assert all(left_group.why for left_group in found.left)


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda one: one.__name__)
def test_what_is_written_is_read_back_as_the_same_units(builder: Any, made: Made, tmp_path: Path) -> None:
    model, found = made(builder.__name__)
    path = tmp_path / "my.yaml"
    path.write_text(text_of(found, model="m", kind="Net", file="my.yaml"))
    units = find_units(model, read_space(path), source="my.yaml")
    assert set(units) == {unit for some in found.units.values() for unit in some}
    assert len({unit.name for unit in units}) == len(units)


def test_the_model_is_left_as_it_was_and_a_draft_does_not_depend_on_chance() -> None:
    model = shaken(bert())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = answers(model)
    texts = [text_of(draft(model, answers), model="m", kind="n", file="f") for _ in range(2)]
    torch.randn(3)
    assert texts[0] == texts[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(answers(model), said)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# ---- coupling against a slow truth --------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "efficientnet"])
def test_a_piece_of_what_is_given_changes_that_piece_alone_of_what_is_read(name: str, made: Made) -> None:
    model, _ = made(name)
    groups = [group for group in find_groups(model, answers) if group.pieces > 1]
    assert groups
    for group in groups[:6]:
        for piece in {0, group.pieces - 1}:
            clean, moved = (
                _read(model, group.cols, group.rows[0], nudge, piece, group.pieces) for nudge in (0, 1)
            )
            for path in group.cols:
                where = (clean[path] != moved[path]).movedim(_dimension(model, path), 0).flatten(1).any(1)
                size = len(where) // group.pieces
                assert where[piece * size : (piece + 1) * size].any()
                assert where.sum() == where[piece * size : (piece + 1) * size].sum()


def _dimension(model: nn.Module, path: str) -> int:
    return -3 if isinstance(model.get_submodule(path), nn.Conv2d) else -1


def _read(
    model: nn.Module, cols: tuple[str, ...], giver: str, nudge: float, piece: int, pieces: int
) -> dict[str, Tensor]:
    """What layers read when one piece of what another gives is moved; only the first readers count."""
    read: dict[str, Tensor] = {}
    layer: Any = model.get_submodule(giver)
    dim = _dimension(model, giver)

    def move(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        size = len(layer.weight) // pieces
        moved = out.clone()
        moved.narrow(dim, piece * size, size).add_(nudge)
        return moved

    hooks = [layer.register_forward_hook(move)]
    for path in cols:

        def note(module: nn.Module, args: Any, path: str = path) -> None:
            read[path] = args[0].clone()

        def still(module: nn.Module, args: Any, out: Tensor) -> Tensor:
            return torch.zeros_like(out)  # what reads it gives nothing on, so that direct ways alone are seen

        hooks.append(model.get_submodule(path).register_forward_pre_hook(note))
        hooks.append(model.get_submodule(path).register_forward_hook(still))
    with torch.no_grad():
        answers(model)
    for hook in hooks:
        hook.remove()
    return read


class _Two(nn.Module):
    """fc1 -> something -> fc2; `way` says what."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.body = nn.ModuleDict({"fc1": nn.Linear(6, 8), "gate": nn.Linear(6, 8), "fc2": nn.Linear(8, 3)})
        self.scale = nn.Parameter(torch.rand(8) + 0.5)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.body["fc1"](x), self.body["gate"](x)
        ways: dict[str, Callable[[], Tensor]] = {
            "gated": lambda: torch.sigmoid(gate) * hidden,
            "summed": lambda: hidden + torch.relu(gate),
            "scaled": lambda: hidden * self.scale,
            "normed": lambda: self.norm(hidden),
            "swapped": lambda: hidden.flip(-1),
            "shaped": lambda: hidden.reshape(len(x), 8),
            "silent": lambda: hidden * 0.0,
            "counted": lambda: hidden + hidden.detach().sum(-1, keepdim=True),
            "also read": lambda: hidden.relu(),
        }
        out: Tensor = self.body["fc2"](ways[self.way]())
        return out + hidden.mean(-1, keepdim=True) if self.way == "also read" else out


ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def on_rows(model: nn.Module) -> Tensor:
    out: Tensor = model(ROWS)
    return out


def reason(way: str) -> str | None:
    """Why fc1 of a small network is not pruned; None where it is."""
    found = draft(_Two(way), on_rows)
    why = [
        left_group.why for left_group in found.left if left_group.stored and "body.fc1" in left_group.paths
    ]
    pruned = [rule for rule in found.rules.values() if rule.by and "fc1" in rule.rows]
    assert len(why) + len(pruned) == 1
    return why[0] if why else None


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("gated", None),
        ("summed", None),
        ("scaled", "does not run without part of it"),
        ("normed", "mixes it before it is read"),
        ("swapped", "mixes it before it is read"),
        ("shaped", "does not run without part of it"),
        ("counted", "something else reads it"),
        ("also read", "the model's answers"),
        ("silent", "no layer reads it"),
    ],
)
def test_what_cannot_be_removed_is_left_alone_and_said_why(way: str, why: str | None) -> None:
    said = reason(way)
    assert (said is None) if why is None else (said is not None and why in said)


@pytest.mark.parametrize(("way", "summed"), [("gated", False), ("summed", True)])
def test_terms_of_a_sum_are_told_from_factors(way: str, summed: bool) -> None:
    model = _Two(way)
    (group,) = [found for found in find_groups(model, on_rows) if len(found.rows) == 2]
    assert (group.rows, group.pieces) == (("body.fc1", "body.gate"), 8)
    assert is_summed(model, on_rows, group) is summed


def test_the_units_to_blame_are_found_among_those_that_are_proven(made: Made) -> None:
    model, found = made("bert")
    units = [unit for some in found.units.values() for unit in some if unit.prunable]
    assert faults_of(model, answers, units) == {}
    culprit = units[1]
    path = culprit.cols[0].path

    def call(model: nn.Module) -> Tensor:
        """As before, but the number of a layer's columns is known to what is computed."""
        return answers(model) * model.get_submodule(path).weight.shape[1]  # type: ignore[index, union-attr]

    faults = faults_of(model, call, units)
    assert list(faults) == [culprit.name]
    assert "something else reads it" in faults[culprit.name]


def test_of_two_groups_at_one_place_the_right_one_is_left_alone(made: Made) -> None:
    model, _ = made("plain_cnn")

    def call(model: nn.Module) -> Tensor:
        return answers(model) * model.get_submodule("features.9").weight.shape[1]  # type: ignore[index, union-attr]

    found = draft(model, call)
    assert [rule.rows for rule in found.rules.values() if rule.by == "channel"] == [("3",)]  # 7 is free again
    (left,) = [left_group for left_group in found.left if "something else reads it" in left_group.why]
    assert "features.7" in left.paths


def test_a_model_without_layers_to_compress_is_refused() -> None:
    with pytest.raises(AutopruneError, match="no Linear, Conv2d or Embedding"):
        draft(nn.LayerNorm(6), on_rows)


def test_a_convolution_in_groups_is_left_as_it_came_and_named_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 4, 3))
    model = nn.Sequential(model, nn.Flatten(), nn.LazyLinear(3))
    model(PIXELS)
    found = draft(model, answers)
    named = [
        (left_group.paths, left_group.why, left_group.stored)
        for left_group in found.left
        if "0.2" in left_group.paths
    ]
    assert [(paths, stored) for paths, _, stored in named] == [(("0.2",), False)]
    assert "4 groups" in named[0][1]
    assert {"0.0", "0.3", "2"} == {
        weight.path for some in found.units.values() for unit in some for weight in unit.weights
    }


def test_what_the_example_does_not_come_by_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model.unused = nn.Linear(4, 4)  # type: ignore[assignment]
    del model._modules["unused"]
    model[0].unused = nn.Linear(4, 4)
    (left,) = [left_group for left_group in draft(model, on_rows).left if not left_group.stored]
    assert (left.paths, "does not come by it" in left.why) == (("0.unused",), True)


class _Table(nn.Module):
    """A layer on a table of its own, one that no answer depends on, and one whose weight alone is read."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.places, self.unread, self.uncalled = nn.Linear(2, 8), nn.Linear(8, 4), nn.Linear(3, 3)
        self.register_buffer("table", torch.randn(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inside[1](self.inside[0](x)) + self.places(self.table)
        self.unread(hidden)
        out: Tensor = self.inside[2](hidden) @ self.uncalled.weight
        return out


def test_layers_that_cannot_be_followed_are_left_alone_each_with_its_reason() -> None:
    found = draft(_Table(), on_rows)
    reasons = {path: left.why for left in found.left if not left.stored for path in left.paths}
    assert {path: why[:25] for path, why in reasons.items()} == {
        "places": "what it is given is the s",
        "unread": "no answer depends on what",
        "uncalled": "its weight is read withou",
    }
    stored = {weight.path for some in found.units.values() for unit in some for weight in unit.weights}
    assert stored == {"inside.0", "inside.2"}


def test_an_embedding_that_is_given_no_tensor_is_left_alone() -> None:
    """As RoFormer's places, which are given a shape."""

    class Places(nn.Embedding):
        def forward(self, shape: Any) -> Tensor:  # type: ignore[override]
            return super().forward(torch.arange(shape[-1]))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.places = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)), Places(9, 6)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inside(x + self.places(x.shape[:-1]).sum(0))
            return out

    (left,) = [left for left in draft(Net(), on_rows).left if not left.stored]
    assert left.paths == ("places",)
    assert "is a Places, which looks its rows up in a way of its own" in left.why


def test_heads_are_as_large_as_the_module_around_says_where_no_config_does() -> None:
    class Block(nn.Module):
        head_dim = 4

        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.query, self.key, self.value)
            )
            heads = nn.functional.scaled_dot_product_attention(q, k, v)
            out: Tensor = self.out(heads.transpose(1, 2).flatten(2))
            return out

    model = nn.Sequential(nn.Linear(6, 8), Block(), nn.Linear(8, 3))
    rows = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    found = draft(model, lambda changed: changed(rows))
    assert [(rule.by, rule.rows) for rule in found.rules.values() if rule.by == "head"] == [
        ("head", ("query", "key", "value"))
    ]


# ---- the command --------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main.main, ["inspect", *map(str, arguments)])


@pytest.fixture(scope="module")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ResNet as a user has it, batch norms and all."""
    folder = tmp_path_factory.mktemp("models") / "small"
    resnet().save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 32, "width": 32}}')
    return folder


def test_the_command_writes_a_space_that_is_read_and_says_what_was_left(
    resnet_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    result = run(resnet_folder, "--write-space", path)
    assert result.exit_code == 0, result.output
    text = path.read_text()
    space = read_space(path)
    assert isinstance(space, SpaceFile)
    assert [rule.at for rule in space.units.values() if rule.prune] == [
        "resnet.encoder.stages.*.layers.*.layer"
    ]
    assert f"Wrote     {path}: {len(space.units)} rules" in result.stdout
    assert "channels x4" in result.stdout
    for said in (result.stdout, text):
        assert "residual stream" in said
        assert "resnet.encoder.stages.0.layers.0.shortcut.convolution" in said
    assert text.startswith(f"# Drafted for {resnet_folder} (ResNetForImageClassification)")


def test_a_file_is_never_overwritten(resnet_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("mine")
    result = run(resnet_folder, "--write-space", path)
    assert (result.exit_code, path.read_text()) == (2, "mine")
    assert "exists already and is not overwritten" in result.stderr


def test_a_model_that_a_function_builds(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    result = run("tests.inspection.test_draft:plain_cnn", "--image-size", 32, "--write-space", path, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["what"], record["file"]) == ("draft", str(path))
    assert set(record["rules"]) == set(read_space(path).units)
    assert any("feed_forward" in unit for rule in record["rules"].values() for unit in rule["units"])
    assert record["left_alone"]
    result = run("tests.inspection.test_draft:plain_cnn", "--write-space", tmp_path / "other.yaml")
    assert result.exit_code == 2
    assert "does not run on pixel_values [1, 3, 224, 224]" in result.stderr
    assert "give --image-size" in result.stderr
    assert not (tmp_path / "other.yaml").exists()


def test_what_does_not_go_together_is_refused(resnet_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    for arguments, said in (
        (("--write-space", path), "--write-space goes with MODEL"),
        ((resnet_folder, "--write-space", path, "--space", "bert"), "without --space"),
        ((resnet_folder, "--write-space", path, "--image-size", 32), "a folder has its own"),
        ((resnet_folder, "--image-size", 32), "--image-size goes with --write-space"),
        ((resnet_folder, "--write-space", tmp_path / "no" / "my.yaml"), "does not exist"),
        ((tmp_path / "absent", "--write-space", path), "does not exist"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not path.exists()
