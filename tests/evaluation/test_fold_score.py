"""A worker's answers about folds and attacks, for a real search's setting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import Recipe
from autoprune.evaluation.folds import FoldScore
from autoprune.evaluation.jobs import Original
from autoprune.evaluation.robustness import Examine
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.folds import folds_of
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.pipeline.robustness import altered_rows
from autoprune.run.config import Config
from autoprune.space.levels import Level
from tests.support.tiny_search import write_inputs


@pytest.mark.slow
def test_folds_are_scored_and_models_attacked_on_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    write_inputs(tmp_path)
    config = Config.of(
        model=str(tmp_path / "model"), dataset=str(tmp_path / "rows.csv"), target="packed", max_length=16,
        sequence=16, calibration_rows=32, limit_rows=(64, 20, 20), folds=3, attacks=True,
    )  # fmt: skip
    prepared = prepare(config, read_inputs(config, progress=Progress(quiet=True)), Progress(quiet=True))
    folds = folds_of(prepared, config)
    assert len(folds) == 84
    assert sorted(set(folds.tolist())) == [0, 1, 2]
    worker = make_worker({"setting": prepared.setting})
    space = prepared.inputs.space
    held = np.flatnonzero(folds == 1)
    original = worker(FoldScore(space.untouched(), Recipe(1, 8, 1e-3), 0, held))
    assert isinstance(original, float)
    share = original * len(held) / 100
    assert share == pytest.approx(round(share))  # so many of the fold's rows are right
    candidate = space.untouched()
    first = space.units[0].unit
    candidate = candidate.with_level(first, Level.of(0.0, 4))
    scores = {worker(FoldScore(candidate, Recipe(1, 8, 1e-3), 0, held)) for _ in range(2)}
    assert len(scores) == 1  # the same again
    rows = altered_rows(prepared.inputs, 16, seed=0, alters=False, attacks=True)
    assert [part.name for part in rows] == ["", "word swaps"]
    examined = worker(Examine(Original(), rows))
    assert examined.scores[1] <= examined.scores[0]  # type: ignore[attr-defined]
    assert examined.flips == (0.0, 0.0)  # type: ignore[attr-defined]
