"""Ties of the front, against the paired test asked of each pair."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from autoprune.run.row_scores import record_test_scores, record_validation_scores, recorded_scores
from autoprune.run.standing import Standing, standing
from autoprune.run.ties import MOST_COMPARED, Ties, ties_field
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import ORIGINAL, Measurement, Trial
from autoprune.strategy.paired import told_apart
from autoprune.tasks.row_scores import rows_as_text

ROWS = 400


def made(count: int, *, keeps_rows: bool = True) -> Standing:
    """A front of models from 60 % to 90 % right, the larger the better."""
    rng = np.random.default_rng(0)
    hard = rng.random(ROWS)
    trials = []
    for k in range(count):
        right = hard + 0.05 * rng.normal(size=ROWS) < 0.6 + 0.3 * k / count
        text = rows_as_text(right) if keeps_rows else ""
        m = Measurement(1000 + k, 10.0 + k, 100.0 * float(right.mean()), kl=0.1)
        name = ORIGINAL if k == count - 1 else None
        trials.append(Trial(k, Candidate(()), m, name=name, row_scores=text))
    return standing(trials, Budget(), Measurement(5000, 900.0, 10.0), answers=ROWS)


def test_ties_are_the_pairs_that_the_paired_test_does_not_tell_apart() -> None:
    now = made(12)
    ties = Ties(**ties_field(now)["ties"])
    trials = {trial.number: trial for trial in now.trials}
    assert set(ties.numbers) >= {trial.number for trial in now.front}
    seen = set()
    for a, b in combinations(ties.numbers, 2):
        one, other = trials[a], trials[b]
        assert one.measurement is not None
        assert other.measurement is not None
        better, worse = (
            (one, other) if one.measurement.accuracy >= other.measurement.accuracy else (other, one)
        )
        assert ties.tied(a, b) == ties.tied(b, a) == (told_apart(better, worse) is False)
        seen.add(ties.tied(a, b))
    assert seen == {True, False}
    assert ties.tied(0, 999) is None


def test_no_ties_are_told_where_rows_were_not_kept_and_a_long_front_is_sampled() -> None:
    assert ties_field(made(5, keeps_rows=False)) == {}
    long = Ties(**ties_field(made(160))["ties"])
    assert len(long.numbers) <= MOST_COMPARED


def test_row_scores_are_kept_of_both_splits(tmp_path: Path) -> None:
    now = made(6)
    record_test_scores(tmp_path, 3, now.trials[3].row_scores)
    record_test_scores(tmp_path, 4, "")
    record_validation_scores(tmp_path, now)
    kept = recorded_scores(tmp_path)
    assert kept.of("test") == {"3": now.trials[3].row_scores}
    assert set(kept.of("validation")) >= {str(trial.number) for trial in now.front}
    assert recorded_scores(tmp_path / "earlier").of("validation") == {}
