"""The reference pages are what the code says today."""

from __future__ import annotations

import re

import pytest

from autoprune.cli.main import main
from docs.generators.commands import walk
from docs.generators.pages import REFERENCE, pages
from docs.generators.settings import VARIABLES
from tests.support.doc_pages import text_of
from tests.support.paths import ROOT

SOURCES = sorted((ROOT / "autoprune").rglob("*.py"))


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_the_pages_are_up_to_date(made: dict[str, str]) -> None:
    stale = [name for name, text in made.items() if text_of(REFERENCE / name) != text]
    assert not stale, f"{', '.join(stale)} of docs/reference: run python -m docs.generators"


def test_every_command_and_option_is_there(made: dict[str, str]) -> None:
    for path, command in walk(main, "autoprune"):
        assert f"## {path}\n" in made["commands.md"]
        for parameter in command.params:
            if name := next((flag for flag in parameter.opts if flag.startswith("--")), None):
                assert name in made["commands.md"], f"{path} {name}"


def test_every_variable_that_is_read_is_described() -> None:
    read = {name for path in SOURCES for name in re.findall(r"\bAUTOPRUNE_[A-Z_]*[A-Z]\b", text_of(path))}
    assert read == set(VARIABLES)


def test_every_paper_that_the_code_names_is_cited_and_no_other() -> None:
    pattern = re.compile(r"arXiv\s+(\d{4}\.\d{4,5})")
    named = {number for path in SOURCES for number in pattern.findall(text_of(path))}
    assert set(pattern.findall(text_of(ROOT / "docs/citations.md"))) == named


def test_the_files_that_cite_name_the_author() -> None:
    rows = re.findall(r"^\| (.+?) \| .+? \| (`.+`) \|$", text_of(ROOT / "docs/citations.md"), re.MULTILINE)
    assert len(rows) > 30
    for source, files in rows:
        author = re.split(r"[ ,]", source)[0]
        for name in re.findall(r"`([^`]+)`", files):
            assert author in text_of(ROOT / "autoprune" / f"{name}.py"), f"{name} does not name {author}"
