"""The running app, driven by gradio_client: many people at once, and failures that leave it working."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch
from torch import Tensor

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from gradio_client import Client  # type: ignore[import-untyped]
from gradio_client.client import Job
from gradio_client.utils import Status

from melbo.app.choices import example_prompts
from melbo.app.context import BankCache, Context, Limits
from melbo.app.jobs.waiting import PLACES
from melbo.app.layout import build_demo
from melbo.app.tabs.discover.handlers import defaults
from melbo.app.tabs.steer.handlers import compare
from melbo.app.tabs.steer.settings import Settings
from melbo.app.tabs.sweep.handlers import sweep_steps
from melbo.app.theme import launch_options
from melbo.bank.vector_bank import VectorBank
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB
from support.tiny import hook_count

pytestmark = pytest.mark.server

PEOPLE = 32
TOKENS = 6


class Letters:
    """Embeds texts by how often letters come; the real embedder takes seconds to load."""

    name = "letters"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = torch.tensor([[text.count(chr(97 + i)) + 0.1 for i in range(26)] for text in texts])
        return torch.nn.functional.normalize(rows, dim=1)


@pytest.fixture(scope="module")
def url(tiny: LoadedModel, tiny_bank: VectorBank) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melbo.radius_sweep.sweep.calibrate_coherence", lambda _loaded: CoherenceScale(1.0, 9.0, "fixed"))
        patch.setattr("melbo.app.tabs.sweep.api.sweep_steps", lambda c, b, r: sweep_steps(c, b, r, Letters))
        demo = build_demo(tiny, tiny_bank, Limits(new_tokens=120))
        _, address, _ = demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
        yield address
        demo.close()


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


def alone(tiny: LoadedModel, bank: VectorBank, settings: Settings) -> tuple[str, str]:
    last = list(compare(Context(tiny, BankCache(bank)), bank, BOMB, [], [], settings))[-1]
    return last.unsteered[-1]["content"], last.steered[-1]["content"]


@pytest.mark.slow
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


def test_every_action_is_named_typed_and_described(client: Client, tiny_bank: VectorBank) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {
        "/chat", "/token_changes", "/scale_strip", "/vectors", "/banks", "/discover", "/r_sweep", "/token_activations",
        "/geometry", "/sae_features", "/logit_lens", "/describe_vector", "/activating_passages",
    }  # fmt: skip
    chat = {p["parameter_name"]: p for p in endpoints["/chat"]["parameters"]}
    assert chat["scales"]["parameter_default"] == [1.0] and chat["message"]["type"]["type"] == "string"
    assert [r["type"]["type"] for r in endpoints["/chat"]["returns"]] == ["string", "string"]
    usual = {p["parameter_name"]: p["parameter_default"] for p in endpoints["/discover"]["parameters"]}
    own = defaults(tiny_bank, Limits())
    assert (usual["radius"], usual["source_layer"], usual["system"]) == (own.radius, own.source, own.system)
    assert usual["prompts"] == example_prompts(tiny_bank)[0]
    assert endpoints["/r_sweep"]["parameters"][0]["parameter_default"] == usual["prompts"]
    for found in endpoints.values():
        described = found["description"]
        assert "Returns:" in described and all(r["type"].get("type") for r in found["returns"])
        for parameter in found["parameters"]:
            assert parameter["type"] and f"\n    {parameter['parameter_name']}: " in described


@pytest.mark.slow
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


@contextlib.contextmanager
def slowed(tiny: LoadedModel) -> Iterator[list[float]]:
    """Each pass of one block takes longer; yields when they ran. Discovery runs blocks without the model."""
    passes: list[float] = []

    def slow(*_: Any) -> None:
        passes.append(time.monotonic())
        time.sleep(0.02)

    handle = tiny.blocks[2].register_forward_hook(slow)
    try:
        yield passes
    finally:
        handle.remove()


LONG: dict[str, dict[str, Any]] = {
    "chat": {"message": BOMB, "max_new_tokens": 120},
    "scale_strip": {"message": BOMB, "scales": [-2.0, -1.0, 1.0, 2.0]},
    "r_sweep": {"prompt": BOMB, "radii": "0.3:2:0.1", "vectors": 4, "steps": 1_900},
    "discover": {"prompts": BOMB, "vectors": 4, "steps": 1_900, "source_layer": 1, "target_layer": 2},
}


def leave(url: str, client: Client, name: str) -> None:
    """Ask, and be gone once there is a first sign of an answer, as a page that is closed."""
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"][f"/{name}"]["parameters"]
    data = [LONG[name].get(p["parameter_name"], p.get("parameter_default")) for p in info]
    (number,) = [d["id"] for d in client.config["dependencies"] if d["api_name"] == name]
    body = {"data": data, "fn_index": number, "session_hash": secrets.token_hex(6)}
    with httpx.Client(base_url=url, timeout=60) as http:
        http.post("gradio_api/queue/join", json=body).raise_for_status()
        params = {"session_hash": body["session_hash"]}
        with http.stream("GET", "gradio_api/queue/data", params=params) as stream:
            next(line for line in stream.iter_lines() if "process_generating" in line)


@pytest.mark.parametrize("name", list(LONG))
@pytest.mark.parametrize("how", ["cancelled", "vanished"])
def test_who_leaves_frees_the_model(url: str, client: Client, tiny: LoadedModel, name: str, how: str) -> None:
    """Each goes on for hundreds of passes where nobody leaves."""
    with slowed(tiny) as passes:
        if how == "vanished":
            leave(url, client, name)
        else:
            job = client.submit(**LONG[name], api_name=f"/{name}")
            next(iter(job))
            job.cancel()
        at = len(passes)
        assert client.predict(BOMB, max_new_tokens=2, api_name="/chat")
    assert len(passes) - at < 60
    assert hook_count(tiny) == 0


@pytest.mark.slow
def test_those_who_wait_are_told_their_place_as_it_moves(url: str, client: Client, tiny: LoadedModel) -> None:
    others = [Client(url, verbose=False) for _ in range(2)]
    with slowed(tiny):
        first = client.submit(BOMB, max_new_tokens=100, api_name="/chat")
        next(iter(first))
        waiting = [other.submit(BOMB, max_new_tokens=60, api_name="/chat") for other in others]
        seen: list[list[int]] = [[], []]
        while not all(job.done() for job in waiting):
            for job, ranks in zip(waiting, seen, strict=True):
                status = job.status()
                if status.code is Status.IN_QUEUE and status.rank is not None and ranks[-1:] != [status.rank]:
                    ranks.append(status.rank)
            time.sleep(0.01)
    assert seen in ([[0], [1, 0]], [[0], [0, 1, 0]], [[1, 0], [0]])


@pytest.mark.slow
def test_nobody_can_hold_many_places(url: str, client: Client, tiny: LoadedModel) -> None:
    other = Client(url, verbose=False)
    with slowed(tiny):
        running = client.submit(BOMB, max_new_tokens=120, api_name="/chat")
        next(iter(running))
        mine = [client.submit(BOMB, max_new_tokens=1, api_name="/chat") for _ in range(PLACES + 3)]
        refused = [job for job in mine if _refused(job)]
        theirs = other.submit(BOMB, max_new_tokens=1, api_name="/chat")
        running.cancel()
        assert len(refused) == 3 and theirs.result() and all(job.result() for job in mine if job not in refused)


def _refused(job: Job) -> bool:
    """Whether a request was turned away, once that is known."""
    while True:
        status = job.status()
        if status.code is Status.IN_QUEUE:
            return False
        if job.done():
            assert "waiting already" in job.exception().response.text
            return True
        time.sleep(0.01)


def test_the_queue_cannot_be_gone_round(url: str) -> None:
    assert httpx.post(f"{url}gradio_api/run/chat", json={"data": [BOMB]}).status_code == 404
