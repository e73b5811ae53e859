"""What a run of a cluster was asked for: the words of its search, which a second submit is held to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from autoprune.core.errors import AutopruneError

REQUEST = ".job/request.json"

RESUMED = (
    "--trials", "--budget", "--timeout", "--trial-timeout", "--workers", "--gpus-per-trial", "--storage",
    "--track",
)  # fmt: skip
"""Options that a run may be gone on with: those of `autoprune resume`."""

PLACED = ("--cpus-per-trial", "--latency-node")
"""Options of where trials run, which a run keeps from its first submit."""


@dataclass(frozen=True)
class Given:
    """An option of the command line with its values; "" is the argument MODEL, and a flag has no values."""

    option: str
    values: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """As it stands on a command line."""
        return [*filter(None, [self.option]), *self.values]


@dataclass(frozen=True)
class Request:
    """What was asked for. sources: where each place of the root that is named was sent from, on `sender`.

    code: the place of the user's code; "" for none.
    """

    given: tuple[Given, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    sender: str = ""
    code: str = ""

    def words(self) -> list[str]:
        """The words of the search."""
        return [word for given in self.given for word in given.words()]

    def as_json(self) -> dict[str, Any]:
        """As it is kept in the root."""
        rows = [[given.option, *given.values] for given in self.given]
        return {
            "version": 1,
            "given": rows,
            "sources": dict(self.sources),
            "sender": self.sender,
            "code": self.code,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> Self:
        """Read what `as_json` wrote.

        Raises:
            AutopruneError: where it is damaged.
        """
        try:
            rows = [[str(word) for word in row] for row in data["given"]]
            given = tuple(Given(row[0], tuple(row[1:])) for row in rows)
            return cls(
                given, dict(data.get("sources", {})), str(data.get("sender", "")), str(data.get("code", ""))
            )
        except (LookupError, TypeError, ValueError) as error:
            raise AutopruneError(f"{where} is damaged: {type(error).__name__}: {error}") from error


def check_same(name: str, before: Request, now: Request) -> None:
    """Raise `AutopruneError` where a run was begun with other settings than it is now to go on with."""
    then, asked = (_fixed(request) for request in (before, now))
    if changed := [option for option in sorted({*then, *asked}) if then.get(option) != asked.get(option)]:
        told = "; ".join(
            f"{option or 'MODEL'} {_told(then.get(option))} then, {_told(asked.get(option))} now"
            for option in changed
        )
        raise AutopruneError(
            f"run {name} was begun with other settings: {told}. Trials of one run must share them: give "
            f"what it was begun with, or another --name for a new run"
        )


def resume_words(words: Sequence[str]) -> list[str]:
    """Of the words of a search, those that `autoprune resume` takes.

    >>> resume_words(["inputs/0/bert", "--budget", "20MB", "--target", "onnx", "--trials", "30"])
    ['--budget', '20MB', '--trials', '30']
    """
    return [*_resumed(words)]


def _resumed(words: Iterable[str]) -> Iterator[str]:
    iterator = iter(words)
    for word in iterator:
        if word in RESUMED:
            yield word
            yield next(iterator, "")


def _fixed(request: Request) -> dict[str, list[tuple[str, ...]]]:
    options: dict[str, list[tuple[str, ...]]] = {}
    for given in request.given:
        if given.option not in RESUMED:
            options.setdefault(given.option, []).append(given.values)
    return options


def _told(values: list[tuple[str, ...]] | None) -> str:
    if values is None:
        return "not given"
    return ", ".join(" ".join(row) or "given" for row in values)
