"""Fixtures of all tests. What needs torch is imported by the fixture that needs it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from autoprune.tasks.task import Batch
    from tests.support.tiny import Tiny

FAMILIES = ("bert", "distilbert")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-torch", action="store_true", help="Fail where a test imports torch or Ray.")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The fast tests stay fast: none of them may import what takes seconds."""
    heavy = sorted({"torch", "transformers", "ray", "openvino"} & sys.modules.keys())
    if session.config.getoption("--without-torch") and heavy:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
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
