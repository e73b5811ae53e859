"""What the examples share: their switches, and autoprune's command line, called and shown as one types it."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import autoprune
from autoprune.tasks.metrics import Metric


@dataclass(frozen=True)
class Example:
    """How an example was called. small: minutes or less, for a look and for tests. work: where it writes."""

    small: bool
    work: Path

    def search(self, run: str, *words: object) -> autoprune.Front:
        """`autoprune search WORDS`, and its front. A run that is there is gone on with."""
        path = self.work / run
        if path.exists():
            call("resume", path)
        else:
            call("search", *words, "-o", path)
        return autoprune.open_run(path)

    def export(self, run: str, folder: str, *words: object) -> Path:
        """`autoprune export`, unless the folder is there; the folder."""
        path = self.work / folder
        if path.exists():
            print(f"# {path} is there already")
        else:
            call("export", self.work / run, *words, "-o", path)
        return path


def example(doc: str | None, name: str, *, parser: argparse.ArgumentParser | None = None) -> Example:
    """The example that the words on the command line ask for. doc: what it says of itself."""
    parser = parser or parser_of(doc)
    given = parser.parse_args()
    size = "full" if given.full else "small"
    work = given.work or Path("runs") / f"example-{name}-{size}"
    work.mkdir(parents=True, exist_ok=True)
    return Example(not given.full, work)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The switches that every example has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="at small size: the default")
    size.add_argument("--full", action="store_true", help="at full size")
    parser.add_argument("--work", type=Path, help="folder to write to; default: runs/example-NAME-SIZE")
    return parser


def call(*words: object) -> str:
    """What a command of autoprune prints; it is shown with its progress. One that fails ends the example."""
    line = [str(word) for word in words]
    print("$ autoprune", shlex.join(line), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "autoprune", *line], stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def sizes(front: autoprune.Front) -> str:
    """The original beside the best, in a line."""
    best, original, score = front.best, front.original, partial(_score, front.metric)
    return (
        f"{_mb(original.size_bytes)} to {_mb(best.size_bytes)}, {_ms(original.latency_ms)} to "
        f"{_ms(best.latency_ms)}, test {score(original.test_accuracy)} to {score(best.test_accuracy)}"
    )


def _mb(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f} ms"


def _score(metric: Metric, value: float | None) -> str:
    return "?" if value is None else f"{metric.shown(value):.1f}"
