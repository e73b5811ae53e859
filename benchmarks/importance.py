"""What does each score of importance bring: the KL to the teacher of an untrained model without the rest.

    python -m benchmarks.importance [NAME[+NAME...] ...] [--ratios R...] [--rows N] [--seeds N] [-o FILE]

MiniLM on film reviews, all weights float32: of every layer the same share of heads or of neurons goes, by one
score or by the best of several, and what stays is refitted. Divergence is over the first N validation rows,
in nats a row. `random` is drawn with several seeds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.compress.importance import IMPORTANCES
from autoprune.compress.library import Library
from autoprune.compress.statistics import Statistics
from autoprune.compress.stitch import stitch
from autoprune.core.files import write_json
from autoprune.core.progress import Progress
from autoprune.evaluation.measure import logits_of
from autoprune.models.unit import Unit
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.sensitivity.fisher_scores import measured_rows
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.space.shipped import spaces_folder
from autoprune.space.storage import FLOAT32
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from benchmarks.finetune.opened import config_of

SORTS = {"heads": "attention", "neurons": "feed_forward"}
SEVERAL = ("taylor", "obs")


def opened(folder: Path) -> Prepared:
    """The demo's search as it is before its first trial, with the gradients that Taylor reads, and gates."""
    text = (spaces_folder() / "bert.yaml").read_text(encoding="utf-8")
    for sort in ("head", "neuron"):
        text = text.replace(f"by: {sort},", f"by: {sort}, importance: [taylor, obs, gates],")
    space = folder / "bert.yaml"
    space.write_text(text, encoding="utf-8")
    config = config_of("reviews", None).with_settings(space=str(space))
    return prepare(config, read_inputs(config), Progress())


class Scorer:
    """Models without some of their pieces, by any importance."""

    def __init__(self, prepared: Prepared, folder: Path, ratios: Sequence[float], rows: int) -> None:
        self.prepared, self.folder, self.ratios = prepared, folder, tuple(ratios)
        self.seen = {path: Statistics.from_arrays(x) for path, x in prepared.setting.statistics.items()}
        self.rows = np.arange(min(rows, len(prepared.setting.task.validation)))
        self._libraries: dict[int, Library] = {}

    def kl(self, names: Sequence[str], kind: str, ratio: float, seed: int = 0) -> float:
        """Divergence from the teacher with this share of the units of a kind gone."""
        setting, task = self.prepared.setting, self.prepared.setting.task
        units = tuple(self._plain(unit, names) for unit in setting.units)
        if seed not in self._libraries:
            key = f"seed {seed}"
            model = self.prepared.model
            self._libraries[seed] = Library(
                self.folder / key, model, self.seen, key=key, harm=self._on_training
            )
        candidate = Candidate(
            tuple((unit.name, Level(ratio) if unit.kind == kind else UNTOUCHED) for unit in units)
        )
        library = self._libraries[seed]
        model = stitch(self.prepared.model, units, candidate, library, setting.architecture).model
        logits = logits_of(torch_runner(model, task.kind), task, task.validation.pick(self.rows))
        return divergence(logits, setting.validation_answers.pick(self.rows))

    def _on_training(self, model: nn.Module) -> float:
        """Divergence of a model from the teacher on training rows."""
        setting, task = self.prepared.setting, self.prepared.setting.task
        rows = measured_rows(len(task.train), setting.sensitivity_rows, setting.seed)
        logits = logits_of(torch_runner(model, task.kind), task, task.train.pick(rows))
        return divergence(logits, setting.train_answers.pick(rows))

    def _plain(self, unit: Unit, names: Sequence[str]) -> Unit:
        """The unit in float32, with an importance where rows can go."""
        plain = replace(unit, storages=(FLOAT32,))
        return replace(plain, ratios=(0.0, *self.ratios), importance=tuple(names)) if unit.cols else plain


def table(
    scorer: Scorer, chosen: Sequence[tuple[str, ...]], ratios: Sequence[float], seeds: int
) -> list[dict[str, Any]]:
    """A row for each importance, sort and ratio; of `random` one for each seed."""
    rows = []
    for names in chosen:
        for sort, kind in SORTS.items():
            for ratio in ratios:
                for seed in range(seeds if names == ("random",) else 1):
                    kl = scorer.kl(names, kind, ratio, seed)
                    row = {"importance": list(names), "removed": sort, "ratio": ratio, "seed": seed, "kl": kl}
                    print(row, flush=True)
                    rows.append(row)
    return rows


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table for people, in markdown: several seeds as mean and range."""
    columns = list(dict.fromkeys((row["removed"], row["ratio"]) for row in rows))
    out = ["| importance | " + " | ".join(f"{sort} {ratio:g}" for sort, ratio in columns) + " |"]
    out.append("|---" * (len(columns) + 1) + "|")
    for name in dict.fromkeys(" or ".join(row["importance"]) for row in rows):
        cells = []
        for column in columns:
            kls = [
                row["kl"]
                for row in rows
                if " or ".join(row["importance"]) == name and (row["removed"], row["ratio"]) == column
            ]
            spread = f" ({min(kls):.3f} to {max(kls):.3f})" if len(kls) > 1 else ""
            cells.append(f"{statistics.mean(kls):.4f}{spread}")
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return out


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("names", nargs="*", metavar="NAME[+NAME...]", help="all and taylor+obs where none is")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.25, 0.5, 0.75])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        prepared = opened(Path(name))
        torch.set_num_threads(1)
        scorer = Scorer(prepared, Path(name), given.ratios, given.rows)
        names = [tuple(text.split("+")) for text in given.names or [*IMPORTANCES, "+".join(SEVERAL)]]
        rows = table(scorer, names, given.ratios, given.seeds)
    print("\n".join(lines(rows)))
    if given.output is not None:
        versions = {package: metadata.version(package) for package in ("torch", "transformers")}
        write_json(given.output, {"versions": versions, "rows": rows})


if __name__ == "__main__":
    main()
