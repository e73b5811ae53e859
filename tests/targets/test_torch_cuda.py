"""torch on a GPU: the integer product is the rounded layer's, the file is packed's, no GPU is one error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.compress.activations import Activations, integer_class
from autoprune.compress.integers import Integers
from autoprune.compress.surgery import replace_
from autoprune.core.errors import AutopruneError
from autoprune.space.levels import Level
from autoprune.targets import Target, get_target
from autoprune.targets.packed import read_packed
from autoprune.targets.torch_cuda import IntegerProduct, Torch, compiled_apart, with_integer_products
from autoprune.tasks.kinds import TEXT_CLASSIFICATION
from tests.support.tiny import Tiny, logits

HAS_GPU = torch.cuda.is_available()
WIDTHS: tuple[int | str, ...] = (2, 3, 4, 6, 8, "w8a8", 16, 32)

needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="torch sees no CUDA device")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    """The target on a machine that need not have a GPU, for what does not use one: all but `load`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return get_target("torch")


def layers(o: int, i: int, *, bias: bool, grid: Activations) -> tuple[nn.Module, nn.Module]:
    """The layer that rounds its input and multiplies floats, and the one that multiplies integers."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(1, 256, (o, i), generator=generator, dtype=torch.uint8)
    scale = (torch.rand(o, 1, generator=generator) * 0.01 + 1e-3).half()
    one = Integers(codes, scale, torch.full((o, 1), 128, dtype=torch.uint8), 8)
    offset = torch.randn(o, generator=generator) if bias else None
    holder = nn.Sequential(nn.Linear(i, o, bias=bias))
    replace_(holder, "0", one.dequantize(), offset, grid)
    return holder[0], IntegerProduct(one, grid, offset)


@pytest.mark.parametrize("zero", [0, 1, 77, 128, 255])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_of_integers_is_that_of_the_rounded_floats(zero: int, bias: bool) -> None:
    floats, integers = layers(24, 40, bias=bias, grid=Activations(0.031, zero))
    assert isinstance(floats, integer_class(nn.Linear))
    x = torch.randn(3, 11, 40, generator=torch.Generator().manual_seed(1)) * 4  # some beyond the grid
    wanted = floats(x)
    assert (integers(x) - wanted).abs().max() <= 1e-5 * wanted.std()


@pytest.mark.parametrize("zero", [100, 101])
def test_a_value_between_two_codes_falls_to_the_same_one(zero: int) -> None:
    floats, integers = layers(8, 8, bias=False, grid=Activations(0.5, zero))
    x = (torch.arange(-64, 64).float() * 0.25).reshape(16, 8)  # every other one is half-way
    assert torch.equal(integers(x).double().round(decimals=4), floats(x).double().round(decimals=4))


@pytest.mark.parametrize("shape", [(1, 40), (16, 40), (17, 40), (1, 1, 40), (2, 3, 40)])
def test_few_rows_are_as_good_as_many(shape: tuple[int, ...]) -> None:
    floats, integers = layers(24, 40, bias=True, grid=Activations(0.02, 120))
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(2))
    assert integers(x).shape == floats(x).shape
    assert torch.allclose(integers(x), floats(x), atol=1e-5)


def test_a_whole_model_gives_the_stitched_models_logits(tiny: Tiny) -> None:
    stitched = tiny.stitched(Level.of(0.5, "w8a8"))
    batch = tiny.task.batch(tiny.task.validation, [0, 1, 2])
    wanted = logits(stitched.model, batch)
    paths = set(stitched.activations)
    model = with_integer_products(stitched)
    assert (
        {path for path, module in model.named_modules() if isinstance(module, IntegerProduct)}
        == paths
        != set()
    )
    assert (logits(model, batch) - wanted).abs().max() <= 1e-4 * wanted.std()


def test_the_file_is_packeds(tiny: Tiny, target: Target, tmp_path: Path) -> None:
    stitched = tiny.stitched(Level.of(0.5, "w8a8"))
    target.save(stitched, tmp_path, {})
    assert list(target.files(tmp_path)) == [tmp_path / "model.safetensors"]
    again = read_packed(tmp_path)
    assert again.activations == stitched.activations != {}
    mine, theirs = stitched.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_8_bit_activations_are_offered_where_the_kernel_takes_the_shapes(tiny: Tiny, target: Target) -> None:
    attention, embedding = tiny.unit("attention"), tiny.unit("word_embeddings")
    assert [w for w in WIDTHS if target.offers(attention, Level.of(0.5, w))] == list(WIDTHS)
    assert [w for w in WIDTHS if target.offers(embedding, Level.of(0.0, w))] == [2, 3, 4, 6, 8, 16, 32]
    odd = tuple(dataclasses.replace(weight, rows=60) for weight in attention.rows)
    assert not target.offers(dataclasses.replace(attention, rows=odd), Level.of(0.0, "w8a8"))


def test_each_of_many_models_is_compiled_however_many_came_before() -> None:
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            calls.append(len(calls))
            return graph.forward(*inputs)

        return run

    for width in range(1, 13):
        model = nn.Linear(4, width)
        compiled = compiled_apart(model, TEXT_CLASSIFICATION, backend)
        for rows in (3, 1):
            before, x = len(calls), torch.ones(rows, 4)
            with torch.inference_mode():
                assert torch.equal(compiled({"input": x}), model(x))
            assert len(calls) == before + 1, f"model {width} ran uncompiled"


@pytest.mark.skipif(HAS_GPU, reason="torch sees a CUDA device")
def test_without_a_gpu_it_says_what_is_needed() -> None:
    with pytest.raises(AutopruneError, match=r"needs one, its driver, and a CUDA build.*openvino, or packed"):
        get_target("torch")


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("width", [8, "w8a8", 16, 32], ids=str)
def test_on_a_gpu_it_gives_the_stitched_models_logits(tiny: Tiny, tmp_path: Path, width: int | str) -> None:
    target = Torch()
    stitched = tiny.stitched(Level.of(0.5, width))
    target.save(stitched, tmp_path, {})
    run = target.load(tmp_path)
    for batch in (tiny.task.batch(tiny.task.validation, [0, 1, 2]), tiny.task.timing_batch(1, 5)):
        wanted = logits(stitched.model, batch).numpy()
        assert np.abs(run(batch) - wanted).max() <= target.tolerance * max(wanted.std(), 0.1)
