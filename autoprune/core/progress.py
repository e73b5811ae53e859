"""What a long job tells its user while it runs: lines, and bars on a terminal, all on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Protocol

from tqdm import tqdm

from autoprune.core.redaction import redacted


class Update(Protocol):
    """Moves a bar: parts done, a note, and the parts in all where they were not known."""

    def __call__(self, done: int, note: str, parts: int | None = None, /) -> None: ...


class Progress:
    """Lines and bars. No bar where stderr is no terminal; nothing at all when quiet.

    log: a file that gets every line too, quiet or not; its folder is made.
    """

    def __init__(self, *, quiet: bool = False, log: Path | None = None) -> None:
        self.quiet, self._log = quiet, log
        self.live = not quiet and sys.stderr.isatty()

    def line(self, text: str) -> None:
        """One line, above the bar when there is one."""
        if self._log is not None:
            add_line(self._log, text)
        if not self.quiet:
            with _unheard():
                tqdm.write(redacted(text), file=sys.stderr)

    @contextlib.contextmanager
    def bar(self, label: str, total: int) -> Iterator[Update]:
        """A bar for a job of `total` parts; call what it gives with (parts done, a note, parts).

        When it ends a line says how many seconds it took.
        """
        bar = _bar(label, total, live=self.live)

        def update(done: int, note: str, parts: int | None = None) -> None:
            bar.total = parts or bar.total
            with _unheard():
                bar.set_postfix_str(note, refresh=False)
                bar.update(done - bar.n)

        start = time.monotonic()
        try:
            yield update
        finally:
            with _unheard():
                bar.close()
            self.line(f"{label}: {time.monotonic() - start:.0f} s")


def add_line(log: Path, text: str) -> None:
    """Add a line to a log, without secrets; a full disk must not end what is told of."""
    with _unheard():
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(redacted(text) + "\n")


def _bar(label: str, total: int, *, live: bool) -> tqdm[NoReturn]:
    with _unheard():
        return tqdm(
            total=total, desc=label, disable=not live, file=sys.stderr, dynamic_ncols=True,
            leave=False, bar_format="{desc} {bar:20} {n_fmt}/{total_fmt}  {postfix}  {remaining} left",
        )  # fmt: skip
    return tqdm(total=total, disable=True)


def _unheard() -> contextlib.AbstractContextManager[None]:
    """Ignore errors of writing: stderr may be closed, or a file on a full disk."""
    return contextlib.suppress(OSError, ValueError)
