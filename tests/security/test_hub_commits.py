"""What a run reads from the hub is noted by its commit, and read at that commit from then on.

Against a server that gives out files as the hub does, by the hub's own client, in processes of their own.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoprune.run.folder import RUN
from tests.support.hub_files import FileHub, Repository, files_of, serving_files
from tests.support.made_runs import new_run
from tests.support.tiny_search import OPTIONS, autoprune, change_weights, environment, write_inputs

pytestmark = pytest.mark.slow

MODEL, DATA = "somebody/model", "somebody/rows"


@dataclass
class Hubbed:
    """A finished search of a model and data of the hub, both of which have moved on since."""

    base: Path
    hub: FileHub
    environment: dict[str, str]
    commits: dict[str, str]

    def about(self) -> dict[str, Any]:
        return dict(json.loads((self.base / "run" / RUN).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def hubbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hubbed]:
    base = tmp_path_factory.mktemp("hubbed")
    write_inputs(base / "made")
    with serving_files() as hub:
        model, data = Repository(), Repository()
        rows = (base / "made" / "rows.csv").read_bytes()
        hub.repositories |= {f"models/{MODEL}": model, f"datasets/{DATA}": data}
        first = {
            "model": model.commit(files_of(base / "made" / "model")),
            "dataset": data.commit({"train.csv": rows}),
        }
        of_hub = {"HF_ENDPOINT": hub.url, "HF_HOME": str(base / "home"), "HF_HUB_DISABLE_XET": "1"}
        env = environment(base / "cache", **of_hub)
        env["HF_HUB_OFFLINE"] = "0"
        autoprune(["search", MODEL, "--dataset", DATA, *OPTIONS, "-o", "run"], cwd=base, env=env)
        change_weights(base / "made" / "model")
        model.commit(files_of(base / "made" / "model"))
        data.commit({"train.csv": b"".join(rows.splitlines(keepends=True)[:-5])})
        yield Hubbed(base, hub, env, first)


def test_the_commits_are_noted(hubbed: Hubbed) -> None:
    assert hubbed.about()["inputs"]["commits"] == hubbed.commits
    assert hubbed.about()["config"]["revision"] is None  # as it was asked for


def test_a_run_is_gone_on_with_at_its_commits_though_the_hub_has_others(hubbed: Hubbed) -> None:
    asked = len(hubbed.hub.calls)
    autoprune(["resume", "run", "--trials", "+1"], cwd=hubbed.base, env=hubbed.environment)
    assert hubbed.about()["inputs"]["commits"] == hubbed.commits
    main = [call for call in hubbed.hub.calls[asked:] if "/main" in call]
    assert main == []


def test_an_export_is_of_the_commits_and_says_them(hubbed: Hubbed) -> None:
    words = ["export", "run", "--trial", "best", "--target", "packed", "-o", "out"]
    autoprune(words, cwd=hubbed.base, env=hubbed.environment)
    about = json.loads((hubbed.base / "out" / "autoprune.json").read_text(encoding="utf-8"))
    assert about["base"]["revision"] == hubbed.commits["model"]
    assert about["data"]["revision"] == hubbed.commits["dataset"]
    assert about["validated"]["is_recorded_data"] is True
    assert hubbed.commits["model"] in (hubbed.base / "out" / "README.md").read_text(encoding="utf-8")


def test_a_new_search_reads_the_newest(hubbed: Hubbed) -> None:
    words = ["search", MODEL, "--dataset", DATA, "--dry-run", *OPTIONS]
    asked = len(hubbed.hub.calls)
    autoprune(words, cwd=hubbed.base, env=hubbed.environment)
    newest = list(hubbed.hub.repositories[f"models/{MODEL}"].commits)[-1]
    assert any(f"{MODEL}/resolve/{newest}/" in call for call in hubbed.hub.calls[asked:])


@contextlib.contextmanager
def deaf_hub() -> Iterator[tuple[str, list[int]]]:
    """The address of a hub that hangs up on everybody, and a list that grows with each who asked."""
    door, asked = socket.create_server(("127.0.0.1", 0)), list[int]()

    def let_in() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                asked.append(door.accept()[0].detach())
                socket.close(asked[-1])

    threading.Thread(target=let_in, daemon=True).start()
    with door:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", asked


@pytest.mark.parametrize("command", ["search", "resume"])
def test_a_model_that_is_nowhere_is_named_at_once_where_the_hub_is_away(tmp_path: Path, command: str) -> None:
    """Of the run `run.json` has lost where its model lay, so that its name may be of the hub."""
    words = ["search", "absent/model", "--dataset", "rows.csv", *OPTIONS, "-o", "new"]
    if command == "resume":
        new_run(tmp_path / "run")
        about = json.loads((tmp_path / "run" / RUN).read_text(encoding="utf-8"))
        about["inputs"]["paths"] = {}
        (tmp_path / "run" / RUN).write_text(json.dumps(about), encoding="utf-8")
        words = ["resume", "run"]
    with deaf_hub() as (url, asked):
        env = environment(tmp_path / "cache", HF_ENDPOINT=url, HF_HOME=str(tmp_path / "home"))
        env["HF_HUB_OFFLINE"] = "0"
        done = autoprune(words, cwd=tmp_path, env=env, code=2)
    told = [line for line in done.stderr.splitlines() if line.startswith("autoprune: ")]
    assert len(told) == 1, done.stderr
    assert "model 'absent/model' cannot be loaded: there is no folder of that name" in told[0]
    assert "the hub, of which it may be an id, cannot be reached" in told[0]
    assert len(asked) <= 2  # its client tries a connection that was dropped once more
