"""torch's attention, weights computed at each call, and files of weights: the same answers, plain layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from autoprune.compress.stitch import Stitched
from autoprune.compress.surgery import replace_
from autoprune.core.errors import AutopruneError
from autoprune.inspection.draft import draft
from autoprune.models.attention import SeparateAttention
from autoprune.models.canonical import straighten_
from autoprune.models.spec import Architecture
from autoprune.models.weights_file import load_weights_
from autoprune.targets import get_target
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION

IMAGE = (3, 8, 8)


class Encoder(nn.Module):
    """A picture's columns as tokens through torch's own encoder layers."""

    def __init__(self, *, norm_first: bool = False, batch_first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(24, 32)
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, batch_first=batch_first, norm_first=norm_first, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first and batch_first)
        self.batch_first = batch_first
        self.fc = nn.Linear(32, 3)

    def forward(self, x: Tensor, **masks: Any) -> Tensor:
        tokens = self.embed(x.flatten(1, 2).transpose(1, 2))
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        out = self.encoder(tokens, **masks)
        answers: Tensor = self.fc(out.mean(1 if self.batch_first else 0))
        return answers


class Shared(nn.Module):
    """Two layers with one weight, of which one has a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(self.stem(x).mean((2,)).flatten(1)[:, :16]).relu())
        return out


