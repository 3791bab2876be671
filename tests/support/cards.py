"""Shared by tests: body, html, nasty_bank."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from melbo.bank.vector_bank import VectorBank
from support.banks import noted


def html(text: str) -> str:
    """What a Markdown renderer that lets HTML through makes of it."""
    return MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)


def body(card: str) -> str:
    return ModelCard(card).text


def nasty_bank(bank: VectorBank, text: str) -> VectorBank:
    example = {"prompt": text, "text": text, "unsteered": text, "scale": 1.0}
    note: dict[str, Any] = {"label": text, "note": text, "tags": [text], "examples": [example], "scale": text}
    return replace(
        noted(bank, *[note] * len(bank)),
        prompts=(({"role": text, "content": text},),),
        base_model=replace(bank.base_model, id=text, revision=text),
        versions={text: text},
        created=text,
        details={"selected_from": {"bank": text, "revision": text, "indices": [text, 1]}, "merged_from": [text, {}]},
    )
