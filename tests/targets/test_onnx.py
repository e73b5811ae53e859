"""What is special to ONNX Runtime here: our integers, bit for bit, in the operators that it computes with."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import autoprune
from autoprune.compress.integers import round_nearest
from autoprune.compress.packing import unpack_dense
from autoprune.compress.stitch import Stitched
from autoprune.compress.stored import HalfFloats
from autoprune.compress.surgery import replace_
from autoprune.core.errors import AutopruneError
from autoprune.export.artifact import write_artifact
from autoprune.export.export_record import ExportRecord
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import STATIC8
from autoprune.targets import get_target
from autoprune.targets.onnx.target import GRAPH
from autoprune.tasks.task import Batch
from tests.support.stored import half_of, integers_of
from tests.support.tiny import Tiny, logits, make_tiny

WIDTHS: tuple[int | str, ...] = (2, 4, 8, "w8a8")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT with three groups in a row, which leave bits over in a row's last byte of zero points."""
    sizes = {"hidden": 192, "heads": 6, "ffn": 192, "layers": 1}
    return make_tiny("bert", tmp_path_factory.mktemp("library"), **sizes)


def saved(tiny: Tiny, level: Level, folder: Path) -> tuple[Stitched, Any]:
    """Every unit at the level nearest to `level` that is offered, and the graph that was saved of it."""
    target = get_target("onnx")
    stitched = tiny.stitched_as(tiny.space_for(target).uniform(level))
    target.save(stitched, folder, tiny.task.batch(tiny.task.validation, [0, 1]))
    return stitched, onnx.load(folder / GRAPH)


def constants(proto: Any) -> dict[str, NDArray[Any]]:
    return {
        initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in proto.graph.initializer
    }


def operators(proto: Any) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def unpacked(packed: NDArray[np.uint8], bits: int, columns: int) -> NDArray[np.uint8]:
    """Codes [o columns] of rows that end with their last byte."""
    rows = packed.reshape(len(packed), -1)
    whole = rows.shape[1] * 8 // bits
    return unpack_dense(rows.reshape(-1), bits, len(rows) * whole).reshape(len(rows), whole)[:, :columns]


# ---- what is in the file ------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.5])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_weight_has_an_operator_of_integers(
    tiny: Tiny, tmp_path: Path, width: int | str, ratio: float
) -> None:
    stitched, proto = saved(tiny, Level.of(ratio, width), tmp_path)
    found = operators(proto)
    embeddings = sum(path.endswith("_embeddings") for path in integers_of(stitched))
    products = len(integers_of(stitched)) - embeddings
    assert found["GatherBlockQuantized"] == embeddings > 0
    assert found["MatMulIntegerToFloat"] == len(stitched.activations)
    assert found["MatMulNBits"] == products - len(stitched.activations)
    assert bool(stitched.activations) == (width == "w8a8")
    assert found["DequantizeLinear"] == 0


def test_layers_that_read_the_same_grid_share_its_rounding(tiny_bert: Tiny, tmp_path: Path) -> None:
    stitched, proto = saved(tiny_bert, Level.of(0.0, "w8a8"), tmp_path)
    queries = sum(path.endswith("query") for path in stitched.activations)  # and their keys and values
    assert operators(proto)["QuantizeLinear"] == len(stitched.activations) - 2 * queries


@pytest.mark.parametrize("width", WIDTHS)
def test_the_integers_in_the_file_are_ours(wide: Tiny, tmp_path: Path, width: int | str) -> None:
    stitched, proto = saved(wide, Level.of(0.0, width), tmp_path)
    found = constants(proto)
    for path, integers in integers_of(stitched).items():
        codes, scale = found[f"{path}.codes"], found[f"{path}.scale.half"]
        assert scale.dtype == np.float16
        assert np.array_equal(scale.reshape(integers.scale.shape), integers.scale.numpy())
        if path in stitched.activations:
            assert codes.dtype == np.int8
            assert np.array_equal(codes.T.astype(np.int16) + 128, integers.codes.numpy())
            continue
        assert codes.nbytes * 8 == integers.codes.numel() * integers.bits
        assert np.array_equal(unpacked(codes, integers.bits, integers.codes.shape[1]), integers.codes.numpy())
        zero = unpacked(found[f"{path}.zero"], integers.bits, integers.zero.shape[1])
        assert np.array_equal(zero, integers.zero.numpy())


