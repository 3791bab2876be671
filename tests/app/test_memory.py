"""Memory stays flat: many requests of all kinds, failing ones too, leave nothing behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
from gradio_client import Client  # type: ignore[import-untyped]

from melbo.app.context import BankCache, Limits
from melbo.app.layout import build_demo
from melbo.app.theme import SESSIONS, launch_options
from melbo.bank.vector_bank import VectorBank
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB
from support.tiny import hook_count

pytestmark = pytest.mark.server

ROUNDS = 3
"""Of ten requests each, after as many that warm up."""


@dataclass(frozen=True)
class Held:
    """What the process holds."""

    tensors: int
    bytes: int
    waiting: int
    """Events, messages and iterators that gradio keeps."""
    files: int
    resident: int
    """Bytes of memory that the system counts; 0 where it is no Linux."""


@pytest.fixture(scope="module")
def demo(tiny: LoadedModel, tiny_bank: VectorBank, tmp_path_factory: pytest.TempPathFactory) -> Iterator[gr.Blocks]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        found = build_demo(tiny, tiny_bank, Limits(new_tokens=8))
        found.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
        yield found
        found.close()


def held(demo: gr.Blocks) -> Held:
    gc.collect()
    tensors = [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter)]
    queue: Any = demo._queue
    waiting = len(queue.event_ids_to_events) + len(queue) + len(demo.app.iterators)
    waiting += sum(len(ids) for ids in queue.pending_event_ids_session.values())
    size = sum(t.numel() * t.element_size() for t in tensors)
    files = sum(1 for _ in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"))
    pages = Path("/proc/self/statm")
    resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0
    return Held(len(tensors), size, waiting, files, resident)


def round_of(client: Client, number: int) -> int:
    """Ten requests; how many failed, as three should."""
    kinds: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("/chat", [BOMB, [number % 8], [1.0]], {"max_new_tokens": 3, "seed": number, "temperature": 1.0}),
        ("/chat", [f"Question {number}", [0, 1], [1.0, -1.0]], {"max_new_tokens": 3, "side": "random"}),
        ("/chat", [" "], {}),
        ("/chat", [BOMB, [99]], {}),
        ("/token_changes", [BOMB, f"answer {number}", number % 8], {}),
        ("/scale_strip", [f"Question {number}", number % 8, [-1.0, 1.0]], {}),
        ("/scale_strip", [BOMB, 0, [99.0]], {}),
        ("/vectors", [], {}),
        ("/discover", [BOMB, "random", 3], {}),
        ("/discover", [BOMB, "melbo", 2, 1], {"source_layer": 1, "target_layer": 2}),
    ]
    failed = 0
    for name, arguments, named in kinds:
        try:
            client.predict(*arguments, **named, api_name=name)
        except Exception:  # gradio_client has no common base
            failed += 1
    return failed


@pytest.mark.slow
def test_many_requests_leave_nothing_behind(demo: gr.Blocks, tiny: LoadedModel) -> None:
    client = Client(demo.local_url, verbose=False)
    assert [round_of(client, i) for i in range(ROUNDS)] == [3] * ROUNDS
    before = held(demo)
    assert [round_of(client, i) for i in range(ROUNDS)] == [3] * ROUNDS
    after = held(demo)
    assert after.tensors <= before.tensors + 4 and after.bytes <= before.bytes + 4_096, (before, after)
    assert after.files <= before.files and after.waiting <= before.waiting == 0, (before, after)
    assert after.resident - before.resident < 20 * 2**20, (before, after)
    assert hook_count(tiny) == 0


def test_banks_of_visitors_do_not_pile_up(tiny_bank: VectorBank) -> None:
    cache = BankCache(tiny_bank, Limits(banks=5))
    for i in range(150):
        cache.put(tiny_bank.select([i % 8]))
    gc.collect()
    alive = [x for x in gc.get_objects() if type(x) is VectorBank and len(x) == 1]
    assert len(cache) == 5 and len(alive) == 5


@pytest.mark.slow
def test_visitors_beyond_the_limit_push_out_those_seen_longest_ago(
    demo: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = demo.app.state_holder
    assert kept.capacity == SESSIONS
    monkeypatch.setattr(kept, "capacity", 12)
    for number in range(20):
        kept[f"visitor-{number}"]
    assert len(kept.session_data) == 12
    assert "visitor-0" not in kept and "visitor-19" in kept
