"""Tokens and passwords of the environment are in no file, no message and no log, wherever they stand."""

from __future__ import annotations

import json
import logging
import shlex
import string
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.files import read_json, write_json
from autoprune.core.progress import Progress
from autoprune.core.redaction import (
    HIDDEN,
    RedactingFormatter,
    cleaned,
    holds_secret,
    may_hold_secret,
    redacted,
    secret_values,
    shown_command,
)
from autoprune.run.config import Config
from autoprune.run.folder import RUN, STATUS, RunFolder
from autoprune.run.scrub import scrub

NAMES = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
         "PGPASSWORD", "WANDB_API_KEY", "MY_SECRET", "github_token"]  # fmt: skip
VALUES = some.text(string.ascii_letters + string.digits + "+/=_-.!$%\"'<>&\\", min_size=12, max_size=40)
TEXTS = some.text(some.characters(codec="utf-8"), max_size=20)


@pytest.mark.parametrize("name", NAMES)
@hypothesis.settings(
    deadline=None, max_examples=20, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(value=VALUES, before=TEXTS, after=TEXTS)
def test_what_the_environment_holds_is_hidden_wherever_it_stands(
    name: str, value: str, before: str, after: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        text = before + value + after
        assert value not in redacted(text)
        assert holds_secret(text)
        assert may_hold_secret(text)
        data: Any = {"a": [text, {"b": text, text: 1.5}], "c": None}
        assert value not in str(list(leaves(cleaned(data))))
        write_json(tmp_path / "a.json", data)
        written = (tmp_path / "a.json").read_text()
        assert value not in written
        assert json.dumps(value)[1:-1] not in written
        assert all(value not in leaf for leaf in leaves(read_json(tmp_path / "a.json")))
        record = logging.LogRecord("autoprune", logging.WARNING, "", 0, "said %s", (text,), None)
        assert value not in RedactingFormatter("%(message)s").format(record)
        assert value not in shlex.join(shown_command(["search", text, f"--dataset={text}"]))


def leaves(data: Any) -> list[str]:
    """Every text in plain data, names too."""
    if isinstance(data, dict):
        return [text for pair in data.items() for part in pair for text in leaves(part)]
    if isinstance(data, list):
        return [text for part in data for text in leaves(part)]
    return [data] if isinstance(data, str) else []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "/home/somebody/work"), ("SSH_AUTH_SOCK", "/tmp/ssh-abcdefgh/agent"), ("HF_TOKEN", "short"),
        ("TOKENIZERS_PARALLELISM", "false-or-true"), ("RAY_AUTH_TOKEN_PATH", "/home/somebody/token"),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), ("HF_HOME", "/home/somebody/cache"),
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert redacted(f"at {value}!") == f"at {value}!"


def test_the_password_of_a_database_in_the_environment_is_hidden_alone_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTOPRUNE_STORAGE", "postgresql://me:p%40ss-of-the-base@host/db")
    assert {"p%40ss-of-the-base", "p@ss-of-the-base"} <= {*secret_values()}
    assert redacted("FATAL: p@ss-of-the-base is wrong") == "FATAL: *** is wrong"


# ---- runs ---------------------------------------------------------------------------------------

TOKEN = "tok-of-another-hub-0123456789"


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


def test_a_run_has_no_token_in_its_record_status_log_or_message(
    token: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder.create(tmp_path / "run", Config.of(model="owner/name"), f"autoprune search x{token}")
    run.note(facts={"name": f"of {token}"}, stopped_by=f"403 for {token}")
    run.status("failed", reason=f"the hub said: bad token {token}")
    run.close()
    Progress().line(f"asked with {token}")
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or token not in file.read_text()
    assert token not in capsys.readouterr().err
    assert read_json(run.path / RUN)["stopped_by"] == f"403 for {HIDDEN}"
    assert read_json(run.path / STATUS)["reason"] == f"the hub said: bad token {HIDDEN}"


def test_a_setting_with_the_token_is_refused_and_no_message_shows_it(token: str, tmp_path: Path) -> None:
    words = [
        "search",
        "m",
        "--workers",
        "0",
        "--dataset",
        f"https://host/{token}/rows.csv",
        "-o",
        str(tmp_path / "r"),
    ]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "holds a password or token" in result.output
    assert token not in result.output
    assert not (tmp_path / "r").exists()


def test_a_run_that_holds_a_token_of_the_environment_is_cleaned_of_it(token: str, tmp_path: Path) -> None:
    (tmp_path / RUN).write_text(json.dumps({"version": 1, "command": f"search {token}"}))
    (tmp_path / "report.html").write_text(f"<p>{token}</p>")
    (tmp_path / "job.log").write_text(f"with {token}\n")
    assert {file.name for file in scrub(tmp_path)} == {RUN, "report.html", "job.log"}
    for file in tmp_path.iterdir():
        assert token not in file.read_text()
