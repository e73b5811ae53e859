"""What a user imports: search, go on with a run, open one, look at a model."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from autoprune.api.front import Front
from autoprune.api.in_memory import data_source, model_source
from autoprune.api.options import ResumeOptions, SearchOptions, checked_settings
from autoprune.api.searches import OnTrial, begin, take_up
from autoprune.api.signals import stopped_by_sigterm
from autoprune.core.database_address import given_storage
from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import redacted
from autoprune.run.config import DEMO_DEFAULTS, Config


def search(
    model: Any = None,
    *,
    dataset: Any = None,
    budget: str | Sequence[str] = (),
    processor: Any = None,
    teacher_processor: Any = None,
    output: str | Path | None = None,
    quiet: bool = False,
    on_trial: OnTrial | None = None,
    **settings: Unpack[SearchOptions],
) -> Front:
    """Search for the best model under a budget; as `autoprune search`.

    >>> front = search("./my-bert", dataset="reviews.csv", budget="20MB")  # doctest: +SKIP
    >>> front.best.export("my-bert-20MB")  # doctest: +SKIP

    Args:
        model: a folder or hub id; a transformers model or a torch module in memory; a function that builds a
            module (with `weights`); None is the built-in demo.
        dataset: a path or hub id; a `datasets.Dataset` or `DatasetDict`, a pandas DataFrame, a dict of
            columns, a list of dicts, a dict of splits of these; a function that gives one.
        budget: a size (`"20MB"`), a latency (`"5ms"`), or both in a list. None is no limit.
        processor: tokenizer or image processor of a transformers model in memory.
        teacher_processor: of a `teacher` in memory; None is the model's.
        output: the run folder, which must not exist; None is one below `runs`.
        quiet: print nothing.
        on_trial: called after each trial and baseline with a `Trial`; what it raises ends the search, which
            is saved and can be gone on with.
        settings: the other flags of `autoprune search`, by their names in Python. `teacher` may be a model in
            memory too.

    Raises:
        AutopruneError: for what cannot be searched, before anything heavy runs.
        BudgetError: when no candidate is within the budget.
        FailedTrialsError: when most trials fail.
        StoppedError: when the run stopped early and can be gone on with, as after `autoprune stop` or another
            SIGTERM. In another thread than the main one a SIGTERM ends the process.
    """
    if model is None and processor is not None:
        raise AutopruneError("processor goes with a model in memory")
    _check_callback(on_trial)
    other = _teacher_source(settings.pop("teacher", None), teacher_processor, processor)
    given: dict[str, Any] = {**(DEMO_DEFAULTS if model is None else {}), "workers": None}
    given |= checked_settings({**other, **settings, "budget": budget or None})
    if dataset is not None:
        given["dataset"] = data_source(dataset)
    if model is not None:
        given |= model_source(model, processor)
    config = Config.of(**given)
    config = config.with_settings(storage=given_storage(config.search.storage))
    _prepare()
    command = _call("search", given)
    run = None if output is None else Path(output)
    with stopped_by_sigterm():
        summary = begin(config, run, command=command, say=_say(quiet), quiet=quiet, on_trial=on_trial)
    return Front(summary.run)


def resume(
    run: str | Path,
    *,
    trials: int | str | None = None,
    budget: str | Sequence[str] = (),
    quiet: bool = False,
    on_trial: OnTrial | None = None,
    **settings: Unpack[ResumeOptions],
) -> Front:
    """Go on with a run; as `autoprune resume`.

    Args:
        trials: candidates in all, or `"+50"` for 50 more; None is what the run was asked for.
        budget: another limit, or both in a list, in place of all that the run has; the solver answers it
            first.
        quiet: print nothing.
        on_trial: called after each trial, as for `search`.
        settings: what is other than before.

    Raises:
        AutopruneError: for a run that cannot be gone on with; otherwise as `search`.
    """
    _check_callback(on_trial)
    given = checked_settings({**settings, "budget": budget or None})
    storage = given.pop("storage", None)
    _prepare()
    with stopped_by_sigterm():
        summary = take_up(
            Path(run),
            trials=None if trials is None else str(trials),
            settings={"timeout_s": None, **given},
            storage=storage,
            command=_call("resume", {"run": str(run), "trials": trials, **given}),
            say=_say(quiet),
            quiet=quiet,
            on_trial=on_trial,
        )
    return Front(summary.run)


def open_run(run: str | Path) -> Front:
    """The front of a run folder, of a search that ended or is under way.

    Raises:
        AutopruneError: when it is no run folder, or has no trials yet.
    """
    return Front(run)


def inspect(
    what: str | Path | None = None, *, space: str | None = None, target: str | None = None
) -> dict[str, Any]:
    """What a model is made of, what a run weighs, what the library of variants holds; as `autoprune inspect`.

    Args:
        what: a model folder or hub id, `"demo"`, a run folder; None is the library.
        space: of a model, as for `search`.
        target: of a model, as for `search`.

    Raises:
        AutopruneError: when it is none of these.
    """
    if what is not None and not isinstance(what, str | Path):
        raise AutopruneError(
            f"what is a {type(what).__name__}: give a folder, hub id or run folder; save a model in memory "
            "first"
        )
    from autoprune.inspection.records import record_of

    return record_of(None if what is None else str(what), space=space, target=target)


def _teacher_source(teacher: Any, own: Any, shared: Any) -> dict[str, str]:
    """The settings of another teacher, which may be in memory; none of none."""
    if teacher is None:
        if own is not None:
            raise AutopruneError("teacher_processor goes with a teacher in memory")
        return {}
    is_named = isinstance(teacher, str | Path)
    if not is_named and hasattr(teacher, "save_pretrained") and own is None:
        own = shared
    return {f"teacher{'' if name == 'model' else '_weights'}": value
            for name, value in model_source(teacher, own).items()}  # fmt: skip


def _check_callback(on_trial: object) -> None:
    if on_trial is not None and not callable(on_trial):
        raise AutopruneError(f"on_trial is a {type(on_trial).__name__}: give a function that takes a Trial")


def _prepare() -> None:
    """As the command line sets them, unless the user has."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _say(quiet: bool) -> Any:
    def say(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(redacted(text), file=sys.stderr, flush=True)

    return (lambda text: None) if quiet else say


def _call(function: str, given: dict[str, Any]) -> str:
    """A call as the run's records show it, without passwords."""
    first = given.get("model") if function == "search" else given.get("run")
    rest = {
        name: value for name, value in given.items() if name not in ("model", "run") and value is not None
    }
    arguments = [
        *([repr(first)] if first is not None else []),
        *(f"{name}={value!r}" for name, value in rest.items()),
    ]
    return redacted(f"autoprune.{function}({', '.join(arguments)})")
