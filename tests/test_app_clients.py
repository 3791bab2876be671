"""The running app, driven by gradio_client: many people at once, and failures that leave it working."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from gradio_client import Client  # type: ignore[import-untyped]

from melbo.bank import VectorBank
from melbo.models import LoadedModel
from melbo.prompts import BOMB
from melbo.ui import build_demo, launch_options
from melbo.ui.context import BankShelf, Context, Limits
from melbo.ui.steer_handlers import compare
from melbo.ui.steer_settings import Settings

PEOPLE = 32
TOKENS = 6


@pytest.fixture(scope="module")
def url(tiny: LoadedModel, tiny_bank: VectorBank) -> Iterator[str]:
    demo = build_demo(tiny, tiny_bank, Limits(new_tokens=120))
    _, address, _ = demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


def alone(tiny: LoadedModel, bank: VectorBank, settings: Settings) -> tuple[str, str]:
    last = list(compare(Context(tiny, BankShelf(bank)), bank, BOMB, [], [], settings))[-1]
    return last.unsteered[-1]["content"], last.steered[-1]["content"]


def test_32_people_at_once_each_get_what_they_would_get_alone(
    url: str, client: Client, tiny: LoadedModel, tiny_bank: VectorBank
) -> None:
    wanted = [Settings(((i % 8, 1.0 + i // 8),), max_new_tokens=TOKENS) for i in range(PEOPLE)]
    expected = [alone(tiny, tiny_bank, settings) for settings in wanted]
    assert len({steered for _, steered in expected}) > 16
    visitors = [client, *(Client(url, verbose=False) for _ in range(7))]
    together = threading.Barrier(PEOPLE)

    def ask(i: int) -> Any:
        together.wait()
        (vector, scale), *_ = wanted[i].mix
        return visitors[i % 8].predict(BOMB, [vector], [scale], max_new_tokens=TOKENS, api_name="/chat")

    with ThreadPoolExecutor(PEOPLE) as pool:
        found = list(pool.map(ask, range(PEOPLE)))
    assert [tuple(pair) for pair in found] == expected


def test_every_action_is_named_typed_and_described(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/chat", "/token_changes", "/scale_strip", "/vectors", "/discover", "/r_sweep"}
    chat = {p["parameter_name"]: p for p in endpoints["/chat"]["parameters"]}
    assert chat["scales"]["parameter_default"] == [1.0] and chat["message"]["type"]["type"] == "string"
    assert [r["type"]["type"] for r in endpoints["/chat"]["returns"]] == ["string", "string"]
    for found in endpoints.values():
        described = found["description"]
        assert "Returns:" in described and all(r["type"].get("type") for r in found["returns"])
        for parameter in found["parameters"]:
            assert parameter["type"] and f"\n    {parameter['parameter_name']}: " in described


def test_the_actions_work_together(client: Client, tiny_bank: VectorBank) -> None:
    listed = client.predict(api_name="/vectors")
    assert [v["label"] for v in listed] == [f"{i} · mode {i}" for i in range(len(tiny_bank))]
    _, steered = client.predict(BOMB, [1], [-1.5], max_new_tokens=8, api_name="/chat")
    changes = client.predict(BOMB, steered, 1, -1.5, api_name="/token_changes")
    assert "".join(c["text"] for c in changes) == steered
    cards = client.predict(BOMB, 1, [-1.5, 0], api_name="/scale_strip")
    assert cards[0]["text"].startswith(steered) and cards[1]["kind"] == "unsteered"


def test_a_failing_request_is_one_line_and_leaves_the_app_working(client: Client) -> None:
    for arguments, said in (
        ([" "], "prompt is empty"), ([BOMB, [99]], "vector 99"), ([BOMB, [0], [99.0]], "scale is 99"),
    ):  # fmt: skip
        with pytest.raises(Exception, match=f"(?i){said}") as failed:
            client.predict(*arguments, api_name="/chat")
        assert "Traceback" not in str(failed.value)
    assert len(client.predict(BOMB, max_new_tokens=4, api_name="/chat")) == 2


def test_a_cancelled_request_frees_the_model(client: Client, tiny: LoadedModel) -> None:
    steps = 0

    def slow(*_: Any) -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.05)

    handle = tiny.model.register_forward_hook(slow)
    try:
        job = client.submit(BOMB, max_new_tokens=120, api_name="/chat")
        while not job.outputs():
            time.sleep(0.02)
        job.cancel()
        at = steps
        assert client.predict(BOMB, max_new_tokens=2, api_name="/chat")
    finally:
        handle.remove()
    assert steps - at < 25
