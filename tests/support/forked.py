"""Commands of autoprune in processes forked from one that has imported all they need: ten seconds less each.

A command so started is in a process of its own, with its own folder, environment, output and exit code, and
runs the same `main`. Only imports are shared, so what is read from the environment while importing must be as
it is here (`fits`); other commands, and those that are sent signals, start as a user starts them.

    python -m tests.support.forked    the process that forks; a request is a line of JSON on its input
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

FIXED = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}
"""What is read from the environment while importing."""

FREE = ("AUTOPRUNE_", "PG", "HOME", "PYTHONPATH", "PYTEST_", *FIXED)
"""How names begin of what only a command reads."""


def fits(env: Mapping[str, str]) -> bool:
    """Whether a command of an environment may be forked."""
    other = {name for name in env.keys() | os.environ.keys() if env.get(name) != os.environ.get(name)}
    as_fixed = all(env.get(name) == value for name, value in FIXED.items())
    return as_fixed and all(name.startswith(FREE) for name in other)


def run(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """A command, and what it wrote."""
    with tempfile.TemporaryDirectory(prefix="autoprune-forked-") as folder:
        out, err, code = (Path(folder) / name for name in ("out", "err", "code"))
        os.mkfifo(code)
        asked = {
            "words": list(words),
            "cwd": str(cwd),
            "env": dict(env),
            "files": [str(out), str(err), str(code)],
        }
        with _LOCK:
            server = _server()
            assert server.stdin is not None
            server.stdin.write(json.dumps(asked) + "\n")
            server.stdin.flush()
        ended = subprocess.run(
            ["cat", code], capture_output=True, text=True, timeout=timeout, check=True
        ).stdout  # `cat` waits for the command's guard, and a test may be told that this took too long
        read = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
        return subprocess.CompletedProcess(list(words), int(ended), *read)


_LOCK = threading.Lock()
_SERVERS: list[subprocess.Popen[str]] = []


def _server() -> subprocess.Popen[str]:
    """The process that forks, begun by the first command of these tests."""
    if not _SERVERS:
        home = tempfile.mkdtemp(prefix="autoprune-home-")
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "AUTOPRUNE_"))
        }
        env = {**kept, **FIXED, "HOME": home}
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forked"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            text=True,
        )
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        atexit.register(server.kill)
        _SERVERS.append(server)
    return _SERVERS[0]


def _serve() -> None:
    """Fork for each line until there are no more."""
    import importlib

    for name in (
        "torch", "openvino", "sklearn.linear_model", "transformers.models.bert.modeling_bert",
        "transformers.models.bert.tokenization_bert", "autoprune.cli.main", "autoprune.cli.export",
        "autoprune.api.searches", "autoprune.pipeline.start", "autoprune.pipeline.driver",
        "autoprune.evaluation.worker", "autoprune.report.page",
    ):  # fmt: skip
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _guard(json.loads(line))


def _guard(asked: dict[str, Any]) -> None:
    """Fork once more for the command, and tell how it ended."""
    out, err, code = asked["files"]
    pid = os.fork()
    if pid == 0:
        _command(asked, out, err)
    _, status = os.waitpid(pid, 0)
    Path(code).write_text(str(os.waitstatus_to_exitcode(status)), encoding="utf-8")
    os._exit(0)


def _command(asked: dict[str, Any], out: str, err: str) -> None:
    """Run `main` as a process of its own would, and end."""
    for target, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT),
        (2, err, os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags, 0o600), target)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    paths = [path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = ["", *paths, *(path for path in sys.path if path not in ("", str(ROOT)))]
    sys.argv[:] = ["-c", *asked["words"]]
    code: Any = 0
    try:
        from autoprune.cli.main import main

        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    _serve()