def test_half_floats_are_stored_as_such(tiny_bert: Tiny, tmp_path: Path) -> None:
    stitched, proto = saved(tiny_bert, Level.of(0.0, 16), tmp_path)
    found, state = constants(proto), stitched.model.state_dict()
    for path in half_of(stitched):
        assert np.array_equal(found[f"{path}.half"], state[f"{path}.weight"].half().numpy())
        assert f"model.{path}.weight" not in found


def test_no_float_of_a_weight_is_left_and_nothing_is_unused(tiny_bert: Tiny, tmp_path: Path) -> None:
    stitched, proto = saved(tiny_bert, Level.of(0.5, 4), tmp_path)
    read = {name for node in proto.graph.node for name in node.input}
    found = constants(proto)
    assert found.keys() <= read
    assert not {f"model.{path}.weight" for path in integers_of(stitched)} & found.keys()


@pytest.mark.parametrize("level", [UNTOUCHED, Level.of(0.5, 4), Level.of(0.5, "w8a8")], ids=str)
def test_the_checker_passes_and_inputs_are_dynamic(tiny: Tiny, tmp_path: Path, level: Level) -> None:
    _, proto = saved(tiny, level, tmp_path)
    onnx.checker.check_model(proto)
    domains = {node.domain for node in proto.graph.node}
    assert domains <= {opset.domain for opset in proto.opset_import}
    assert [given.name for given in proto.graph.input] == list(tiny.task.inputs)
    for given in proto.graph.input:
        assert [d.dim_param for d in given.type.tensor_type.shape.dim] == ["batch", "sequence"]


# ---- what it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_width_is_computed_with_every_group_size(
    tiny_bert: Tiny, tmp_path: Path, example: Batch, bits: int, group_size: int
) -> None:
    path = "bert.encoder.layer.0.output.dense"  # 256 columns
    stitched = tiny_bert.stitched(UNTOUCHED)
    module: Any = stitched.model.get_submodule(path)
    integers = round_nearest(module.weight.detach(), bits=bits, group_size=group_size)
    replace_(stitched.model, path, integers.dequantize(), module.bias)
    one = Stitched(stitched.model, {path: integers}, stitched.levels)
    target = get_target("onnx")
    target.save(one, tmp_path, example)
    wanted = logits(one.model, example).numpy()
    assert np.abs(target.load(tmp_path)(example) - wanted).max() <= 0.02 * wanted.std()


def test_a_layer_multiplied_as_integers_is_on_its_grid(
    tiny_bert: Tiny, tmp_path: Path, example: Batch
) -> None:
    stitched, proto = saved(tiny_bert, Level.of(0.0, "w8a8"), tmp_path)
    found = constants(proto)
    products = [node for node in proto.graph.node if node.op_type == "MatMulIntegerToFloat"]
    grids = {(float(found[node.input[2]]), int(found[node.input[4]])) for node in products}
    wanted = {(float(np.float32(grid.scale)), grid.zero) for grid in stitched.activations.values()}
    assert grids == wanted
    exact = logits(stitched.model, example).numpy()
    assert np.abs(get_target("onnx").load(tmp_path)(example) - exact).max() <= 0.05 * exact.std()


def test_equal_weights_that_the_exporter_keeps_once_come_out_right(
    tiny_bert: Tiny, tmp_path: Path, example: Batch
) -> None:
    stitched = tiny_bert.stitched(UNTOUCHED)
    one, other = (f"bert.encoder.layer.{k}.intermediate.dense" for k in (0, 1))
    modules: list[Any] = [stitched.model.get_submodule(path) for path in (one, other)]
    with torch.no_grad():
        modules[0].weight.copy_(modules[0].weight.half())
        modules[1].weight.copy_(modules[0].weight)
    halves = {path: HalfFloats(module.weight) for path, module in zip((one, other), modules, strict=True)}
    both = Stitched(stitched.model, halves, stitched.levels)
    target = get_target("onnx")
    target.save(both, tmp_path, example)
    wanted = logits(stitched.model, example).numpy()
    assert np.abs(target.load(tmp_path)(example) - wanted).max() <= 1e-4 * wanted.std()


# ---- what is refused -----------------------------------------------------------------------------


