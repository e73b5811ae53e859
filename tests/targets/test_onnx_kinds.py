"""ONNX Runtime, for every kind of model: answers of the stitched module, bytes as predicted, our integers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.activations import Activations
from autoprune.compress.integers import PRODUCT_REACH, round_nearest
from autoprune.compress.stitch import Stitched
from autoprune.compress.surgery import FewerTokens, replace_
from autoprune.models.spec import Architecture
from autoprune.models.units import search_space
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.targets import get_target, size_on_disk
from autoprune.targets.decoding import Decoder
from autoprune.targets.onnx.target import GRAPH
from autoprune.targets.packed import torch_runner
from autoprune.tasks.kinds import CAUSAL_LM, IMAGE_CLASSIFICATION
from tests.support.families import make_case
from tests.support.stored import integers_of
from tests.support.tiny import Tiny

ONNX = get_target("onnx")
TEXT = ("bert-tokens", "bert-embedding", "gpt2", "llama")
IMAGE = ("vit", "resnet", "resnet-bottleneck", "torchvision", "efficientnet", "efficientnet-lite")

SAME = 1e-4
"""Of the answers' spread, where nothing is rounded at run time: order of summation alone."""

FLIPPED = 0.1
"""Of it, where some inputs fall half-way between two codes, and to either."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("library")


def tiny_of(name: str, library: Path) -> Tiny:
    """A tiny model of a family."""
    return make_case(name, library).tiny


def nearest(tiny: Tiny, level: Level) -> Candidate:
    """Every unit at the level nearest to `level` of those that are offered."""
    return search_space(tiny.units, ONNX.offers).uniform(level)


def saved(tiny: Tiny, candidate: Candidate, folder: Path) -> tuple[Stitched, Any]:
    """The stitched model, and the graph that was saved of it."""
    folder.mkdir(exist_ok=True)
    stitched = tiny.stitched_as(candidate)
    ONNX.save(stitched, folder, tiny.task.batch(tiny.task.validation, tiny.task.example_rows))
    return stitched, onnx.load(folder / GRAPH)


def gap(tiny: Tiny, stitched: Stitched, folder: Path) -> float:
    """Largest difference of an answer, of the answers' spread; other rows than the traced ones."""
    run, there = ONNX.load(folder), torch_runner(stitched.model, stitched.architecture.kind)
    shares = []
    for rows in ([2, 3, 4], [5]):
        batch = tiny.task.batch(tiny.task.validation, rows)
        got, wanted = run(batch), there(batch)
        assert got.shape == wanted.shape
        shares.append(float(np.abs(got - wanted).max() / wanted.std()))
    return max(shares)


def operators(proto: Any) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def constants(proto: Any) -> dict[str, NDArray[Any]]:
    return {
        initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in proto.graph.initializer
    }


def with_rounded_biases(stitched: Stitched, proto: Any) -> nn.Module:
    """The model with biases in whole steps of the products, where the graph goes from codes to codes."""
    named = {name for node in proto.graph.node if node.op_type == "QLinearConv" for name in node.input}
    for path, grid in stitched.activations.items():
        if f"{path}.bias" in named:
            bias = stitched.model.get_submodule(path).bias
            step = grid.scale * integers_of(stitched)[path].scale[:, 0].double()
            with torch.no_grad():
                bias.copy_((bias.double() / step).round() * step)
    return stitched.model


# ---- all kinds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [32, 8, "w8a8"])
@pytest.mark.parametrize("name", TEXT + IMAGE)
def test_answers_are_those_of_the_stitched_model_and_bytes_as_predicted(
    library: Path, tmp_path: Path, name: str, width: int | str
) -> None:
    tiny = tiny_of(name, library)
    _, proto = saved(tiny, tiny.space.untouched(), tmp_path / "original")
    original = size_on_disk(ONNX, tmp_path / "original")
    candidate = nearest(tiny, Level.of(0.0 if width == 32 else 0.5, width))
    stitched, proto = saved(tiny, candidate, tmp_path / "small")
    weights = sum(len(unit.weights) for unit in tiny.units)
    size, predicted = size_on_disk(ONNX, tmp_path / "small"), tiny.predicted_bytes(ONNX, candidate, original)
    assert abs(size - predicted) <= 0.005 * size + 160 * weights  # files of no more than 100 kB
    rounded = operators(proto)["MatMulNBits"] or stitched.activations
    # A random language model's 160 logits at 48 places spread wider than three of a classifier.
    allowed = SAME if not rounded else 2 * ONNX.tolerance if width == 8 else FLIPPED
    assert gap(tiny, stitched, tmp_path / "small") <= allowed


