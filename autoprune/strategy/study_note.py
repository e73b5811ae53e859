"""A note in a study, in Markdown: its values and parameters, for who opens it in Optuna's dashboard."""

from __future__ import annotations

import optuna

NOTE = """\
# A search of autoprune

**Objectives.** `size_bytes`: bytes of the files that the runtime opens, less is better. `latency_ms`: the
median of a call, less is better. `accuracy`: the score on validation, 0 to 100, more is better; of a metric
where less is better it is 100 / value.

**Parameters**, two for each unit of the model: `UNIT.ratio` is the share of its rows that are removed,
`UNIT.bits` how its weights are stored (bits of a weight, or a name; 32 is as they are).

**User attributes.** `name`: of a baseline; trials without one are the search's. `rung`: how long it was
trained, 0 not at all, 1 briefly, 2 longer; candidates that are worth it come again on a higher one.
`failure`: why a trial failed. `kl`: divergence of its answers from the original's, nats. `seconds`, and of
them the `parts`. `row_scores`: of each validation row, packed.

**Importances** are of the trials as they were chosen, which is not at random: most are near the front. What
each unit alone costs is in `sensitivity.json` and in `report.html` of the run.
"""
"""Less than the 2,045 letters that the dashboard keeps in one piece."""


def write_note(study: optuna.Study) -> None:
    """Write the note as `optuna_dashboard.save_note` does, which need not be installed."""
    for key, value in (("dashboard:note_ver", 1), ("dashboard:note_str:0", NOTE)):
        study._storage.set_study_system_attr(study._study_id, key, value)
