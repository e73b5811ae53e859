"""The forms that `export` writes, a trial's model or several in one folder, and what is printed of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError


def check_form(
    which: str | None,
    budget: Sequence[str],
    count: int | None,
    average: str | None,
    family: bool,
    numbers: str | None,
    target: str | None,
    storage: str | None,
) -> None:
    """Raise `AutopruneError` for flags that do not go together."""
    flag = "--family" if family else "--ensemble" if count is not None else "--budget" if budget else None
    if which is not None and flag is not None:
        instead = "; name members with --trials" if family else ""
        raise AutopruneError(f"{flag} chooses the trial itself: leave out --trial {which}{instead}")
    if family and count is not None:
        raise AutopruneError(
            "--ensemble and --family: give one of them; an ensemble's members answer together, of a family's "
            "one answers at a time"
        )
    if average is not None and count is None:
        raise AutopruneError(f"--average {average} is of an ensemble: give --ensemble N with it")
    if numbers is not None and not family:
        raise AutopruneError(f"--trials {numbers} names the members of a family: give --family with it")
    if numbers is not None and budget:
        raise AutopruneError("--trials names the members, which --budget would choose: leave one of them out")
    if family and target not in (None, "packed"):
        raise AutopruneError(
            f"--family is of target packed alone: {target} opens its files as they are. Leave out --target, "
            "or export the trials one by one with --trial"
        )
    if family and storage not in (None, "plain"):
        raise AutopruneError(
            f"--storage {storage}: a family's file is coded as it is. Leave out --storage with --family"
        )


def trial_numbers(text: str | None) -> tuple[int, ...]:
    """Numbers of trials from what `--trials` was given.

    >>> trial_numbers("3,5, 9"), trial_numbers(None)
    ((3, 5, 9), ())

    Raises:
        AutopruneError: for what is no list of numbers.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise AutopruneError(
            f"--trials {text!r:.80}: give numbers with commas between them, for instance 3,5,9"
        )
    return tuple(int(part) for part in parts)


def export_one(run: Path, **options: Any) -> str:
    """Export a trial's model, with the arguments of `from_run.export`; what is printed."""
    from autoprune.export.checks import lines
    from autoprune.export.from_run import export

    done = export(run, **options)
    size = done.measured.size_bytes
    return "\n".join(
        [
            f"{done.folder}: trial {done.trial['number']} for {options['target']}, {_bytes(size)}",
            "Checked in a fresh process",
            *lines(done.measured, done.checks),
            load_line(done.folder),
        ]
    )


def export_together(run: Path, **options: Any) -> str:
    """Export an ensemble, with the arguments of `ensemble.export_ensemble`; what is printed."""
    from autoprune.export.card_members import compared_with_single
    from autoprune.export.checks import lines
    from autoprune.export.ensemble import export_ensemble

    done = export_ensemble(run, **options)
    about, ensemble = done.about, done.about.ensemble
    assert ensemble is not None
    metric = about.metric
    numbers = ", ".join(str(member.trial) for member in ensemble.members)
    members = [
        f"  {member.name:9} trial {member.trial:<5} {_bytes(member.size_bytes):28} "
        f"validation {metric.text(member.accuracy, 2)}, test {metric.text(member.test_accuracy, 2)}"
        for member in ensemble.members
    ]
    averages = [
        f"  {name:9} {', '.join(f'{weight:.2f}' for weight in scores.weights)}: validation "
        f"{metric.text(scores.accuracy, 2)}, test {metric.text(scores.test_accuracy, 2)}"
        for name, scores in (("simple", ensemble.simple), ("weighted", ensemble.weighted))
    ]
    return "\n".join(
        [
            f"{done.folder}: the {ensemble.average} average of trials {numbers} for {about.target}, "
            f"{_bytes(done.measured.size_bytes)}, chosen among {ensemble.candidates} kept models within "
            f"{ensemble.limit}",
            *members,
            *averages,
            f"  Together  {compared_with_single(metric, ensemble)}",
            "Checked in a fresh process",
            *lines(done.measured, done.checks),
            load_line(done.folder),
        ]
    )


def export_members(run: Path, **options: Any) -> str:
    """Export a family, with the arguments of `family.export_family`; what is printed."""
    from autoprune.export.card_members import example_limit, family_bytes
    from autoprune.export.checks import lines
    from autoprune.export.family import export_family

    done = export_family(run, **options)
    family, metric = done.about.family, done.about.metric
    assert family is not None
    members = [
        f"  {member.name:11} {_bytes(member.size_bytes):28} {member.latency_ms or 0.0:8.2f} ms  validation "
        f"{metric.text(member.accuracy, 2)}"
        for member in family.members
    ]
    return "\n".join(
        [
            f"{done.folder}: a family of {len(family.members)} for packed",
            *members,
            *([f"{done.left_out}."] if done.left_out else []),
            f"{family_bytes(family)}.",
            "Checked in fresh processes, one for each member; of the most accurate",
            *lines(done.measured, done.checks),
            load_line(done.folder, limit=example_limit(family)),
        ]
    )


def load_line(folder: Path, *, limit: str | None = None) -> str:
    """How an exported folder is loaded, with the function it needs. limit: of a family, as in `load`."""
    from autoprune.export.artifact import builder_needed, read_export_record
    from autoprune.export.card_usage import load_call

    builder = builder_needed(folder, read_export_record(folder))
    call = load_call(str(folder), limit=limit, builder=builder)
    return f"Load it:  from autoprune import load; model = {call}"


def _bytes(size: int) -> str:
    return f"{size} bytes ({size / 1e6:.2f} MB)"
