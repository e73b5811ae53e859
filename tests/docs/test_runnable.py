"""What a page marks as runnable is run, word for word, on a tiny model and few rows.

A search gets options beside those on the page, which make it small.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doc_pages import PAGES, Block, blocks, words_of
from tests.support.paths import ROOT
from tests.support.tiny_search import autoprune, environment, write_inputs

SMALL = {"trials": 2, "workers": 0, "finetune_steps": 1, "target": "packed", "calibration_rows": 32}
"""Settings that make a search small, by their names in Python."""

PRELUDE = f"""
import functools, autoprune
autoprune.search = functools.partial(autoprune.search, **{SMALL!r})
"""

RUNNABLE = [page for page in PAGES if any(block.mark == "run" for block in blocks(page))]


def test_marks_are_known() -> None:
    marks = {block.mark for page in PAGES for block in blocks(page) if block.mark}
    assert all(mark == "run" or mark.startswith("file: ") for mark in marks), marks
    assert len(RUNNABLE) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_a_page_is_followed(page: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    (tmp_path / "model").rename(tmp_path / "my-bert")
    (tmp_path / "rows.csv").rename(tmp_path / "reviews.csv")
    for block in blocks(page):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
        elif block.mark == "run":
            _run(block, tmp_path)


def _run(block: Block, folder: Path) -> None:
    env = environment(folder / "cache", PYTHONPATH=f"{ROOT}:{folder}")
    if block.language == "python":
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + block.text], cwd=folder, env=env, capture_output=True, text=True,
            timeout=1800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, block.text + done.stdout + done.stderr
        return
    for line in block.text.splitlines():
        words = words_of(line)
        assert words, f"{line!r} is no command of autoprune"
        more = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
        autoprune([*words, *(more if words[0] == "search" else [])], cwd=folder, env=env)
