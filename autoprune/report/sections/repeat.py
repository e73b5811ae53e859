"""What else is needed to repeat a run, beside its command."""

from __future__ import annotations

import re

from autoprune.report.text import plural
from autoprune.run.front_schema import Front


def repeat_note(front: Front) -> str:
    """How the command is to be used, and what will be the same; nothing where no command is recorded."""
    run = front.run
    if not run.command:
        return ""
    kept = [f"seed {run.seed}"] if run.seed is not None else []
    kept += ["the versions below"] if run.versions else []
    kept += ["the model and data of the hashes below"] if run.model_hash and run.data_hash else []
    has_output = re.search(r"\s(-o|--output)[\s=]", f"{run.command} ") is not None
    said = [
        "Start it in the folder that its relative paths begin at"
        + (f", with {', '.join(kept[:-1])} and {kept[-1]}." if len(kept) > 1 else ".")
    ]
    if has_output:
        said.append("No run is written over: give another -o.")
    if run.planned_trials:
        said.append(f"In the end {plural(run.planned_trials, 'trial')} were asked for.")
    said.append("Milliseconds differ each time, and with them what is tried after the first trials.")
    return " ".join(said)
