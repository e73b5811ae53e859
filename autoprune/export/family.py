"""Models of a run's front in one file, of which one answers at a time -> an exported folder.

Each member is written as it would be alone, and the files are put together (`targets.packed_family`); fresh
processes then measure every member as it comes out of the family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.core.files import file_hash, write_json, written_whole
from autoprune.core.progress import Progress
from autoprune.export.artifact import ABOUT, OF_SEVERAL, read_export_record
from autoprune.export.checks import Check, failed, validated_record
from autoprune.export.export_record import ExportRecord, FamilyRecord, MeasuredRecord, MemberRecord
from autoprune.export.family_model import choose_member
from autoprune.export.finish import finish, put_aside, validated
from autoprune.export.run_trials import RunToExport, Written, check_new_export, kept_trials, write_trial
from autoprune.export.trial_record import command_of_several
from autoprune.export.validate import ExportMeasurements, Request
from autoprune.run.remarks import is_a_guess
from autoprune.run.scrub import scrub_and_say
from autoprune.space.budget import Budget, megabytes
from autoprune.targets.packed import WEIGHTS, Packed
from autoprune.targets.packed_family import FAMILY
from autoprune.targets.packed_family_writer import all_names, write_family
from autoprune.targets.target import PLAIN

MOST_MEMBERS = 6
"""Members of a family whose trials are not named."""


@dataclass(frozen=True)
class ExportedFamily:
    """Where a family was written, and what each member was found to be there.

    left_out: a sentence on models of the front that are no better than guessing; "" where there are none.
    """

    folder: Path
    about: ExportRecord
    measured: ExportMeasurements
    checks: Sequence[Check]
    left_out: str = ""


def export_family(
    path: Path,
    *,
    trials: Sequence[int] = (),
    budget: Budget | None,
    folder: Path,
    progress: Progress,
) -> ExportedFamily:
    """Write several models of a run's front to one file, from which `load` takes one at a time.

    Args:
        trials: numbers of the members; none are up to `MOST_MEMBERS` of the front of bytes and accuracy,
            of those that are better than guessing.
        budget: limit of each member; None is the run's.

    Raises:
        AutopruneError: for a folder or trials that cannot be, or a run that keeps fewer than two such models.
        BudgetError: when fewer than two are within the budget.
        ValidationError: when a member is not what was searched; all is kept as `<folder>.failed`.
    """
    check_new_export(folder)
    run = RunToExport.read(path)
    limit = run.config.limits() if budget is None else budget
    chosen, left_out = (_named(run, trials), "") if trials else _of_front(run, limit)
    scrub_and_say(path)
    with written_whole(folder) as temporary:
        flags = ["--family", "--trials", ",".join(str(trial["number"]) for trial in chosen)]
        command = command_of_several(run.facts.folder, flags, None, "packed", "plain", folder.name)
        written = _written(run, chosen, temporary.with_name("members"), str(limit), command, progress)
        _put_together(run, chosen, written, temporary, progress)
        measured, checks = _validated(run, chosen, written, temporary, progress)
        if measured is None or failed(checks):
            put_aside(temporary, folder, measured, checks)
        about = finish(temporary, folder.name, validated_record(measured, checks))
    return ExportedFamily(folder, about, measured, checks, left_out)


# ---- which trials -------------------------------------------------------------------------------


def _named(run: RunToExport, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The trials of some numbers, smallest first."""
    if len(set(numbers)) < 2 or len(set(numbers)) != len(numbers):
        raise AutopruneError(
            f"--trials {','.join(map(str, numbers))}: a family has two trials or more, each named once"
        )
    return sorted((run.trial(str(number)) for number in numbers), key=lambda trial: trial["size_bytes"])


def _of_front(run: RunToExport, limit: Budget) -> tuple[list[dict[str, Any]], str]:
    """Kept trials within a limit that no other has both fewer bytes and more accuracy than, smallest first.

    Those that are no better than guessing are left out, as the sentence beside them says. Of more than
    `MOST_MEMBERS` those are left out that lie nearest to the next smaller one; the smallest and the largest
    stay.
    """
    kept = sorted(kept_trials(run), key=lambda trial: (trial["size_bytes"], -trial["accuracy"]))
    if len(kept) < 2:
        raise AutopruneError(
            f"--family: {run.path} keeps {len(kept)} models of its front, and a family has two or more; name "
            "trials with --trials, whose models are then made again"
        )
    fitting = [trial for trial in kept if limit.allows(trial["size_bytes"], trial["latency_ms"] or 0.0)]
    stairs: list[dict[str, Any]] = []
    for trial in fitting:
        if not stairs or trial["accuracy"] > stairs[-1]["accuracy"]:
            stairs.append(trial)
    stairs, left_out = _better_than_guessing(run, stairs)
    if len(stairs) < 2:
        raise BudgetError(
            f"--family: of {len(kept)} kept models of the front {len(stairs)} within {limit} could be of "
            f"use, and a family has two or more (the smallest has "
            f"{megabytes(kept[0]['size_bytes'])}); give a "
            f"larger --budget, or name trials with --trials{left_out and f'. {left_out}'}"
        )
    while len(stairs) > MOST_MEMBERS:
        steps = [stairs[k + 1]["size_bytes"] / stairs[k]["size_bytes"] for k in range(len(stairs) - 1)]
        del stairs[max(1, min(range(len(steps) - 1), key=lambda k: steps[k] * steps[k + 1]) + 1)]
    return stairs, left_out


