"""Our targets against what a user would pick instead: bytes, milliseconds and accuracy, side by side.

    python -m benchmarks.targets [--run RUN[:TRIAL] ...] [--rounds 40] [-o benchmarks/results]
    python -m benchmarks.targets --check [--run RUN[:TRIAL]]

On the built-in demo, or on the model of the runs given: uniform models, half pruned ones without and with
the brief fine-tune, and what searches found, on every target that runs here (`ours.py`), beside NNCF, ONNX
Runtime's and torch's own quantization of the same teacher (`rivals.py`). Each is scored through the runtime
that it is for, and all are timed in turn in one process, one thread (`side_by_side.py`). `--check` runs what
the claims need at a small size, prints them last and exits with 1 where one does not hold; without `--run`
it searches first, for a model 4.6 times as fast as the original. It writes no results.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Before NumPy and torch are there: one thread, and none that spins while it waits for work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", category=FutureWarning)

from autoprune.core.errors import AutopruneError
from autoprune.core.files import write_json
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.targets import NAMES
from autoprune.tasks.task import Task
from benchmarks.harness.claim import Claim
from benchmarks.targets.claims import SETTING, claims_of, named
from benchmarks.targets.lineup import Lineup
from benchmarks.targets.ours import Kept
from benchmarks.targets.rivals import OPENVINO_FLOAT, RIVALS, TORCH_FLOAT
from benchmarks.targets.side_by_side import TEST, VALIDATION, Row, Setting, as_json, lines_of, time_rows

RESULTS, RECORD = Path(__file__).parents[1] / "results", "targets.json"
TARGETS = ("openvino", "onnx", "packed", "compressed-tensors")

SETTINGS: tuple[Setting, ...] = ((1, 32), (1, 128), (32, 32), (32, 128))
CHECK_SETTINGS: tuple[Setting, ...] = (SETTING, (32, 128))

WANTED_SPEED = 4.6
"""How many times as fast as the original the check asks its search to be; 4 times is claimed."""

SAME = ("model", "dataset", "text_columns", "label_column", "group_by", "space", "seed", "teacher_epochs",
        "teacher_rate", "max_length", "calibration_rows", "revision", "trust_remote_code")  # fmt: skip
"""What must be the same in all runs for their models to have one teacher and one test split."""


def main() -> int:
    """Run, print and write; 1 where a claim does not hold, 2 for what cannot be run as asked."""
    try:
        return _main(_arguments())
    except AutopruneError as error:
        print(f"targets.py: {error}", file=sys.stderr)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="RUN[:TRIAL]",
        help="a search's model: best (if not given), knee, or a number; may be repeated",
    )
    parser.add_argument("--targets", nargs="+", choices=NAMES, default=TARGETS)
    parser.add_argument("--rounds", type=int, help="calls timed at batch 1; a sixth at 32 (40; check: 30)")
    parser.add_argument("--jobs", type=int, default=2, help="models scored side by side, one thread each")
    parser.add_argument("--check", action="store_true", help="the claims at a small size, nothing written")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    return parser.parse_args()


def _main(given: argparse.Namespace) -> int:
    kept = [Kept.of(text) for text in given.run]
    with TemporaryDirectory(prefix="autoprune-") as name:
        config = _config(kept)
        lineup = Lineup(config, Path(name), jobs=given.jobs, check=given.check)
        if given.check and not kept:
            kept = [_search(lineup, Path(name) / "run")]
        lineup.fill(kept, given.targets)
        rounds = _rounds(given)
        for setting in time_rows(lineup.rows, lineup.task, rounds):
            print("\n" + "\n".join(lines_of(lineup.rows, setting, _references(lineup))), flush=True)
        claims = list(claims_of(lineup.rows))
        if not given.check:
            _write(given.output / RECORD, lineup, config, rounds, claims)
    print("\nclaims")
    print(*claims, sep="\n")
    return 0 if all(claim.holds for claim in claims) else 1


def _rounds(given: argparse.Namespace) -> dict[Setting, int]:
    """Calls timed of each model at each setting."""
    count = given.rounds or (30 if given.check else 40)
    settings = CHECK_SETTINGS if given.check else SETTINGS
    return {setting: count if setting[0] == 1 else max(3, count // 6) for setting in settings}


def _config(kept: Sequence[Kept]) -> Config:
    """What the teacher and the data are: the demo's, or the runs'.

    Raises:
        AutopruneError: where the runs differ in that.
    """
    if not kept:
        defaults: Mapping[str, Any] = DEMO_DEFAULTS
        return Config.of(**defaults)
    first = kept[0].config.as_json()
    for row in kept[1:]:
        given = row.config.as_json()
        for name in SAME:
            if given[name] != first[name]:
                raise AutopruneError(
                    f"the runs differ in {name}: {first[name]!r} and {given[name]!r}; "
                    "give runs of one model and one set of data"
                )
    return kept[0].config.with_settings(
        target="openvino", address=None, batch=SETTING[0], sequence=SETTING[1]
    )


def _search(lineup: Lineup, folder: Path) -> Kept:
    """The best of a small search for a model `WANTED_SPEED` times as fast as the original."""
    whole = lineup.rival(next(rival for rival in RIVALS if rival.name == OPENVINO_FLOAT))
    if whole is None:
        raise AutopruneError("without the original there is nothing to be faster than")
    for _ in time_rows([whole], lineup.task, {SETTING: 30}):
        pass
    original_ms = whole.latency(SETTING).median_ms
    limit = f"{original_ms / WANTED_SPEED:.3g}ms"
    print(f"original {original_ms:.2f} ms; searching for {limit}", flush=True)
    words = ["search", "--budget", limit, "--trials", str(DEMO_DEFAULTS["trials"]), "-o", str(folder), "-q"]
    done = subprocess.run(
        [sys.executable, "-c", "from autoprune.cli.main import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AutopruneError(f"autoprune {' '.join(words)} failed: {done.stderr.strip()[-800:]}")
    print(done.stdout.strip(), flush=True)
    return Kept.of(str(folder))


def _references(lineup: Lineup) -> dict[str, Row]:
    """What ratios are taken to, by heading, where it runs here."""
    rows = {"OpenVINO": named(lineup.rows, OPENVINO_FLOAT), "torch": named(lineup.rows, TORCH_FLOAT)}
    return {name: row for name, row in rows.items() if row is not None}


def _write(
    path: Path, lineup: Lineup, config: Config, rounds: Mapping[Setting, int], claims: Sequence[Claim]
) -> None:
    """The results as JSON."""
    packages = ("torch", "transformers", "openvino", "nncf", "onnxruntime", "compressed-tensors")
    write_json(
        path,
        {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{_processor()}, {platform.machine()}, one thread",
            "versions": {name: _version(name) for name in packages},
            "protocol": _protocol(rounds, lineup.task),
            "model": "the built-in demo" if config.model.name is None else Path(config.model.name).name,
            "skipped": lineup.skipped,
            "rows": [as_json(row, _references(lineup)) for row in lineup.rows],
            "claims": [asdict(claim) for claim in claims],
        },
    )


def _protocol(rounds: Mapping[Setting, int], task: Task) -> dict[str, Any]:
    return {
        "latency": "all models loaded in one process and called in turn, another first each round and every "
        "other round backwards; at batch 1 each timed call follows one that is not; real tokens, no padding",
        "calls timed": {f"batch {b}, sequence {s}": count for (b, s), count in rounds.items()},
        "accuracy": "percent, through the runtime, 32 rows of like length at a time",
        "rows": {VALIDATION: len(task.validation), TEST: len(task.test)},
        "KL": "nats a validation row, from the teacher in torch",
        "bytes": "sum by stat of the files the runtime opens",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name and the instructions that matter here, where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    has = [
        flag
        for flag in ("avx2", "avx512_vnni", "avx_vnni", "amx_int8")
        if flag in known.get("flags", "").split()
    ]
    return f"{known.get('model name', 'unknown processor')} ({', '.join(has)})"


if __name__ == "__main__":
    sys.exit(main())
