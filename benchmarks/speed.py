"""Are compressed models really faster? Bytes and latency of uniform candidates against the original.

    python -m benchmarks.speed [--target openvino] [--batch 1] [--sequence 128] [-o results/speed.json]

Each candidate of the built-in demo is stitched without fine-tuning, saved for the target, and timed
in turn with the original in this one process, one thread. Ratios are what counts; run it on a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from autoprune.compress.stitch import stitch
from autoprune.core.progress import Progress
from autoprune.evaluation.measure import time_interleaved
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.targets import size_on_disk

LEVELS = {
    "original": UNTOUCHED,
    "half heads and neurons, float": Level.of(0.5, 32),
    "16-bit": Level.of(0.0, 16),
    "8-bit": Level.of(0.0, 8),
    "6-bit": Level.of(0.0, 6),
    "4-bit": Level.of(0.0, 4),
    "3-bit": Level.of(0.0, 3),
    "2-bit": Level.of(0.0, 2),
    "half heads and neurons, 8-bit": Level.of(0.5, 8),
    "half heads and neurons, 4-bit": Level.of(0.5, 4),
}


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="openvino")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    config = Config.of(
        target=given.target, batch=given.batch, sequence=given.sequence,
        max_length=int(DEMO_DEFAULTS["max_length"]),
    )  # fmt: skip
    inputs = read_inputs(config)
    setting = prepare(config, inputs, Progress()).setting
    workbench = make_worker({"setting": setting}).workbench
    rows = []
    print(f"{'':32}{'MB':>8}{'ms':>9}{'original':>10}{'times faster':>14}")
    for name, level in LEVELS.items():
        one = stitch(workbench.teacher, setting.units, inputs.space.uniform(level), workbench.library)
        with TemporaryDirectory() as folder:
            workbench.target.save(one, Path(folder), workbench.example)
            run = workbench.target.load(Path(folder))
            timing = time_interleaved(run, workbench.original(), workbench.timing_batch, pairs=given.pairs)
            size = size_on_disk(workbench.target, Path(folder))
        ratio = timing.original_ms / timing.median_ms
        rows.append({"candidate": name, "size_bytes": size, **vars(timing), "times_faster": ratio})
        print(f"{name:32}{size / 1e6:8.2f}{timing.median_ms:9.2f}{timing.original_ms:10.2f}{ratio:14.2f}")
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, 1 thread, CPU",
            "target": given.target, "batch": given.batch, "sequence": given.sequence,
            "versions": {name: metadata.version(name) for name in ("torch", "openvino", "transformers")},
            "rows": rows,
        }  # fmt: skip
        given.output.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
