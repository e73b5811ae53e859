"""Damage that is really done to the files of a run, while it is searched and after it: figures.

`benchmarks.faults` does it in volume, `tests/faults` once each. Toy searches are of `toy_driver`, the others
are small real ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.run.folder import FRONT, STUDY
from autoprune.run.status import read_status
from tests.support.fault_scenarios import PATIENCE_S, Driver, Ends, check_study, said, told
from tests.support.paths import ROOT
from tests.support.tiny_search import OPTIONS, command, environment, write_inputs

STUDY_DAMAGE = ("header", "page", "cut", "emptied", "garbage", "removed", "replaced")
"""What is done to `study.db`; the last two to its name."""

FILE_DAMAGE = ("changed", "cut", "emptied", "garbage", "removed")
"""What is done to a file of the library, or of a model that is kept."""

PAGE_BYTES = 4096
"""Of SQLite's files."""

COMMAND_S = 900.0
"""How long a small search may take on a machine with busy neighbours; alone it takes half a minute."""

QUIET_TRIALS = 40
"""A driver that tells so many more has not met the damage, or has written over it."""


def can_mount() -> bool:
    """Whether a process may have mounts of its own."""
    return not os.getuid() and not subprocess.run(["unshare", "-m", "true"], check=False).returncode


def read_only(folder: Path, words: list[str]) -> list[str]:
    """The command that runs another where a folder can only be read."""
    place = shlex.quote(str(folder))
    mount = f"mount --bind {place} {place} && mount -o remount,ro,bind {place}"
    return ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *words]


