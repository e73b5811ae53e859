"""Which rows should removed tokens have? The nearest row that stays, or centroids of several tokens' rows.

    python -m benchmarks.token_rows [--model NAME] [--ratios R...] [--bits B...] [-o FILE]

A model loses so many tokens of its vocabulary, or of the rare part of it, and nothing else is done to it.
Both ways take as many bytes of a `packed` file, to the byte. Divergence is in nats a place on validation, and
seconds, process time, are those of making the vocabulary's rows in all of these bits.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

from autoprune.compress.library import Library
from autoprune.compress.statistics import Statistics
from autoprune.compress.stitch import stitch
from autoprune.core.files import write_json
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.space.space_file import CENTROID, NEAREST
from autoprune.space.storage import FLOAT32, storages_of
from autoprune.targets import size_on_disk
from autoprune.targets.packed import Packed
from benchmarks.finetune.opened import NAMES, Opened

RESULTS = Path(__file__).parent / "results" / "token_rows.json"


@dataclass(frozen=True)
class Row:
    """A model whose vocabulary has lost tokens. rows: of the vocabulary, or its rare part."""

    model: str
    fallback: str
    ratio: float
    bits: int
    rows: int
    size_bytes: int
    kl: float
    score: float
    seconds: float


def rows_of(name: str, opened: Opened, ratio: float, bits: Sequence[int]) -> list[Row]:
    """Both ways at a ratio, in each of some widths."""
    bench, prepared = opened.worker.workbench, opened.prepared
    setting = bench.setting
    plain = next(unit for unit in setting.units if unit.by_token)
    seen = {path: Statistics.from_arrays(arrays) for path, arrays in setting.statistics.items()}
    out = []
    for fallback in (NEAREST, CENTROID):
        unit = replace(plain, fallback=fallback, storages=storages_of([FLOAT32.written, *bits]))
        units = [unit if other is plain else other for other in setting.units]
        with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
            library = Library(Path(folder), prepared.model, seen, key=name)
            begun = time.process_time()
            library.build(unit, ratio)
            seconds = time.process_time() - begun
            for storage in unit.storages[:0:-1] if bits != [FLOAT32.bits] else unit.storages:
                levels = {unit.name: Level(ratio, storage)}
                candidate = Candidate(tuple((u.name, levels.get(u.name, UNTOUCHED)) for u in units))
                made = stitch(prepared.model, units, candidate, library, setting.architecture)
                target = Packed()
                target.save(made, Path(folder), {})
                size, answers = size_on_disk(target, Path(folder)), opened.answers(made, "validation")
                kept = unit.kept(ratio)
                row = Row(name, fallback, ratio, storage.bits, kept, size, answers.kl, answers.score, seconds)
                print(row, flush=True)
                out.append(row)
    return out


def table(rows: Sequence[Row]) -> str:
    """One line a ratio and width: both divergences, and the share that centroids leave."""
    by_key = {(row.model, row.ratio, row.bits, row.fallback): row for row in rows}
    lines = [f"{'model':12}{'ratio':>6}{'bits':>5}{'MB':>8}{'nearest':>9}{'centroid':>9}{'share':>7}{'s':>6}"]
    for model, ratio, bits in sorted({key[:3] for key in by_key}):
        old, new = (by_key.get((model, ratio, bits, fallback)) for fallback in (NEAREST, CENTROID))
        if old is not None and new is not None:
            assert old.size_bytes == new.size_bytes
            start = f"{model:12}{ratio:6.2f}{bits:5}{new.size_bytes / 1e6:8.3f}"
            lines.append(f"{start}{old.kl:9.5f}{new.kl:9.5f}{new.kl / old.kl:7.2f}{new.seconds:6.0f}")
    return "\n".join(lines)


def main() -> None:
    """Measure, write after each ratio, and print a table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.token_rows", description=__doc__, formatter_class=raw
    )
    parser.add_argument("--model", choices=NAMES, default="reviews")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.25, 0.5, 0.75])
    parser.add_argument("--bits", nargs="+", type=int, default=[FLOAT32.bits])
    parser.add_argument("--folder", type=Path, default=None, help="of the benchmark's models")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows: list[Row] = []
    if asked.output.exists():
        rows = [Row(**row) for row in json.loads(asked.output.read_text())["rows"]]
    opened = Opened.of(asked.model, asked.folder)
    for ratio in asked.ratios:
        made = rows_of(asked.model, opened, ratio, asked.bits)
        keys = {(row.model, row.ratio, row.bits) for row in made}
        rows = [old for old in rows if (old.model, old.ratio, old.bits) not in keys] + made
        versions = {package: metadata.version(package) for package in ("autoprune", "torch", "transformers")}
        write_json(asked.output, {"versions": versions, "rows": [asdict(row) for row in rows]})
    print(table(rows))


if __name__ == "__main__":
    main()
