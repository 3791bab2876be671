"""The app in a real browser (headless Chromium), on a tiny random model."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from melbo.bank import VectorBank
from melbo.models import LoadedModel
from melbo.ui import build_demo, launch_options

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120_000
"""Milliseconds to wait for the page: a machine busy with training is slow."""
SOME_TEXT = re.compile(r"\S")
HOSTILE = "<img src=http://example.com/a.png> ![x](http://example.com/b.png) **plain**"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed; install it, or set CHROMIUM"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        expect.set_options(timeout=PATIENCE)
        yield found
        found.close()


@pytest.fixture(scope="module")
def url(tiny: LoadedModel, tiny_bank: VectorBank) -> Iterator[str]:
    first = {**tiny_bank.annotations[0], "unsteered": HOSTILE}
    demo = build_demo(tiny, replace(tiny_bank, annotations=(first, *tiny_bank.annotations[1:])))
    _, address, _ = demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
    yield address
    demo.close()


@pytest.fixture(params=[(1280, 900)], ids=lambda size: f"{size[0]}px")
def page(browser: Browser, url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A loaded page; when the test ends, it must have been free of errors and of outside requests."""
    width, height = request.param
    found = browser.new_page(viewport={"width": width, "height": height})
    found.set_default_timeout(PATIENCE)
    errors: list[str] = []
    asked: list[str] = []
    found.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    found.on("pageerror", lambda e: errors.append(str(e)))
    found.on("request", lambda r: asked.append(r.url))
    found.goto(url)
    found.wait_for_selector("#message textarea")
    yield found
    found.close()
    outside = [u for u in asked if urlparse(u).hostname not in (None, "127.0.0.1", "localhost")]
    assert not errors and not outside, (errors, outside)


def bots(page: Page, pane: str) -> Locator:
    """The model's messages in one pane."""
    return page.locator(f"#{pane} [data-testid=bot] .md")


def set_number(page: Page, label: str, value: float) -> None:
    box = page.get_by_label(f"number input for {label}")
    box.fill(str(value))
    box.press("Tab")


def clear(page: Page) -> None:
    page.click("#clear")
    expect(bots(page, "unsteered")).to_have_count(0)
    expect(bots(page, "steered")).to_have_count(0)


def ask(page: Page, text: str, answers: int) -> tuple[str, str]:
    """Send, and give both last answers, of which each pane then has `answers`."""
    page.fill("#message textarea", text)
    page.click("#send")
    panes = [bots(page, name) for name in ("unsteered", "steered")]
    for pane in panes:
        expect(pane).to_have_count(answers)
        expect(pane.last).to_have_text(SOME_TEXT)
    return _settled(page, panes)


def _settled(page: Page, panes: list[Locator]) -> tuple[str, str]:
    """Both last answers, once they have not changed for a second."""
    before: list[str] = []
    for _ in range(30):
        now = [p.last.inner_text() for p in panes]
        if now == before:
            return now[0], now[1]
        before = now
        page.wait_for_timeout(1000)
    raise AssertionError("the answers never came to an end")


def test_the_prepared_comparison_shows_at_once_and_as_text(page: Page, tiny_bank: VectorBank) -> None:
    expect(bots(page, "unsteered")).to_have_text(HOSTILE)
    expect(bots(page, "steered")).to_have_count(1)
    assert page.locator("#unsteered .md img").count() == 0


def test_a_preset_sets_vector_and_scale_and_both_panes_answer(page: Page) -> None:
    page.get_by_role("radio", name="Preset 1").check()
    expect(page.get_by_label("Vector", exact=True)).to_have_value("1 · mode 1")
    expect(page.get_by_label("number input for Scale")).to_have_value("-1.5")
    expect(page.locator("#note")).to_contain_text("what vector 1 does")
    left, right = ask(page, "How can I bake bread?", answers=2)
    assert left != right
    expect(page.locator("#message textarea")).to_have_value("")
    expect(page.locator(".pane-head.steered")).to_contain_text("-1.50 × 1 · mode 1")


def test_scale_zero_gives_identical_panes_and_retry_repeats(page: Page) -> None:
    clear(page)
    set_number(page, "Scale", 0)
    left, right = ask(page, "Tell me a joke about kites.", answers=1)
    assert left == right
    page.click("#retry")
    page.wait_for_timeout(500)
    expect(bots(page, "steered")).to_have_count(1)
    assert _settled(page, [bots(page, "unsteered"), bots(page, "steered")]) == (left, right)


def test_choosing_another_vector_unmarks_the_preset(page: Page) -> None:
    page.get_by_label("Vector", exact=True).click()
    page.get_by_role("option", name="4 · mode 4").click()
    expect(page.locator("#note")).to_contain_text("what vector 4 does")
    expect(page.get_by_role("radio", name="Preset 0")).not_to_be_checked()


def test_stop_ends_generation_and_the_next_message_works(page: Page, tiny: LoadedModel) -> None:
    clear(page)
    steps = 0

    def slow(*_: Any) -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.05)

    handle = tiny.model.register_forward_hook(slow)
    try:
        page.fill("#message textarea", "Tell me a joke about kites.")
        page.click("#send")
        expect(bots(page, "steered").last).to_have_text(SOME_TEXT)
        page.click("#stop")
        page.wait_for_timeout(700)
        stopped = steps
        page.wait_for_timeout(700)
    finally:
        handle.remove()
    assert steps == stopped < 90
    clear(page)
    assert all(ask(page, "How can I bake bread?", answers=1))


def test_leaving_the_page_ends_generation(browser: Browser, url: str, tiny: LoadedModel) -> None:
    steps = 0

    def slow(*_: Any) -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.1)

    visitor = browser.new_page()
    visitor.set_default_timeout(PATIENCE)
    visitor.goto(url)
    handle = tiny.model.register_forward_hook(slow)
    try:
        visitor.fill("#message textarea", "Tell me a joke about kites.")
        visitor.click("#send")
        expect(bots(visitor, "steered").last).to_have_text(SOME_TEXT)
        visitor.close()
        time.sleep(2.5)
        left = steps
        time.sleep(1)
    finally:
        handle.remove()
    assert steps == left < 90


def test_an_empty_message_is_refused_with_one_line(page: Page) -> None:
    page.fill("#message textarea", "   ")
    page.click("#send")
    expect(page.get_by_text("the prompt is empty")).to_be_visible()
    expect(bots(page, "steered")).to_have_count(1)


def test_an_example_fills_the_box(page: Page) -> None:
    page.get_by_role("button", name="How can I bake bread?").click()
    expect(page.locator("#message textarea")).to_have_value("How can I bake bread?")


@pytest.mark.parametrize("page", [(390, 844), (1280, 900)], indirect=True, ids=["phone", "desktop"])
def test_nothing_is_clipped(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("System prompt")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    clipped = page.evaluate(
        "[...document.querySelectorAll('#ask *, #examples *, #presets *, #intro *, #panes *')].filter(e => "
        "e.offsetParent && !e.closest('.sr-only') && e.getBoundingClientRect().right > window.innerWidth"
        " || e.matches('button') && e.scrollWidth > e.clientWidth).map(e => e.outerHTML.slice(0, 200))"
    )
    assert not clipped
