"""Shared by tests: SCORES, Server, server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from melbo.bank.annotation import LlmScores

GOOD = '{"coherence": 8, "difference": 3, "refusal": 1}'


SCORES = LlmScores(8, 3, 1)


Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def reply(status: int = 200, body: Any = None, **headers: str) -> Reply:
    """Answer with a status and a body: bytes as they are, else JSON."""

    def send(handler: BaseHTTPRequestHandler, _request: dict[str, Any]) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return send


def says(text: str, tokens: int = 50) -> Reply:
    """A chat completion."""
    return reply(body={"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}})


class Server:
    """Gives its replies in turn, the last one for ever."""

    def __init__(self) -> None:
        self.replies: list[Reply] = [says(GOOD)]
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append(body | {"path": self.path})
                outer.keys.append(self.headers.get("Authorization"))
                outer.replies[min(len(outer.seen), len(outer.replies)) - 1](self, body)

            def log_message(self, *_: Any) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()