@pytest.mark.parametrize("name", ["bert-tokens", "bert-embedding", "torchvision", "llama"])
def test_any_length_is_declared_where_it_may_have_any(library: Path, tmp_path: Path, name: str) -> None:
    tiny = tiny_of(name, library)
    _, proto = saved(tiny, tiny.space.untouched(), tmp_path)
    found = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*proto.graph.input, *proto.graph.output]
    }
    wanted = {
        "bert-tokens": {"logits": ["batch", "sequence", 3]},
        "bert-embedding": {"input_ids": ["batch", "sequence"]},
        "torchvision": {"pixel_values": ["batch", 3, 32, 32], "logits": ["batch", 3]},
        "llama": {"input_ids": ["batch", "sequence"], "past.0.key": ["batch", 4, "past", 8]},
    }[name]
    assert {key: found[key] for key in wanted} == wanted


@pytest.mark.parametrize("width", [32, 4, "w8a8"])
@pytest.mark.parametrize("name", ["bert-tokens", "llama"])
def test_layers_of_which_nothing_is_left_and_tokens_that_are_gone(
    library: Path, tmp_path: Path, name: str, width: int | str
) -> None:
    tiny = tiny_of(name, library)
    units = tuple(
        dataclasses.replace(unit, ratios=(0.0, 1.0))
        if unit.cols
        else dataclasses.replace(unit, ratios=(0.0, 0.5), by_token=True)
        if unit.kind == "word_embeddings" and not unit.rows[0].tied
        else unit
        for unit in tiny.units
    )
    tiny = dataclasses.replace(tiny, units=units, space=search_space(units, lambda unit, level: True))
    candidate = tiny.space.untouched()
    for kind in ("attention", "feed_forward"):
        candidate = candidate.with_level(tiny.unit(kind).name, Level.of(1.0, width))
    if name == "bert-tokens":
        candidate = candidate.with_level("embeddings.word_embeddings", Level.of(0.5, 4 if width == 4 else 16))
    stitched, _ = saved(tiny, candidate, tmp_path)
    assert any(0 in parameter.shape for parameter in stitched.model.parameters())
    lost = [module for module in stitched.model.modules() if isinstance(module, FewerTokens)]
    assert len(lost) == (name == "bert-tokens")
    assert gap(tiny, stitched, tmp_path) <= (ONNX.tolerance if lost and width == 4 else SAME)


# ---- language models ----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_weight_of_two_layers_is_stored_once(library: Path, tmp_path: Path, name: str, bits: int) -> None:
    tiny = tiny_of(name, library)
    unit = tiny.unit("word_embeddings")
    candidate = tiny.space.untouched().with_level(unit.name, Level.of(0.0, bits))
    stitched, proto = saved(tiny, candidate, tmp_path)
    found, (path,) = operators(proto), integers_of(stitched)
    assert found["GatherBlockQuantized"] == found["MatMulNBits"] == 1
    one = integers_of(stitched)[path]
    named = {name: x for name, x in constants(proto).items() if path in name}
    assert named.keys() == {f"{path}.codes", f"{path}.scale.half", f"{path}.zero", f"{path}.blocks"}
    assert named[f"{path}.codes"].nbytes * 8 == one.codes.numel() * bits
    assert gap(tiny, stitched, tmp_path) <= ONNX.tolerance


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_step_by_step_is_as_at_once(library: Path, tmp_path: Path, name: str) -> None:
    tiny = tiny_of(name, library)
    stitched, _ = saved(tiny, nearest(tiny, Level.of(0.5, 16)), tmp_path)
    run = ONNX.load(tmp_path)
    assert isinstance(run, Decoder)
    assert run(tiny.task.timing_batch(2, 7)).shape == (2, 1, 160)
    start = tiny.task.batch(tiny.task.validation, [0, 1])["input_ids"][:, :5]
    ids = torch.from_numpy(start)
    there = torch_runner(stitched.model, CAUSAL_LM)
    for _ in range(6):
        logits = there({"input_ids": ids.numpy()})
        ids = torch.cat([ids, torch.from_numpy(logits[:, -1:].argmax(-1))], 1)
    assert np.array_equal(run.generate(start, max_new_tokens=6), ids.numpy())


