"""Fixtures of all tests. What needs torch is imported by the fixture that needs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from autoprune.tasks.task import Batch
    from tests.support.tiny import Tiny

FAMILIES = ("bert", "distilbert")


def _heavy_packages() -> list[str]:
    """Packages of autoprune that may import torch, by import-linter's contracts; export does in parts."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
    (light,) = (
        contract["source_modules"]
        for contract in contracts["contracts"]
        if "torch" in contract.get("forbidden_modules", ())
    )
    packages = [name for layer in layers for name in layer.split(" : ")]
    return [name for name in packages if f"autoprune.{name}" not in light and name != "export"]


HEAVY = re.compile(
    r"^(import|from) (torch|ray|transformers|openvino|onnx|safetensors"
    rf"|autoprune\.({'|'.join(_heavy_packages())}"
    r"|export\.(artifact|from_run|validate|original|recorded_rows|trial_record))"
    r"|tests\.support\.(tiny|tiny_search|families|made_run|made_runs|made_exports|targets|bare_runtime))\b",
    re.MULTILINE,
)
"""Imports that take seconds: what makes a file of tests one that the fast tests leave out."""

MARKS = {"browser": "browser", "local_ray": "ray", "cluster": "ray"}
"""Markers of the tests that use a fixture."""

LONGEST = (
    "tests/strategy/test_shared_database.py",
    "tests/pipeline/test_resume.py",
    "tests/workers/",
    "tests/faults/",
    "tests/docs/test_runnable.py",
    "tests/examples/",
    "tests/project/",
    "tests/watch/",
    "tests/benchmarks/",
)
"""Files that take minutes, the longest first."""

LAST = "tests/end_to_end/"
"""What uses all cores by itself."""

MEMORY, ROOM_BYTES = Path("/dev/shm"), 4_000_000_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="Only files that do without torch and Ray.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out, of the fast tests, files that import what takes seconds."""
    if not config.getoption("--fast") or collection_path.suffix != ".py":
        return None
    return True if HEAVY.search(collection_path.read_text(encoding="utf-8")) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses a browser or a Ray has its marker. The longest files come first, end to end last.

    Processes that share the tests take whole files in this order, so that none is left with a long one, and
    a search that uses all cores has them.
    """
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKS:
                item.add_marker(MARKS[fixture])
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    first = [k for k, part in enumerate(LONGEST) if part in item.nodeid]
    return first[0] if first else len(LONGEST) + (LAST in item.nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Temporary folders in memory, where there is room: a study waits for the disk at each trial.

    Signals that a shell ignores for what it runs in the background would be ignored by all that tests start:
    they end their searches with these.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    is_first = not hasattr(config, "workerinput")
    if is_first and config.option.basetemp is None and _free_bytes(MEMORY) > ROOM_BYTES:
        config.option.basetemp = tempfile.mkdtemp(prefix="pytest-", dir=MEMORY)
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Say what the fast tests imported that takes seconds: they are to do without."""
    heavy = sorted({"torch", "ray", "openvino"} & sys.modules.keys())
    if session.config.getoption("--fast") and heavy:
        print(f"\nthe fast tests imported {', '.join(heavy)}")


@pytest.fixture(scope="session", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny model of each family."""
    from tests.support.tiny import make_tiny

    return make_tiny(request.param, tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny BERT, for what does not depend on the family."""
    from tests.support.tiny import make_tiny

    return make_tiny("bert", tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny DistilBERT: a family without segment types, and with other names."""
    from tests.support.tiny import make_tiny

    return make_tiny("distilbert", tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A BERT of other shapes than the tiny one."""
    from tests.support.tiny import make_tiny

    return make_tiny("bert", tmp_path_factory.mktemp("library"), hidden=32, ffn=64, vocab=100)


@pytest.fixture(scope="session")
def example(tiny_bert: Tiny) -> Batch:
    """A batch of two rows of unlike length."""
    return tiny_bert.task.batch(tiny_bert.task.validation, [0, 1])
