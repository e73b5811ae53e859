"""Passwords and tokens: what is shown of an address, what a run is cleaned of, where they come from."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import hypothesis
import hypothesis.strategies as some
import pytest
from click.testing import CliRunner

from autoprune.cli import main
from autoprune.core.database_address import VARIABLE, given_storage, resumed_storage
from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, write_json
from autoprune.core.redaction import (
    cleaned,
    escaped,
    holds_secret,
    may_hold_secret,
    redacted,
    without_secrets,
)
from autoprune.export.artifact import read_about
from autoprune.run.config import Config
from autoprune.run.folder import RUN, RunFolder
from autoprune.strategy.study import Study
from tests.strategy.test_study import SPACE, chance, repair
from tests.support.tiny_search import command, environment

TOKEN = "hf_" + "Ab1" * 11
URL, HIDDEN_URL = "postgresql://me:pa55-w0rd@host:5432/db", "postgresql://me:***@host:5432/db"
RUN_PATH = Path("runs/x")


@pytest.fixture(autouse=True)
def _no_password_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


# ---- what is a secret ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, HIDDEN_URL),
        ("postgresql+psycopg://me:a/b?c#d@host/db", "postgresql+psycopg://me:***@host/db"),
        ("mysql://me:p@ss@host/db", "mysql://me:***@host/db"),
        ("https://user:tok@host/a.csv", "https://***@host/a.csv"),
        ("git clone https://ghp-tok@host/a", "git clone https://***@host/a"),
        ("ray://user:tok@host:10001", "ray://***@host:10001"),
        ("s3://key:tok@bucket/a", "s3://key:***@bucket/a"),
        ("https://host/a?x=1&token=tok", "https://host/a?x=1&token=***"),
        ("https://host/a?access_token=tok&x=1", "https://host/a?access_token=***&x=1"),
        ("https://host/a?X-Amz-Signature=tok", "https://host/a?X-Amz-Signature=***"),
        ("sqlite:///a.db?password=tok", "sqlite:///a.db?password=***"),
        ("postgresql://host/db?user=me&sslpassword=tok", "postgresql://host/db?user=me&sslpassword=***"),
        (f"owner/{TOKEN}", "owner/***"),
        (f"'{URL}' and \"{URL}\".", f"'{HIDDEN_URL}' and \"{HIDDEN_URL}\"."),
    ],
)
def test_a_secret_is_hidden_and_the_rest_of_its_address_stays(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(f"{shown}, and") == f"{shown}, and"
    assert holds_secret(text)
    assert may_hold_secret(text)
    assert not holds_secret(shown)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@host/db", "sqlite:////a/b@c/d.db", "http://127.0.0.1:8265/a@v1", "ray://host:10001",
        "https://host/a?tokenizer=x&max_tokens=5", "me@host.org: hello", "runs/hf_model", "package:function",
        "git@host:owner/name.git", "<svg xmlns='http://www.w3.org/2000/svg'>",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
    some.text(some.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=1)
)
def test_any_password_is_escaped_once_and_hidden(password: str) -> None:
    hypothesis.assume(password != "***" and "@" not in password[:-1] + "?" * ("?" in password))
    url = escaped(f"postgresql://me:{quote(password, safe='')}@host/db")
    assert escaped(url) == url
    assert redacted(f"opened {url} at last") == "opened postgresql://me:***@host/db at last"
    if "%" not in password:
        assert escaped(f"postgresql://me:{password}@host/db") == url


def test_data_are_cleaned_at_any_depth_and_files_hold_no_secret(tmp_path: Path) -> None:
    data = {"a": [URL, {"b": (f"x {URL}", 1.5, None)}], URL: True}
    hidden = {"a": [HIDDEN_URL, {"b": [f"x {HIDDEN_URL}", 1.5, None]}], HIDDEN_URL: True}
    assert cleaned(data) == hidden
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json") == hidden


# ---- where the secret of a database comes from --------------------------------------------------


def test_a_new_run_writes_its_address_and_command_without_the_password(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config.of(storage=URL), "autoprune search")
    assert run.config().search.storage == URL
    run.note(config={**read_json(run.path / RUN)["config"], "storage": URL})
    run.close()
    assert read_json(run.path / RUN)["config"]["storage"] == HIDDEN_URL
    assert "pa55" not in repr(run) + repr(run.config())
    with pytest.raises(AutopruneError, match="is written in no file") as caught:
        RunFolder.open(run.path)
    assert f"set the environment variable {VARIABLE}" in str(caught.value)
    assert f"autoprune resume {run.path} --storage URL" in str(caught.value)
    again = RunFolder.open(run.path, URL)
    assert (again.config().search.storage, again.study_name()) == (URL, run.study_name())
    again.close()


def test_the_variable_is_used_where_it_names_the_same_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, URL)
    assert resumed_storage(HIDDEN_URL, None, run=RUN_PATH) == URL
    assert resumed_storage(without_secrets(URL), None, run=RUN_PATH) == URL
    assert resumed_storage(None, None, run=RUN_PATH) is None
    assert given_storage(None) == URL
    assert given_storage(without_secrets(URL)) == URL
    assert given_storage("sqlite:///mine.db") == "sqlite:///mine.db"
    assert resumed_storage("sqlite:///mine.db", None, run=RUN_PATH) == "sqlite:///mine.db"
    with pytest.raises(AutopruneError, match=r"it is set now, but to postgresql://me:\*\*\*@host:5432/db"):
        resumed_storage("postgresql://me:***@other/db", None, run=RUN_PATH)


def test_the_command_line_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, URL)
    other = "postgresql://me:new@other/db"
    assert resumed_storage(HIDDEN_URL, other, run=RUN_PATH) == other
    assert given_storage(other) == other


def test_postgresqls_own_ways_are_left_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = "postgresql://me@host:5432/db"
    with pytest.raises(AutopruneError, match=r"PGPASSWORD or ~/\.pgpass"):
        resumed_storage(HIDDEN_URL, None, run=RUN_PATH)
    monkeypatch.setenv("PGPASSWORD", "any")
    assert resumed_storage(HIDDEN_URL, None, run=RUN_PATH) == bare
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".pgpass").touch()
    assert resumed_storage(HIDDEN_URL, None, run=RUN_PATH) == bare


def test_a_run_with_a_study_of_its_own_takes_no_address() -> None:
    with pytest.raises(AutopruneError, match=r"its own study\.db; leave --storage out") as caught:
        resumed_storage(None, URL, run=RUN_PATH)
    assert "pa55" not in str(caught.value)


# ---- runs that hold a secret already ------------------------------------------------------------


def old_run(folder: Path) -> Path:
    """What an older version left of a run: its address with the password in records, pages, an export."""
    run, export = folder / "run", folder / "run" / "exported"
    export.mkdir(parents=True)
    odd = "postgresql://me:pa55\"'&<w0rd@host/db"
    for password_of in (URL, odd):
        line = f"autoprune search model --storage {password_of}"
        config = {"storage": URL, "dataset": f"https://host/a?token={TOKEN}"}
        (run / RUN).write_text(json.dumps({"command": line, "config": config, "facts": {"odd": odd}}))
    (run / "front.json").write_text(json.dumps({"run": {"command": line}}))
    page = json.dumps(line).replace("&", "\\u0026").replace("<", "\\u003c")
    (run / "report.html").write_text(f"<script>{page}</script><p>{URL} https://host/a?token={TOKEN}</p>")
    (run / "run.log").write_text(f"opened {URL}\n")
    (export / "README.md").write_text(f"```\nautoprune search --storage {URL}\n```\n")
    (export / "model.safetensors").write_bytes(b"\x00weights")
    hashes = {
        n: hashlib.sha256((export / n).read_bytes()).hexdigest() for n in ("README.md", "model.safetensors")
    }
    (export / "autoprune.json").write_text(
        json.dumps(
            {
                "version": 1,
                "command": line,
                "target": "packed",
                "storage": "plain",
                "units": {},
                "sha256": hashes,
            }
        )
    )
    return run


def holding(folder: Path, *secrets: str) -> list[str]:
    """Files of a folder that hold any of the secrets."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(f.relative_to(folder)) for f in files if any(s.encode() in f.read_bytes() for s in secrets)]


