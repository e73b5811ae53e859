"""A small server that gives out the files of repositories as the hub does, at any of their commits."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """Files by commit, the last of which is `main`."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes]) -> str:
        """Add a commit with these files; its hash."""
        name = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[name] = dict(files)
        return name

    def at(self, revision: str) -> str | None:
        """The commit of a revision."""
        if revision == "main":
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@dataclass
class FileHub:
    """Repositories by kind and id, as `models/owner/name`; and what was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def find(self, path: str) -> tuple[str, Repository, list[str]] | None:
        """Which repository an address is of, and what stands after its name."""
        parts = path.strip("/").split("/")
        kind = "models"
        if parts[0] == "api":
            parts = parts[1:]
        if parts and parts[0] in ("models", "datasets"):
            kind, *parts = parts
        name = f"{kind}/{'/'.join(parts[:2])}"
        return (name, self.repositories[name], parts[2:]) if name in self.repositories else None

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for one request."""
        found = self.find(path)
        if found is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        name, repository, rest = found
        verb, revision = (rest[0], unquote(rest[1])) if len(rest) > 1 else ("revision", "main")
        commit = repository.at(revision)
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = repository.commits[commit]
        if verb == "resolve":
            content = files.get("/".join(rest[2:]))
            if content is None:
                return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
            about = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            return 200, about, content
        entries = [{"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                   for f, c in files.items()]  # fmt: skip
        if verb == "tree":
            below = "/".join(rest[2:])
            entries = [entry for entry in entries if str(entry["path"]).startswith(below)]
            return 200, {}, json.dumps(entries).encode()
        if verb == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith(b"{") else []
            return 200, {}, json.dumps([entry for entry in entries if entry["path"] in asked]).encode()
        siblings = [{"rfilename": file} for file in files]
        told: dict[str, Any] = {
            "id": name.partition("/")[2],
            "sha": commit,
            "siblings": siblings,
            "private": False,
        }
        return 200, {}, json.dumps(told | {"tags": [], "downloads": 0, "likes": 0}).encode()


@contextlib.contextmanager
def serving_files() -> Iterator[FileHub]:
    """A running server."""
    state = FileHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            state.calls.append(f"{self.command} {self.path}")
            status, headers, content = state.answer(path, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = respond  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()