# ---- convolutions -------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", ["torchvision", "efficientnet-lite"])
def test_integers_of_convolutions_are_ours_and_computed_with_exactly(
    library: Path, tmp_path: Path, name: str, bits: int
) -> None:
    tiny = tiny_of(name, library)
    candidate = nearest(tiny, Level.of(0.0, bits)).with_level(tiny.unit("classifier").name, UNTOUCHED)
    stitched, proto = saved(tiny, candidate, tmp_path)
    found, kernels = constants(proto), {x.name: x for x in proto.graph.initializer}
    assert integers_of(stitched)
    for path, integers in integers_of(stitched).items():
        codes = found[f"{path}.codes"].astype(np.uint8).reshape(integers.codes.shape)
        assert np.array_equal(codes, integers.codes.numpy())
        data = kernels[f"{path}.codes"].raw_data
        assert len(data) == -(-integers.codes.numel() * integers.bits // 8)
        assert f"model.{path}.weight" not in found
    assert gap(tiny, stitched, tmp_path) <= SAME


@pytest.mark.parametrize("name", ["resnet-bottleneck", "efficientnet-lite", "mobilenet_v2"])
def test_convolutions_multiply_integers_and_hand_on_codes(library: Path, tmp_path: Path, name: str) -> None:
    tiny = tiny_of(name, library)
    stitched, proto = saved(tiny, nearest(tiny, Level.of(0.0, "w8a8")), tmp_path)
    found = operators(proto)
    assert found["QLinearConv"] >= len(stitched.activations) // 2
    assert found["Conv"] <= 1  # the stem, of 3 channels
    assert found["QLinearConv"] + found["MatMulIntegerToFloat"] + found["Conv"] == len(stitched.activations)
    assert found["QuantizeLinear"] < len(stitched.activations) - found["QLinearConv"] // 2
    with_rounded_biases(stitched, proto)
    assert gap(tiny, stitched, tmp_path) <= FLIPPED


class Sliding(nn.Module):
    """A convolution between two others, whose output is also added to, so that floats must come out of it."""

    def __init__(self, **about: Any) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 16, 1)
        self.middle = nn.Conv2d(16, 16, **about)
        self.narrow = nn.Conv2d(16, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.middle(self.widen(pixels).relu())
        out: Tensor = self.narrow((x + x.mean()).tanh()).mean((2, 3))
        return out


@pytest.mark.parametrize(
    "about",
    [
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2, "bias": False},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": (0, 1), "stride": (2, 1)},
        {"kernel_size": (2, 3), "padding": "same"},
        {"kernel_size": 3, "dilation": 2, "stride": 2, "padding": 2},
        {"kernel_size": 3, "padding": "valid", "bias": False},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": 3, "padding": 1, "groups": 16},
    ],
    ids=str,
)
@pytest.mark.parametrize("zero", [0, 117])
def test_integers_are_multiplied_however_a_kernel_is_slid(
    tmp_path: Path, about: dict[str, Any], zero: int
) -> None:
    torch.manual_seed(0)
    model = Sliding(**about).eval()
    weight = model.middle.weight.detach().flatten(1)
    one = round_nearest(weight, bits=8, group_size=weight.shape[1], reach=PRODUCT_REACH)
    replace_(model, "middle", one.dequantize(), model.middle.bias, Activations(0.01, zero))
    pixels = torch.randn(3, 3, 9, 11).numpy()
    levels = Candidate((("middle", Level.of(0.0, "w8a8")),))
    stitched = Stitched(model, {"middle": one}, levels, Architecture(IMAGE_CLASSIFICATION))
    ONNX.save(stitched, tmp_path, {"pixel_values": pixels[:2]})
    batch = {"pixel_values": pixels}
    wanted, got = torch_runner(model, IMAGE_CLASSIFICATION)(batch), ONNX.load(tmp_path)(batch)
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    found = operators(onnx.load(tmp_path / GRAPH))
    on_floats = about["kernel_size"] == 5 or "groups" in about
    assert found["MatMulIntegerToFloat"] == (not on_floats)
    assert found["DequantizeLinear"] == 0
