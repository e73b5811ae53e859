"""Does it pay to remove in steps in a long final: remove, refit, train and again, at equal training steps?

    python -m benchmarks.schedules [vit | reviews] [--heads R] [--neurons R] [--steps N] [--stages K...]

The model is in float32. One shot removes all at once and trains N steps. K stages remove by the cubic
schedule of Zhu and Gupta (arXiv 1710.01878, eq. 1): each calibrates the model that the one before left,
removes and refits by it, and trains N / K steps under the original's answers. Divergence is over all rows of
validation.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from autoprune.compress.library import Library
from autoprune.compress.statistics import calibrate
from autoprune.compress.stitch import Stitched, stitch
from autoprune.evaluation.finetune import finetune
from autoprune.evaluation.lesson import Lesson, guarded
from autoprune.models.unit import Unit
from autoprune.models.units import find_units
from autoprune.space.levels import Candidate, Level
from autoprune.space.storage import FLOAT32
from benchmarks.finetune.opened import Opened

Shares = dict[str, float]
"""Of all pieces that the original had, the share that is gone in the end, by kind of unit."""


def cubic(final: float, stage: int, stages: int) -> float:
    """The share that is gone after a stage, from 1.

    >>> [round(cubic(0.75, stage, 3), 3) for stage in (1, 2, 3)]
    [0.528, 0.722, 0.75]
    """
    return final * (1 - (1 - stage / stages) ** 3)


class Schedule:
    """One model compressed in any number of stages."""

    def __init__(self, opened: Opened, steps: int, rows: int) -> None:
        self.opened, self.steps, self.rows = opened, steps, rows
        setting = opened.prepared.setting
        self.pieces = {unit.name: unit.pieces for unit in setting.units}
        self.lesson = Lesson(setting.task, setting.task.train, setting.train_answers)

    def kl(self, final: Shares, stages: int, seed: int) -> tuple[float, float]:
        """Divergence and score on validation of the model after all stages."""
        model = self.opened.prepared.model
        for stage in range(1, stages + 1):
            shares = {kind: cubic(share, stage, stages) for kind, share in final.items()}
            stitched = self._trained(model, shares, self.steps // stages, seed * 100 + stage)
            model = stitched.model
        scored = self.opened.answers(stitched, "validation")
        return scored.kl, scored.score

    def _trained(self, model: nn.Module, shares: Shares, steps: int, seed: int) -> Stitched:
        """A model with these shares of the original's pieces gone, refitted and trained."""
        prepared = self.opened.prepared
        model = copy.deepcopy(model).eval()
        found = find_units(model, prepared.inputs.file, source=prepared.inputs.space_name)
        units = tuple(self._at(unit, shares.get(unit.kind, 0.0)) for unit in found)
        paths = [weight.path for unit in units for weight in unit.weights]
        _, learned = guarded(prepared.setting.task, prepared.setting.task.train)
        seen = calibrate(model, paths, prepared.setting.task, learned, rows=self.rows, seed=seed)
        candidate = Candidate(tuple((unit.name, Level(unit.ratios[-1])) for unit in units))
        recipe = replace(prepared.recipe, steps=steps)
        with tempfile.TemporaryDirectory() as folder:
            library = Library(Path(folder), model, seen, key="stage")

            def made() -> Stitched:
                return stitch(model, units, candidate, library, prepared.setting.architecture)

            return finetune(made(), self.lesson, recipe, seed=seed, again=made, teacher=model)

    def _at(self, unit: Unit, share: float) -> Unit:
        """The unit as it is now, with one ratio, by which so much of what it once had is gone."""
        plain = replace(unit, storages=(FLOAT32,))
        if not unit.cols:
            return replace(plain, ratios=(0.0,))
        before = self.pieces[unit.name]
        kept = max(1, round(before * (1 - share) / unit.step)) * unit.step
        return replace(plain, ratios=tuple(sorted({0.0, 1 - min(kept, unit.pieces) / unit.pieces})))


def main(given: Sequence[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("model", nargs="?", default="vit", choices=("vit", "reviews"))
    parser.add_argument("--heads", type=float, default=0.5)
    parser.add_argument("--neurons", type=float, default=0.75)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 4])
    asked = parser.parse_args(given)
    opened = Opened.of(asked.model, None)
    torch.set_num_threads(1)
    schedule = Schedule(opened, asked.steps, 512)
    final = {"attention": asked.heads, "feed_forward": asked.neurons}
    for stages in asked.stages:
        kls, scores, begun = [], [], time.perf_counter()
        for seed in range(asked.seeds):
            kl, score = schedule.kl(final, stages, seed)
            kls.append(kl)
            scores.append(score)
            print(f"  {stages} stages, seed {seed}: {kl:.4f} nats, {score:.2f} %", flush=True)
        spread = statistics.stdev(kls) if len(kls) > 1 else 0.0
        seconds = (time.perf_counter() - begun) / asked.seeds
        print(
            f"{stages} stages: {statistics.mean(kls):.4f} +- {spread:.4f} nats, "
            f"{statistics.mean(scores):.2f} %, {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