def random_(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def straightened(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    straighten_(other)
    return other


# ---- attention ----------------------------------------------------------------------------------


def calls() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Settings of an `nn.MultiheadAttention`, and how it is called."""
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    for batch_first in (True, False):
        for given in (
            {}, {"need_weights": False}, {"attn_mask": causal}, {"key_padding_mask": padding},
            {"attn_mask": causal, "key_padding_mask": padding, "need_weights": False},
            {"attn_mask": causal, "is_causal": True, "need_weights": False},
            {"attn_mask": torch.randn(8, 5, 5)}, {"average_attn_weights": False},
        ):  # fmt: skip
            yield {"batch_first": batch_first}, given
    yield {"bias": False}, {}
    yield {"kdim": 12, "vdim": 20}, {}


@pytest.mark.parametrize(("settings", "given"), list(calls()))
def test_separate_attention_gives_what_torchs_does(settings: dict[str, Any], given: dict[str, Any]) -> None:
    old = random_(nn.MultiheadAttention(16, 4, **settings))
    new = SeparateAttention(old).eval()  # type: ignore[arg-type]
    side = (2, 5) if settings.get("batch_first") else (5, 2)
    q, k, v = (torch.randn(*side, settings.get(name, 16)) for name in ("embed", "kdim", "vdim"))
    with torch.no_grad():
        wanted, got = old(q, k, v, **given), new(q, k, v, **given)
    torch.testing.assert_close(got[0], wanted[0], atol=1e-5, rtol=1e-4)
    if given.get("need_weights", True):
        torch.testing.assert_close(got[1], wanted[1], atol=1e-5, rtol=1e-4)


def test_a_row_without_a_batch_is_taken_too() -> None:
    old = random_(nn.MultiheadAttention(16, 4))
    new = SeparateAttention(old).eval()  # type: ignore[arg-type]
    x = torch.randn(5, 16)
    for wanted, got in zip(old(x, x, x), new(x, x, x), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_an_encoder_answers_as_before_and_calls_every_layer(norm_first: bool, batch_first: bool) -> None:
    model = random_(Encoder(norm_first=norm_first, batch_first=batch_first))
    other = straightened(model)
    called = set()
    for path, module in other.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, path=path: called.add(path))  # type: ignore[misc]
    x = torch.randn(2, *IMAGE)
    padding = torch.tensor([[False] * 8, [False] * 5 + [True] * 3])
    with torch.inference_mode():
        torch.testing.assert_close(other(x), model(x), atol=1e-4, rtol=1e-4)
        masked = model(x, src_key_padding_mask=padding), other(x, src_key_padding_mask=padding)
    if norm_first or not batch_first:  # nested tensors leave zeros where padding is
        torch.testing.assert_close(masked[1], masked[0], atol=1e-4, rtol=1e-4)
    assert called == {path for path, module in other.named_modules() if isinstance(module, nn.Linear)}
    assert sum(".self_attn." in path for path in called) == 8


def test_heads_and_neurons_of_torchs_encoder_are_drafted() -> None:
    model = straightened(random_(Encoder()))
    x = torch.randn(2, *IMAGE)
    drafted = draft(model, lambda changed: changed(x))
    kinds = {rule.by for rule in drafted.rules.values()}
    assert {"head", "neuron"} <= kinds
    heads = next(units for name, units in drafted.units.items() if drafted.rules[name].by == "head")
    assert [unit.pieces for unit in heads] == [4, 4]


def test_attention_runs_without_some_heads_and_without_any() -> None:
    model = straightened(random_(Encoder()))
    attention: Any = model.get_submodule("encoder.layers.0.self_attn")
    path = "encoder.layers.0.self_attn"
    for kept in (2, 0):
        rows = torch.arange(kept * attention.head_size)
        for name in ("query", "key", "value"):
            layer = model.get_submodule(f"{path}.{name}")
            replace_(model, f"{path}.{name}", layer.weight[rows], layer.bias[rows])  # type: ignore[index]
        out = model.get_submodule(f"{path}.out_proj")
        replace_(model, f"{path}.out_proj", out.weight[:, rows], out.bias)  # type: ignore[index, arg-type]
        assert attention.num_heads == kept
        with torch.no_grad():
            assert model(torch.randn(2, *IMAGE)).isfinite().all()


@pytest.mark.parametrize("target", ["packed", "openvino", "onnx"])
def test_an_encoder_is_saved_and_loaded_on_every_runtime(tmp_path: Path, target: str) -> None:
    model = random_(Encoder())
    builder = f"{__name__}:Encoder"
    architecture = Architecture(IMAGE_CLASSIFICATION, builder=builder, image=IMAGE)
    batch = {"pixel_values": np.random.default_rng(0).normal(size=(2, *IMAGE)).astype(np.float32)}
    with torch.no_grad():
        wanted = model(torch.from_numpy(batch["pixel_values"])).numpy()
    architecture.canonicalise_(model)
    runtime: Any = get_target(target)
    architecture.write(tmp_path)
    runtime.save(Stitched.plain(model, architecture), tmp_path, batch)
    if target == "packed":
        from autoprune.targets.packed import Packed

        runtime = Packed(builder=builder)
    np.testing.assert_allclose(runtime.load(tmp_path)(batch), wanted, atol=1e-4)


def test_a_packed_file_of_an_earlier_version_with_joint_weights_is_read(tmp_path: Path) -> None:
    from autoprune.targets.packed import Packed

    model = random_(Encoder())
    builder = f"{__name__}:Encoder"
    architecture = Architecture(IMAGE_CLASSIFICATION, builder=builder, image=IMAGE)
    architecture.write(tmp_path)
    joint = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    architecture.canonicalise_(model)
    get_target("packed").save(Stitched.plain(model, architecture), tmp_path, {})
    with_metadata = tmp_path / "model.safetensors"
    from safetensors import safe_open

    with safe_open(with_metadata, "pt") as file:
        metadata = file.metadata()
    save_file(joint, with_metadata, metadata=metadata)
    batch = {"pixel_values": np.ones((1, *IMAGE), np.float32)}
    with torch.no_grad():
        wanted = model(torch.ones(1, *IMAGE)).numpy()
    np.testing.assert_allclose(Packed(builder=builder).load(tmp_path)(batch), wanted, atol=1e-5)


# ---- weights that are computed ------------------------------------------------------------------

NORMS: dict[str, Callable[[nn.Module], object]] = {
    "new weight norm": lambda layer: nn.utils.parametrizations.weight_norm(layer),
    "old weight norm": lambda layer: nn.utils.weight_norm(layer),
    "new spectral norm": lambda layer: nn.utils.parametrizations.spectral_norm(layer),
    "old spectral norm": lambda layer: nn.utils.spectral_norm(layer),
    "mask": lambda layer: nn.utils.prune.random_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(3, 4, 3)], ids=["linear", "conv"])
def test_a_computed_weight_is_stored_as_it_comes_out(name: str, layer: nn.Module) -> None:
    model = nn.Sequential(copy.deepcopy(layer))
    NORMS[name](model[0])
    model.eval()
    x = torch.randn(2, 6) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        wanted = model(x)
        other = straightened(model)
        torch.testing.assert_close(other(x), wanted)
    assert type(other[0]) is type(layer)  # type: ignore[index]
    assert set(other.state_dict()) == {"0.weight", "0.bias"}
    assert not other[0]._forward_pre_hooks  # type: ignore[index]
    assert other[0].weight.requires_grad  # type: ignore[index]


# ---- files --------------------------------------------------------------------------------------


def test_a_file_with_shared_tensors_stored_once_is_read(tmp_path: Path) -> None:
    model = random_(Shared())
    save_model(model, str(tmp_path / "w.safetensors"))
    assert len(load_file(tmp_path / "w.safetensors")) == len(model.state_dict()) - 1
    other = Shared()
    assert load_weights_(other, str(tmp_path / "w.safetensors"), "a:b") == ()
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in other.state_dict().items())
    assert other.first.weight is other.second.weight


def test_shared_tensors_that_differ_in_the_file_are_refused(tmp_path: Path) -> None:
    state = {name: x.clone() for name, x in random_(Shared()).state_dict().items()}
    state["second.weight"] += 1
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(AutopruneError, match=r"second\.weight than for first\.weight"):
        load_weights_(Shared(), str(tmp_path / "w.safetensors"), "a:b")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.net."])
def test_one_prefix_before_all_names_is_left_out_and_said(tmp_path: Path, prefix: str) -> None:
    model = random_(Shared())
    save_file(
        {f"{prefix}{name}": x.clone() for name, x in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    other = Shared()
    (note,) = load_weights_(other, str(tmp_path / "w.safetensors"), "a:b")
    assert repr(prefix) in note
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in other.state_dict().items())


def test_a_part_that_was_compiled_alone_is_read(tmp_path: Path) -> None:
    model = random_(Shared())
    state = {name.replace("first.", "first._orig_mod."): x.clone() for name, x in model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    other = Shared()
    load_weights_(other, str(tmp_path / "w.safetensors"), "a:b")
    assert torch.equal(other.first.bias, model.state_dict()["first.bias"])


def test_a_file_that_lacks_and_has_other_names_says_both(tmp_path: Path) -> None:
    state = {name: x.clone() for name, x in Shared().state_dict().items()}
    state["odd.weight"] = state.pop("stem.weight")
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(AutopruneError) as caught:
        load_weights_(Shared(), str(tmp_path / "w.safetensors"), "a:b")
    assert "the file lacks stem.weight; the model has no odd.weight" in str(caught.value)
