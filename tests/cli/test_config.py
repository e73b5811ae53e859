"""`--config`: a dry run's settings are run again as they are, and flags beside them win."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autoprune.cli.main import main
from autoprune.core.database_address import given_storage
from autoprune.core.errors import AutopruneError
from tests.support.tiny_search import OPTIONS, write_inputs


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    for name in ("AUTOPRUNE_STORAGE", "PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def dry(*words: object) -> dict[str, object]:
    settings = json.loads(run("search", *words, "--dry-run").stdout)
    assert isinstance(settings, dict)
    return settings


def test_a_dry_run_is_run_again_as_it_is_and_flags_win(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    printed = run("search", "model", "--dataset", "rows.csv", *OPTIONS, "--dry-run").stdout
    settings = json.loads(printed)
    path = tmp_path / "settings" / "run.yaml"
    path.parent.mkdir()
    path.write_text(printed)
    assert dry("--config", path) == settings  # paths are from the working directory, not the file's
    changed = dry("--config", path, "--budget", "1MB", "--trials", 7, "--new-head")
    assert changed == {**settings, "budget": ["1MB"], "trials": 7, "new_head": True}
    (tmp_path / "model").rename(tmp_path / "other")
    assert dry("other", "--config", path) == {**settings, "model": "other"}


def test_a_wrong_file_is_one_error_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("budget: 20MB\ntarget: 3\n")
    for words in (("search",), ("submit", "search"), ("submit", "--render", "slurm", "search")):
        result = run(*words, "--config", "run.yaml", code=2)
        assert result.stdout == ""
        assert (
            "settings file run.yaml has 1 error:\n  target=3: it is int, and str is needed" in result.stderr
        )


def test_an_address_whose_secret_is_hidden_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.yaml").write_text("storage: postgresql://me:***@127.0.0.1:9/d\nbudget: 20MB\n")
    result = run("search", "--config", "run.yaml", "--dry-run", "--workers", 0, code=2)
    assert "whose secret is hidden: set the environment variable AUTOPRUNE_STORAGE" in result.stderr
    monkeypatch.setenv("AUTOPRUNE_STORAGE", "postgresql://me:pa55word@127.0.0.1:9/d")
    assert given_storage("postgresql://me:***@127.0.0.1:9/d") == "postgresql://me:pa55word@127.0.0.1:9/d"


SENT: Sequence[tuple[str, tuple[str, ...]]] = [
    ("budget: [1MB, 5ms]\nnew_head: true", ("--budget", "1MB", "--budget", "5ms", "--new-head")),
    ("budget: 1MB\nnew_head: false\nlimit_rows: []", ("--budget", "1MB")),
    ("limit_rows: [9, 8, 7]\ntext_columns: [a, b]\ntimeout_s: 3.5",
     ("--limit-rows", "9", "8", "7", "--text-column", "a", "--text-column", "b", "--timeout", "3.5")),
    ("teacher_rate: 1e-5\nmodel: org/bert", ("org/bert", "--teacher-rate", "1e-05")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), SENT)
def test_a_submitted_file_is_the_same_as_its_flags(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """What runs on the cluster does not have the file: its settings are sent as words."""
    (tmp_path / "run.yaml").write_text(text)
    render = ("submit", "--render", "slurm", "search", "--dataset", "org/rows")
    sent = run(*render, "--config", "run.yaml", "--trials", 7).stdout
    assert sent == run(*render, *words, "--trials", 7).stdout
    assert "run.yaml" not in sent


def test_a_hidden_password_that_libpq_finds_itself_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "pa55word")
    address = given_storage("postgresql://me:***@127.0.0.1:9/d")
    assert address is not None
    assert "***" not in address
    assert "pa55word" not in address
    with pytest.raises(AutopruneError, match="whose secret is hidden"):
        given_storage("mysql://me:***@127.0.0.1:9/d")  # which knows nothing of PGPASSWORD
