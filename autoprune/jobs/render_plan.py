"""What a search asks of a cluster, read from the words of its command line."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.core.database_address import VARIABLE
from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import escaped, holds_secret, redacted
from autoprune.workers.latency_node import parse_label

IMAGE = "autoprune:latest"
"""What `deploy/Dockerfile` builds; a registry's name for it is given in its place."""

WORKERS = 8
"""Workers of a search that does not say how many."""

WORKERS_A_NODE = 8
"""Workers that share a machine where the number of machines is not given."""

GB_A_WORKER = 4
"""Memory of a worker, and of the driver."""

RUNS = "/runs"
"""Where run folders lie on the machine of the driver, whatever happens to the cluster."""

EXAMPLE_HOSTS = ("192.0.2.10", "192.0.2.11", "192.0.2.12")
"""Addresses that nobody has (RFC 5737), to be written over."""

START = (
    'run=$0; if [ -e "$run/run.json" ]; then exec autoprune resume "$run" --address auto; fi; '
    'exec autoprune "$@" --address auto -o "$run"'
)
"""Go on with a run, or begin it, for `sh -c START RUN WORDS...`."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_NAME = re.compile(rf"([a-z0-9.-]{{1,253}}/)?{_LABEL.pattern}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Plan:
    """What is started, and on how much.

    run: folder of the run, on the driver's machine. nodes: machines of workers, each with `workers` of them.
    label: name and value of the node that latency is timed on, which is one more machine. has_password:
    whether the study's database has one, which no file has.
    """

    name: str
    run: str
    words: tuple[str, ...]
    nodes: int
    workers: int
    cpus_per_trial: float
    gpus_per_trial: float
    label: tuple[str, str] | None
    has_password: bool
    image: str
    accelerator: str
    hosts: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """What runs on the driver's machine."""
        return ["sh", "-c", START, self.run, *self.words]

    @property
    def cpus(self) -> int:
        """CPUs of a machine that its workers take."""
        return max(1, math.ceil(self.workers * self.cpus_per_trial))

    @property
    def gpus(self) -> int:
        """GPUs of a machine."""
        return math.ceil(self.workers * self.gpus_per_trial)

    @property
    def memory_gb(self) -> int:
        """Memory of a machine of workers."""
        return max(2, self.workers) * GB_A_WORKER

    @property
    def machines(self) -> int:
        """How many there are, that for latency among them."""
        return self.nodes + (self.label is not None)

    @property
    def variables(self) -> list[str]:
        """Environment variables that hold what no file may."""
        return [VARIABLE] if self.has_password else []

    @property
    def labels(self) -> str:
        """The label as `ray start --labels` takes it."""
        return "" if self.label is None else "=".join(self.label)


def planned(
    words: Sequence[str],
    name: str,
    image: str,
    nodes: int | None,
    accelerator: str,
    hosts: tuple[str, ...],
    runs: str,
) -> Plan:
    """What a search's words ask for; the arguments are those of `renders.render`.

    runs: where run folders lie.

    Raises:
        AutopruneError: for words that no file can have.
    """
    if not words or words[0] != "search":
        raise AutopruneError(f"--render is of a search, `search MODEL ...`; got {shlex.join(words)!r:.80}")
    _check("name", name, _NAME, "small letters, digits and -, at most 47")
    _check("image", image, _IMAGE, "REGISTRY/NAME:TAG")
    _check("accelerator", accelerator, _LABEL, "a name such as L4")
    for host in hosts:
        _check("host", host, _HOST, "an address or name")
    left, run = _without(list(words), "-o", "--output")
    _, address = _without(left, "--address")
    if address is not None:
        raise AutopruneError(f"leave --address {redacted(address)!r} out: the cluster is the file's own")
    left, has_password = _without_password(left)
    for word in left:
        _check_word(word)
    workers = _number(left, "--workers", WORKERS)
    if workers < 1 or workers != int(workers):
        raise AutopruneError(f"--workers {workers:g} needs no cluster: give 1 or more")
    if _without(left, "--workers")[1] is None:
        left += ["--workers", str(WORKERS)]
    machines = nodes or math.ceil(workers / WORKERS_A_NODE)
    return Plan(
        name=name,
        run=run or f"{runs}/{name}",
        words=tuple(left),
        nodes=machines,
        workers=math.ceil(workers / machines),
        cpus_per_trial=_number(left, "--cpus-per-trial", 1.0),
        gpus_per_trial=_number(left, "--gpus-per-trial", 0.0),
        label=_label(_without(left, "--latency-node")[1]),
        has_password=has_password,
        image=image,
        accelerator=accelerator,
        hosts=hosts,
    )


def _check(what: str, value: str, allowed: re.Pattern[str], told: str) -> None:
    if not allowed.fullmatch(value):
        raise AutopruneError(f"{what} {value!r:.80} cannot be in such a file: give {told}")


def _check_word(word: str) -> None:
    """Raise `AutopruneError` for a word that a file cannot or must not have."""
    if holds_secret(word):
        raise AutopruneError(
            f"{redacted(word)!r} holds a password or token (hidden here), which is written to no file: set "
            "it in the environment of the cluster"
        )
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise AutopruneError(f"{word!r} is no UTF-8 text, which the file is written in") from error
    if "\0" in word:
        raise AutopruneError(f"{word!r:.80} holds a byte of zero, which no command line can have")


def _without(words: Sequence[str], *options: str) -> tuple[list[str], str | None]:
    """The words without an option that takes a value, and its value; the last counts, as for the command."""
    kept: list[str] = []
    value: str | None = None
    rest = iter(words)
    for word in rest:
        head, sign, tail = word.partition("=")
        if word in options:
            value = next(rest, None)
            if value is None:
                raise AutopruneError(f"{word} needs a value")
        elif sign and head in options and head.startswith("--"):
            value = tail
        else:
            kept.append(word)
    return kept, value


def _without_password(words: list[str]) -> tuple[list[str], bool]:
    """The words without a database's address that has a password, and whether there was one."""
    kept, storage = _without(words, "--storage")
    if storage is None or not holds_secret(escaped(storage)):
        return words, False
    return kept, True


def _number(words: Sequence[str], option: str, usual: float) -> float:
    _, value = _without(words, option)
    try:
        number = usual if value is None else float(value)
    except ValueError as error:
        raise AutopruneError(f"{option} {value!r}: give a number") from error
    if not 0 <= number <= 100_000:
        raise AutopruneError(f"{option} {value}: give a number from 0 to 100000")
    return number


def _label(asked: str | None) -> tuple[str, str] | None:
    """Name and value of the label of the latency node, as Kubernetes and Ray take them."""
    if asked is None:
        return None
    name, value = parse_label(asked)
    _check("name of the label in --latency-node", name, _LABEL_NAME, "letters, digits and -_. between them")
    _check("value in --latency-node", value, _LABEL, "letters, digits and -_. between them")
    return name, value
