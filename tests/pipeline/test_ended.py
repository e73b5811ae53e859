"""When a trial ended, on the clock of the run's drivers, which goes on where a killed one stopped."""

from __future__ import annotations

from pathlib import Path

from autoprune.pipeline.ledger import Ledger
from autoprune.pipeline.trials import run_trials
from benchmarks.scale.simulated import open_simulated


def test_trials_note_when_they_ended_and_the_next_driver_goes_on_from_there(tmp_path: Path) -> None:
    search, _ = open_simulated(tmp_path / "run", workers=2, trials=3, model_bytes=100)
    run_trials(search)
    ends = [trial.ended_s for trial in search.study.trials()]
    assert None not in ends
    assert ends == sorted(ends)
    assert search.run.about().seconds == 0.0  # as after a kill
    again = Ledger(
        search.run, search.prepared, search.study, search.costed,
        wanted=3, byte_range=search.aim.scale.byte_range,
    )  # fmt: skip
    assert again.seconds() >= max(ends)
    search.study.close()
