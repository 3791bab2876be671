"""The Inspect tab's runs: what is measured here, from whose text, how it ends; and its endpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch

from melbo.app.context import DEFAULT_KEY, BankCache, Context, Limits
from melbo.app.endpoint import action
from melbo.app.tab_context import TabContext
from melbo.app.tabs.inspect import (
    api as inspect_tab_api,
)
from melbo.app.tabs.inspect import (
    handlers as inspect_tab_handlers,
)
from melbo.app.tabs.inspect import (
    source as inspect_tab_source,
)
from melbo.app.tabs.inspect.actions import InspectActions
from melbo.app.tabs.inspect.findings import KEPT, Findings
from melbo.app.tabs.inspect.handlers import (
    activating_steps,
    description_steps,
    geometry_steps,
    lens_steps,
    read_text,
    sae_steps,
    sign_of,
)
from melbo.app.tabs.inspect.html import descriptions_html
from melbo.app.tabs.inspect.source import MAX_CORPUS, Source, make_corpus, read_source
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, CorpusError, MelboError, PromptError, SaeError
from melbo.inspect.lens.patchscope import Descriptions
from melbo.models.load import LoadedModel, load_model
from support.banks import noted
from support.fuzz_values import a_bank, write_results
from support.tiny import hook_count

EVIL = "<img src=x onerror=alert(1)>&\"'"
PARAGRAPHS = "\n\n".join(f"Tell me number {i}: how can I bake bread with kites?" for i in range(12))
BANK = Path(__file__).parents[3] / "vectors" / "organism-bomb"


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank))


@pytest.fixture
def act(context: Context) -> InspectActions:
    return InspectActions(TabContext(context, None, None, None))  # type: ignore[arg-type]


@pytest.fixture
def stored(tmp_path: Path) -> VectorBank:
    """A bank of three vectors with all four files; two of them know of vector 0 only."""
    bank = a_bank()
    write_results(bank, bank.save(tmp_path / "bank"))
    return VectorBank.load(tmp_path / "bank")


def last(values: Iterator[Any]) -> Any:
    """The last section that a run shows."""
    *_, (section, stop) = [v for v in values if v[0] != gr.skip()]
    assert stop["visible"] is False
    return section


def test_kept_results_are_few_and_a_bank_of_another_key_sees_none() -> None:
    kept = Findings(BankCache(a_bank())).kept
    for i in range(KEPT + 3):
        kept.put(("lens", "key", i), i)
    assert kept.get(("lens", "key", 2)) is None and kept.get(("lens", "key", 3)) == 3
    assert kept.get(("lens", "other", 3)) is None


@pytest.mark.parametrize("value", [None, "3", True, 1.5, -1, 8, float("nan")])
def test_bad_vectors_are_refused(act: InspectActions, value: Any) -> None:
    for function in (act.show, act.steer, act.silent, *(getattr(act.found, n) for n in ("examples", "features"))):
        with pytest.raises(BankError):
            function(DEFAULT_KEY, value)
    with pytest.raises(BankError):
        list(act.find("lens", DEFAULT_KEY, value))


def test_opening_follows_the_bank_and_what_another_tab_sends(act: InspectActions) -> None:
    key, picker, steer, *rest = act.opened(DEFAULT_KEY)
    assert key == DEFAULT_KEY and picker["value"] == 0 and len(picker["choices"]) == 8 and steer == "Steer with 0 × 1"
    assert len(rest) == 14
    look = act.tab.steer_with(DEFAULT_KEY, 1, 1.0)
    _, picker, steer, *_ = act.opened(DEFAULT_KEY, DEFAULT_KEY, look, 5)
    assert picker["value"] == 1 and steer == "Steer with 1 × -1.5"
    other = act.banks.put(act.banks.get(DEFAULT_KEY).select([2, 3]))
    assert act.opened(other, DEFAULT_KEY, look, 5)[1]["value"] == 0, "it was of another bank"
    pick, tabs = act.steer(DEFAULT_KEY, 1)
    assert (pick["vector"], pick["scale"], tabs.selected) == (1, -1.5, "steer")


def test_an_edited_label_keeps_the_vector_and_what_was_read(act: InspectActions) -> None:
    list(act.find("lens", DEFAULT_KEY, 3))
    bank = act.banks.get(DEFAULT_KEY)
    edited = act.banks.put(noted(bank, *[{"label": "new"}] * 8))
    key, picker, *shown = act.opened(edited, DEFAULT_KEY, None, 3)
    _, _, _, tokens, _, own, words, *_ = shown
    assert (key, picker["value"], picker["choices"][3]) == (edited, 3, ("3 · new", 3))
    assert own == words == gr.skip() and "Measured here." in str(tokens)


def test_passages_are_found_in_pasted_text_and_not_kept(act: InspectActions, no_hook_stays: None) -> None:
    shown = last(act.find_examples(DEFAULT_KEY, 3, PARAGRAPHS + "\n\n" + EVIL))
    assert "your text" in shown and "random directions" in shown and "<mark>" in shown and "<img" not in shown
    assert 'class="empty"' in act.found.examples(DEFAULT_KEY, 3), "the next visitor must not see it"


def test_an_uploaded_file_is_read_and_deleted(act: InspectActions, tmp_path: Path) -> None:
    for name, line in (("a.jsonl", json.dumps({"text": "bread and kites"}) + "\n"), ("b.txt", PARAGRAPHS)):
        path = tmp_path / name
        path.write_text(line * 8)
        assert "your file" in last(act.find_in_file(DEFAULT_KEY, 0, str(path))) and not path.exists()
    for name, data in (("c.exe", b"x"), ("d.txt", b"a\0b"), ("e.jsonl", b"{"), ("f.txt", b"")):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(CorpusError):
            list(act.find_in_file(DEFAULT_KEY, 0, str(path)))
        assert not path.exists()


def test_sources_are_bounded(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = context.banks.get(DEFAULT_KEY)
    with pytest.raises(CorpusError, match="paste a text"):
        read_source(context, bank, "  ")
    with pytest.raises(CorpusError, match="400,001"):
        read_source(context, bank, "x" * (MAX_CORPUS + 1))
    monkeypatch.setattr(inspect_tab_source, "MAX_FILE", 4)
    (tmp_path / "a.txt").write_text("12345")
    with pytest.raises(CorpusError, match="larger"):
        read_source(context, bank, "", str(tmp_path / "a.txt"))
    with pytest.raises(CorpusError):
        read_source(context, bank, "", str(tmp_path / "missing.txt"))
    corpus, n = make_corpus(Source("text", "one\r\n\r\n\r\n\r\ntwo\n"))
    assert n == 2 and [d.text for d in corpus.read()] == ["one", "two"] == [d.text for d in corpus.read()]  # type: ignore[union-attr]


def test_measured_here_shows_again_but_for_another_bank(act: InspectActions, no_hook_stays: None) -> None:
    assert "Measured here." in last(act.find("lens", DEFAULT_KEY, 4))
    drawn = last(act.find("geometry", DEFAULT_KEY, 4))
    assert "vector 4 from" in drawn and "bank, median" in drawn and "<img" in drawn
    _, _, lens, geometry = act.found.sections(DEFAULT_KEY, 4)
    assert "random" in lens and "vector 4 from" in geometry
    assert "vector 5 from" in act.found.geometry(DEFAULT_KEY, 5), "one run measures all vectors"
    assert act.found.missing(DEFAULT_KEY, 4) == (False, True, "")
    bank = act.banks.get(DEFAULT_KEY)
    for other in (replace(bank, vectors=bank.vectors.flip(0)), replace(bank, prompts=(bank.prompts[0][:1],))):
        assert all('class="empty"' in section for section in act.found.sections(act.banks.put(other), 4))


def test_the_models_words_stand_beside_the_controls(act: InspectActions, no_hook_stays: None) -> None:
    shown = last(act.ask(DEFAULT_KEY, 1))
    assert "This vector × -1" in shown and "Random, same length" in shown and "The word X itself" in shown
    assert "cannot describe" in shown and sign_of(act.banks.get(DEFAULT_KEY), 0) == 1.0
    assert "cannot describe" not in descriptions_html(Descriptions("q", 1, 1.0, ("a",), "b", "c"), 1.0, 10**9)


def test_ones_own_text_is_coloured_along_each_direction(act: InspectActions) -> None:
    text = "How can I bake bread?"
    shown = {along: act.read(DEFAULT_KEY, 2, text, along, True, False) for along in ("effect", "minus", "vector")}
    random = act.read(DEFAULT_KEY, 2, text, "effect", True, True)
    assert len({*shown.values(), random}) == 4 and "a random vector" in random and "-1 × this vector" in shown["minus"]
    assert "bread" in re.sub(r"<[^>]+>", "", shown["effect"]) and "--s:" in shown["effect"]
    assert act.read_again(DEFAULT_KEY, 2, "", "effect", True, True) == gr.skip()
    assert act.read_again(DEFAULT_KEY, 2, text, "effect", True, True) == random
    with pytest.raises(ConfigError):
        act.read(DEFAULT_KEY, 2, text, "sideways", True, False)
    for bad in ("", None, "x" * 30_000):
        with pytest.raises(PromptError):
            act.read(DEFAULT_KEY, 2, bad, "effect", True, False)


def test_a_failing_run_shows_what_was_there(act: InspectActions, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret")

    handle = act.context.loaded.model.register_forward_pre_hook(fail)
    try:
        values = act.find("lens", DEFAULT_KEY, 0)
        seen = []
        with pytest.raises(RuntimeError):
            for value in values:
                seen.append(value)
    finally:
        handle.remove()
    assert seen[-1][0] == act.found.lens(DEFAULT_KEY, 0) and seen[-1][1]["visible"] is False
    assert not act.context.lock.locked()


def test_a_closed_run_leaves_the_model_free(context: Context) -> None:
    bank = context.banks.get(DEFAULT_KEY)
    endless = Source("text", "\n\n".join(f"number {i} of a long text" for i in range(20_000)))
    with closing(activating_steps(context, bank, 0, endless)) as parts:
        for events in parts:
            if any(event.done > 1 for event in events):
                break
    assert context.lock.acquire(timeout=5)
    context.lock.release()
    assert hook_count(context.loaded) == 0


def test_time_is_bounded(tiny: LoadedModel, tiny_bank: VectorBank) -> None:
    hasty = Context(tiny, BankCache(tiny_bank), replace(Limits(), seconds=0))
    with pytest.raises(ConfigError, match="longer than"):
        list(activating_steps(hasty, tiny_bank, 0, Source("text", PARAGRAPHS)))


def test_no_sae_is_made_up_for_another_model(act: InspectActions) -> None:
    with pytest.raises(SaeError, match="melbo inspect sae"):
        list(act.find("sae", DEFAULT_KEY, 0))


@pytest.mark.slow
def test_the_embedded_model_brings_its_chats_and_its_sae(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inspect_tab_handlers, inspect_tab_source):
        monkeypatch.setattr(module, "CHATS", 33)
    bank = VectorBank.load(BANK).select([0, 4])
    act = InspectActions(TabContext(Context(load_model("organism"), BankCache(bank)), None, None, None))  # type: ignore[arg-type]
    assert act.found.missing(DEFAULT_KEY, 0)[0] is True
    shown = last(act.find("sae", DEFAULT_KEY, 1))
    assert "of the SAE organism" in shown and "Measured here." in shown and shown.count("<section>") == 3
    assert "Nearest" in act.found.features(DEFAULT_KEY, 0), "one run compares all vectors"
    assert "organism (train)" in last(act.find_examples(DEFAULT_KEY, 1, ""))
    assert "Measured here." in act.found.examples(DEFAULT_KEY, 1)
    phases = [event.phase for events in sae_steps(act.context, bank) for event in events]
    assert "Describing features" in phases


def endpoint_of(context: Context) -> Callable[..., Callable[..., Any]]:
    return lambda fn, work: action(fn, context, context.on_device(work))


def test_the_endpoints_give_plain_values(context: Context, no_hook_stays: None) -> None:
    bank = context.banks.get(DEFAULT_KEY)
    asked = endpoint_of(context)
    passages = asked(inspect_tab_api.activating_passages, activating_steps)(3, PARAGRAPHS)
    assert [s["sign"] for s in passages["signs"]] == [1, -1] and len(passages["random"]) == 16
    best = passages["signs"][0]["passages"]
    assert best[0]["value"] >= best[-1]["value"] and best[0]["token"] in PARAGRAPHS
    tokens = asked(inspect_tab_api.token_activations, read_text)("Hello there", 3, "vector", False)
    found, _ = read_text(context, bank, 3, "Hello there", "vector", False)
    assert tokens == [vars(t) for t in found.tokens] and "".join(t["text"] for t in tokens) == "Hello there"
    lens = asked(inspect_tab_api.logit_lens, lens_steps)(3)
    assert [(r["site"], r["sign"]) for r in lens] == [("effect", 1), ("effect", -1), ("vector", 1), ("vector", -1)]
    geometry = asked(inspect_tab_api.geometry, geometry_steps)("vector")
    assert torch.allclose(torch.tensor(geometry["cosines"]), torch.eye(8), atol=1e-3)
    words = asked(inspect_tab_api.describe_vector, description_steps)(0)
    assert set(words) == {"question", "vector", "random", "unpatched"}
    json.dumps([passages, tokens, lens, geometry, words], allow_nan=False)


def test_the_endpoints_tell_failures_in_one_line(context: Context) -> None:
    asked = endpoint_of(context)
    for call in (
        lambda: asked(inspect_tab_api.sae_features, sae_steps)(0),
        lambda: asked(inspect_tab_api.logit_lens, lens_steps)(99),
        lambda: asked(inspect_tab_api.activating_passages, activating_steps)(0, ""),
        lambda: asked(inspect_tab_api.token_activations, read_text)(""),
        lambda: asked(inspect_tab_api.describe_vector, description_steps)(-1),
    ):
        with pytest.raises(gr.Error):
            call()


def test_stored_features_need_no_sae(tiny: LoadedModel, stored: VectorBank) -> None:
    context = Context(tiny, BankCache(stored))
    found = endpoint_of(context)(inspect_tab_api.sae_features, sae_steps)(0)
    assert [f["feature"] for f in found["nearest"]] == [7, 9] and found["nearest"][0]["mark"] == "pirate"
    assert (found["explained"], found["random_explained"], found["random_nearest"]) == (0.5, 0.2, 0.25)
    with pytest.raises(MelboError):
        list(sae_steps(context, stored))