def damage(path: Path, kind: str, rng: random.Random) -> None:
    """Do one kind of damage to a file, in place but for the last two kinds."""
    size = path.stat().st_size
    if kind == "removed":
        path.unlink()
    elif kind == "replaced":
        other = path.with_name("other")
        other.write_bytes(b"something else\n" * 50)
        os.replace(other, path)
    elif kind in ("cut", "emptied"):
        os.truncate(path, rng.randrange(size) if kind == "cut" else 0)
    else:
        pages = max(2, size // PAGE_BYTES)
        places = {
            "header": (0, 100),
            "page": (PAGE_BYTES * rng.randrange(1, pages), PAGE_BYTES),
            "garbage": (0, size),
            "changed": (rng.randrange(size), 1),
        }
        start, count = places[kind]
        with path.open("r+b") as file:
            file.seek(start)
            before = file.read(count)
            file.seek(start)
            file.write(bytes(byte ^ rng.randrange(1, 256) for byte in before))


# ---- toy searches -------------------------------------------------------------------------------


def made_read_only(run: Path) -> dict[str, Any]:
    """A search whose folder can only be read from some moment on, then as before."""
    driver = Driver.start(run, before=["unshare", "-m"])
    driver.wait_for_trials(5)
    inside = ["nsenter", "-t", str(driver.process.pid), "-m"]
    subprocess.run([*inside, "mount", "--bind", run, run], check=True)
    subprocess.run([*inside, "mount", "-o", "remount,ro,bind", run], check=True)
    code, line = driver.end(), said(run).strip().splitlines()[-1]
    state = read_status(run)["state"]
    refused = Driver.start(run, before=read_only(run, []))
    refused_code, refused_line = refused.end(), said(run).strip().splitlines()[-1]
    out = Ends(1)
    check_study(run, out)
    resumed = Driver.start(run, "--trials", len(told(run)) + 5).end()
    check_study(run, out)
    return out.as_json() | {
        "code": code, "state": state, "said": line, "refused_code": refused_code, "refused": refused_line,
        "resumed_code": resumed,
    }  # fmt: skip


def study_damaged(run: Path, kind: str, seed: int) -> dict[str, Any]:
    """A search whose study is damaged at a random moment, is gone on with, and restored from a copy."""
    rng, study, copy = random.Random(seed), run / STUDY, Path(f"{run}.copy")
    driver = Driver.start(run, "--trials", 1_000_000)
    driver.wait_for_trials(3)
    time.sleep(rng.uniform(0.0, 0.5))
    with (
        contextlib.closing(sqlite3.connect(study)) as source,
        contextlib.closing(sqlite3.connect(copy)) as to,
    ):
        source.backup(to)
        (copied,) = to.execute("SELECT COUNT(*) FROM trials").fetchone()
    damage(study, kind, rng)
    until, enough = time.monotonic() + PATIENCE_S, len(told(run)) + QUIET_TRIALS
    while driver.process.poll() is None and len(told(run)) < enough and time.monotonic() < until:
        time.sleep(0.05)
    if len(told(run)) >= enough:
        driver.process.send_signal(signal.SIGTERM)
    code = driver.end()
    line = said(run).strip().splitlines()[-1]
    known, before = len(told(run)), study.read_bytes() if study.exists() else None
    in_front = len(json.loads((run / FRONT).read_text(encoding="utf-8"))["trials"])
    after = Driver.start(run, "--trials", known)
    after_code, after_line = after.end(), said(run).strip().splitlines()[-1]
    is_untouched = after_code == 0 or before == (study.read_bytes() if study.exists() else None)
    if after_code:
        shutil.copy(copy, study)
        (run.parent / f"{run.name}.told").unlink()  # of the trials that the copy lacks
        restored = Driver.start(run, "--trials", copied + 5).end()
    else:
        restored = 0
    return {
        "code": code, "said": line, "is_named": STUDY in line or code == 128 + signal.SIGTERM,
        "lost_of_front": max(0, known - 1 - in_front), "after_code": after_code, "after": after_line,
        "is_after_named": not after_code or STUDY in after_line, "is_untouched": is_untouched,
        "restored_code": restored,
    }  # fmt: skip


def studies_damaged(folder: Path, seeds: int) -> dict[str, Any]:
    """`study_damaged` again and again, each kind in turn: what went wrong, and how the drivers ended."""
    codes: dict[str, int] = {}
    wrong: list[str] = []
    for seed in range(seeds):
        kind = STUDY_DAMAGE[seed % len(STUDY_DAMAGE)]
        figures = study_damaged(folder / f"study-{seed}", kind, seed)
        name = f"{kind}: {figures['code']}, then {figures['after_code']}"
        codes[name] = codes.get(name, 0) + 1
        wrong += wrong_of_study(kind, figures)
    return {"damages": seeds, "codes": codes, "wrong": wrong}


def wrong_of_study(kind: str, figures: Mapping[str, Any]) -> list[str]:
    """What must not be of a damaged study, in words."""
    limits = {
        "a driver ended without a name": figures["code"] in (2, 75, 128 + signal.SIGTERM)
        and figures["is_named"],
        "a front lacks trials": not figures["lost_of_front"],
        "a resume ended without a name": figures["after_code"] in (0, 2) and figures["is_after_named"],
        "a resume wrote to the study": figures["is_untouched"],
        "a copy was not gone on with": figures["restored_code"] == 0,
    }
    return [f"{kind}: {text}: {figures}" for text, holds in limits.items() if not holds]


# ---- small real searches ------------------------------------------------------------------------


class SmallRun:
    """A small search that has ended, with its inputs and cache below one folder."""

    def __init__(self, base: Path) -> None:
        self.base, self.run = base, base / "run"
        self.environment = environment(base / "cache", PYTHONPATH=str(ROOT))
        write_inputs(base)
        done = self.call(*self.words("run"))
        assert done.returncode == 0, done.stdout + done.stderr

    def words(self, output: str) -> list[object]:
        """The words of the search."""
        return ["search", "model", "--dataset", "rows.csv", *OPTIONS, "-o", output]

    def call(self, *words: object, is_read_only: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command of autoprune; where the run can only be read, if it says so."""
        whole = read_only(self.run, command(*words)) if is_read_only else command(*words)
        return subprocess.run(
            whole,
            cwd=self.base,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    @property
    def trials(self) -> int:
        """How many trials the front has, baselines among them."""
        return len(json.loads((self.run / FRONT).read_text(encoding="utf-8"))["trials"])

    def library(self) -> list[Path]:
        """Files of the library."""
        return sorted((self.base / "cache").rglob("library/*.safetensors"))

    def kept(self) -> list[Path]:
        """Files of the models that the run keeps."""
        return sorted(path for path in (self.run / "trials").rglob("*") if path.is_file())


def library_damaged(small: SmallRun, kind: str, rng: random.Random) -> dict[str, Any]:
    """A run that is gone on with after every file of its library was damaged."""
    before, files = small.trials, small.library()
    for path in files:
        damage(path, kind, rng)
    done = small.call("resume", "run", "--trials", "+1")
    return {
        "code": done.returncode,
        "files": len(files),
        "more": small.trials - before,
        "said": done.stderr[-500:],
    }


def library_damaged_meanwhile(small: SmallRun, output: str, rng: random.Random) -> dict[str, Any]:
    """A search during which file after file of its library is damaged."""
    process = subprocess.Popen(
        command(*small.words(output), "--seed", 1), cwd=small.base, env=small.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    damages, until = 0, time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.5)
        if (small.base / output / FRONT).exists() and (files := small.library()):
            with contextlib.suppress(OSError, ValueError):  # it is being written anew
                damage(rng.choice(files), rng.choice(FILE_DAMAGE), rng)
                damages += 1
    text = process.communicate(timeout=60)[0]
    return {"code": process.returncode, "damages": damages, "said": text[-500:]}


def kept_model_damaged(small: SmallRun, kind: str, rng: random.Random) -> dict[str, Any]:
    """A run one of whose kept models was damaged: exported, and once more after what the message says."""
    weights = rng.choice([path for path in small.kept() if path.name == "model.safetensors"])
    number, out = int(weights.parent.name), small.base / f"out-{rng.randrange(10**9)}"
    before = small.trials
    damage(weights, kind, rng)
    first = small.call("export", "run", "--trial", number, "-o", out)
    line = next((line for line in first.stderr.splitlines() if line.startswith("autoprune: ")), "")
    if first.returncode:
        shutil.rmtree(weights.parent)
    again = small.call("export", "run", "--trial", number, "-o", out) if first.returncode else first
    return {
        "code": first.returncode, "is_named": not first.returncode or str(weights.name) in line, "said": line,
        "again_code": again.returncode, "lost": before - small.trials, "again": again.stderr[-300:],
    }  # fmt: skip


def files_damaged(folder: Path, seeds: int) -> dict[str, Any]:
    """Damage to the library and to kept models of one run, again and again."""
    small, wrong, codes = SmallRun(folder / "files"), list[str](), dict[str, int]()
    for seed in range(seeds):
        rng, kind = random.Random(seed), FILE_DAMAGE[seed // 2 % len(FILE_DAMAGE)]
        if seed % 2:
            figures = kept_model_damaged(small, kind, rng)
            is_right = figures["code"] in (0, 2) and figures["is_named"] and not figures["lost"]
            is_right = is_right and figures["again_code"] == 0
        else:
            figures = library_damaged(small, kind, rng)
            is_right = figures["code"] == 0 and figures["more"] >= 1
        name = f"{'kept model' if seed % 2 else 'library'} {kind}: {figures['code']}"
        codes[name] = codes.get(name, 0) + 1
        wrong += [] if is_right else [f"{kind}: {figures}"]
    return {"damages": seeds, "codes": codes, "wrong": wrong}


def read_only_commands(small: SmallRun) -> dict[str, Any]:
    """What commands that only read make of a run that can only be read, and what a resume says of it."""
    words: dict[str, list[object]] = {
        "status": ["status", "run"], "report": ["report", "run"], "inspect": ["inspect", "run"],
        "report elsewhere": ["report", "run", "-o", "page"], "export": ["export", "run", "-o", "exported"],
        "resume": ["resume", "run", "--trials", "+1"],
    }  # fmt: skip
    done = {name: small.call(*line, is_read_only=True) for name, line in words.items()}
    return {
        "codes": {name: ended.returncode for name, ended in done.items()},
        "said": {name: (ended.stdout + ended.stderr)[-800:] for name, ended in done.items()},
    }