def _better_than_guessing(
    run: RunToExport, trials: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], str]:
    """The trials that are better than the commonest class, and which are not, in a sentence."""
    metric, chance = run.facts.metric, (run.front.get("hypervolume_reference") or {}).get("accuracy") or 0.0
    guesses = [
        t for t in trials if is_a_guess(t["accuracy"], metric, chance=chance, answers=run.facts.answers)
    ]
    if not guesses:
        return list(trials), ""
    named = ", ".join(f"{trial['number']} ({metric.told(trial['accuracy'])})" for trial in guesses)
    several = len(guesses) > 1
    return [trial for trial in trials if trial not in guesses], (
        f"Left out: trial{'s' * several} {named}, no better on validation than always answering with the "
        f"commonest class ({metric.told(chance)}); --trials takes {'them' if several else 'it'} by number"
    )


# ---- what is written ----------------------------------------------------------------------------


def _written(
    run: RunToExport,
    trials: Sequence[dict[str, Any]],
    folder: Path,
    limit: str,
    command: str,
    progress: Progress,
) -> list[tuple[Path, Written]]:
    """Each trial's model in a folder of its own, as it is exported alone; smallest first."""
    folder.mkdir()
    (reader := folder / "no reader").mkdir()
    out = []
    with progress.bar("Members of the family", len(trials)) as bar:
        for trial in trials:
            place = folder / f"trial-{trial['number']}"
            written = write_trial(
                run, trial, place, target="packed", budget=limit, command=command, reader=reader,
                progress=progress,
            )  # fmt: skip
            out.append((place, written))
            bar(len(out), place.name)
    return out


def _put_together(
    run: RunToExport,
    trials: Sequence[dict[str, Any]],
    written: Sequence[tuple[Path, Written]],
    folder: Path,
    progress: Progress,
) -> None:
    """The family's file, what reads the members' inputs, and what is said of all of them."""
    folder.mkdir()
    members = {place.name: place for place, _ in written}
    with progress.bar("One file of all members", all_names(members)) as bar:
        found = write_family(members, folder / FAMILY, advance=bar)
    for file in sorted(run.reader.iterdir()):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_bytes((written[0][0] / "config.json").read_bytes())
    family = FamilyRecord(
        members=tuple(
            _member(run, trial, place, about) for trial, (place, about) in zip(trials, written, strict=True)
        ),
        file_bytes=found.file,
        equal_bytes=found.equal,
    )
    first = written[0][1].about
    changes = {
        "version": OF_SEVERAL,
        "trial": None,
        "family": family,
        "measured": _measured(run, choose_member(family.members, Budget())),
        "predicted_size_bytes": found.file,
        "units": {},
        "unit_bytes": {},
        "sha256": {file.name: file_hash(file) for file in sorted(folder.iterdir())},
    }
    write_json(folder / ABOUT, first.model_copy(update=changes).as_json())


def _member(run: RunToExport, trial: dict[str, Any], place: Path, written: Written) -> MemberRecord:
    """What is said of a member; its bytes are those of the file that it would be exported as alone."""
    is_plain = run.config.search.storage_on("packed") == PLAIN
    return MemberRecord(
        name=place.name,
        trial=trial["number"],
        size_bytes=(place / WEIGHTS).stat().st_size if is_plain else trial["size_bytes"],
        accuracy=trial["accuracy"],
        test_accuracy=trial["test_accuracy"],
        units=written.about.units,
    )


def _measured(run: RunToExport, member: MemberRecord) -> MeasuredRecord:
    """What the search measured of a member."""
    trial = run.trial(str(member.trial))
    return MeasuredRecord(
        **{name: trial[name] for name in MeasuredRecord.model_fields if name in trial},
        original_ms=run.record.original_ms,
    )


# ---- whether it is true -------------------------------------------------------------------------


def _validated(
    run: RunToExport,
    trials: Sequence[dict[str, Any]],
    written: Sequence[tuple[Path, Written]],
    folder: Path,
    progress: Progress,
) -> tuple[ExportMeasurements | None, list[Check]]:
    """What a fresh process finds of each member; of the most accurate for the folder as a whole.

    Notes in the folder's record what was measured of each, which `load` chooses by. A check that fails names
    its member.
    """
    found: dict[str, tuple[ExportMeasurements | None, list[Check]]] = {}
    with progress.bar("Validation in fresh processes", len(trials)) as bar:
        for trial, (place, about) in zip(trials, written, strict=True):
            request = Request(
                str(folder), against=str(about.source), builder=run.builder, member=place.name,
                recorded_at=run.config.data.dataset,
            )  # fmt: skip
            found[place.name] = validated(request, Packed(), recorded=trial["accuracy"])
            bar(len(found), place.name)
    best = _note_members(run, folder, {name: measured for name, (measured, _) in found.items()})
    measured, checks = found.pop(best.name)
    wrong = [
        Check(f"{name} {check.name}", False, check.said)
        for name, (_, others) in found.items()
        for check in others
        if check.passed is False
    ]
    return measured, [*checks, *wrong]


def _note_members(
    run: RunToExport, folder: Path, measured: Mapping[str, ExportMeasurements | None]
) -> MemberRecord:
    """Put what was measured of each member into the folder's record; the most accurate member."""
    about = read_export_record(folder)
    assert about.family is not None
    members = []
    for member in about.family.members:
        ours = measured[member.name]
        if ours is not None:
            score = member.accuracy if ours.accuracy is None else ours.accuracy
            changes = {"latency_ms": ours.latency.median_ms, "accuracy": score}
            member = member.model_copy(update=changes)
        members.append(member)
    best = choose_member(members, Budget())
    changed = {
        "family": about.family.model_copy(update={"members": tuple(members)}),
        "measured": _measured(run, best),
    }
    write_json(folder / ABOUT, about.model_copy(update=changed).as_json())
    return best
