"""All parts in turn within a limit of time, their results in one file that is written after each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoprune.core.files import write_json
from benchmarks.gpu.figures import read_figures
from benchmarks.gpu.install import ROOT
from benchmarks.gpu.parts import ERROR, Part
from benchmarks.gpu.setup import Setup

RESULT = "gpu.json"
RESERVE = 5.0
"""Seconds of the limit that are kept for the last result to be written."""


def run_parts(
    setup: Setup, parts: Sequence[Part], out: Path, *, seconds: float, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Run the parts in turn; the record that `out` holds as `gpu.json` then.

    A part that fails, or is stopped at its own limit, is recorded with what it had found, and the next one
    is run. One that would have too little time left is recorded as dropped.
    """
    begun = time.monotonic()
    work = Path(setup.work)
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "limit_seconds": seconds,
        "setup": json.loads(setup.as_text()),
        "parts": {},
    }
    for name in ("demo", "work"):  # where they lie is no result
        del record["setup"][name]
    for part in parts:
        left = seconds - RESERVE - (time.monotonic() - begun)
        if left < part.least:
            answer = {
                "state": "dropped",
                "why": f"{max(0.0, left):.0f} s of {seconds:g} were left, and it needs {part.least:g}",
            }
        else:
            answer = _answer(setup, part, min(left, part.most), environment)
        record["parts"][part.name] = answer
        record["seconds"] = round(time.monotonic() - begun, 1)
        write_json(out / RESULT, record)
        print(line_of(part.name, answer), flush=True)
    return record


def _answer(setup: Setup, part: Part, limit: float, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run one part in a group of processes, which is ended with it."""
    work = Path(setup.work)
    told, figures, log = (work / f"{part.name}.{end}" for end in ("setup.json", "figures.json", "part.log"))
    told.write_text(setup.as_text(), encoding="utf-8")
    figures.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "benchmarks.gpu.parts", part.name, str(told), str(figures), str(limit),
    ]  # fmt: skip
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=ROOT, env=dict(environment), start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = read_figures(figures)
    error = found.pop(ERROR, None)
    answer: dict[str, Any] = {
        "state": "stopped at its limit" if code is None else "failed" if code else "done",
        "seconds": round(time.monotonic() - start, 1),
        "limit_seconds": round(limit, 1),
        "figures": found,
    }
    if answer["state"] != "done":
        answer["error"] = error or log.read_text(encoding="utf-8", errors="replace")[-6000:]
    return answer


def line_of(name: str, answer: Mapping[str, Any]) -> str:
    """What a part found, in a line."""
    if answer["state"] == "dropped":
        return f"{name:22} dropped: {answer['why']}"
    figures = answer["figures"]
    told = ""
    if "trials_an_hour" in figures:
        told = (
            f"{figures['trials_an_hour']:.0f} trials an hour, {figures['at_once']:.2f} at once, "
            f"{100 * figures['share_in_training']:.0f} % of their time in training"
        )
    elif "device" in figures:
        told = str(figures["device"])
    elif answer["state"] != "done":
        told = str(answer.get("error", "")).strip().rpartition("\n")[2][:200]
    return f"{name:22} {answer['state']:8} {answer['seconds']:6.1f} s   {told}"
