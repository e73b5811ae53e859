"""A submission: its name, the words that run on the cluster, and what is refused before anything is sent."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.jobs.request import Given, Request, check_same
from autoprune.jobs.storage_root import StorageRoot
from autoprune.jobs.submission import Submission, make_submission
from autoprune.run.config import Config


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AUTOPRUNE_CLUSTER",
        "RAY_API_SERVER_ADDRESS",
        "AUTOPRUNE_STORAGE_ROOT",
        "AUTOPRUNE_STORAGE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-bert").mkdir()
    (tmp_path / "my-bert" / "config.json").write_text("{}")
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")


def made(root: Path, *given: Given, name: str | None = None, **settings: Any) -> Submission:
    return make_submission(Config.of(**settings), given, StorageRoot(str(root)), name)


def refused(*words: str) -> str:
    """What a command says that must end with 2."""
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return result.stderr


def test_the_words_that_run_name_what_was_sent_by_its_hash(tmp_path: Path) -> None:
    given = [
        Given("", ("my-bert",)),
        Given("--dataset", ("rows.csv",)),
        Given("--budget", ("20 MB",)),
        Given("--space", ("bert",)),
    ]
    settings = {"model": "my-bert", "dataset": "rows.csv", "budget": ("20 MB",), "space": "bert"}
    submission = made(tmp_path / "root", *given, **settings)
    model, rows = submission.contents
    assert submission.name == "my-bert-20MB"
    words = shlex.split(submission.entrypoint)
    assert words[:7] == ["python", "-m", "autoprune.jobs.driver", "--root", str(tmp_path / "root"), "--run",
                         "my-bert-20MB"]  # fmt: skip
    assert words[words.index("--") + 1 :] == [
        model.place, "--dataset", rows.place, "--budget", "20 MB", "--space", "bert"
    ]  # fmt: skip
    line = shlex.split(submission.ray_command("http://head:8265", "my-bert-20MB.2"))
    assert line[:3] == ["ray", "job", "submit"]
    assert json.loads(line[line.index("--metadata-json") + 1])["autoprune_run"] == "my-bert-20MB"
    assert line[line.index("--submission-id") + 1] == "my-bert-20MB.2"
    assert line[line.index("--") + 1 :] == words
    assert submission.send("my-bert-20MB") == model.size_bytes + rows.size_bytes
    assert submission.send("my-bert-20MB.2") == 0


def test_the_same_command_elsewhere_is_the_same_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (Given("", ("my-bert",)), Given("--dataset", ("rows.csv",)))
    first = made(tmp_path / "root", *given, model="my-bert", dataset="rows.csv")
    other = tmp_path / "elsewhere"
    other.mkdir()
    for name in ("my-bert", "rows.csv"):
        (tmp_path / name).rename(other / name)
    monkeypatch.chdir(other)
    second = made(tmp_path / "root", *given, model="my-bert", dataset="rows.csv")
    assert first.entrypoint == second.entrypoint


def test_a_run_goes_on_with_what_it_was_begun_with(tmp_path: Path) -> None:
    def request(*given: Given) -> Request:
        return Request((Given("", ("inputs/0/my-bert",)), *given))

    begun = request(Given("--target", ("onnx",)), Given("--trials", ("20",)))
    check_same(
        "r",
        begun,
        request(Given("--trials", ("50",)), Given("--target", ("onnx",)), Given("--workers", ("4",))),
    )
    for other in (
        request(Given("--target", ("packed",))),
        request(),
        request(Given("--target", ("onnx",)), Given("--seed", ("1",))),
        Request((Given("", ("inputs/1/my-bert",)), Given("--target", ("onnx",)))),
    ):
        with pytest.raises(AutopruneError, match="was begun with other settings"):
            check_same("r", begun, other)
    assert Request.from_json(begun.as_json(), where="x") == begun
    with pytest.raises(AutopruneError, match="is damaged"):
        Request.from_json({"given": 3}, where="x")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["./my-brt"], "MODEL './my-brt' is not there"),
        (["my-bert", "--dataset", "row.csv"], "--dataset 'row.csv' is not there"),
        (["my-bert", "--dataset", "org/rows", "--address", "auto"], "leave it out"),
        (["my-bert", "--dataset", "rows.csv", "--name", "a/b"], "--name 'a/b'"),
        (["my-bert", "--dataset", "nowhere.at:all"], "'nowhere' is in no folder"),
        (["my-bert", "--dataset", "rows.csv", "--storage", "postgresql://me:pa55@h/d"], "AUTOPRUNE_STORAGE"),
        (["my-bert", "--dataset", "rows.csv", "--budget", "large"], "budget"),
        (["my-bert", "--dataset", "rows.csv", "--sampler", "best"], "sampler"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_cluster_is_asked(
    words: list[str], told: str, tmp_path: Path
) -> None:
    place = ["--cluster", "http://127.0.0.1:9", "--storage-root", str(tmp_path / "root")]
    message = refused("submit", "search", *words, *place)
    assert told in message
    assert "pa55" not in message
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ("http://127.0.0.1:9", "no Ray cluster answers at http://127.0.0.1:9"),
        ("127.0.0.1:6379", "give http://HOST:8265"),
        ("json://x", "give http://HOST:8265"),
        ("auto", "give http://HOST:8265"),
    ],
)
def test_a_cluster_that_is_none_is_told(cluster: str, told: str, tmp_path: Path) -> None:
    place = ["--cluster", cluster, "--storage-root", str(tmp_path / "root")]
    assert told in refused("submit", "search", "my-bert", "--dataset", "rows.csv", *place)
    assert told in refused("status", "my-bert", *place)  # which then looks into the root
    assert told in refused("status", "my-bert", "--cluster", cluster)
    assert told in refused("jobs", "--cluster", cluster)


def test_a_cluster_and_a_root_are_asked_for(tmp_path: Path) -> None:
    assert "--cluster http://HOST:8265" in refused("submit", "search", "my-bert", "--dataset", "rows.csv")
    cluster = ["--cluster", "http://127.0.0.1:9"]
    assert "--storage-root" in refused("submit", "search", "my-bert", "--dataset", "rows.csv", *cluster)
    assert "--storage-root ROOT" in refused("fetch", "my-bert")
    assert "knows no run 'my-bert'" in refused("status", "my-bert", "--storage-root", str(tmp_path))
