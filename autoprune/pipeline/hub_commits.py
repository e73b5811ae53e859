"""Which commit of the hub a search reads: found out once, noted in `run.json`, and read again from then on.

A branch moves, and a tag may. The commit that a name stands for is asked for before anything is loaded, so
that config, weights and tokenizer are of one, and whoever goes on with the run or exports from it reads the
same.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from autoprune.core.references import is_reference
from autoprune.run.config import Config

_COMMIT = re.compile("[0-9a-f]{40}")


def with_commits(config: Config) -> Config:
    """The settings with a commit for the revision of a model and of a data set that lie on the hub.

    Where the hub cannot be asked, the commit is the one that this machine's cache has of that name. Where
    that has none either, the revision stays as it is, and loading says why it fails.
    """
    model, data = config.model, config.data
    if (commit := _commit(model.name, model.revision, "model")) is not None:
        config = replace(config, model=replace(model, revision=commit))
    if (commit := _commit(data.dataset, data.revision, "dataset")) is not None:
        config = replace(config, data=replace(data, revision=commit))
    return config


def commits_of(config: Config) -> dict[str, str]:
    """The commits that settings name, by which of `model` and `dataset` they are of."""
    given = {"model": config.model.revision, "dataset": config.data.revision}
    return {name: commit for name, commit in given.items() if commit and _COMMIT.fullmatch(commit)}


def _commit(name: str | None, revision: str | None, kind: str) -> str | None:
    """The commit of a repository on the hub; None where it is not known, or the name is of none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if name is None or not name.strip() or is_reference(name) or Path(name).expanduser().exists():
        return None
    try:
        validate_repo_id(name)
        return str(HfApi().resolve_revision(name, repo_type=kind, revision=revision).resolved)
    except HFValidationError:
        return None
    except Exception:  # the client and its HTTP library raise many kinds; loading meets the cause again
        return None
