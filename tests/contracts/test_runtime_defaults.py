"""An export runs as people run it: opened by its runtime alone, with no settings and with others.

Each width, precision, number of threads and shape, in a process that may die, since a runtime may end it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoprune.compress.integers import PRODUCT_REACH, Integers, ends_of
from autoprune.space.levels import Level
from autoprune.space.storage import FLOAT_BITS, STATIC8, group_size_for
from autoprune.targets import Target
from autoprune.targets.openvino.graph import half_pattern, integer_pattern, signed_pattern
from tests.support.bare_runtime import Case, run_alone
from tests.support.targets import TARGETS
from tests.support.tiny import Tiny, logits, make_tiny

TOLERANCE = 0.1
"""Of the answers' spread: bfloat16 and activations of 8 bits, both rounded by the runtime."""
WIDTHS: tuple[int | str, ...] = (2, 3, 4, 6, 8, 16, STATIC8.name, FLOAT_BITS)

SETTINGS: dict[str, dict[str, str | int]] = {
    "none": {},
    "one thread": {"INFERENCE_NUM_THREADS": 1},
    "f32": {"INFERENCE_PRECISION_HINT": "f32"},
    "f32, one thread": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
    "bf16, one thread": {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1},
}
SHAPES = [(64, 64), (1, 256), (63, 320), (384, 1152), (40, 24)]
"""Rows and columns of a weight: few groups and many, neurons gone, odd numbers of rows, one row."""
BATCHES = [(1, 1), (1, 7), (3, 5)]
"""Rows of a batch and places in each."""


# ---- one weight -----------------------------------------------------------------------------------


def weight_of(width: int | str, o: int, i: int) -> tuple[Any, NDArray[np.float32]]:
    """A random weight [o i] as it is stored for OpenVINO, and its values."""
    rng = np.random.default_rng(0)
    if width in (16, FLOAT_BITS):
        from openvino import opset13 as op

        values = rng.standard_normal((o, i)).astype(np.float16).astype(np.float32)
        return (half_pattern(values) if width == 16 else op.constant(values)), values
    bits = Level.of(0.0, width).storage.bits
    groups = 1 if width == STATIC8.name else i // group_size_for(i, 64)
    zeros = np.full((o, groups), 128) if width == STATIC8.name else rng.integers(0, 2**bits, (o, groups))
    least, top = ends_of(bits, PRODUCT_REACH if width == STATIC8.name else None)
    integers = Integers(
        torch.from_numpy(rng.integers(least, top + 1, (o, i)).astype(np.uint8)),
        torch.from_numpy(rng.uniform(0.01, 0.1, (o, groups)).astype(np.float16)),
        torch.from_numpy(zeros.astype(np.uint8)),
        bits,
    )
    pattern = signed_pattern if width == STATIC8.name else integer_pattern
    return pattern(integers, [o, i]), integers.dequantize().numpy()


def product_of(weight: Any, values: NDArray[np.float32], *, is_rounded: bool) -> Any:
    """A graph x -> x W', its input [b s i] on a grid of 8 bits where `is_rounded`."""
    import openvino as ov
    from openvino import opset13 as op

    x = op.parameter([-1, -1, values.shape[1]], np.float32, name="x")
    low, high = op.constant(np.float32(-4)), op.constant(np.float32(4))
    y = op.fake_quantize(x, low, high, low, high, 256) if is_rounded else x
    return ov.Model([op.matmul(y, weight, False, True)], [x], "product")


def look_up_of(weight: Any) -> Any:
    """A graph x -> rows x of W, as of an embedding."""
    import openvino as ov
    from openvino import opset13 as op

    x = op.parameter([-1, -1], np.int64, name="x")
    return ov.Model([op.gather(weight, x, op.constant(np.int64(0)))], [x], "look-up")