def test_groups_that_its_operators_lack_are_not_offered(tmp_path: Path) -> None:
    sizes = {"hidden": 72, "heads": 3, "ffn": 144, "layers": 1}  # groups of 8 and 16
    tiny, target = make_tiny("bert", tmp_path, **sizes), get_target("onnx")
    offered = {
        unit.name: {s.bits for s in unit.storages if s != STATIC8 and target.offers(unit, Level(0.0, s))}
        for unit in tiny.units
    }
    assert all(bits == {16, 32} for bits in offered.values())
    assert target.offers(tiny.unit("attention"), Level.of(0.0, "w8a8"))
    assert not target.offers(tiny.unit("word_embeddings"), Level.of(0.0, "w8a8"))
    batch = tiny.task.batch(tiny.task.validation, [0, 1])
    with pytest.raises(AutopruneError, match="word_embeddings has 4 bits with a scale for 8; target onnx"):
        target.save(tiny.stitched(Level.of(0.5, 4)), tmp_path, batch)
    stitched, _ = saved(tiny, Level.of(0.5, "w8a8"), tmp_path)
    wanted = logits(stitched.model, batch).numpy()
    assert np.abs(target.load(tmp_path)(batch) - wanted).max() <= target.tolerance * wanted.std()


def test_inputs_that_do_not_fit_are_named_with_the_file(tiny_bert: Tiny, tmp_path: Path) -> None:
    saved(tiny_bert, Level.of(0.0, 4), tmp_path)
    run = get_target("onnx").load(tmp_path)
    batch = tiny_bert.task.timing_batch(1, 8)
    path = str(tmp_path / GRAPH)
    with pytest.raises(AutopruneError, match=f"{path} takes input_ids, .*; token_type_ids is not given"):
        run({name: x for name, x in batch.items() if name != "token_type_ids"})
    with pytest.raises(AutopruneError, match=rf"{path} cannot be run on input_ids \[1, 40\]"):
        run(tiny_bert.task.timing_batch(1, 40))  # it has 32 positions
    with pytest.raises(AutopruneError, match=f"{path} cannot be run"):
        run({name: x.astype(np.float32) for name, x in batch.items()})  # type: ignore[misc]


def test_a_weight_that_the_graph_lacks_is_refused(tiny_bert: Tiny, tmp_path: Path, example: Batch) -> None:
    stitched = tiny_bert.stitched(Level.of(0.0, 4))
    lost = {"bert.nowhere": next(iter(integers_of(stitched).values()))}
    broken = Stitched(stitched.model, lost, stitched.levels)
    with pytest.raises(AutopruneError, match=r"graph has no weight bert\.nowhere"):
        get_target("onnx").save(broken, tmp_path, example)


def test_a_model_too_large_for_one_file_is_refused(tiny_bert: Tiny, tmp_path: Path, example: Batch) -> None:
    stitched = tiny_bert.stitched(UNTOUCHED)
    stitched.model.register_parameter("more", torch.nn.Parameter(torch.empty(2**29, device="meta")))
    with pytest.raises(AutopruneError, match=r"has 2\.1 GB of weights; a file of target onnx holds 2\.1 GB"):
        get_target("onnx").save(stitched, tmp_path, example)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    with pytest.raises(AutopruneError, match=r"onnxruntime, not installed: pip install 'autoprune\[onnx\]'"):
        get_target("onnx")


def test_a_fresh_process_prints_nothing(tiny_bert: Tiny, tmp_path: Path) -> None:
    saved(tiny_bert, Level.of(0.5, "w8a8"), tmp_path)
    np.savez(tmp_path / "batch.npz", **tiny_bert.task.timing_batch(2, 8))
    code = (
        "import sys, numpy as np; from pathlib import Path; from autoprune.targets import get_target;"
        "folder = Path(sys.argv[1]); run = get_target('onnx').load(folder);"
        "run(dict(np.load(folder / 'batch.npz'))); assert 'torch' not in sys.modules"
    )
    root = str(Path(autoprune.__file__).parent.parent)
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_saving_prints_nothing(tiny_bert: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(tiny_bert, Level.of(0.5, "w8a8"), tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("bits", "kept"), [(3, 4), (6, 8)])
def test_an_export_keeps_widths_it_lacks_in_wider_ones_without_changing_a_value(
    tiny_bert: Tiny, tmp_path: Path, bits: int, kept: int
) -> None:
    """Of a model that was searched for another target: the same codes, scales and zero points."""
    stitched = tiny_bert.stitched(Level.of(0.0, bits))
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    batch = tiny_bert.task.batch(tiny_bert.task.validation, [0, 1])
    folder = tmp_path / "out"
    write_artifact(stitched, folder, about=ExportRecord(target="onnx"), tokenizer=tokens, example=batch)
    proto = onnx.load(folder / GRAPH)
    used = {a.i for node in proto.graph.node for a in node.attribute if a.name == "bits"}
    assert used == {kept}
    wanted, got = logits(stitched.model, batch).numpy(), get_target("onnx").load(folder)(batch)
    assert np.abs(got - wanted).max() <= get_target("onnx").tolerance * wanted.std()
