"""`autoprune doctor`: what a machine has, and each trap with its cure. Nothing is fetched or started."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoprune.inspection.doctor import doctor_lines, target_record
from autoprune.inspection.machine import instructions, machine_record
from autoprune.inspection.traps import SET_BY_US, VARIABLES, Trap, own_variables, traps_found, why_no_answer
from autoprune.run.fast_storages import speed_record
from autoprune.space.levels import Choices, SearchSpace
from autoprune.targets import NAMES, get_target
from tests.support.paths import ROOT


def kernel(root: Path, *flags: str, name: str = "flags") -> Path:
    """A file system with one processor a text of flags."""
    (root / "proc").mkdir(parents=True)
    text = "\n".join(
        f"processor : {k}\nmodel name : A chip\n{name} : {flag}\n" for k, flag in enumerate(flags)
    )
    (root / "proc" / "cpuinfo").write_text(text)
    (root / "proc" / "meminfo").write_text("MemTotal:       2000 kB\nMemFree:  10 kB\n")
    return root


def test_instructions_are_those_that_every_processor_has(tmp_path: Path) -> None:
    both = kernel(tmp_path / "x86", "fpu avx2 avx512_vnni amx_int8", "fpu avx2 avx_vnni")
    assert instructions(both) == ["avx2"]  # neither kind of vnni is on both, nor is amx
    assert instructions(kernel(tmp_path / "vnni", "avx2 avx512_vnni", "avx2 avx512_vnni")) == ["avx2", "vnni"]
    assert instructions(kernel(tmp_path / "arm", "fp asimd asimddp", name="Features")) == ["neon", "dotprod"]
    assert instructions(tmp_path / "nowhere") == []


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path) -> None:
    root = kernel(tmp_path, "avx2")
    assert machine_record(root)["memory_bytes"] == 2000 * 1024
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for text, expected in (("max", 2000 * 1024), ("1000000", 1_000_000)):
        (root / "sys/fs/cgroup/memory.max").write_text(text)
        assert machine_record(root)["memory_bytes"] == expected
    assert machine_record(tmp_path / "nowhere")["memory_bytes"] is None
    assert machine_record(root)["processor"] == "A chip"


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)


def told(traps: list[Trap]) -> set[str]:
    return {trap.what for trap in traps}


@pytest.mark.parametrize(
    ("name", "value", "what", "cure"),
    [
        ("OMP_WAIT_POLICY", "ACTIVE", "keep their processors busy", "unset it"),
        ("KMP_BLOCKTIME", "infinite", "keep their processors busy", "unset it"),
        ("OMP_NUM_THREADS", "100000", "processors may be used", "or less"),
        ("AUTOPRUNE_CASHE", "/x", "nothing reads it", "did you mean AUTOPRUNE_CACHE?"),
        ("HF_HUB_OFFLINE", "1", "read only where they were fetched", "unset it to fetch others"),
    ],
)
def test_a_variable_that_is_a_trap_is_told_with_its_cure(name: str, value: str, what: str, cure: str) -> None:
    (trap,) = [trap for trap in traps_found({name: value}) if trap.what not in told(traps_found({}))]
    assert name in trap.what
    assert what in trap.what
    assert cure in trap.cure
    assert not trap.breaks


def test_variables_that_are_as_they_should_be_are_no_traps() -> None:
    fine = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0",
            "AUTOPRUNE_CACHE": "x", "AUTOPRUNE_ROOM": "5"}  # fmt: skip
    assert told(traps_found(fine)) == told(traps_found({}))
    assert own_variables(fine | {"AUTOPRUNE_STORAGE": "postgresql://me:pa55@h/d"}) == {
        "AUTOPRUNE_CACHE": "x", "AUTOPRUNE_STORAGE": "postgresql://me:***@h/d"
    }  # fmt: skip


def test_the_variables_that_are_known_are_those_that_the_source_names() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "autoprune").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"(?<!_)AUTOPRUNE_[A-Z_]*[A-Z]", text)}
    assert named == {*VARIABLES, *SET_BY_US}


def test_a_cache_that_cannot_be_written_breaks_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(trap.breaks for trap in traps_found({}))
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "file" / "cache"))
    first = traps_found({})[0]
    assert first.breaks
    assert "cannot be written" in first.what
    assert "AUTOPRUNE_CACHE" in first.cure


def test_whether_a_cluster_answers_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert why_no_answer(address) == why_no_answer(f"ray://{address}") == ""
    assert "no Ray cluster answers" in why_no_answer(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    (broken,) = [trap for trap in traps_found({}) if trap.breaks]
    assert "unset RAY_ADDRESS" in broken.cure
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    assert any(trap.breaks for trap in traps_found({}))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_target_can_do_is_what_inspect_says_of_it(name: str) -> None:
    record = target_record(name)
    if not record["usable"]:
        assert record["why"]
        return
    target = get_target(name)
    offered = {16, "w8a8", 8, 6, 4, 3, 2} & {*record["fast"], *record["bytes_alone"]}
    assert offered == {*record["fast"], *record["bytes_alone"]}
    assert offered <= {storage.written for storage in target.storages}
    stored = tuple(storage for storage in target.storages if storage.written in offered)
    space = SearchSpace((Choices("layer", (0.0,), stored),))
    speed = speed_record(space, target.fast)
    assert (set(record["fast"]), set(record["bytes_alone"])) == (
        set(speed["fast"]), set(speed["bytes_alone"])
    )  # fmt: skip
    assert record["removes"] is (name not in ("gguf", "compressed-tensors"))


# ---- the command --------------------------------------------------------------------------------

WATCHED = """
import sys
reached = []
sys.addaudithook(lambda event, given: reached.append(given[1]) if event == "socket.connect" else None)
from autoprune.cli.main import main
try:
    main(sys.argv[1:])
