"""A small server that speaks the part of the hub's API that its client calls to push a folder.

Files go by Git LFS and in the commit here; the client's other way (Xet) is switched off, since its storage
has no small stand-in.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOKEN = "hf_" + "t" * 34


@dataclass
class Hub:
    """What the server has: repositories with their files, and the answers it was told to refuse with."""

    url: str = ""
    visibility: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON for one request."""
        self.calls.append(f"{method} {path}")
        for part, status in self.refuse.items():
            if part in path:
                return status, {"error": "refused by the test"}
        if path == "/api/whoami-v2":
            return 200, {"name": "somebody", "type": "user"}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if found := re.fullmatch(r"/api/models/(\S+)/preupload/main", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            told = {"shouldIgnore": False, "oid": None}
            return 200, {"files": [{"path": name, "uploadMode": mode(name), **told} for name in names]}
        if path.endswith(".git/info/lfs/objects/batch"):
            put = [{"oid": entry["oid"], "size": entry["size"],
                    "actions": {"upload": {"href": f"{self.url}/objects/{entry['oid']}"}}}
                   for entry in json.loads(body)["objects"]]  # fmt: skip
            return 200, {"transfer": "basic", "objects": put}
        if path.startswith("/objects/"):
            self.objects[path.removeprefix("/objects/")] = body
            return 200, {}
        if found := re.fullmatch(r"/api/models/(\S+)/commit/main", path):
            return self.commit(found[1], [json.loads(line) for line in body.splitlines()])
        return 404, {"error": f"no such address: {path}"}

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.visibility:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        self.visibility[name], self.files[name] = asked.get("visibility", "public"), {}
        return 200, {"url": f"{self.url}/{name}"}

    def commit(self, repo: str, operations: list[dict[str, Any]]) -> tuple[int, Any]:
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                self.files[repo][value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                content = self.objects[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.files[repo][value["path"]] = content
        oid = "0" * 40
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{repo}/commit/{oid}",
                     "hookOutput": ""}  # fmt: skip


def mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".bin", ".onnx")) else "regular"


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A running server."""
    state = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self.chunks()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.tokens.add(self.headers.get("Authorization") or "")
            status, data = state.answer(self.command, self.path.partition("?")[0], body)
            out = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PUT = respond  # noqa: N815

        def chunks(self) -> bytes:
            out = b""
            while size := int(self.rfile.readline().strip(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield state
        server.shutdown()


def environment_of(hub: Hub, home: Path, **more: str) -> dict[str, str]:
    """What makes the client talk to the stand-in, and know nothing of this machine's user."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {**kept, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}
