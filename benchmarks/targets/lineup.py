"""Who is compared: every tool's model and ours, of one teacher, saved where they run and scored there."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import torch

from autoprune.compress.stitch import Stitched
from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import Config
from autoprune.targets import Target, get_target
from benchmarks.targets.ours import ORIGINAL, UNIFORM, Kept, Wanted, Workshop, fast_levels, in_torch
from benchmarks.targets.rivals import NNCF_STATIC, OPENVINO_FLOAT, RIVALS, TORCH_FLOAT, Rival, Source
from benchmarks.targets.side_by_side import TEST, VALIDATION, Row, Score, Scorer

CHECK_RIVALS = (OPENVINO_FLOAT, NNCF_STATIC, TORCH_FLOAT)
CHECK_LEVELS = (ORIGINAL, "uniform 8-bit", "uniform w8a8", "uniform 4-bit")

Places = list[tuple[Target, Sequence[str]]]
"""Targets that a model is saved for, each with the splits that it is scored on there."""


class Lineup:
    """One teacher, and the rows that are made of it.

    folder: where models are saved. jobs: models scored side by side. check: only what the claims need.
    skipped: what does not run here, or is not offered, each with the reason.
    """

    def __init__(self, config: Config, folder: Path, *, jobs: int, check: bool) -> None:
        self._folder, self._jobs, self._check = folder, jobs, check
        prepared = prepare(config, read_inputs(config), Progress())
        workbench = make_worker({"setting": prepared.setting}).workbench
        torch.set_num_threads(1)
        self.task = prepared.setting.task
        self.rows: list[Row] = []
        self.skipped: list[str] = []
        self._teacher_logits = prepared.setting.validation_answers.values
        self._shop = Workshop(prepared, workbench)
        workbench.teacher.save_pretrained(folder / "teacher")
        self._source = Source(workbench.teacher, folder / "teacher", workbench.example, self.task)

    def rival(self, rival: Rival, splits: Sequence[str] = ()) -> Row | None:
        """A tool's model, saved; None where it is skipped."""
        folder = self._folder / "rivals" / rival.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            rival.saved(self._source, folder)
        except AutopruneError as error:
            self._skip(f"{rival.name}: {error}")
            return None
        size = sum(path.stat().st_size for path in rival.files(folder))
        return Row(rival.name, rival.runtime, rival.how, functools.partial(rival.load, folder), size, splits)

    def fill(self, kept: Sequence[Kept], targets: Sequence[str]) -> None:
        """Save all models, those that searches kept among them, and score them."""
        places = self._places(kept, list(self._available(targets)))
        with Scorer(self.task, self._teacher_logits, self._jobs) as scorer:
            scores = [self._submit(row, scorer) for row in self._rivals()]
            references: list[tuple[Row, Future[Score]]] = []
            for wanted, where in places.items():
                made = list(self._ours(wanted, where))
                scores += [self._submit(row, scorer) for row, _ in made]
                references += self._submit_references(made, scorer)
                self._shop.forget()
            for row, score in scores:
                row.score = None if score is None else score.result()
            for row, reference in references:
                row.reference = reference.result()

    def _rivals(self) -> Iterator[Row]:
        for rival in RIVALS:
            if not self._check or rival.name in CHECK_RIVALS:
                is_scored = not self._check or rival.name == NNCF_STATIC
                row = self.rival(rival, (VALIDATION, TEST) if is_scored else ())
                if row is not None:
                    yield row

    def _ours(self, wanted: Wanted, where: Places) -> Iterator[tuple[Row, Stitched]]:
        for k, (target, splits) in enumerate(where):
            folder = self._folder / target.name / f"{len(self.rows):03d}-{k}"
            try:
                yield self._shop.row(wanted, target, folder, splits)
            except AutopruneError as error:
                self._skip(f"{wanted.name} on {target.name}: {error}")

    def _submit(self, row: Row, scorer: Scorer) -> tuple[Row, Future[Score] | None]:
        self.rows.append(row)
        return row, scorer.submit(row.load, row.splits) if row.splits else None

    @staticmethod
    def _submit_references(
        made: Sequence[tuple[Row, Stitched]], scorer: Scorer
    ) -> list[tuple[Row, Future[Score]]]:
        """The same models in torch, each once for all its targets."""
        wanted = {id(wanted_row): wanted_row for row, wanted_row in made if row.splits}
        splits = {key: set[str]() for key in wanted}
        for row, wanted_row in made:
            if row.splits:
                splits[id(wanted_row)].update(row.splits)
        scores = {
            key: scorer.submit(functools.partial(in_torch, wanted_row), sorted(splits[key]))
            for key, wanted_row in wanted.items()
        }
        return [(row, scores[id(wanted_row)]) for row, wanted_row in made if row.splits]

    def _places(self, kept: Sequence[Kept], targets: Sequence[Target]) -> dict[Wanted, Places]:
        """Our models in order, and where each goes; those of `fast_levels` alone are timed, not scored."""
        plain = [levels for levels in UNIFORM if not self._check or levels.name in CHECK_LEVELS]
        searched = [Wanted(one.name, trial=one) for one in kept]
        homes = {run.config.search.target for run in kept}
        found: dict[Wanted, Places] = {}
        for wanted in plain + searched:
            found[wanted] = [(target, self._splits(wanted, target, homes)) for target in targets]
        for target in targets:
            for wanted in fast_levels(target, self._shop.units):
                if all(target is not other for other, _ in found.setdefault(wanted, [])):
                    found[wanted].append((target, ()))
        return found

    def _splits(self, wanted: Wanted, target: Target, homes: set[str]) -> Sequence[str]:
        """Both; for the check test too only where a model was searched, since speed is claimed there."""
        is_claimed = target.name in homes and (wanted.trial is not None or wanted.name == ORIGINAL)
        return (VALIDATION, TEST) if is_claimed or not self._check else (VALIDATION,)

    def _available(self, names: Sequence[str]) -> Iterator[Target]:
        for name in names:
            try:
                yield get_target(name)
            except (AutopruneError, ImportError) as error:
                self._skip(f"target {name}: {error}")

    def _skip(self, reason: str) -> None:
        self.skipped.append(reason)
        print(f"skipped  {reason}", flush=True)