def test_an_old_run_is_cleaned_and_said_without_showing_it_and_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = old_run(tmp_path)
    told = "exported/README.md, front.json, report.html, run.log, exported/autoprune.json, run.json"
    assert len(holding(run, "pa55", "w0rd", TOKEN)) == len(told.split(", "))
    with caplog.at_level(logging.WARNING):
        folder = RunFolder.open(run)
    assert folder.storage == URL  # this once, from the old file itself
    folder.close()
    assert holding(run, "pa55", "w0rd", TOKEN) == []
    assert told in caplog.text
    assert not re.search(f"pa55|w0rd|{TOKEN}", caplog.text)
    assert read_about(run / "exported").target == "packed"  # hashes are those of the files as they are
    caplog.clear()
    RunFolder.open(run, URL).close()
    assert caplog.text == ""


def test_the_report_of_an_old_run_cleans_it_too(tmp_path: Path) -> None:
    run = old_run(tmp_path)
    result = CliRunner().invoke(main.main, ["report", str(run)])
    assert holding(run, "pa55", TOKEN) == []
    assert "pa55" not in result.output


# ---- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [URL.replace("w0rd", "")],
        ["--trials", "postgresql://me:pa55@host/db"],
        ["--dataset", "https://me:pa55@host/rows.csv"],
        ["--dataset", "https://host/rows.csv?token=pa55"],
        ["--address", "ray://me:pa55@host:10001"],
        ["--space", "https://pa55@host/space.yaml"],
    ],
)
def test_no_error_shows_a_password(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(main.main, ["search", "model", "--workers", "0", *arguments])
    assert result.exit_code == 2, result.output
    assert "pa55" not in result.output


@pytest.mark.parametrize(
    "storage",
    [
        "nothing://me:pa55@host/db", "postgresql+psycopg://me:pa55@127.0.0.1:1/db", "me:pa55@host/db",
        "postgresql://me:pa55@host:port/db", "sqlite://?password=pa55", "mysql://me:pa55@host/db",
        "sqlite:////nowhere/at/all.db?password=pa55",
    ],
)  # fmt: skip
def test_no_error_of_a_database_shows_its_password(storage: str, tmp_path: Path) -> None:
    with pytest.raises(AutopruneError) as caught:
        Study(tmp_path / "study.db", SPACE, proposer=chance(SPACE, repair), storage=storage)
    assert "pa55" not in str(caught.value)


def test_an_error_nobody_expected_shows_no_password(tmp_path: Path) -> None:
    code = f"import sys; from autoprune.cli.main import main; sys.argv[1:] = ['spaces']\n" \
           f"try: main()\nexcept SystemExit: pass\nraise RuntimeError({URL!r})"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True
    )
    assert f"RuntimeError: {HIDDEN_URL}" in done.stderr
    assert "pa55" not in done.stdout + done.stderr


def test_ray_is_not_told_the_password(tmp_path: Path) -> None:
    code = (
        "from autoprune.workers.ray_cluster import connect\n"
        "ray, off = connect(None, 1)\nimport ray._private.state as s\n"
        "print(s.state.job_table()[0]['Entrypoint'])\noff()"
    )
    words = [sys.executable, "-c", code, "--storage", URL]
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert HIDDEN_URL in done.stdout
    assert "pa55" not in done.stdout + done.stderr


def test_the_plan_of_a_search_shows_no_password(tmp_path: Path) -> None:
    """A database that is there; one that does not answer is refused before anything is loaded."""
    url = f"sqlite:///{tmp_path}/a.db?password=pa55-w0rd"
    done = subprocess.run(
        command("search", "--dry-run", "--budget", "20MB", "--storage", url),
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["storage"] == url.replace("pa55-w0rd", "***")
    assert "pa55" not in done.stdout + done.stderr
    assert not (tmp_path / "a.db").exists()
    done = subprocess.run(
        command("search", "--dry-run", "--budget", "20MB", "--storage", URL),
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{HIDDEN_URL} cannot be opened" in done.stderr
    assert "pa55" not in done.stdout + done.stderr
    assert "Model " not in done.stderr  # nothing was loaded
