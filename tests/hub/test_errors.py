"""A Hub that cannot be reached: one clear line, and nothing secret in it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from melbo.bank.vector_bank import VectorBank
from melbo.errors import HubError
from melbo.hub.client import list_models
from melbo.hub.errors import endpoint, short
from melbo.publishing.publish import push_to_hub

TOKEN = "hf_abcdefghijklmnop"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Address of a Hub where nobody listens; this process's client, and its empty cache, use it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", f"http://someone:secret@{address}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        yield f"http://{address}"
        close_session()


@pytest.mark.parametrize(
    "request_it", [lambda bank: push_to_hub(bank, "user/bank", token=TOKEN), lambda _: list_models()]
)
def test_no_connection_is_told_with_what_to_check(
    unreachable: str, tiny_bank: VectorBank, request_it: Callable[[VectorBank], object]
) -> None:
    with pytest.raises(HubError) as caught:
        request_it(tiny_bank)
    said = str(caught.value)
    assert said.startswith(f"there is no connection to {unreachable} (") and "Connection refused" in said
    assert "check the network" in said and "HF_ENDPOINT" in said
    assert "secret" not in said and TOKEN not in said and "\n" not in said


def test_a_name_that_nobody_knows_is_no_connection(tiny_bank: VectorBank, unreachable: str) -> None:
    """What a machine without a network sees; ".invalid" is never given out (RFC 2606)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://hub.invalid")
        with pytest.raises(HubError, match=r"no connection to http://hub\.invalid \("):
            push_to_hub(tiny_bank, "user/bank", token=TOKEN)


def test_pushing_while_switched_off_says_so(
    unreachable: str, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set; unset it"):
        push_to_hub(tiny_bank, "user/bank", token=TOKEN)


def test_a_bank_that_is_not_in_the_cache_stays_its_own_error(unreachable: str) -> None:
    with pytest.raises(HubError, match="not complete in the cache") as caught:
        VectorBank.from_pretrained("user/bank", token=TOKEN)
    assert unreachable in str(caught.value) and "secret" not in str(caught.value)


def test_addresses_and_errors_lose_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"https://user:{TOKEN}@hub.example:8443/base")
    assert endpoint() == "https://hub.example:8443/base"
    assert (
        short(ValueError(f"400 for https://a:b@hub.example/x with {TOKEN}"))
        == "400 for https://***@hub.example/x with ***"
    )
