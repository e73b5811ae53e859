"""Which ways of storing a weight pay? Uniform models in each, untrained: bytes, coded bytes, divergence.

    python -m benchmarks.storages [STORAGE...] [--model NAME] [--steps N] [--group-size N] [-o FILE]

STORAGE: as a space file names it, 4 or codebook16; without any, integers and all that are offered by name. A
model has all of its units in the storage, of 2r4/2 embeddings in the first and other units in the second, and
nothing removed; it is saved as `packed`, plain and coded.
Divergence is in nats a place on validation; `line` is what it is over that of integers of as many bytes.
Seconds are of one core, process time, for making the model's variants. With --steps each is fine-tuned as a
trial is.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

from autoprune.compress.stitch import Stitched, stitch
from autoprune.core.files import write_json
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.models.unit import Unit
from autoprune.space.levels import Candidate, Level
from autoprune.space.storage import FLOAT32, OPTIONAL, storage_of
from autoprune.targets import size_on_disk
from autoprune.targets.packed import Packed
from autoprune.targets.target import ENTROPY, PLAIN
from benchmarks.finetune.opened import NAMES, Opened

RESULTS = Path(__file__).parent / "results" / "storages.json"

INTEGERS = ("2", "3", "4", "6", "8")


@dataclass(frozen=True)
class Row:
    """A model with all of its units in a storage. group_size: of the units, None as their space file says."""

    model: str
    storage: str
    group_size: int | None
    steps: int
    size_bytes: int
    coded_bytes: int
    kl: float
    score: float
    seconds: float


def row_of(name: str, opened: Opened, written: str, steps: int, group_size: int | None) -> Row:
    """One storage measured."""
    bench = opened.worker.workbench
    units = [_stored_so(unit, written, group_size) for unit in bench.setting.units]
    candidate = Candidate(tuple((unit.name, Level(0.0, unit.storages[-1])) for unit in units))
    begun = time.process_time()
    for unit in units:
        bench.library.build(unit, 0.0)
    seconds = time.process_time() - begun

    def stitched() -> Stitched:
        return stitch(bench.teacher, units, candidate, bench.library, bench.setting.architecture)

    made = stitched()
    if steps:
        recipe = replace(opened.prepared.recipe, steps=steps)
        lesson = Lesson(bench.task, bench.task.train, bench.setting.train_answers)
        recipe = Recipe(recipe.steps, recipe.batch_size, recipe.learning_rate)
        made = finetune(made, lesson, recipe, seed=0, again=stitched, teacher=bench.teacher)
    answers = opened.answers(made, "validation")
    sizes = [_bytes(made, coding) for coding in (PLAIN, ENTROPY)]
    return Row(name, written, group_size, steps, *sizes, answers.kl, answers.score, round(seconds, 1))


def _stored_so(unit: Unit, written: str, group_size: int | None) -> Unit:
    first, _, others = written.partition("/")
    storage = storage_of(others if others and not unit.is_looked_up else first)
    return replace(unit, storages=(FLOAT32, storage), group_size=group_size or unit.group_size)


def _bytes(stitched: Stitched, coding: str) -> int:
    with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
        target = Packed(coding)
        target.save(stitched, Path(folder), {})
        return size_on_disk(target, Path(folder))


def against_line(row: Row, rows: Sequence[Row], field: str) -> float:
    """Divergence of a model over that of integers of as many bytes.

    field: which bytes, `size_bytes` or `coded_bytes`. Between models in integers, and beyond them, the
    logarithm of divergence is a straight line of the logarithm of bytes. NaN with fewer than two of them.
    """
    same = [
        other
        for other in rows
        if (other.model, other.steps, other.group_size) == (row.model, row.steps, None)
        and other.storage in INTEGERS
    ]
    points = sorted((math.log(getattr(other, field)), math.log(other.kl)) for other in same)
    if len(points) < 2:
        return math.nan
    x = math.log(getattr(row, field))
    k = min(max(sum(point[0] < x for point in points), 1), len(points) - 1)
    (x0, y0), (x1, y1) = points[k - 1 : k + 1]
    return row.kl / math.exp(y0 + (y1 - y0) * (x - x0) / (x1 - x0))


def table(rows: Sequence[Row]) -> str:
    """One line a storage, from small to large."""
    heads = f"{'MB':>8}{'coded':>8}{'KL':>9}{'line':>6}{'coded':>6}{'score':>7}{'s':>7}"
    lines = [f"{'storage':14}{'group':>6}{'steps':>6}{heads}"]
    for row in sorted(rows, key=lambda row: row.size_bytes):
        sizes = "".join(f"{size / 1e6:8.3f}" for size in (row.size_bytes, row.coded_bytes))
        group = row.group_size or "-"
        shares = "".join(f"{against_line(row, rows, f):6.2f}" for f in ("size_bytes", "coded_bytes"))
        scores = f"{row.kl:9.4f}{shares}{row.score:7.2f}{row.seconds:7.0f}"
        lines.append(f"{row.storage:14}{group:>6}{row.steps:6}{sizes}{scores}")
    return "\n".join(lines)


def main() -> None:
    """Measure, write after each row, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storages", description=__doc__)
    parser.add_argument("storages", nargs="*", metavar="STORAGE")
    parser.add_argument("--model", choices=NAMES, default="reviews")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--group-size", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="of the benchmark's models")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows: list[Row] = []
    if asked.output.exists():
        rows = [Row(**row) for row in json.loads(asked.output.read_text())["rows"]]
    opened = Opened.of(asked.model, asked.folder)
    for written in asked.storages or [*INTEGERS, *(storage.name for storage in OPTIONAL)]:
        row = row_of(asked.model, opened, written, asked.steps, asked.group_size)
        key = (row.model, row.storage, row.group_size, row.steps)
        rows = [old for old in rows if (old.model, old.storage, old.group_size, old.steps) != key] + [row]
        print(row, flush=True)
        versions = {package: metadata.version(package) for package in ("autoprune", "torch", "transformers")}
        write_json(asked.output, {"versions": versions, "rows": [asdict(row) for row in rows]})
    print(table(rows))


if __name__ == "__main__":
    main()
