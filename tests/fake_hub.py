"""A fake model hub on loopback: the part of the real one's HTTP that downloads need, and its bad days."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000
"""Files from this size on are stored the way large files are: named by their sha256."""


@dataclass
class FakeHub:
    """What it has and how it behaves; tests change it while it runs.

    Attributes:
        files: Content by `owner/repo/file`.
        cut: Ends each answer with a file after so many bytes, so many times.
        wrong: Sends other bytes than it says.
        gated: Repositories whose licence nobody accepted.
        token: The only one that is let in; None: everybody.
        status: Answers everything with it.
        ranges: Whether it can send the rest of a file.
        bare: Says names alone where it lists a repository, as some mirrors do.
        hang: Answers nothing until this is set.
        requests: `METHOD path range` of what was asked.
    """

    files: dict[str, bytes]
    cut: list[int] = field(default_factory=list[int])
    wrong: bool = False
    gated: set[str] = field(default_factory=set[str])
    token: str | None = None
    status: int | None = None
    ranges: bool = True
    bare: bool = False
    hang: threading.Event | None = None
    requests: list[str] = field(default_factory=list[str])
    endpoint: str = ""

    def listing(self, repo: str) -> dict[str, Any]:
        """Return what the API says of a repository."""
        siblings: list[dict[str, Any]] = []
        for name, content in self.files.items():
            if name.startswith(f"{repo}/"):
                entry: dict[str, Any] = {"rfilename": name.removeprefix(f"{repo}/")}
                if not self.bare:
                    entry |= {"size": len(content), "blobId": git_sum(content)}
                    if len(content) >= LARGE:
                        entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
                siblings.append(entry)
        return {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}

    @property
    def downloads(self) -> list[str]:
        """Requests for content."""
        return [request for request in self.requests if request.startswith("GET") and "/resolve/" in request]


def sha256(content: bytes) -> str:
    """Return the sum of a large file."""
    return hashlib.sha256(content).hexdigest()


def git_sum(content: bytes) -> str:
    """Return the sum of a small file, as git makes it."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


@contextmanager
def running(files: dict[str, bytes]) -> Generator[FakeHub]:
    """Run a hub with these files."""
    hub = FakeHub(files)

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        if hub.hang:
            hub.hang.set()
        server.shutdown()
        thread.join()
        server.server_close()


def point_to(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, home: Any) -> None:
    """Have this process use the hub, with a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0: a connection kept open would outlive its hub and answer for the next one on the same port.
    state: FakeHub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        hub, path = self.state, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
        if hub.hang:
            hub.hang.wait(30)
        if hub.status:
            return self._send(hub.status, {}, b"")
        if path == "/":
            return self._send(200, {}, b"a hub")
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        if not found:
            return self._send(404, {}, b"")
        repo, revision = found[1], found[2] or "main"
        if not any(name.startswith(f"{repo}/") for name in hub.files):
            return self._send(404, {"X-Error-Code": "RepoNotFound"}, b"")
        if revision not in {"main", "v1", COMMIT}:
            return self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401, {}, b"")
        if api:
            content = json.dumps(hub.listing(repo)).encode()
            return self._send(200, {"Content-Type": "application/json"}, content if body else b"")
        if repo in hub.gated:
            return self._send(403, {"X-Error-Code": "GatedRepo"}, b"")
        content = hub.files.get(f"{repo}/{found[3]}")
        if content is None:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
        self._file(content, body=body)

    def _file(self, content: bytes, *, body: bool) -> None:
        hub = self.state
        large = len(content) >= LARGE
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sum(content)}"'}
        if large:
            headers |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        sent, status, start = (bytes(reversed(content)) if hub.wrong else content), 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and hub.ranges:
            start, status = int(asked[1]), 206
            if start >= len(sent):
                return self._send(416, headers, b"")
            headers["Content-Range"] = f"bytes {start}-{len(sent) - 1}/{len(sent)}"
        rest = sent[start:]
        if body and hub.cut:
            most = hub.cut.pop(0)
            self._send(status, headers, rest[:most], length=len(rest))
            self.close_connection = True
            return
        self._send(status, headers, rest if body else b"", length=len(rest))

    def _send(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
