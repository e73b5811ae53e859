"""Secrets in addresses: what may be shown and written in the place of a password or a token.

A secret is the password of a database's URL, whatever stands before the @ of a web address, the value of a
query's parameter that is named as one (`?token=...`), a token of the Hugging Face hub or of GitHub, and the
value of an environment variable that is named as one (`HF_TOKEN`, `AWS_SECRET_ACCESS_KEY`), wherever it
stands. Files of a run and of an export are written, and messages are shown, through `redacted` or `cleaned`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from logging import Formatter, LogRecord
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
"""What stands in the place of a secret, as SQLAlchemy shows a URL."""

_DATABASES = r"(?:postgres\w*|cockroachdb|mysql|mariadb|mssql|oracle|sqlite)(?:\+\w+)?"
_WEB = r"(?:https?|wss?|ftps?|git|ray)(?:\+\w+)?"
_NAMES = (
    r"[\w.-]*(?:token|password|passwd|pwd|secret|signature|credential|api[_-]?key|access[_-]?key)"
    r"|sig|key|auth|pass|odbc_connect"
)
_TOKEN_BEGINS = ("hf_", "gho_", "ghp_", "ghs_", "ghu_", "github_pat_")
_PARAMETER = re.compile(
    rf"(?P<before>[?&](?:{_NAMES})=)(?P<secret>(?!\*\*\*(?![a-z\d]))[^\s&#\"'<>]+)(?P<after>)", re.I
)
_TOKEN = re.compile(
    r"(?P<before>(?<![A-Za-z\d]))(?P<secret>hf_[A-Za-z\d]{20,}|gh[opsu]_[A-Za-z\d]{20,}"
    r"|github_pat_\w{20,})(?P<after>)"
)
_PATTERNS = (
    # A database: SQLAlchemy takes all up to the @ for the password, / ? and # too.
    re.compile(
        rf"(?P<before>(?<![\w+.-]){_DATABASES}://[^\s/:@\"<>]*:)"
        r"(?P<secret>[^\s@\"<>]+(?:@[^\s@/?\"<>]+(?=@))*)(?P<after>@)",
        re.I,
    ),
    # An address of the web: a token may stand in the place of the user as well as of the password.
    re.compile(rf"(?P<before>(?<![\w+.-]){_WEB}://)(?P<secret>[^\s/?#\"<>]+)(?P<after>@)", re.I),
    re.compile(
        rf"(?P<before>(?<![\w+.-])(?!{_WEB}://)[a-z][a-z\d+.-]*://[^\s/?#:@\"<>]*:)"
        r"(?P<secret>[^\s/?#\"<>]+)(?P<after>@)",
        re.I,
    ),
    _PARAMETER,
    _TOKEN,
)
_ADDRESS = re.compile(
    rf"(?P<before>(?:--[\w-]+=)?{_DATABASES}://[^\s/:@]*:)(?P<secret>.+?)(?P<after>@[^@?]*(?:\?.*)?)",
    re.I | re.S,
)
"""A database's URL alone, whose password may have any character."""


_VARIABLE = re.compile(
    r"(?:\w*_|PG)?(?:TOKEN|PASSWORD|PASSWD|SECRET|API_?KEY|ACCESS_?KEY|AUTH_?KEY)|MYSQL_PWD", re.I
)
"""Names of environment variables that hold a secret."""

_SHORTEST = 12
"""Letters of the shortest value that is hidden wherever it stands: a shorter one may be a common word."""


def secret_values() -> list[str]:
    """Secrets of this process's environment, passwords in addresses among them; the longest first."""
    values: set[str] = set()
    for name, value in os.environ.items():
        if _VARIABLE.fullmatch(name):
            values.add(value)
        elif "://" in value and (address := _ADDRESS.fullmatch(value)) is not None:
            values |= {address["secret"], unquote(address["secret"])}
    return sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)


def redacted(text: str) -> str:
    """A text without the secrets of the addresses in it, and those of this process's environment.

    >>> redacted("postgresql://me:pa/ss@host/db and https://me:tok@host/a?x=1&access_token=abc")
    'postgresql://me:***@host/db and https://***@host/a?x=1&access_token=***'
    """
    return _redacted(text, secret_values())


def _redacted(text: str, values: Sequence[str]) -> str:
    for pattern in _PATTERNS:
        text = pattern.sub(_hidden, text)
    for value in values:
        text = text.replace(value, HIDDEN)
    return text


def holds_secret(text: str) -> bool:
    """Whether a text has a secret that is not hidden."""
    return redacted(text) != text


def cleaned(data: Any) -> Any:
    """Plain data with every text in it redacted."""
    return _cleaned(data, secret_values())


def _cleaned(data: Any, values: Sequence[str]) -> Any:
    if isinstance(data, str):
        return _redacted(data, values)
    if isinstance(data, Mapping):
        return {_cleaned(name, values): _cleaned(value, values) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_cleaned(value, values) for value in data]
    return data


def may_hold_secret(text: str) -> bool:
    """Whether a long text may hold a secret: quick, and never false where there is one."""
    return (
        "://" in text
        or (any(mark in text for mark in "?&") and _PARAMETER.search(text) is not None)
        or (any(begin in text for begin in _TOKEN_BEGINS) and _TOKEN.search(text) is not None)
        or any(form in text for value in secret_values() for form in (value, json.dumps(value)[1:-1]))
    )


def escaped(address: str) -> str:
    """Escape the password in a database's URL; other texts stay unchanged.

    >>> escaped("postgresql://me:p@ss word@host/db"), escaped("postgresql://me:a%20b@host/db")
    ('postgresql://me:p%40ss%20word@host/db', 'postgresql://me:a%20b@host/db')
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or match["secret"] == HIDDEN:
        return address
    return match["before"] + quote(unquote(match["secret"]), safe="") + match["after"]


def without_secrets(address: str) -> str:
    """A database's URL with its secrets left out, to tell whether two are the same one.

    >>> without_secrets("postgresql://me:***@host/db?sslpassword=a&x=1")
    'postgresql://me@host/db?x=1'
    """
    head, _, query = redacted(escaped(address)).partition("?")
    head = head.replace(f":{HIDDEN}@", "@")
    kept = [part for part in query.split("&") if part and not part.endswith(f"={HIDDEN}")]
    return head + ("?" + "&".join(kept) if kept else "")


def shown_command(words: Sequence[str]) -> list[str]:
    """The words of a command line without secrets."""
    return [redacted(escaped(word)) for word in words]


def secrets_with_place(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of each secret with its surroundings, and the same with the secret hidden: for replacements."""
    whole = _ADDRESS.fullmatch(text)
    if whole is not None and whole["secret"] != HIDDEN:
        yield f"{whole['before']}{whole['secret']}@", f"{whole['before']}{HIDDEN}@"
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            if match["secret"] != HIDDEN:
                yield match[0], _hidden(match)
    for value in secret_values():
        if value in text:
            yield value, HIDDEN


def _hidden(match: re.Match[str]) -> str:
    return match["before"] + HIDDEN + match["after"]


# ---- what a program shows -----------------------------------------------------------------------


class RedactingFormatter(Formatter):
    """Lines of a log, and the tracebacks in them, without secrets."""

    def format(self, record: LogRecord) -> str:
        return redacted(super().format(record))


def show_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print an error that nobody expected, without secrets: for `sys.excepthook`."""
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
