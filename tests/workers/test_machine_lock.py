"""The room, tried with real processes."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.workers.machine_lock import Room, default_room

HOLD = "with getattr(room, how)(): print('in', flush=True); sys.stdin.read()"
LOOP = """
print('in', flush=True)
while True:
    with getattr(room, how)(): pass
"""
FORK = """
with getattr(room, how)():
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    print('in', flush=True)
    sys.stdin.read()
"""

Start = Callable[[str, str], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a process that runs a script with `room` and `how` defined."""
    children = []
    head = (
        "import os, sys, time; from pathlib import Path; from autoprune.workers.machine_lock import Room; "
        "room, how = Room(Path(sys.argv[1])), sys.argv[2]\n"
    )

    def run(script: str, how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", head + script, str(tmp_path / "room"), how]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def inside(child: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process says within `seconds` that it got in."""
    assert child.stdout is not None
    return bool(select.select([child.stdout], [], [], seconds)[0])


@pytest.mark.parametrize(("holder", "waiter"), [("alone", "busy"), ("busy", "alone"), ("alone", "alone")])
def test_alone_excludes_and_a_killed_holder_lets_go(start: Start, holder: str, waiter: str) -> None:
    first = start(HOLD, holder)
    assert inside(first, 10)
    second = start(HOLD, waiter)
    assert not inside(second, 0.5)
    first.kill()
    assert inside(second, 10)


def test_many_are_busy_at_once(start: Start) -> None:
    children = [start(HOLD, "busy") for _ in range(3)]
    assert all(inside(child, 10) for child in children)


def test_who_waits_to_be_alone_keeps_new_ones_out(start: Start) -> None:
    first = start(HOLD, "busy")
    assert inside(first, 10)
    timing = start(HOLD, "alone")
    assert not inside(timing, 0.5)
    late = start(HOLD, "busy")
    assert not inside(late, 0.5)
    first.kill()
    assert inside(timing, 10)
    assert not inside(late, 0.3)
    timing.kill()
    assert inside(late, 10)


@pytest.mark.parametrize(("hot", "mine"), [("busy", "alone"), ("alone", "busy")])
def test_nobody_starves(start: Start, tmp_path: Path, hot: str, mine: str) -> None:
    children = [start(LOOP, hot) for _ in range(2)]
    assert all(inside(child, 10) for child in children)
    room = Room(tmp_path / "room")
    for _ in range(5):
        begun = time.monotonic()
        with getattr(room, mine)():
            assert time.monotonic() - begun < 1
    assert all(child.poll() is None for child in children)


def test_a_forked_child_does_not_keep_the_room(start: Start, tmp_path: Path) -> None:
    parent = start(FORK, "alone")
    assert inside(parent, 10)
    parent.kill()
    begun = time.monotonic()
    with Room(tmp_path / "room").alone():
        assert time.monotonic() - begun < 1


def test_a_child_forked_inside_comes_out_and_in_again(tmp_path: Path) -> None:
    room = Room(tmp_path / "room")
    status = 1
    with room.busy():
        child = os.fork()
        if child == 0:
            try:
                with room.busy():
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    with room.alone():
        pass


def test_busy_costs_microseconds(tmp_path: Path) -> None:
    room = Room(tmp_path / "room")
    begun = time.perf_counter()
    for _ in range(1000):
        with room.busy():
            pass
    assert (time.perf_counter() - begun) / 1000 < 200e-6


def test_nesting(tmp_path: Path) -> None:
    room, other = Room(tmp_path / "room"), Room(tmp_path / "other")
    with room.alone(), room.busy(), room.alone(), other.alone():
        pass
    with room.busy(), room.busy(), pytest.raises(RuntimeError, match="leave busy"), room.alone():
        pass
    with room.alone():
        pass


def test_an_exception_leaves_the_room(tmp_path: Path) -> None:
    room = Room(tmp_path / "room")
    for how in (room.busy, room.alone):
        with pytest.raises(KeyError), how():
            raise KeyError
    with Room(tmp_path / "room").alone():
        pass


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    default_room.cache_clear()
    yield tmp_path / f"autoprune-{os.getuid()}"
    default_room.cache_clear()


def test_the_default_room_is_the_users_alone(temporary: Path) -> None:
    with default_room().alone():
        assert default_room() is default_room()
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in temporary.iterdir()} == {0o600}


def test_containers_meet_in_a_folder_that_they_name(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("AUTOPRUNE_ROOM", str(tmp_path / "shared"))
    with default_room().alone():
        assert not temporary.exists()
        assert (tmp_path / "shared" / temporary.name / "room").exists()


def test_a_folder_open_to_others_is_refused(temporary: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(AutopruneError, match="mode 777"):
        default_room()


def test_a_link_in_its_place_is_refused(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    temporary.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AutopruneError, match="must be a folder"):
        default_room()
