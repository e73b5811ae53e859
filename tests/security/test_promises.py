"""SECURITY.md: each promise names tests, and all of them are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
ROWS = [line for line in LINES if line.startswith("| **")]


def names_of(path: Path) -> set[str]:
    """Names of the tests in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}


def test_there_are_promises() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize("row", ROWS, ids=[row[4:40] for row in ROWS])
def test_each_promise_is_held_by_tests(row: str) -> None:
    _, promise, held, _ = row.split("|")
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", held)
    assert named, promise
    for file, test in named:
        assert test in names_of(ROOT / file), f"{file} has no {test}"
    assert re.sub(r"`tests/\S+?`|[, ]", "", held) == ""


def test_every_test_of_security_is_named_or_beside_one_that_is() -> None:
    """No file of tests/security is forgotten."""
    named = {file for row in ROWS for file in re.findall(r"`(tests/security/\S+?\.py)::", row)}
    files = {f"tests/security/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert files - named == {"tests/security/test_promises.py"}


def test_reports_go_to_the_repositorys_host_and_no_address_is_made_up() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "private security advisory" in text
    assert not re.search(r"[\w.]+@[\w.]+\.\w+|https?://", text)
