"""A run that is watched: its page follows it and can end it, events are told once, nobody else may ask."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RunFolder
from autoprune.run.status import read_status
from autoprune.watch.events import events
from autoprune.watch.server import WatchServer
from autoprune.watch.source import Followed, LocalSource
from tests.report.test_report import browser, chromium, synthetic  # noqa: F401 (a fixture)
from tests.support.made_runs import OLD
from tests.support.tiny_search import OPTIONS, autoprune, command, environment, write_inputs

PATIENCE_S = 120.0


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose search is under way in this process, with no trial yet."""
    folder = RunFolder.create(tmp_path / "run", Config(), "autoprune search")
    folder.status("preparing")
    folder.close()
    return folder.path


@pytest.fixture
def served(run: Path) -> Iterator[tuple[WatchServer, Path]]:
    server = WatchServer(Followed(LocalSource(run), seconds=0.0))
    yield server, run
    server.close()


def asked(server: WatchServer, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, Any]:
    address = urlsplit(server.address)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if answer.headers[
            "Content-Type"
        ] == "application/json" else text
    finally:
        connection.close()


def test_only_who_knows_the_address_is_answered(served: tuple[WatchServer, Path]) -> None:
    server, _ = served
    own = urlsplit(server.address)
    assert own.hostname == "127.0.0.1"
    assert asked(server, own.path)[0] == 200
    for path in ("/", "/status", f"/{server.token[:-1]}/status", "/../../etc/passwd", f"/{'x' * 22}/stop"):
        for method in ("GET", "POST"):
            assert asked(server, path, method=method)[0] == 403
    for host in ("evil.example", f"evil.example:{own.port}", "127.0.0.1:1", ""):
        assert asked(server, own.path + "status", host=host)[0] == 403
    assert asked(server, own.path + "other")[0] == 404
    assert asked(server, own.path + "other", method="POST")[0] == 404


def test_a_page_waits_until_there_is_a_front(served: tuple[WatchServer, Path]) -> None:
    server, run = served
    path = urlsplit(server.address).path
    assert "No trial has ended yet" in asked(server, path)[1]
    now = asked(server, path + "status")[1]
    assert (now["state"], now["front"], now["line"][:9]) == ("gone", "", "gone  0 o")
    (run / FRONT).write_text(json.dumps(synthetic()), encoding="utf-8")
    assert asked(server, path + "status")[1]["front"] != ""
    assert 'id="live"' in asked(server, path)[1]


def test_a_run_that_is_not_under_way_cannot_be_stopped(served: tuple[WatchServer, Path]) -> None:
    server, run = served
    status, told = asked(server, urlsplit(server.address).path + "stop", method="POST")
    assert (status, told) == (409, {"error": f"run {run} is not under way"})


def test_a_damaged_front_is_passed_over(served: tuple[WatchServer, Path]) -> None:
    server, run = served
    path = urlsplit(server.address).path
    (run / FRONT).write_text(json.dumps(synthetic()), encoding="utf-8")
    before = asked(server, path + "front.json")[1]
    (run / FRONT).write_text('{"version": 1, "tri', encoding="utf-8")
    (run / "status.json").write_text("{", encoding="utf-8")
    now = asked(server, path + "status")[1]
    assert "status.json" in now["unread"]
    assert asked(server, path + "front.json")[1] == before


def test_an_old_run_is_watched() -> None:
    told = list(events(Followed(LocalSource(OLD), seconds=0.0)))
    trials = [event["number"] for event in told if event["event"] == "trial"]
    assert trials == sorted(set(trials))
    assert len(trials) == len(json.loads((OLD / FRONT).read_text(encoding="utf-8"))["trials"])


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(AutopruneError, match="is no run folder"):
        LocalSource(tmp_path)


@pytest.fixture
def searching(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A tiny search of many trials under way in a process of its own; its run and environment."""
    write_inputs(tmp_path)
    env, run = environment(tmp_path / "cache"), tmp_path / "run"
    words = ["search", "model", "--dataset", "rows.csv", *OPTIONS, "--trials", 500, "-o", run, "-q"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command(*words), cwd=tmp_path, env=env, stdout=log, stderr=log)
    try:
        yield run, env
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()


def until(holds: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_a_page_follows_a_search_and_ends_it(
    searching: tuple[Path, dict[str, str]],
    browser: Any,  # noqa: F811
) -> None:
    run, env = searching
    until((run / "status.json").exists, "the search did not begin")
    words = command("watch", run)
    with subprocess.Popen(
        words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        address = watching.stdout.readline().strip()
        wrong: list[str] = []
        seen: list[str] = []
        page = browser.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: seen.append(request.url))
        page.goto(address)
        page.wait_for_selector("#trials tbody tr", timeout=1000 * PATIENCE_S)
        until(lambda: page.locator("#trials tbody tr").count() > 7, "the page did not follow the search")
        page.select_option("#axis-y", "latency") if page.input_value("#axis-x") != "latency" else None
        view = page.url
        until(lambda: page.locator("#live-line").inner_text().startswith("running  "), "no line of the state")
        page.click("#live-stop")
        assert read_status(run)["state"] == "running"
        page.click("#live-stop")
        until(lambda: read_status(run)["state"] == "stopped", "the search was not ended")
        until(
            lambda: page.locator("#live-line").inner_text().startswith("stopped  "), "the page did not say so"
        )
        assert page.url == view
        assert all(url.startswith((address, "data:", "blob:")) for url in seen)
        assert wrong == []
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert "the page stays until Ctrl-C" in errors
    assert "the search goes on, if it was under way" in errors
    assert read_status(run)["exit_code"] == 143


def test_events_are_lines_of_json_until_the_search_ends(searching: tuple[Path, dict[str, str]]) -> None:
    run, env = searching
    until((run / FRONT).exists, "the search did not begin")
    words = command("watch", run, "--json")
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        told = [json.loads(watching.stdout.readline()) for _ in range(6)]
        autoprune(["stop", run], cwd=run.parent, env=env)
        told += [json.loads(line) for line in watching.stdout]
    assert watching.returncode == 0
    numbers = [event["number"] for event in told if event["event"] == "trial"]
    rows = json.loads((run / FRONT).read_text(encoding="utf-8"))["trials"]
    assert numbers == [row["number"] for row in rows]
    assert told[-1]["state"] == "stopped"
    assert os.environ.get("AUTOPRUNE_CACHE") != env["AUTOPRUNE_CACHE"]
