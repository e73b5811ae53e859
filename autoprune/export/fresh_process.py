"""A process of its own in which an exported folder is opened and measured.

`python -m autoprune.export.fresh_process REQUEST.json FOUND.json` is that process. Every export is checked
in it before it is called done: nothing of the process that wrote the folder is left there, so what is
measured is what somebody else will load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, write_json
from autoprune.evaluation.measure import (
    DefaultRun,
)
from autoprune.export.artifact import read_about, runtime_of
from autoprune.export.validate import ExportMeasurements, Request, measure


def with_defaults(measured: ExportMeasurements, request: Request) -> ExportMeasurements:
    """The same, with what the folder does under the runtime's default settings.

    That is measured in a process of its own, which may die: a runtime's defaults may be other kernels.
    """
    about = read_about(Path(request.folder))
    own = runtime_of(about.target, builder=request.builder).defaults()
    if own is None:
        return measured
    try:
        by_default = in_fresh_process(replace(request, against=None, against_members=(), defaults=True))
    except AutopruneError as error:
        return replace(measured, defaults=DefaultRun(own.words, failure=" ".join(str(error).split())))
    return replace(measured, defaults=DefaultRun(own.words, by_default.accuracy, by_default.latency))


def in_fresh_process(request: Request) -> ExportMeasurements:
    """Measure in a new Python process, which shares nothing with this one but the disk.

    Raises:
        AutopruneError: with what that process says, or how it ended.
    """
    root = Path(__file__).parents[2]
    paths = [str(root), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment["OMP_WAIT_POLICY"] = "passive"
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        question, answer = Path(name) / "request.json", Path(name) / "found.json"
        write_json(question, asdict(request))
        # -P: a file named like a package, in whatever folder this is called from, must not be imported.
        command = [sys.executable, "-P", "-m", "autoprune.export.fresh_process", str(question), str(answer)]
        # Words of our own, and no shell.
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # nosec B603
        if done.returncode != 0 or not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["and said nothing"])[-1]
            raise AutopruneError(f"the process that measures it ended with {done.returncode}: {last}")
        data = read_json(answer)
    if "error" in data:
        raise AutopruneError(data["error"])
    return ExportMeasurements.from_json(data)


def measure_request() -> None:
    """Measure what a file asks for; write what was found, or why it was not, to another."""
    question, answer = map(Path, sys.argv[1:])
    try:
        write_json(answer, asdict(measure(Request(**json.loads(question.read_text(encoding="utf-8"))))))
    except AutopruneError as error:
        write_json(answer, {"error": str(error)})


if __name__ == "__main__":
    measure_request()