finally:
    addresses = [address for address in reached if isinstance(address, tuple)]
    assert not addresses, addresses
"""


def doctor(folder: Path, *words: str, code: int, **variables: str) -> str:
    """What the command prints in a process of its own, which reaches no network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "AUTOPRUNE_"))}
    environment = {**kept, "AUTOPRUNE_CACHE": str(folder / "cache"), **variables}
    environment["PYTHONPATH"] = os.pathsep.join([variables.get("PYTHONPATH", ""), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "doctor", *words], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_machine_that_works_is_described(tmp_path: Path) -> None:
    record: dict[str, Any] = json.loads(doctor(tmp_path, "--json", code=0))
    assert record["works"]
    assert not (tmp_path / "cache").exists()
    assert record["machine"]["processors"] >= 1
    assert {target["name"] for target in record["targets"]} == set(NAMES)
    assert record["versions"]["torch"]
    assert record["gpus"] or record["why_no_gpu"]
    lines = doctor_lines(record)
    assert lines[-1] == "A search can run here"
    assert any(line.startswith("  openvino") and "w8a8" in line for line in lines)
    assert all(trap["cure"] for trap in record["traps"])


@pytest.mark.slow
def test_what_is_broken_is_told_at_once_and_the_rest_still_is(tmp_path: Path) -> None:
    """A library whose own library is missing, and a cache that is none: exit code 1, a cure for each."""
    library = tmp_path / "broken" / "openvino"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("raise OSError('libtbb.so.12: cannot open shared object file')")
    (tmp_path / "file").touch()
    text = doctor(
        tmp_path, code=1, PYTHONPATH=str(tmp_path / "broken"), AUTOPRUNE_CACHE=str(tmp_path / "file" / "x"),
        OMP_NUM_THREADS="100000",
    )  # fmt: skip
    broken = [line for line in text.splitlines() if line.startswith("Broken")]
    assert len(broken) == 2
    assert "cannot be imported (OSError: libtbb.so.12" in text
    assert "AUTOPRUNE_CACHE" in text
    assert "Trap      OMP_NUM_THREADS=100000" in text
    assert text.count("Cure: ") >= 3
    assert text.rstrip().endswith("A search cannot run here: see Broken above")
