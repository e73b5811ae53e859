"""A search for a cluster: what is sent, what runs there, and under which name."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import shown_command
from autoprune.core.references import is_reference
from autoprune.jobs.cluster import ROOT_KEY, RUN_KEY
from autoprune.jobs.contents import Content, read_content
from autoprune.jobs.lease import Sent
from autoprune.jobs.mirror import RUNS
from autoprune.jobs.request import REQUEST, Given, Request, check_same
from autoprune.jobs.storage_root import StorageRoot
from autoprune.jobs.user_code import UserCode, user_code
from autoprune.run.config import Config, name_of
from autoprune.run.folder import RUN
from autoprune.run.whereabouts import paths_of
from autoprune.tracking.names import sent_variables

PLACES = {
    "": "model",
    "--dataset": "dataset",
    "--weights": "weights",
    "--space": "space",
    "--teacher": "teacher",
    "--teacher-weights": "teacher_weights",
}
"""Options that may name a file or folder, with the settings that they are."""

REFERENCES = ("", "--dataset", "--task", "--teacher")
"""Options that may name a function of the user."""

STOP_SECONDS = 120
"""How long Ray waits after it asked a driver to end, before it kills it: trials are saved, the copy made."""

_FILE_LIKE = re.compile(r"[.~/]|.*\.(csv|tsv|jsonl?|parquet|txt|ya?ml|safetensors)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Submission:
    """A search as a job. is_new: whether the root has no such run yet, or one that never began.

    notes: what else the user should know of it. tracked: variables that tell trackers where to write.
    """

    name: str
    root: StorageRoot
    request: Request
    contents: tuple[Content, ...]
    code: UserCode
    is_new: bool = True
    notes: tuple[str, ...] = ()
    tracked: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """The command that runs on the cluster."""
        words = ["python", "-m", "autoprune.jobs.driver", "--root", self.root.address, "--run", self.name]
        if self.code.content is not None:
            words += ["--code", self.code.content.place]
        for module in self.code.named:
            words += ["--import", module]
        return shlex.join([*words, "--", *shown_command(self.request.words())])

    @property
    def metadata(self) -> dict[str, str]:
        """What the job says of itself to whoever lists jobs."""
        return {RUN_KEY: self.name, ROOT_KEY: self.root.address}

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of the job, none of them a secret."""
        return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **self.tracked}

    def ray_command(self, cluster: str, id: str) -> str:
        """The line of Ray's own command that starts the same job, once the inputs are in the root."""
        import json

        env = json.dumps({"env_vars": self.variables})
        words = ["ray", "job", "submit", "--no-wait", "--address", cluster, "--submission-id", id]
        words += ["--metadata-json", json.dumps(self.metadata), "--runtime-env-json", env]
        return f"{shlex.join(words)} -- {self.entrypoint}"

    def sent(self) -> list[Content]:
        """All that must be in the root before the job starts."""
        code = [] if self.code.content is None else [self.code.content]
        return [*self.contents, *code]

    def send(self, job: str, told: Callable[[int], object] = lambda _: None) -> int:
        """Put what is missing into the root, with what was asked for; bytes that were sent.

        job: the name of the job that is submitted next.
        """
        bytes_sent = sum(self.root.send(content, told) for content in self.sent())
        self.root.write_json(f"{RUNS}/{self.name}/{REQUEST}", self.request.as_json())
        Sent.note(self.root, f"{RUNS}/{self.name}", job)
        return bytes_sent


def make_submission(
    config: Config, given: Sequence[Given], root: StorageRoot, name: str | None
) -> Submission:
    """What a search sends and runs.

    Args:
        config: the search, checked.
        given: the same as on the command line.
        name: of the run; None is its usual one.

    Raises:
        AutopruneError: for what cannot be sent, or a run of that name with other settings.
    """
    _check(config, given)
    name = usual_name(config) if name is None else name
    if not _NAME.fullmatch(name):
        raise AutopruneError(
            f"--name {name!r}: give letters, digits, dots, dashes and underscores, at most 100"
        )
    paths = paths_of(config)
    contents: dict[str, Content] = {}
    moved = []
    for item in given:
        setting = PLACES.get(item.option)
        if setting in paths:
            content = read_content(Path(paths[setting]))
            contents[content.place] = content
            item = replace(item, values=(content.place,))
        moved.append(item)
    references = [
        value
        for item in given
        if item.option in REFERENCES and PLACES.get(item.option) not in paths
        for value in item.values
        if is_reference(value)
    ]
    code = user_code(references, Path.cwd())
    sources = {place: str(content.source) for place, content in contents.items()}
    place = "" if code.content is None else code.content.place
    request = Request(tuple(moved), sources, socket.gethostname(), place)
    tracked, notes = sent_variables(config.search.track)
    submission = Submission(name, root, request, tuple(contents.values()), code, notes=notes, tracked=tracked)
    if root.read(f"{RUNS}/{name}/{RUN}") is None:
        return submission
    where = f"{RUNS}/{name}/{REQUEST}"
    before = root.read_json(where)
    if before is not None:
        begun = Request.from_json(before, where=root.full(where))
        check_same(name, begun, request)
        if begun.code != request.code:
            notes += ("the code of the modules that are named is not what the run began with",)
    return replace(submission, is_new=False, notes=notes)


def usual_name(config: Config) -> str:
    """NAME-LIMIT, the same for the same command, so that it goes on with the run that it began.

    >>> usual_name(Config.of(model="org/my-bert", budget=("20 MB",)))
    'my-bert-20MB'
    """
    stem = "-".join([name_of(config), *(text.replace(" ", "") for text in config.search.budget)])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "search"


def _check(config: Config, given: Sequence[Given]) -> None:
    """Refuse what cannot be meant for another machine."""
    if config.workers.address is not None:
        raise AutopruneError(
            f"--address {config.workers.address!r}: a job runs on the cluster it is submitted to; leave it "
            "out"
        )
    paths = paths_of(config)
    for item in given:
        for value in item.values if item.option in PLACES else ():
            if PLACES[item.option] not in paths and _FILE_LIKE.match(value):
                raise AutopruneError(
                    f"{item.option or 'MODEL'} {value!r} is not there (looked in {Path.cwd()}): what is "
                    "sent to the cluster must be on this machine; a hub id is fetched there"
                )
