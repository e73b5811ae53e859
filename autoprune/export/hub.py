"""An exported folder -> a repository on the Hugging Face hub, by its own client; private unless asked."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id  # type: ignore[attr-defined]

from autoprune.core.errors import AutopruneError


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a model or data set on the hub: `owner/name`."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def check_access(repo: str) -> None:
    """See, before anything costly, that a repository's name is one and that the hub knows the user.

    Raises:
        AutopruneError: for a name that is none, without a token, or when the hub refuses it.
    """
    if not is_hub_id(repo):
        raise AutopruneError(f"--push-to-hub {repo!r} is no repository's name; give OWNER/NAME")
    if get_token() is None:
        raise AutopruneError("--push-to-hub needs a token of the hub: run `hf auth login`, or set HF_TOKEN")
    try:
        HfApi().whoami()
    except Exception as error:
        _refused(error, "Nothing was exported")


def push(folder: Path, repo: str, *, private: bool) -> str:
    """Make a repository and upload a folder's files to it; returns its address.

    Raises:
        AutopruneError: when the repository is there already, or the hub refuses or fails.
    """
    disable_progress_bars()
    api = HfApi()
    try:
        url = api.create_repo(repo, private=private)
    except Exception as error:
        _refused(error, f"Nothing was pushed; the export is in {folder}")
    try:
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Model compressed by autoprune")
    except Exception as error:
        again = f"hf upload {repo} {folder}"
        _refused(error, f"The repository {repo} was made, but not all is in it; go on with: {again}")
    return str(url)


def _refused(error: Exception, state: str) -> NoReturn:
    """One line for whatever the client raises, its HTTP library's own errors among it."""
    known = {
        401: "it does not accept the token; run `hf auth login`, or set HF_TOKEN",
        403: "the token may not write there",
        409: "a repository of that name is there already and is left as it is; give another name",
    }
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    lines = str(error).strip().splitlines()
    reason = known.get(status or 0) or (lines[0] if lines else type(error).__name__)
    code = f" ({status})" if status else ""
    raise AutopruneError(f"the hub refused{code}: {reason}. {state}") from error
