"""Which commit of the hub a search reads: found out once, noted in `run.json`, and read again from then on.

A branch moves, and a tag may. The commit that a name stands for is asked for before anything is loaded, so
that config, weights and tokenizer are of one, and whoever goes on with the run or exports from it reads the
same.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.references import is_reference
from autoprune.run.config import Config
from autoprune.workers.pool import describe

_COMMIT = re.compile("[0-9a-f]{40}")


def with_commits(config: Config) -> Config:
    """The settings with a commit for the revision of models and of a data set that lie on the hub.

    Where the hub cannot be asked, the commit is the one that this machine's cache has of that name. Where
    that has none either, the revision of a data set stays as it is: it may be cached in another way.

    Raises:
        AutopruneError: for a revision of a model that is not from the hub; and for a model that is no folder
            here, where the hub cannot be reached and its cache has none of that name. Loading would ask the
            hub again and again, for half a minute, and then fail.
    """
    from huggingface_hub.errors import RevisionResolutionError

    model, data = config.model, config.data
    if model.revision is not None and _is_here(model.name):
        raise AutopruneError(
            f"--revision {model.revision} is of a model on the hub; {model.name or 'the demo'} is none: "
            "leave it out, or give the model's hub id"
        )
    try:
        commit = _commit(model.name, model.revision, "model")
    except RevisionResolutionError as error:
        cause = "" if error.__cause__ is None else f" ({describe(error.__cause__):.200})"
        raise AutopruneError(
            f"model {model.name!r} cannot be loaded: there is no folder of that name (looked in "
            f"{Path.cwd()}), and the hub, of which it may be an id, cannot be reached{cause}, nor does its "
            "cache have it. Give the path of a folder that is there, or go online"
        ) from error
    if commit is not None:
        config = replace(config, model=replace(model, revision=commit))
    with contextlib.suppress(RevisionResolutionError):
        asked = config.training
        if (commit := _commit(asked.teacher, asked.teacher_revision, "model")) is not None:
            config = config.with_settings(teacher_revision=commit)
    with contextlib.suppress(RevisionResolutionError):
        if (commit := _commit(data.dataset, data.revision, "dataset")) is not None:
            config = replace(config, data=replace(data, revision=commit))
    return config


def commits_of(config: Config) -> dict[str, str]:
    """The commits that settings name, by which of `model`, `dataset` and `teacher` they are of."""
    given = {
        "model": config.model.revision,
        "dataset": config.data.revision,
        "teacher": config.training.teacher_revision,
    }
    return {name: commit for name, commit in given.items() if commit and _COMMIT.fullmatch(commit)}


def _is_here(name: str | None) -> bool:
    """Whether a model or data set is the demo's, a function's, or a file or folder of this machine."""
    return name is None or is_reference(name) or Path(name).expanduser().exists()


def _commit(name: str | None, revision: str | None, kind: str) -> str | None:
    """The commit of a repository on the hub; None where it is not known, or the name is of none.

    Raises:
        RevisionResolutionError: where the hub cannot be reached, and its cache has none of that name.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RevisionResolutionError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if name is None or not name.strip() or _is_here(name):
        return None
    try:
        validate_repo_id(name)
        return str(HfApi().resolve_revision(name, repo_type=kind, revision=revision).resolved)
    except HFValidationError:
        return None
    except RevisionResolutionError:
        raise
    except Exception:  # the client and its HTTP library raise many kinds; loading meets the cause again
        return None
