"""The page of a run that is watched, on 127.0.0.1 alone, at an address that only who started it knows.

The path begins with a random token. A page of another site cannot ask for it: it does not know the token, and
requests whose Host is another (DNS rebinding) are refused.
"""

from __future__ import annotations

import http.server
import json
import secrets
import threading
from http import HTTPStatus
from typing import Any, ClassVar

from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import cleaned, redacted
from autoprune.report.page import Live, render, render_waiting
from autoprune.watch.events import short_line
from autoprune.watch.source import Followed

LOOPBACK = "127.0.0.1"


class WatchServer:
    """Serves one run until it is closed. port: 0 takes any that is free.

    Raises:
        AutopruneError: where the port is taken.
    """

    def __init__(self, run: Followed, *, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(16)
        handler = type("Handler", (_Handler,), {"run": run, "token": self.token})
        try:
            self._server = http.server.ThreadingHTTPServer((LOOPBACK, port), handler)
        except OSError as error:
            raise AutopruneError(
                f"--port {port}: {error.strerror}. Leave it out for any that is free"
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """What a browser opens."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/{self.token}/"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    run: ClassVar[Followed]
    token: ClassVar[str]

    def do_GET(self) -> None:
        name = self._asked()
        if name == "":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", _page(self.run))
        elif name == "status":
            self._send_json(HTTPStatus.OK, _status(self.run))
        elif name == "front.json":
            self._send_json(HTTPStatus.OK, self.run.front())
        elif name is not None:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})

    def do_POST(self) -> None:
        name = self._asked()
        if name == "stop":
            try:
                self.run.source.stop()
            except AutopruneError as error:
                self._send_json(HTTPStatus.CONFLICT, {"error": redacted(str(error))})
            else:
                self._send_json(HTTPStatus.OK, {})
        elif name is not None:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is no such thing to do"})

    def _asked(self) -> str | None:
        """What is asked for, after the token; None where it was refused."""
        host, _, port = self.headers.get("Host", "").partition(":")
        here = str(self.connection.getsockname()[1])
        is_here = host in (LOOPBACK, "localhost") and port == here
        token, _, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        if is_here and secrets.compare_digest(token.encode(), self.token.encode()):
            return name
        self._send_json(HTTPStatus.FORBIDDEN, {"error": "open the address that autoprune watch printed"})
        return None

    def _send_json(self, status: HTTPStatus, value: Any) -> None:
        self._send(status, "application/json", json.dumps(cleaned(value)))

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(len(data))), ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
            ("X-Frame-Options", "DENY"), ("Cross-Origin-Resource-Policy", "same-origin"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is for the run."""


def _page(run: Followed) -> str:
    front = run.front()
    now = run.status()
    line = short_line(now)
    return (
        render_waiting(run.source.name, line)
        if front is None
        else render(front, live=Live(now["front"], line))
    )


def _status(run: Followed) -> dict[str, Any]:
    """The status, in a line too."""
    now = dict(run.status())
    return {**now, "line": short_line(now), "is_over": run.is_over()}
