"""The Scale strip: one batch, measured, as text."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import gradio as gr
import pytest
import torch

from melbo.app import api
from melbo.app.context import BankCache, Context, Limits
from melbo.app.endpoint import action
from melbo.app.tab_context import TabContext
from melbo.app.tabs.bank.handlers import edited
from melbo.app.tabs.strip.handlers import Calibration, Card, Strip, grid, scale_strip
from melbo.app.tabs.strip.html import EMPTY, strip_html
from melbo.app.tabs.strip.tab import StripActions
from melbo.bank.vector_bank import VectorBank
from melbo.errors import BankError, ConfigError, MetricError, PromptError
from melbo.measure.coherence import CoherenceScale
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB, DEFAULT_SYSTEM, chat
from melbo.steering.generate import Sampling, complete

WIDE = CoherenceScale(5.0, 50.0, "anything goes")


@pytest.fixture
def context(tiny: LoadedModel, tiny_bank: VectorBank) -> Context:
    return Context(tiny, BankCache(tiny_bank), Limits(new_tokens=12, rows=9))


@pytest.fixture
def calibration(tiny: LoadedModel) -> Calibration:
    found = Calibration()
    found.found[tiny.model] = WIDE
    return found


def test_the_grid_is_even_and_holds_zero() -> None:
    assert grid(2, 5) == (-2.0, -1.0, 0.0, 1.0, 2.0) and grid(8.0, 3.0) == (-8.0, 0.0, 8.0)
    for bad in ((0, 5), (51, 5), (float("nan"), 5), (None, 5), (2, 4), (2, 1), (2, None), (2, 5.5)):
        with pytest.raises(ConfigError):
            grid(*bad)


def test_every_card_is_what_the_library_generates(
    context: Context, calibration: Calibration, tiny_bank: VectorBank
) -> None:
    scales = grid(4, 5)
    parts = scale_strip(context, calibration, tiny_bank, BOMB, DEFAULT_SYSTEM, 1, scales)
    strips = [strip for part in parts for e in part if (strip := e.value or e.result) is not None]
    rows = torch.stack([tiny_bank.vector(1, s) for s in scales])
    texts = complete(context.loaded, [chat(BOMB)] * 5, rows, tiny_bank.layer, Sampling(max_new_tokens=12))
    last = strips[-1]
    assert [c.text for c in last.cards] == texts and [c.scale for c in last.cards] == list(scales)
    assert last.finished and not any(s.finished for s in strips[:-1]) and len(strips) > 5
    assert last.cards[2].kind == "unsteered" and last.cards[2].same
    assert all(c.coherence is not None and 0 <= c.coherence <= 10 for c in last.cards)
    assert all(lo * hi > 0 for lo, hi in last.ranges)


def test_cards_are_named_by_what_steering_did() -> None:
    for card, kind in (
        (Card(1, "a", 9.0, same=True), "same"),
        (Card(1, "a", 2.0), "salad"),
        (Card(1, "Sorry", 9.0, refusal=True), "refusal"),
        (Card(1, "a", 9.0), "changed"),
        (Card(1, "a", None), "changed"),
        (Card(0, "a", 1.0), "unsteered"),
    ):
        assert card.kind == kind


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"prompt": " "}, PromptError), ({"prompt": None}, PromptError), ({"prompt": "x" * 30_000}, PromptError),
        ({"vector": 8}, BankError), ({"vector": 1.5}, ConfigError), ({"scales": ()}, ConfigError),
        ({"scales": (51.0,)}, ConfigError), ({"scales": (float("inf"),)}, ConfigError),
        ({"scales": ("1",)}, ConfigError), ({"scales": (1.0,) * 10}, ConfigError),
    ],
)  # fmt: skip
def test_bad_requests_are_refused(
    context: Context, calibration: Calibration, tiny_bank: VectorBank, change: dict[str, Any], error: type[Exception]
) -> None:
    values: dict[str, Any] = {"prompt": BOMB, "system": "", "vector": 0, "scales": (1.0,)} | change
    with pytest.raises(error):
        next(scale_strip(context, calibration, tiny_bank, **values))
    assert not context.lock.locked()


def test_closing_stops_the_model(context: Context, calibration: Calibration, tiny_bank: VectorBank) -> None:
    running = scale_strip(context, calibration, tiny_bank, BOMB, "", 0, (1.0,))
    while not next(running):
        pass
    assert context.lock.locked()
    running.close()
    assert not context.lock.locked()


def test_the_first_calibration_can_be_stopped(
    context: Context, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch, no_hook_stays: None
) -> None:
    reached, passes = threading.Event(), 0

    def endless(loaded: LoadedModel) -> CoherenceScale:
        nonlocal passes
        reached.set()
        while True:
            complete(loaded, [chat(BOMB)], sampling=Sampling(max_new_tokens=2))
            passes += 1

    monkeypatch.setattr("melbo.app.tabs.strip.handlers.calibrate_coherence", endless)
    calibration = Calibration()
    with closing(scale_strip(context, calibration, tiny_bank, BOMB, "", 0, (1.0,))) as running:
        while not reached.is_set():
            next(running)
        while next(running):  # it goes on yielding while the scale is looked for
            pass
        assert context.lock.locked()
    after = passes
    assert not context.lock.locked() and not calibration.found
    threading.Event().wait(0.1)
    assert passes == after


def test_the_banks_own_coherence_scale_comes_first(
    tiny: LoadedModel, tiny_bank: VectorBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fail(_loaded: LoadedModel) -> CoherenceScale:
        nonlocal calls
        calls += 1
        raise MetricError("this model cannot judge coherence")

    monkeypatch.setattr("melbo.app.tabs.strip.handlers.calibrate_coherence", fail)
    own = replace(tiny_bank, details={"annotation": {"coherence_scale": asdict(WIDE)}})
    damaged = replace(tiny_bank, details={"annotation": {"coherence_scale": {"good_nll": "x"}}})
    calibration = Calibration()
    assert calibration.scale(tiny, own) == WIDE and calls == 0
    assert calibration.scale(tiny, damaged) is calibration.scale(tiny, tiny_bank) is None and calls == 1


def test_the_picture_is_text_only() -> None:
    strip = Strip((Card(-1, "<img src=x>", 9.0, True), Card(0, " "), Card(1, "b", None)), True, ((-1.0, -1.0),))
    shown = strip_html(strip)
    assert "<img" not in shown and "&lt;img src=x&gt;" in shown and "(no words)" in shown
    assert "Usable on this prompt: \N{MINUS SIGN}1." in shown and "coherence 9.0" in shown and "refuses" in shown
    assert "coherence unknown" in shown and "No usable scale" in strip_html(replace(strip, ranges=()))
    assert "Writing" in strip_html(replace(strip, finished=False))


def test_the_tab_grows_and_follows_the_bank(context: Context, tiny_bank: VectorBank) -> None:
    act = StripActions(context)
    pictures = [p for p in act.run("default", BOMB, 0, 2.0, 3) if isinstance(p, str)]
    assert "Writing" in pictures[0] and "<footer>" in pictures[-1]
    key = context.banks.put(tiny_bank.select([3, 4]))
    now, chosen, reach, emptied = act.show_bank(key, "default", TabContext.steer_with(key, 1, 1.0), 5)
    assert now == key and chosen.value == 1 and reach.value == 4 and len(chosen.choices) == 2 and emptied == EMPTY
    assert act.show_bank("default", key, TabContext.steer_with(key, 1, 1.0), 1)[1].value == 0


def test_another_label_leaves_the_strip_and_another_vector_does_not(context: Context, tiny_bank: VectorBank) -> None:
    act = StripActions(context)
    key = context.banks.put(edited(tiny_bank, 3, "odd", ""))
    _, chosen, reach, kept = act.show_bank(key, "default", None, 3)
    assert chosen.value == 3 and ("3 · odd", 3) in chosen.choices and kept == reach == gr.skip()
    _, chosen, _, emptied = act.show_bank(key, key, TabContext.steer_with(key, 5, 1.0), 3)
    assert chosen.value == 5 and emptied == EMPTY


def test_the_endpoints_say_the_same(context: Context) -> None:
    run = context.on_device(scale_strip, Calibration())
    *_, cards = action(api.scale_strip, context, run)(BOMB, 0, [-2.0, 2.0])
    assert [c["scale"] for c in cards] == [-2.0, 2.0] and {"text", "coherence", "refusal", "same", "kind"} <= set(
        cards[0]
    )
    listed = action(api.vectors, context)()
    assert [v["vector"] for v in listed] == list(range(8)) and listed[1]["scale"] == -1.5