def stored(name: str, width: int | str, shape: tuple[int, int], folder: Path) -> list[NDArray[np.float32]]:
    """A graph of a weight and its batches as files in a folder; what it should answer."""
    import openvino as ov

    weight, values = weight_of(width, *shape)
    rng, is_product = np.random.default_rng(1), name == "product"
    graph = product_of(weight, values, is_rounded=width == STATIC8.name) if is_product else look_up_of(weight)
    folder.mkdir()
    ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    wanted = []
    for k, batch in enumerate(BATCHES):
        x = rng.standard_normal((*batch, shape[1])).astype(np.float32)
        x = x if is_product else rng.integers(0, shape[0], batch)
        np.savez(folder / f"{k}.npz", x=x)
        wanted.append(x @ values.T if is_product else values[x])
    return wanted


def cases_of(folder: Path, runtime: str, batches: int) -> dict[str, Case]:
    """A folder with each of the settings of its runtime."""
    files = [str(folder / f"{k}.npz") for k in range(batches)]
    return {
        text: Case(runtime, str(folder), files, str(folder / f"answers-{text}.npz"), settings)
        for text, settings in SETTINGS.items()
        if runtime == "openvino" or not settings
    }


def wrong(
    cases: dict[str, Case], wanted: dict[str, Sequence[NDArray[np.float32]]], tolerance: float
) -> list[str]:
    """What failed, or is not what it should be: each case in words. Keys begin with that of the answers."""
    said = []
    for (name, _), found in zip(cases.items(), run_alone(list(cases.values())), strict=True):
        if isinstance(found, str):
            said.append(f"{name}: {found}")
            continue
        right = wanted[name.partition(", ")[0]]
        if [array.shape for array in found] != [array.shape for array in right]:
            said.append(f"{name}: gives arrays of {[array.shape for array in found]}")
            continue
        spread = np.concatenate([array.ravel() for array in right]).std()
        off = max(np.abs(a - b).max() for a, b in zip(found, right, strict=True)) / spread
        if not off <= tolerance:
            said.append(f"{name}: off by {off:.3f} of the answers' spread")
    return said


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_openvino_runs_a_weight_of_every_width_and_shape_under_every_setting(
    width: int | str, tmp_path: Path
) -> None:
    cases, wanted = {}, {}
    for kind in ("product", "look-up"):
        if kind == "look-up" and width == STATIC8.name:
            continue  # no embedding is stored so
        for o, i in SHAPES if kind == "product" else SHAPES[:2]:
            name = f"{kind} of {width} bits {o} x {i}"
            wanted[name] = stored(kind, width, (o, i), tmp_path / name)
            of_folder = cases_of(tmp_path / name, "openvino", len(BATCHES))
            cases |= {f"{name}, {text}": case for text, case in of_folder.items()}
    assert wrong(cases, wanted, TOLERANCE) == []


# ---- a model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT whose feed-forward is 25 % smaller at a ratio of 0.25, and still whole groups."""
    return make_tiny("bert", tmp_path_factory.mktemp("library"), hidden=128, ffn=256, vocab=500)


def levels_for(target: Target) -> list[Level]:
    """Every width that a target holds, with a quarter of the rows removed."""
    levels = [Level.of(0.25, width) for width in WIDTHS]
    return [level for level in levels if level.storage in target.storages]


@pytest.mark.parametrize("name", sorted({"openvino", "onnx", "compressed-tensors"} & TARGETS.keys()))
def test_an_export_answers_as_it_should_with_no_settings(pruned: Tiny, name: str, tmp_path: Path) -> None:
    target, task = TARGETS[name], pruned.task
    batches = [task.batch(task.validation, rows) for rows in ([0], [1, 2, 3])]
    cases, wanted = {}, {}
    for level in levels_for(target):
        text, folder = str(level), tmp_path / str(level)
        folder.mkdir()
        stitched = pruned.stitched_as(pruned.space_for(target).uniform(level))
        target.save(stitched, folder, task.batch(task.validation, [0, 1]))
        for k, batch in enumerate(batches):
            np.savez(folder / f"{k}.npz", **batch)
        wanted[text] = [logits(stitched.model, batch).numpy() for batch in batches]
        of_folder = cases_of(folder, name, len(batches))
        cases |= {f"{text}, {setting}": case for setting, case in of_folder.items()}
    assert wrong(cases, wanted, 2 * target.tolerance) == []
