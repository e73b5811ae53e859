"""A GPU's first run: pieces are what was packed, an environment needs no network, and every part answers."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.core.errors import AutopruneError
from benchmarks.gpu.install import install, python_of
from benchmarks.gpu.parts import Part, chosen, parts_of
from benchmarks.gpu.pieces import MANIFEST, check_pieces, unpack_pieces, write_pieces
from benchmarks.gpu.run import RESERVE, RESULT, run_parts
from benchmarks.gpu.searches import environment
from benchmarks.gpu.setup import Setup
from benchmarks.gpu.wheels import PRESENT, read_present, requirements_of
from tests.support.paths import ROOT


def write_wheel(folder: Path, name: str, *, code: str = "", requires: tuple[str, ...] = ()) -> Path:
    """A wheel of one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    needed = "".join(f"Requires-Dist: {text}\n" for text in requires)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", code)
        file.writestr(f"{name}/vendored/other-2.0.dist-info/METADATA", "Name: other\nRequires-Dist: nobody\n")
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}")
        file.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(f"{about}/RECORD", "")
    return path


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(deadline=None, max_examples=25)
@given(
    files=st.lists(st.binary(max_size=400), min_size=1, max_size=4),
    limit=st.integers(min_value=1, max_value=500),
)
def test_pieces_give_back_what_was_packed_and_none_is_over_the_limit(
    files: list[bytes], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("pieces")
    (base / "content" / "inner").mkdir(parents=True)
    for number, data in enumerate(files):
        (base / "content" / ("inner" if number % 2 else ".") / f"file-{number}").write_bytes(data)
    manifest = write_pieces(base / "content", base / "pieces", limit=limit, python="3.12")
    assert all(0 < piece["bytes"] <= limit for piece in manifest["pieces"])
    assert unpack_pieces(base / "pieces", base / "back") == manifest
    assert content_of(base / "back") == content_of(base / "content")


def test_a_piece_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "file").write_bytes(bytes(range(256)) * 4)
    pieces = tmp_path / "pieces"
    count = len(write_pieces(tmp_path / "content", pieces, limit=100)["pieces"])
    assert count > 2
    (pieces / "piece-1").unlink()
    (pieces / "piece-2").write_bytes(b"x" * 100)
    with pytest.raises(AutopruneError, match="piece-1 is missing; piece-2 is not what was packed"):
        unpack_pieces(pieces, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (pieces / MANIFEST).unlink()
    with pytest.raises(AutopruneError, match="manifest"):
        check_pieces(pieces)


def test_pieces_of_an_earlier_packing_are_gone(tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "file").write_bytes(bytes(range(256)) * 4)
    write_pieces(tmp_path / "content", tmp_path / "pieces", limit=50)
    write_pieces(tmp_path / "content", tmp_path / "pieces", limit=10_000)
    assert {path.name for path in (tmp_path / "pieces").iterdir()} == {MANIFEST, "piece-1"}


def test_a_wheel_needs_what_its_markers_say_of_the_machine_not_of_this_one(tmp_path: Path) -> None:
    wheel = write_wheel(
        tmp_path,
        "sample",
        requires=(
            "always>=1", 'older; python_version < "3.12"', 'windows; sys_platform == "win32"',
            'newer; python_version >= "3.12"', 'special; extra == "more"',
        ),
    )  # fmt: skip
    assert [one.name for one in requirements_of(wheel, "3.12")] == ["always", "newer"]
    assert [one.name for one in requirements_of(wheel, "3.11", ["more"])] == ["always", "older", "special"]


def test_no_wheel_of_torch_or_of_cuda_is_carried() -> None:
    present = read_present(PRESENT)
    assert {"torch", "triton", "transformers", "numpy"} <= present.keys()
    assert not {"ray", "optuna", "datasets", "openvino"} & present.keys()


@pytest.mark.slow
def test_an_environment_has_the_carried_packages_before_the_machines_and_this_tree(tmp_path: Path) -> None:
    (tmp_path / "content" / "wheels").mkdir(parents=True)
    write_wheel(tmp_path / "content" / "wheels", "carried", code="WHO = 'carried'")
    write_wheel(tmp_path / "content" / "wheels", "colorlog", code="WHO = 'carried'")  # also here
    write_pieces(tmp_path / "content", tmp_path / "pieces", limit=1000)
    install(tmp_path / "pieces")
    code = (
        "import json, sys, importlib.metadata as m, carried, colorlog, numpy, autoprune\n"
        "print(json.dumps([carried.WHO, colorlog.WHO, numpy.__file__, autoprune.__file__, "
        "m.version('autoprune'), sys.prefix]))"
    )
    python = python_of(tmp_path / "pieces")
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import numpy

    from autoprune import __version__

    who, again, numpy_file, tree, version, prefix = json.loads(done.stdout)
    assert who == again == "carried"
    assert Path(numpy_file) == Path(str(numpy.__file__))
    assert Path(tree) == ROOT / "autoprune" / "__init__.py"
    assert version == __version__
    assert Path(prefix) == tmp_path / "pieces" / "environment"


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """Tiny, without a model: what needs one fails."""
    return Setup.tiny(tmp_path / "nothing", tmp_path / "work")


def test_a_setup_is_the_same_after_it_was_text(setup: Setup) -> None:
    assert Setup.from_text(setup.as_text()) == setup
    for_gpu = Setup.for_gpu(Path("demo"), Path("work"), cores=16)
    assert Setup.from_text(for_gpu.as_text()) == for_gpu
    assert for_gpu.gpus_per_trial(4) == 0.25


def test_both_targets_are_searched_with_one_worker_and_with_four() -> None:
    names = [part.name for part in parts_of(Setup.for_gpu(Path("demo"), Path("work"), cores=16))]
    assert names == [
        "machine", "prepare-torch", "devices", "speed", "search-torch-4", "search-torch-1",
        "search-openvino-4", "search-openvino-1",
    ]  # fmt: skip


def test_parts_are_chosen_by_name_and_a_wrong_name_is_said(setup: Setup) -> None:
    parts = parts_of(setup)
    assert chosen(parts, []) == parts
    assert [part.name for part in chosen(parts, ["speed", "machine"])] == ["machine", "speed"]
    with pytest.raises(AutopruneError, match="no part sped; choose of machine"):
        chosen(parts, ["sped"])


def test_what_has_no_time_left_is_dropped_and_says_so(setup: Setup, tmp_path: Path) -> None:
    record = run_parts(setup, parts_of(setup), tmp_path, seconds=RESERVE + 1, environment=environment(setup))
    assert record["parts"].keys() == {part.name for part in parts_of(setup)}
    for part in record["parts"].values():
        assert part["state"] == "dropped"
        assert "it needs" in part["why"]
    assert json.loads((tmp_path / RESULT).read_text(encoding="utf-8")) == record


@pytest.mark.slow
def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_others(setup: Setup, tmp_path: Path) -> None:
    parts = [
        Part("devices", "devices", 0, 60),
        Part("speed", "speed", 0, 0.2),
        Part("machine", "machine", 0, 60),
    ]
    record = run_parts(setup, parts, tmp_path, seconds=300, environment=environment(setup))
    devices, speed, machine = (record["parts"][part.name] for part in parts)
    assert devices["state"] == "failed"
    assert "Traceback" in devices["error"]
    assert "nothing" in devices["error"]  # the model's folder
    assert speed["state"] == "stopped at its limit"
    assert machine["state"] == "done"
    assert machine["figures"]["versions"]["torch"]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`run --tiny` as it is started on a GPU."""
    out = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-m", "benchmarks.gpu", "run", "--tiny", "--out", str(out), "--seconds", "900"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    record: dict[str, Any] = json.loads((out / RESULT).read_text(encoding="utf-8"))
    return record


@pytest.mark.slow
@pytest.mark.ray
def test_every_part_answers_on_a_machine_without_a_gpu(tiny_run: dict[str, Any]) -> None:
    states = {name: part["state"] for name, part in tiny_run["parts"].items()}
    assert states == dict.fromkeys(states, "done"), tiny_run["parts"]
    assert list(states) == [
        "machine", "prepare-packed", "devices", "speed", "search-packed-2", "search-packed-1",
    ]  # fmt: skip
    for name, workers in (("search-packed-2", 2), ("search-packed-1", 1)):
        figures = tiny_run["parts"][name]["figures"]
        assert figures["workers"] == workers
        assert figures["failed"] == 0
        assert figures["trials"] >= 2
        assert figures["trials_an_hour"] > 0
        assert 0 < figures["at_once"] <= workers + 0.05
        assert sum(figures["share_of_time"].values()) == pytest.approx(1, abs=0.02)
        assert 0 < figures["share_in_training"] < 1


@pytest.mark.slow
@pytest.mark.ray
def test_the_same_trial_on_the_same_device_is_the_same_model(tiny_run: dict[str, Any]) -> None:
    for found in tiny_run["parts"]["devices"]["figures"].values():
        same = found["between the devices"]
        assert same["largest_logit_difference"] == 0
        assert same["percent_answered_unlike"] == 0
        assert found["on the device"]["kl"] == found["on the cpu"]["kl"]
        assert found["on the cpu"]["kl"] <= 1.1 * found["untrained"]["kl"]  # the few guard rows are others


@pytest.mark.slow
@pytest.mark.ray
def test_the_models_that_are_timed_give_the_right_answers(tiny_run: dict[str, Any]) -> None:
    models = tiny_run["parts"]["speed"]["figures"]
    assert models["target torch, w8a8"]["layers of 8-bit integers"] > 0
    for name, found in models.items():
        assert "error" not in found, found
        for batch in (1, 4):
            error = found[f"error at batch {batch}, in standard deviations"]
            assert error <= (0.1 if "bfloat16" in name else 1e-4)
            assert found[f"batch {batch}"]["times faster"] > 0
