"""ONNX Runtime's dynamic quantization of an original's files: what is rounded, and how near it is."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.targets import NAMES, get_target
from autoprune.targets.onnx.dynamic import quantize_dynamically
from autoprune.targets.onnx.target import GRAPH, Onnx
from autoprune.targets.target import QuantizesDynamically
from autoprune.tasks.task import Batch
from tests.support.families import make_case
from tests.support.tiny import Tiny

ONNX = Onnx()
FAMILIES = {"bert-tokens": 13, "gpt2": 13, "llama": 15, "vit": 13, "resnet": 1}
"""How many products with weights each tiny model has, beside convolutions."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("library")


def saved(name: str, library: Path, folder: Path) -> tuple[Tiny, Batch]:
    """A tiny model of a family, uncompressed, in the folder `original`; and rows of it."""
    tiny = make_case(name, library).tiny
    (folder / "original").mkdir(parents=True)
    example = tiny.task.batch(tiny.task.validation, tiny.task.example_rows)
    ONNX.save(Stitched.plain(tiny.model, tiny.architecture), folder / "original", example)
    return tiny, tiny.task.batch(tiny.task.validation, [2, 3, 4])


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_is_rounded_and_the_answers_are_near(name: str, library: Path, tmp_path: Path) -> None:
    _, batch = saved(name, library, tmp_path)
    original = tmp_path / "original"
    before, kinds = (original / GRAPH).read_bytes(), operators(original / GRAPH)
    (made := tmp_path / "made").mkdir()
    assert "quantize_dynamic" in ONNX.save_dynamic(original, made)
    found = operators(made / GRAPH)
    assert found["MatMulInteger"] == FAMILIES[name]
    assert (found["ConvInteger"], found["Conv"], found["Gemm"]) == (kinds["Conv"], 0, 0)
    assert [path.name for path in original.iterdir()] == [path.name for path in made.iterdir()] == [GRAPH]
    assert (original / GRAPH).read_bytes() == before
    assert (made / GRAPH).stat().st_size < 0.45 * len(before)
    got, wanted = ONNX.load(made)(batch), ONNX.load(original)(batch)
    assert got.shape == wanted.shape
    assert 0 < np.abs(got - wanted).max() < 0.5 * wanted.std()


@pytest.mark.parametrize("name", ["bert-tokens", "resnet"])
def test_no_sum_of_products_is_cut_off(name: str, library: Path, tmp_path: Path) -> None:
    """Without VNNI sums of two products may be cut at 16 bits, unless a session asks for what is exact."""
    import onnxruntime

    _, batch = saved(name, library, tmp_path)
    (tmp_path / "made").mkdir()
    ONNX.save_dynamic(tmp_path / "original", tmp_path / "made")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    exact = onnxruntime.InferenceSession(tmp_path / "made" / GRAPH, options)
    (wanted,) = exact.run(None, {node.name: batch[node.name] for node in exact.get_inputs()})
    np.testing.assert_array_equal(ONNX.load(tmp_path / "made")(batch), wanted)


@pytest.mark.parametrize("name", ["bert-tokens", "vit"])
def test_it_is_what_the_documented_calls_give(name: str, library: Path, tmp_path: Path) -> None:
    """Of ONNX Runtime's documentation, and of docs/targets.md."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    _, batch = saved(name, library, tmp_path)
    for folder in (tmp_path / "made", tmp_path / "plain"):
        folder.mkdir()
    ONNX.save_dynamic(tmp_path / "original", tmp_path / "made")
    folded = tmp_path / "folded.onnx"
    quant_pre_process(tmp_path / "original" / GRAPH, folded, skip_symbolic_shape=True)
    plain = tmp_path / "plain" / GRAPH
    quantize_dynamic(folded, plain, per_channel=True, reduce_range=True)
    answers = [ONNX.load(tmp_path / folder)(batch) for folder in ("made", "plain")]
    np.testing.assert_array_equal(*answers)


def test_it_is_made_the_same_each_time(library: Path, tmp_path: Path) -> None:
    saved("bert-tokens", library, tmp_path)
    files = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        ONNX.save_dynamic(tmp_path / "original", tmp_path / name)
        files.append((tmp_path / name / GRAPH).read_bytes())
    assert files[0] == files[1]


def test_nothing_is_said_and_nobody_s_logging_is_changed(
    library: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    saved("bert-tokens", library, tmp_path)
    (tmp_path / "made").mkdir()
    root = logging.getLogger()
    before = [*root.handlers], [*root.filters]
    capfd.readouterr()
    caplog.clear()
    ONNX.save_dynamic(tmp_path / "original", tmp_path / "made")
    assert ([*root.handlers], [*root.filters]) == before
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / GRAPH).write_bytes(b"no graph")
    with pytest.raises(Exception, match="model"):
        quantize_dynamically(tmp_path / GRAPH, tmp_path / "made.onnx")
    assert not (tmp_path / "made.onnx").exists()


def test_onnx_alone_has_such_a_tool() -> None:
    """OpenVINO rounds as it runs where it gains by it: its uniform 8-bit model is that baseline."""
    names = []
    for name in NAMES:
        try:
            target = get_target(name)
        except AutopruneError:  # its packages are not installed
            continue
        names += [name] if isinstance(target, QuantizesDynamically) else []
    assert names == ["onnx"]
