"""Pushing to the hub, by its real client, against a small server that speaks its API (`hub_server`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.export.hub import check_access, is_hub_id
from tests.support.hub_server import TOKEN, Hub, environment_of, serving

PUSH = """
import sys
from pathlib import Path
from autoprune.core.errors import AutopruneError
from autoprune.export.hub import check_access, push
try:
    check_access(sys.argv[2])
    print(push(Path(sys.argv[1]), sys.argv[2], private=sys.argv[3] == "private"))
except AutopruneError as error:
    print(f"autoprune: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every kind that an export has."""
    out = tmp_path / "export"
    out.mkdir()
    (out / "model.safetensors").write_bytes(os.urandom(200_000))
    (out / "model.bin").write_bytes(os.urandom(70_000))
    (out / "autoprune.json").write_text('{"version": 1}\n')
    (out / "README.md").write_text("---\ntags:\n- autoprune\n---\n\n# model\n")
    (out / "config.json").write_bytes(b'{"a": "\xc3\xa9"}')
    return out


def pushed(
    hub: Hub, folder: Path, repo: str = "my-org/small", who: str = "private", **more: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PUSH, str(folder), repo, who]
    environment = environment_of(hub, folder.parent / "home", **({"HF_TOKEN": TOKEN} | more))
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("autoprune: ")]
    assert len(lines) == 1
    return lines[0]


def test_files_arrive_bit_for_bit_in_a_private_repository(hub: Hub, folder: Path) -> None:
    done = pushed(hub, folder)
    assert done.returncode == 0, done.stderr
    assert hub.visibility == {"my-org/small": "private"}
    assert hub.files["my-org/small"] == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert f"{hub.url}/my-org/small" in done.stdout
    assert f"Bearer {TOKEN}" in hub.tokens


def test_public_opens_it(hub: Hub, folder: Path) -> None:
    assert pushed(hub, folder, who="public").returncode == 0
    assert hub.visibility == {"my-org/small": "public"}


def test_a_repository_that_is_there_is_left_as_it_is(hub: Hub, folder: Path) -> None:
    hub.visibility["my-org/small"], hub.files["my-org/small"] = "public", {"mine.txt": b"keep"}
    line = refusal(pushed(hub, folder))
    assert "(409)" in line
    assert "there already and is left as it is; give another name" in line
    assert f"the export is in {folder}" in line
    assert hub.files["my-org/small"] == {"mine.txt": b"keep"}


@pytest.mark.parametrize(
    ("part", "status", "words"),
    [
        (
            "whoami",
            401,
            "does not accept the token; run `hf auth login`, or set HF_TOKEN. Nothing was exported",
        ),
        ("create", 403, "may not write there. Nothing was pushed"),
        ("commit", 403, "may not write there. The repository my-org/small was made, but not all is in it"),
    ],
)
def test_a_refusal_says_why_and_what_was_done(
    hub: Hub, folder: Path, part: str, status: int, words: str
) -> None:
    hub.refuse[part] = status
    line = refusal(pushed(hub, folder))
    assert f"({status})" in line
    assert words in line
    assert not hub.files.get("my-org/small")
    if part == "whoami":
        assert not any(call.startswith(("POST", "PUT")) for call in hub.calls)


def test_no_token_is_said_before_anything_is_asked(hub: Hub, folder: Path) -> None:
    assert "run `hf auth login`, or set HF_TOKEN" in refusal(pushed(hub, folder, HF_TOKEN=""))
    assert hub.calls == []


def test_a_hub_that_cannot_be_reached_is_one_line(folder: Path) -> None:
    refusal(pushed(Hub(url="http://127.0.0.1:9"), folder))


@pytest.mark.parametrize("name", ["small", "a/b/c", "my org/small", "", "../x", "https://hub/x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    assert not is_hub_id(name)
    with pytest.raises(AutopruneError, match="OWNER/NAME"):
        check_access(name)
