"""Are limits kept, and are bytes and milliseconds what was predicted?

    python -m benchmarks.limits [--budgets 20] [--times 16] [--check] [-o FILE.json]

On the built-in demo, the solver's candidate for each of a ladder of size limits, from the smallest to all
units at 8 bits, is made, saved for the target and weighed by `stat`. These models and the solver's for a
ladder of latency limits are timed end to end, in turn with the original, and set against what the latency
table said. Nothing else should run meanwhile. About six minutes on a core, four more for the table where
it is not cached. `--check` exits 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

from autoprune.compress.stitch import stitch
from autoprune.core.progress import Progress
from autoprune.evaluation.measure import time_interleaved
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.measured_costs import build_library, measured_costs, time_original
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.space.levels import Candidate, Level
from autoprune.strategy.solver.mckp import Problem, solve
from autoprune.targets import size_on_disk
from autoprune.workers.pool import SerialPool
from benchmarks.harness.claim import Claim

RESULTS = Path(__file__).parent / "results" / "limits.json"
MOST_SIZE_ERROR, LEAST_USED, MOST_LATENCY_ERROR, FEW_TIMES = 0.005, 0.98, 0.05, 30
PAIRS = 31
EIGHT = Level.of(0.0, 8)


@dataclass(frozen=True)
class Row:
    """One model: the limit it was made for, and what was predicted and measured of it."""

    limit_bytes: int | None
    limit_ms: float | None
    predicted_bytes: int
    size_bytes: int
    predicted_ms: float
    latency_ms: float
    original_ms: float

    @property
    def size_error(self) -> float:
        return abs(self.predicted_bytes / self.size_bytes - 1)

    @property
    def latency_error(self) -> float:
        return abs(self.predicted_ms / self.latency_ms - 1)


class Bench:
    """The demo's groundwork, and one worker of it in this process."""

    def __init__(self) -> None:
        config = Config.of(**DEMO_DEFAULTS)
        inputs, progress = read_inputs(config), Progress()
        self.prepared: Prepared = prepare(config, inputs, progress)
        worker = make_worker({"setting": self.prepared.setting})
        self.workbench = worker.workbench
        with SerialPool(lambda _: worker, {}) as pool:
            build_library(self.prepared, pool, progress)
            self.original_ms = time_original(pool)
            self.costs, self.table = measured_costs(self.prepared, pool, progress, self.original_ms)
        self.space = inputs.space
        self.problem = Problem.of(self.space, self.costs)

    def limits(self, budgets: int, times: int) -> list[tuple[int | None, float | None]]:
        """Sizes and latencies from the smallest to all units at 8 bits, and to the original."""
        costs = self.costs
        small = costs.size_bytes(costs.smallest(self.space))
        large = costs.size_bytes(self.space.uniform(EIGHT))
        quick = costs.fixed_ms + sum(min(c.latency_ms for c in t.values()) for t in costs.levels.values())
        sizes = [int(x) for x in np.geomspace(small * 1.001, large, budgets)]
        spans = [float(x) for x in np.geomspace(quick * 1.02, self.original_ms * 0.95, times)]
        return [(limit, None) for limit in sizes] + [(None, limit) for limit in spans]

    def row(self, limit_bytes: int | None, limit_ms: float | None) -> Row:
        """The solver's candidate within a limit, made, weighed and timed."""
        found = solve(self.problem, limit_bytes=limit_bytes, limit_ms=limit_ms)
        assert found is not None
        candidate: Candidate = self.problem.candidate(found)
        bench = self.workbench
        with tempfile.TemporaryDirectory() as name:
            stitched = stitch(bench.teacher, self.prepared.setting.units, candidate, bench.library)
            run = bench.loaded(stitched, Path(name))
            size = size_on_disk(bench.target, Path(name))
            timing = time_interleaved(run, bench.original(), bench.timing_batch, pairs=PAIRS)
        return Row(
            limit_bytes, limit_ms, self.costs.size_bytes(candidate), size,
            self.costs.latency_ms(candidate), timing.ratio * self.original_ms, timing.original_ms,
        )  # fmt: skip


def claims_of(rows: list[Row]) -> list[Claim]:
    """What is claimed, with its figures."""
    sized = [row for row in rows if row.limit_bytes is not None]
    used = [row.size_bytes / (row.limit_bytes or 1) for row in sized]
    met = sum(x <= 1 for x in used)
    off = [row.size_error for row in rows]
    late = [row.latency_error for row in rows]
    signed = [row.predicted_ms / row.latency_ms - 1 for row in rows]
    return [
        Claim("every size limit is met by stat", f"{met} of {len(sized)}", met == len(sized)),
        Claim(
            f"at least {LEAST_USED:.0%} of the budget is used",
            f"least {min(used):.2%}, median {np.median(used):.2%}",
            min(used) >= LEAST_USED,
        ),
        Claim(
            f"bytes are predicted within {MOST_SIZE_ERROR:.1%}",
            f"at worst {max(off):.3%} over {len(off)} models",
            max(off) <= MOST_SIZE_ERROR,
        ),
        Claim(
            f"milliseconds are predicted within {MOST_LATENCY_ERROR:.0%} on average over {FEW_TIMES} models",
            f"{np.mean(late):.2%} over {len(late)}, at worst {max(late):.1%}, bias {np.mean(signed):+.2%}",
            float(np.mean(late)) <= MOST_LATENCY_ERROR and len(late) >= FEW_TIMES,
        ),
    ]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--times", type=int, default=16)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    bench, rows = Bench(), []
    print(f"{'limit':>10}{'predicted MB':>14}{'MB':>9}{'used':>8}{'predicted ms':>14}{'ms':>8}{'off':>8}")
    for limit_bytes, limit_ms in bench.limits(given.budgets, given.times):
        one = bench.row(limit_bytes, limit_ms)
        rows.append(one)
        limit = f"{limit_bytes / 1e6:.2f} MB" if limit_bytes else f"{limit_ms:.2f} ms"
        used = f"{one.size_bytes / limit_bytes:.2%}" if limit_bytes else ""
        print(
            f"{limit:>10}{one.predicted_bytes / 1e6:14.3f}{one.size_bytes / 1e6:9.3f}{used:>8}"
            f"{one.predicted_ms:14.2f}{one.latency_ms:8.2f}{one.predicted_ms / one.latency_ms - 1:+8.1%}",
            flush=True,
        )
    claims = claims_of(rows)
    print(f"\nThe table's own error, on models left out of its fit: {bench.table.error:.2%}")
    print(*claims, sep="\n")
    if given.output is not None or not given.check:
        record = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, 1 thread, CPU",
            "target": bench.prepared.setting.target,
            "batch": bench.prepared.setting.batch,
            "sequence": bench.prepared.setting.sequence,
            "versions": {name: metadata.version(name) for name in ("torch", "openvino", "transformers")},
            "table_error": bench.table.error,
            "rows": [asdict(row) for row in rows],
        }
        (given.output or RESULTS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if given.check and not all(claim.holds for claim in claims):
        sys.exit(1)


if __name__ == "__main__":
    main()
