"""Pushing from a Space: with the visitor's own token only, which is kept and told nowhere."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("authlib")
pytest.importorskip("itsdangerous")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import httpx
from gradio import oauth
from itsdangerous import TimestampSigner

from melbo.app.context import BankCache, Context
from melbo.app.layout import build_demo
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.actions import BankActions
from melbo.app.theme import launch_options
from melbo.bank.vector_bank import VectorBank
from melbo.errors import HubError
from melbo.models.load import LoadedModel
from support.loopback_hub import LoopbackHub, _Handler

pytestmark = pytest.mark.server


ROOT = Path(__file__).resolve().parents[2]
SPACE = {
    "SYSTEM": "spaces", "SPACE_ID": "me/space", "OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "hush",
    "OAUTH_SCOPES": "openid profile write-repos", "OPENID_PROVIDER_URL": "https://hub.invalid",
    "GRADIO_ANALYTICS_ENABLED": "False",
}  # fmt: skip
SPACES_TOKEN = "reader"
"""The Space's own; it may read what is private, but not write."""


def set_environment(patch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    """Gradio has read some of it when it was imported."""
    for name, value in values.items():
        patch.setenv(name, value)
        if hasattr(oauth, name):
            patch.setattr(oauth, name, value)


@pytest.fixture
def sent(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tokens that reach the Hub."""
    seen: list[str] = []
    route = _Handler._route

    def noted(self: _Handler) -> None:
        seen.append(self.token)
        route(self)

    monkeypatch.setattr(_Handler, "_route", noted)
    monkeypatch.setenv("HF_TOKEN", SPACES_TOKEN)
    return seen


@pytest.fixture
def act(tiny: LoadedModel, tiny_bank: VectorBank) -> BankActions:
    return BankActions(TabContext(Context(tiny, BankCache(tiny_bank)), None, None, None))  # type: ignore[arg-type]


def test_only_the_visitors_token_pushes(hub: LoopbackHub, sent: list[str], act: BankActions) -> None:
    shown = act.push_as("default", "visitor/bank", True, gr.OAuthToken("writer", "write-repos", 2**40))
    assert set(sent) <= {"writer", ""} and hub.repos["visitor/bank"].private
    assert "writer" not in shown and "visitor/bank" in shown
    sent.clear()
    with pytest.raises(HubError, match="log in first"):
        act.push_as("default", "visitor/bank", True, None)
    assert sent == []


def test_a_refused_token_is_in_no_message_and_no_log(
    hub: LoopbackHub, sent: list[str], act: BankActions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for token in ("hf_abcdefghijklmnop", "another-secret"):
        with pytest.raises(HubError) as failed:
            act.push_as("default", "visitor/bank", False, gr.OAuthToken(token, "", 2**40))
        assert token not in str(failed.value) and token not in repr(failed.value)
    assert set(sent) <= {"hf_abcdefghijklmnop", "another-secret", ""} and "visitor/bank" not in hub.repos
    assert "hf_abcdef" not in caplog.text and "another-secret" not in caplog.text


@pytest.mark.parametrize(
    ("environment", "buttons", "pushes"),
    [(SPACE, 1, 1), ({"SPACE_ID": "me/space"}, 0, 0), ({"OAUTH_CLIENT_ID": "id"}, 0, 1), ({}, 0, 1)],
    ids=["Space with login", "Space without", "here with OAUTH_CLIENT_ID", "here"],
)
def test_the_login_button_is_on_a_space_with_oauth_only(
    tiny: LoadedModel, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str],
    buttons: int, pushes: int,
) -> None:  # fmt: skip
    for name in SPACE:
        monkeypatch.delenv(name, raising=False)
    set_environment(monkeypatch, environment)
    demo = build_demo(tiny, tiny_bank)
    blocks = list(demo.blocks.values())
    assert len([b for b in blocks if isinstance(b, gr.LoginButton)]) == buttons
    assert len([b for b in blocks if getattr(b, "elem_id", None) == "bank-push"]) == pushes


@pytest.fixture
def space(tiny: LoadedModel, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch) -> Iterator[gr.Blocks]:
    """The app as on a Space with logins, running."""
    set_environment(monkeypatch, SPACE)
    demo = build_demo(tiny, tiny_bank)
    demo.launch(**launch_options(), server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield demo
    demo.close()


def logged_in(token: str) -> dict[str, str]:
    """The cookie that gradio sets after a login."""
    info = {"access_token": token, "scope": "", "expires_at": int(time.time()) + 600, "userinfo": {}}
    key = hashlib.sha256(f"{SPACE['OAUTH_CLIENT_SECRET']}-v4".encode()).hexdigest()
    signed = TimestampSigner(key).sign(b64encode(json.dumps({"oauth_info": info}).encode()))
    return {"Cookie": f"session={signed.decode()}"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # gradio asks for `spaces` there
def test_each_visitor_pushes_as_who_they_are(space: gr.Blocks, hub: LoopbackHub, sent: list[str]) -> None:
    button = next(b for b in space.blocks.values() if getattr(b, "elem_id", None) == "bank-push")
    press = next(i for i, fn in space.fns.items() if (button._id, "click") in fn.targets)
    assert space.local_url is not None

    def push(headers: dict[str, str], repo: str) -> str:
        """What the browser does when the button is pressed; what the page is told."""
        api, asked = f"{space.local_url}gradio_api/queue", {"session_hash": repo.replace("/", "")}
        job = {"data": [None, repo, True], "fn_index": press, "trigger_id": button._id} | asked
        with httpx.Client(headers=headers, timeout=30, trust_env=False) as browser:
            browser.post(f"{api}/join", json=job).raise_for_status()
            with browser.stream("GET", f"{api}/data", params=asked) as told:
                return next(line for line in told.iter_lines() if "process_completed" in line)

    assert "Log in first" in push({}, "nobody/bank") and sent == []
    assert "visitor/bank" in push(logged_in("writer"), "visitor/bank") and set(sent) <= {"writer", ""}
    assert hub.repos["visitor/bank"].private
    sent.clear()
    refused = push(logged_in("another-secret"), "visitor/other")
    assert set(sent) <= {"another-secret", ""} and "another-secret" not in refused and "visitor/other" not in hub.repos
    held = httpx.get(f"{space.local_url}config").text
    assert "writer" not in held and "hush" not in held


OUTSIDE = """import os, socket
connect, look = socket.socket.connect, socket.getaddrinfo
def note(what):
    with open(os.environ["OUTSIDE"], "a") as file:
        file.write(f"{what}\\n")
def checked_connect(self, address):
    if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1", "0.0.0.0", "localhost")):
        note(address)
    return connect(self, address)
def checked_look(host, *rest, **named):
    if host and not str(host).startswith(("127.", "::1", "0.0.0.0", "localhost")):
        note(host)
    return look(host, *rest, **named)
socket.socket.connect, socket.getaddrinfo = checked_connect, checked_look
"""
"""As sitecustomize: notes every connection and look-up that leaves this machine."""


@pytest.mark.slow
def test_the_app_starts_on_a_space_without_asking_anybody(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(OUTSIDE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MELBO_", "HF_"))} | SPACE
    environment |= {
        "PYTHONPATH": str(tmp_path), "OUTSIDE": str(tmp_path / "outside"), "GRADIO_SERVER_PORT": str(port),
        "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_spaces_own_token", "NO_PROXY": "127.0.0.1",
        "MELBO_MODEL": "organism",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py")], env=environment, cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        config = wait_for(f"http://127.0.0.1:{port}/config", process)
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=20)
    labels = [part["props"].get("value") for part in config["components"]]
    assert (
        labels.count("Sign in with Hugging Face") == 1
        and "hf_spaces" not in json.dumps(config)
        and "hf_spaces" not in said
    )
    assert not (tmp_path / "outside").exists(), (tmp_path / "outside").read_text()


def wait_for(address: str, process: subprocess.Popen[str], patience: float = 120) -> Any:
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        try:
            return httpx.get(address, trust_env=False).json()
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("the app did not start")
