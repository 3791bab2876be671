"""A small Hub on this machine: the endpoints that huggingface_hub's client uses, with faults on request.

Repositories live in memory; a commit is a dict of files. `Fault`s are taken in order, by method and part of the path.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Fault:
    """An answer that goes wrong, `times` times."""

    method: str
    part: str
    """Part of the path that it applies to."""
    status: int = 0
    """Answer with this status; 0: answer, but wrongly."""
    keep: int | None = None
    """Send only so many bytes of the body, then cut the connection."""
    extra: bytes = b""
    """Send these bytes more than announced before."""
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass
class Repo:
    """A repository: branches, and every commit's files."""

    kind: str
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    tags: tuple[str, ...] = ()

    def commit(self, files: Files, branch: str = "main") -> str:
        """A new commit; its name."""
        parent = self.branches.get(branch)
        digest = hashlib.sha1(repr((parent, sorted(files.items()), branch)).encode()).hexdigest()
        self.commits[digest], self.parents[digest], self.branches[branch] = files, parent, digest
        return digest

    def find(self, revision: str) -> str | None:
        """The commit of a branch or commit name."""
        revision = unquote(revision)
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class LoopbackHub(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1. Tokens: "writer" may do all, "reader" sees private repositories."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.pull_requests = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Endpoint for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repo: str, branch: str = "main") -> Files:
        """What the branch holds now."""
        held = self.repos[repo]
        return held.commits[held.branches[branch]]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The next fault for this request."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.part in path:
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


@contextmanager
def running_hub() -> Iterator[LoopbackHub]:
    """A Hub in a thread; stopped at the end."""
    hub = LoopbackHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, else each answer waits 40 ms for an acknowledgement
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path, query = url.path, parse_qs(url.query)
        self.server.requests.append(f"{self.command} {path}")
        self.fault = self.server.take_fault(self.command, path)
        if self.fault is not None and self.fault.status:
            self._send(self.fault.status, {"error": "as asked"}, self.fault.headers)
            return
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                answer(self, match.groupdict(), query, body)
                return
        self._send(404, {"error": "no such endpoint"})

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _repo(self, name: str, write: bool = False) -> Repo | None:
        """The repository, if the token opens it; else an answer is sent."""
        repo = self.server.repos.get(unquote(name))
        if self.token and self.token not in ("reader", "writer"):
            self._send(401, {"error": "Invalid credentials"}, {"X-Error-Message": "Invalid credentials"})
        elif repo is None or (repo.private and not self.token):
            self._send(401 if not self.token else 404, {"error": "none"}, {"X-Error-Code": "RepoNotFound"})
        elif write and self.token != "writer":
            self._send(403, {"error": "you may not write here"})
        else:
            return repo
        return None

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.find(revision)
        if commit is None:
            self._send(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def create(self, _match: dict[str, str], _query: Any, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if self.token != "writer":
            self._send(401 if not self.token else 403, {"error": "you may not create this"})
        elif name in self.server.repos:
            self._send(409, {"error": "exists", "url": f"{self.server.url}/{name}"})
        else:
            repo = self.server.repos[name] = Repo(asked.get("type", "model"), asked.get("visibility") == "private")
            repo.commit({".gitattributes": b""})
            self._send(200, {"url": f"{self.server.url}/{name}"})

    def branch(self, match: dict[str, str], _query: Any, _body: bytes) -> None:
        if repo := self._repo(match["repo"], write=True):
            name = unquote(match["rev"])
            if name in repo.branches:
                self._send(409, {"error": "exists"})
            else:
                repo.branches[name] = repo.branches["main"]
                self._send(200, {})

    def info(self, match: dict[str, str], _query: Any, _body: bytes) -> None:
        if (repo := self._repo(match["repo"])) and (commit := self._commit(repo, match.get("rev") or "main")):
            siblings = [{"rfilename": name} for name in repo.commits[commit]]
            self._send(200, {"id": match["repo"], "sha": commit, "private": repo.private, "siblings": siblings})

    def tree(self, match: dict[str, str], _query: Any, _body: bytes) -> None:
        if (repo := self._repo(match["repo"])) and (commit := self._commit(repo, match["rev"])):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
                for name, data in repo.commits[commit].items()
            ]
            self._send(200, rows)

    def resolve(self, match: dict[str, str], _query: Any, _body: bytes) -> None:
        if not (repo := self._repo(match["repo"])) or not (commit := self._commit(repo, match["rev"])):
            return
        data = repo.commits[commit].get(unquote(match["file"]))
        if data is None:
            self._send(404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(data)}"', "Accept-Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start:
            first = int(start[1])
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            self._send_bytes(206, data[first:], headers)
        else:
            self._send_bytes(200, data, headers)

    def preupload(self, match: dict[str, str], _query: Any, body: bytes) -> None:
        if self._repo(match["repo"], write=True):
            asked = json.loads(body)["files"]
            rows = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
            self._send(200, {"files": rows})

    def commit(self, match: dict[str, str], query: Any, body: bytes) -> None:
        if not (repo := self._repo(match["repo"], write=True)):
            return
        branch = unquote(match["rev"])
        files = dict(repo.commits[repo.branches[branch]])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                files.pop(entry["value"]["path"], None)
        answer = {}
        if query.get("create_pr") == ["1"]:
            self.server.pull_requests += 1
            branch = f"refs/pr/{self.server.pull_requests}"
            repo.branches[branch] = repo.branches["main"]
            answer["pullRequestUrl"] = f"{self.server.url}/{match['repo']}/discussions/{self.server.pull_requests}"
        oid = repo.commit(files, branch)
        url = f"{self.server.url}/{match['repo']}/commit/{oid}"
        self._send(200, {"success": True, "commitOid": oid, "commitUrl": url, **answer})

    def models(self, _match: dict[str, str], query: Any, _body: bytes) -> None:
        wanted = query.get("filter", [])
        rows = [
            {"id": name, "sha": repo.branches["main"], "private": repo.private, "tags": list(repo.tags), "downloads": 3}
            for name, repo in self.server.repos.items()
            if repo.kind == "model" and set(wanted) <= set(repo.tags) and (self.token or not repo.private)
        ]
        self._send(200, rows)

    def valid(self, _match: dict[str, str], _query: Any, _body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._send_bytes(status, data, {"Content-Type": "application/json", **(headers or {})})

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        fault = self.fault
        sent = data + (fault.extra if fault and not fault.status else b"")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.keep is not None:
            self.wfile.write(sent[: fault.keep])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(sent)


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


_API = r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[[_Handler, dict[str, str], Any, bytes], None]]] = [
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.valid),
    (r"GET /api/models", _Handler.models),
    (rf"POST {_API}/branch/(?P<rev>[^/]+)", _Handler.branch),
    (rf"POST {_API}/preupload/(?P<rev>[^/]+)", _Handler.preupload),
    (rf"POST {_API}/commit/(?P<rev>[^/]+)", _Handler.commit),
    (rf"GET {_API}/tree/(?P<rev>[^/]+)", _Handler.tree),
    (rf"GET {_API}(?:/revision/(?P<rev>[^/]+))?", _Handler.info),
    (r"(?:GET|HEAD) /(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<file>.+)", _Handler.resolve),
]
