"""A search is begun, or taken up, in its run folder: what the command line and `autoprune.search` share."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.api.ending import ending_recorded
from autoprune.api.terminal import plan_lines
from autoprune.core.errors import AutopruneError
from autoprune.core.files import fields_of
from autoprune.core.progress import Progress, add_line
from autoprune.pipeline.places import check_places, check_taken_up
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, LOG, STATUS, RunFolder, read_record, run_config
from autoprune.run.status import read_status
from autoprune.space.budget import Budget, parse_budget
from autoprune.space.trial import Trial
from autoprune.tracking.names import check_trackers

if TYPE_CHECKING:
    from autoprune.pipeline.inputs import Inputs
    from autoprune.run.standing import Summary
    from autoprune.workers.pool import Pool

OnTrial = Callable[[Trial], object]
"""Called in the driver after each trial and baseline, failed ones too, with its number and measurement."""

Say = Callable[[str], object]
"""Takes the lines of a plan."""


def check_asked(config: Config, output: Path | None) -> None:
    """See that a new search is one, before anything is loaded.

    Args:
        output: its run folder; None is one below `runs`.

    Raises:
        AutopruneError: for a budget or sampler that is none, and what cannot be written or opened.
    """
    config.check_secrets()
    config.limits()
    from autoprune.strategy.allocation import check_allocations
    from autoprune.strategy.samplers import check_sampler
    from autoprune.targets import check_storage

    check_storage(config.search.target, config.search.file_storage)
    check_sampler(config.search.sampler)
    check_allocations(config.search.allocation)
    check_trackers(config.search.track)
    check_places(config, output)


def planned(
    config: Config, say: Say, progress: Progress, run: RunFolder | None = None
) -> tuple[Config, Inputs]:
    """Load what was named, check it, and say what will be done.

    Returns:
        The settings as the plan has them (what the model does not take is less than was asked), and the
        inputs.
    """
    from autoprune.pipeline.start import plan

    inputs, smallest = plan(config, run, progress)
    say("\n".join(plan_lines(config, inputs, smallest, metric=inputs.task.metric)))
    return config.with_settings(sequence=inputs.sequence), inputs


def begin(
    config: Config,
    output: Path | None,
    *,
    command: str,
    say: Say,
    quiet: bool = False,
    on_trial: OnTrial | None = None,
) -> Summary:
    """Search in a new run folder; `command` is what its records say was typed.

    Raises:
        AutopruneError: as `check_asked` and the search itself raise.
    """
    check_asked(config, output)
    from autoprune.pipeline.start import open_workers

    with open_workers(config, Progress(quiet=quiet)) as pool:
        config, inputs = planned(config, say, Progress(quiet=quiet))
        path = output or free_folder(inputs.name, config.search.budget)
        if output is None and (earlier := _left_off(inputs.name, config)):
            say(f"Note      {earlier}")
        with contextlib.closing(RunFolder.create(path, config, command)) as run:
            return _search(run, inputs, pool, command, quiet=quiet, on_trial=on_trial)


def take_up(
    path: Path,
    *,
    trials: str | None,
    settings: Mapping[str, Any],
    storage: str | None,
    command: str,
    say: Say,
    quiet: bool = False,
    on_trial: OnTrial | None = None,
) -> Summary:
    """Go on with a run.

    Args:
        trials: in all, `+N` for N more, None for as many as it was asked for.
        settings: what is other than before, by flat names; a new `budget` is answered by the solver first.
        storage: address of the study's database, with the secret that no file has.

    Raises:
        AutopruneError: for a run that cannot be gone on with; as the search raises.
    """
    with contextlib.closing(RunFolder.open(path, storage)) as run:
        config = run.config()
        before = config.search.budget
        wanted = _wanted(path, trials, config.search.trials)
        check_taken_up(run)
        if (stored := settings.get("file_storage")) not in (None, config.search.file_storage):
            raise AutopruneError(
                f"--file-storage {stored}: sizes of {path} are those of {config.search.file_storage} files, "
                "and trials of one run must share them; begin a new search in another folder"
            )
        budget = tuple(settings.get("budget", before))
        if budget != before:
            parse_budget(budget)
        config = config.with_settings(**{**settings, "budget": budget, "trials": wanted})
        check_trackers(config.search.track)
        from autoprune.pipeline.start import open_workers

        with open_workers(config, Progress(quiet=quiet)) as pool:
            # a budget that cannot be met is refused before it is noted
            config, inputs = planned(config, say, Progress(quiet=quiet), run)
            if note := _replaced(before, budget):
                say(f"Note      {note}")
            run.note(config=config.as_json())
            return _search(
                run, inputs, pool, command, quiet=quiet, on_trial=on_trial, new_budget=budget != before
            )


def _search(
    run: RunFolder,
    inputs: Inputs,
    pool: Pool,
    command: str,
    *,
    quiet: bool,
    on_trial: OnTrial | None,
    new_budget: bool = False,
) -> Summary:
    """Search in a run folder, whose log and status say how it ended."""
    from autoprune.pipeline.driver import search
    from autoprune.tracking.tracking import tracking

    with ending_recorded(run.path):
        add_line(run.path / LOG, f"$ {command}")
        progress = Progress(quiet=quiet, log=run.path / LOG)
        asked = run.config().search
        with tracking(run.path, asked.track, progress) as followed:
            return search(
                run, inputs, pool, progress, trials=asked.trials, new_budget=new_budget, on_trial=on_trial,
                followed=followed,
            )  # fmt: skip


def free_folder(name: str, budget: tuple[str, ...]) -> Path:
    """runs/NAME-LIMIT, with a number where that is taken."""
    return next(path for path in _folders(name, budget) if not path.exists())


def _folders(name: str, budget: tuple[str, ...]) -> Iterator[Path]:
    """The folders that searches of a name and limits are written to, one after another, without an end."""
    stem = "-".join([name, *(text.replace(" ", "") for text in budget)])
    yield Path("runs") / stem
    for k in itertools.count(2):
        yield Path("runs") / f"{stem}-{k}"


def _left_off(name: str, config: Config) -> str:
    """That an earlier run of the same settings stopped early, and what goes on with it; the last such run."""

    def plain(of: Config) -> Config:
        return Config.from_json(of.with_settings(storage=None).as_json())  # an address may hold a secret

    told = ""
    for path in itertools.takewhile(Path.exists, _folders(name, config.search.budget)):
        with contextlib.suppress(AutopruneError):  # damaged, or of another version: it is not offered
            now = read_status(path)
            is_left = now["state"] in ("stopped", "gone") and now.get("next")
            if is_left and plain(run_config(path)) == plain(config):
                told = f"{path} is of the same search and can be gone on with: {now['next']}"
    return told


def _replaced(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    """That other limits hold, where there were any.

    >>> _replaced(("400kB", "1.5ms"), ("4ms",)), _replaced((), ("4ms",)), _replaced(("4ms",), ("4 ms",))
    ('the limits 0.4 MB and 1.5 ms are replaced by 4 ms', '', '')
    """
    old, new = parse_budget(before), parse_budget(after)
    if old in (new, Budget()):
        return ""
    what = "limits" if len(before) > 1 else "limit"
    return f"the {what} {old} {'are' if len(before) > 1 else 'is'} replaced by {new}"


def _wanted(run: Path, trials: str | None, before: int) -> int:
    """Trials in all: as before, a number, or +N on top of those finished."""
    if trials is None:
        return before
    if not trials.removeprefix("+").isdecimal():
        raise AutopruneError(f"--trials {trials!r}: give a number, or +N for N more")
    have = _tried(run)
    wanted = int(trials) + (have if trials.startswith("+") else 0)
    if wanted < max(have, 1):
        raise AutopruneError(
            f"--trials {trials}: run {run} has tried {have} candidates already. Give {max(have, 1)} or "
            "more in all, or +N for N more"
        )
    return wanted


def _tried(run: Path) -> int:
    """Candidates that a run has tried, baselines and longer training not counted."""
    if not (run / FRONT).is_file():
        return 0
    with fields_of(run / FRONT):
        rows = read_record(run / FRONT)["trials"]
        tried: int = sum(trial["name"] is None and trial["rung"] == 0 for trial in rows)
    # Of a search that was killed the front may be some minutes old, and the status is not.
    with contextlib.suppress(AutopruneError):
        told = read_record(run / STATUS).get("trials")
        tried = max(tried, told if isinstance(told, int) else 0)
    return tried
