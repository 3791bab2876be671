"""The app as an MCP server (MELBO_MCP=1), driven by the mcp package's client over loopback."""

from __future__ import annotations

import ast
import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("mcp")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from melbo.app.context import BankCache, Context, Limits
from melbo.app.layout import build_demo
from melbo.app.tabs.steer.handlers import compare
from melbo.app.tabs.steer.settings import Settings
from melbo.app.theme import launch_options
from melbo.bank.vector_bank import VectorBank
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB

pytestmark = pytest.mark.server

ACTIONS = {"chat", "token_changes", "scale_strip", "vectors", "banks", "discover", "r_sweep"}


@pytest.fixture(scope="module")
def url(tiny: LoadedModel, tiny_bank: VectorBank) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELBO_MCP", "1")
        demo = build_demo(tiny, tiny_bank, Limits())
        _, address, _ = demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
        yield address
        demo.close()


def ask(url: str, talk: Callable[[ClientSession], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (reader, writer, _),
            ClientSession(reader, writer) as session,
        ):
            await session.initialize()
            return await talk(session)

    return asyncio.run(asyncio.wait_for(run(), 60))


def test_every_action_is_a_tool_with_typed_and_described_arguments(url: str) -> None:
    tools = {tool.name: tool for tool in ask(url, lambda session: session.list_tools()).tools}
    assert set(tools) >= ACTIONS
    for name, tool in tools.items():
        assert tool.description and "Returns:" in tool.description, name
        for argument, schema in tool.inputSchema["properties"].items():
            assert ("type" in schema or "enum" in schema) and schema["description"], (name, argument)
    chat = tools["chat"].inputSchema
    assert chat["required"] == ["message"] and chat["properties"]["scales"]["items"] == {"type": "number"}
    assert chat["properties"]["side"]["enum"] == ["vector", "random", "prompt"]


def test_the_tools_answer_as_the_app_does(url: str, tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    async def talk(session: ClientSession) -> list[Any]:
        wanted = {"message": BOMB, "vectors": [1], "scales": [-1.5], "max_new_tokens": 6}
        return [await session.call_tool("vectors", {}), await session.call_tool("chat", wanted),
                await session.call_tool("chat", wanted | {"vectors": [99]})]  # fmt: skip

    listed, answered, refused = ask(url, talk)
    assert [v["label"] for v in ast.literal_eval(listed.content[0].text)] == [f"{i} · mode {i}" for i in range(8)]
    settings = Settings(((1, -1.5),), max_new_tokens=6)
    last = list(compare(Context(tiny, BankCache(tiny_bank)), tiny_bank, BOMB, [], [], settings))[-1]
    expected = [last.unsteered[-1]["content"], last.steered[-1]["content"]]
    assert not answered.isError and ast.literal_eval(answered.content[0].text) == expected
    assert refused.isError and "ector 99 is not in this bank" in refused.content[0].text
    assert "Traceback" not in refused.content[0].text
