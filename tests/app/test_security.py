"""The app as it is started by hand: what it must not tell, serve or take."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_dummy" + "a1B2c3D4e5F6g7H8" * 2
PATIENCE = 120


@dataclass(frozen=True)
class App:
    """The running app."""

    http: httpx.Client
    log: IO[bytes]

    def printed(self) -> str:
        """All that it wrote to the terminal."""
        return os.pread(self.log.fileno(), 1_000_000, 0).decode()

    def arguments(self, name: str, **given: object) -> list[object]:
        """All arguments of an action of the public API, with its own defaults."""
        found = self.http.get("/gradio_api/info").json()["named_endpoints"][f"/{name}"]["parameters"]
        return [given.get(p["parameter_name"], p.get("parameter_default")) for p in found]

    def call(self, name: str, **given: object) -> str:
        """Every line that a call of the public API answers."""
        joined = self.http.post(f"/gradio_api/call/{name}", json={"data": self.arguments(name, **given)})
        return self.http.get(f"/gradio_api/call/{name}/{joined.json()['event_id']}").text


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port), "HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN, "OMP_NUM_THREADS": "1",
        "MELBO_MODEL": "organism",
    }  # fmt: skip
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http:
                end = time.monotonic() + PATIENCE
                while True:
                    try:
                        http.get("/").raise_for_status()
                        break
                    except httpx.TransportError:
                        assert process.poll() is None and time.monotonic() < end
                        time.sleep(0.1)
                yield App(http, log)
        finally:
            process.terminate()
            process.wait()


def messages(app: App, session: str) -> list[dict[str, Any]]:
    """What the server tells those who ask for a session's messages; it breaks the line after a refusal."""
    lines: list[str] = []
    with (
        contextlib.suppress(httpx.RemoteProtocolError),
        app.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream,
    ):
        for line in stream.iter_lines():
            lines.append(line)
    return [json.loads(line[5:]) for line in lines if line.startswith("data:")]


@pytest.mark.slow
def test_the_token_is_told_nowhere(app: App) -> None:
    told = [
        app.http.get(p).text for p in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/theme.css")
    ]
    assert all(len(text) > 100 for text in told)
    told.append(app.call("chat", message="Hi", max_new_tokens=4))
    failed = app.call("chat", message="Hi", vectors=[9_999])
    assert "9999" in failed
    told += [failed, app.call("discover", prompts="", method="melbo"), app.printed()]
    assert not [text for text in told if TOKEN in text or TOKEN[:16] in text]
    assert "Traceback" not in "".join(told)


def test_there_is_no_monitoring_no_run_history_and_no_way_past_the_queue(app: App) -> None:
    for path in (
        "/monitoring",
        "/monitoring/summary",
        "/monitoring/x",
        "/monitoring/x/dashboard",
        "/gradio_api/monitoring",
    ):
        found = app.http.get(path)
        assert found.status_code in (403, 404) and "session_hash" not in found.text, path
    for path in ("/gradio_api/run-history/buckets", "/gradio_api/run-history/records", "/gradio_api/profiling/traces"):
        assert app.http.get(path).status_code == 404, path
    assert "runs" not in app.http.get("/config").json().get("footer_links", [])
    assert app.http.post("/gradio_api/run/chat", json={"data": ["Hi"]}).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "app.py", "docs/log.md", "/etc/passwd", str(ROOT / "app.py"), str(ROOT / "vectors/organism-bomb/config.json"),
        "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "file:///etc/passwd",
        "vectors/../app.py", "/proc/self/environ", "~/.bashrc", "http://127.0.0.1/", "/tmp/../etc/passwd",
    ],
)  # fmt: skip
def test_no_file_of_the_machine_is_served(app: App, path: str) -> None:
    for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/", "/svelte/"):
        found = app.http.get(route + path)
        assert found.status_code in (400, 403, 404, 422) and "root:" not in found.text, (route, found.status_code)


def test_uploads_are_bounded_in_size_and_type(app: App) -> None:
    large = app.http.post("/gradio_api/upload", files={"files": ("bank.zip", b"x" * (9 * 2**20))})
    assert large.status_code == 413
    places = app.http.post("/gradio_api/upload", files={"files": ("../../x.zip", b"no zip")}).json()
    assert len(places) == 1 and ".." not in places[0]
    config = app.http.get("/config").json()
    files = [c for c in config["components"] if c["type"] in ("file", "uploadbutton")]
    assert files and all(c["props"]["file_types"] for c in files)
    for component in files:
        (event,) = [d for d in config["dependencies"] if component["id"] in d["inputs"]][:1]
        for ending, taken in ((component["props"]["file_types"][0], True), (".exe", False)):
            (place,) = app.http.post("/gradio_api/upload", files={"files": ("x" + ending, b"text")}).json()
            sent = {"path": place, "orig_name": "x" + ending, "meta": {"_type": "gradio.FileData"}}
            data = [sent if i == component["id"] else None for i in event["inputs"]]
            session = secrets.token_hex(6)
            body = {"data": data, "fn_index": event["id"], "session_hash": session}
            app.http.post("/gradio_api/queue/join", json=body).raise_for_status()
            done = [m for m in messages(app, session) if m["msg"] == "process_completed"]
            assert done[0]["success"] is taken, (ending, done)


def test_what_one_visitor_asks_no_other_can_read(app: App) -> None:
    secret, session = f"kites {secrets.token_hex(8)}", secrets.token_hex(6)
    dependencies = app.http.get("/config").json()["dependencies"]
    (number,) = [d["id"] for d in dependencies if d["api_name"] == "chat"]
    body = {
        "data": app.arguments("chat", message=secret, max_new_tokens=4),
        "fn_index": number,
        "session_hash": session,
    }
    event = app.http.post("/gradio_api/queue/join", json=body).json()["event_id"]
    for other in ("", "x", session[:-1], event, "*"):
        lines = messages(app, other)
        assert [line.get("msg") for line in lines] == ["unexpected_error"] and "404" in lines[0]["message"], lines
    own = messages(app, session)
    assert own[-2]["msg"] == "process_completed" and own[-2]["success"], own
    assert secret not in app.printed() and session not in app.http.get("/gradio_api/queue/status").text
