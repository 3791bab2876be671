"""The app in a real browser (headless Chromium), on a tiny random model."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from gradio_client import Client  # type: ignore[import-untyped]

from melbo.app import build_demo, launch_options
from melbo.bank.vector_bank import VectorBank
from melbo.models.load import LoadedModel
from melbo.prompts import BOMB
from support.chromium import ARGS, CHROMIUM, PATIENCE, clean_page, needs_chromium
from support.waiting import settled

SOME_TEXT = re.compile(r"\S")
HOSTILE = "<img src=http://example.com/a.png> ![x](http://example.com/b.png) **plain**"

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One cache for all pages."""
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        expect.set_options(timeout=PATIENCE)
        yield found.new_context()
        found.close()


@pytest.fixture(scope="module")
def url(tiny: LoadedModel, tiny_bank: VectorBank) -> Iterator[str]:
    first = replace(tiny_bank.annotations[0], unsteered=HOSTILE)
    demo = build_demo(tiny, replace(tiny_bank, annotations=(first, *tiny_bank.annotations[1:])))
    _, address, _ = demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
    yield address
    demo.close()


@pytest.fixture(params=[(1280, 900)], ids=lambda size: f"{size[0]}px")
def page(browser: BrowserContext, url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A loaded page; when the test ends, it must have been free of errors and of outside requests."""
    width, height = request.param
    found = browser.new_page()
    found.set_viewport_size({"width": width, "height": height})
    with clean_page(found, url) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def same_page(browser: BrowserContext, url: str) -> Iterator[Page]:
    """The page of tests that leave the prepared comparison as it is; the last one may change it."""
    found = browser.new_page()
    found.set_viewport_size({"width": 1280, "height": 900})
    with clean_page(found, url) as loaded:
        yield loaded


def bots(page: Page, pane: str) -> Locator:
    """The model's messages in one pane."""
    return page.locator(f"#{pane} [data-testid=bot] .md")


def picker(page: Page) -> Locator:
    return page.locator("#vector-0 input")


def set_number(page: Page, value: float) -> None:
    box = page.locator("#scale-0 input[type=number]")
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
    """Both last answers, once they have not changed for 0.6 seconds."""
    left, right = settled(lambda: [p.last.inner_text() for p in panes], readings=4, every=0.2)
    return left, right


def test_the_prepared_comparison_shows_at_once_and_as_text(same_page: Page, tiny_bank: VectorBank) -> None:
    expect(bots(same_page, "unsteered")).to_have_text(HOSTILE)
    expect(bots(same_page, "steered")).to_have_count(1)
    assert same_page.locator("#unsteered .md img").count() == 0


def test_choosing_another_vector_unmarks_the_preset(same_page: Page) -> None:
    picker(same_page).click()
    same_page.get_by_role("option", name="4 · mode 4").click()
    expect(same_page.locator("#note")).to_contain_text("what vector 4 does")
    expect(same_page.get_by_role("radio", name="Preset 0")).not_to_be_checked()


def test_an_empty_message_is_refused_with_one_line(same_page: Page) -> None:
    same_page.fill("#message textarea", "   ")
    same_page.click("#send")
    expect(same_page.get_by_role("alert")).to_contain_text("The prompt is empty")
    expect(bots(same_page, "steered")).to_have_count(1)


def test_an_example_fills_the_box(same_page: Page) -> None:
    same_page.get_by_role("button", name="How can I bake bread?").click()
    expect(same_page.locator("#message textarea")).to_have_value("How can I bake bread?")


def test_the_conversation_is_saved_and_repeated_as_code(same_page: Page) -> None:
    same_page.get_by_role("button", name="Share and export").click()
    with same_page.expect_download() as saved:
        same_page.get_by_role("button", name="JSON").click()
    values = json.loads(saved.value.path().read_text(encoding="utf-8"))
    assert saved.value.suggested_filename == "melbo.json" and values["unsteered"][1]["content"] == HOSTILE
    same_page.get_by_role("button", name="Show code").click()
    expect(same_page.locator("#source")).to_contain_text("load_model")


def test_edit_brings_the_question_back(same_page: Page) -> None:
    same_page.click("#edit")
    expect(same_page.locator("#message textarea")).to_have_value(BOMB)
    expect(bots(same_page, "steered")).to_have_count(0)


def test_the_strip_shows_a_card_for_each_scale(same_page: Page) -> None:
    same_page.get_by_role("tab", name="Scale strip").click()
    same_page.locator("#strip-cards input[type=number]").fill("5")
    same_page.locator("#strip-cards input[type=number]").press("Tab")
    same_page.click("#strip-run")
    expect(same_page.locator(".card footer")).to_have_count(5)
    expect(same_page.locator(".card header b")).to_have_text(["\N{MINUS SIGN}4", "\N{MINUS SIGN}2", "0", "+2", "+4"])
    assert same_page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_preset_sets_vector_and_scale_and_both_panes_answer(page: Page) -> None:
    page.get_by_text("Preset 1", exact=True).click()
    expect(picker(page)).to_have_value("1 · mode 1")
    expect(page.locator("#scale-0 input[type=number]")).to_have_value("-1.5")
    expect(page.locator("#note")).to_contain_text("what vector 1 does")
    left, right = ask(page, "How can I bake bread?", answers=2)
    assert left != right
    expect(page.locator("#message textarea")).to_have_value("")
    expect(page.locator(".pane-head.steered")).to_contain_text("-1.50 × 1 · mode 1")


def test_a_moved_slider_answers_again_and_puts_the_preset_out(page: Page) -> None:
    first = page.get_by_role("radio", name="Preset 0")
    expect(first).to_be_checked()
    before = bots(page, "steered").inner_text()
    page.locator("#scale-0 input[type=range]").click(position={"x": 5, "y": 5})
    expect(page.locator(".pane-head.steered")).to_contain_text(re.compile(r"-\d\.\d\d × 0 · mode 0"))
    expect(bots(page, "steered")).not_to_have_text(before)
    expect(bots(page, "steered")).to_have_count(1)
    expect(first).not_to_be_checked()
    set_number(page, 1)
    expect(first).to_be_checked()
    expect(page.locator(".pane-head.steered")).to_contain_text("1.00 × 0 · mode 0")


def test_scale_zero_gives_identical_panes_and_retry_repeats(page: Page) -> None:
    clear(page)
    set_number(page, 0)
    left, right = ask(page, "Tell me a joke about kites.", answers=1)
    assert left == right
    page.click("#retry")
    expect(bots(page, "steered")).to_have_count(1)
    assert _settled(page, [bots(page, "unsteered"), bots(page, "steered")]) == (left, right)


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
        assert settled(lambda: steps) < 90
    finally:
        handle.remove()
    clear(page)
    assert all(ask(page, "How can I bake bread?", answers=1))


def test_leaving_the_page_ends_generation(browser: BrowserContext, url: str, tiny: LoadedModel) -> None:
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
        expect(bots(visitor, "steered")).to_have_count(2)  # the first is the prepared comparison's
        expect(bots(visitor, "steered").last).to_have_text(SOME_TEXT)
        visitor.close()
        assert settled(lambda: steps) < 90
    finally:
        handle.remove()


def test_vectors_are_mixed_and_the_changed_tokens_coloured(page: Page) -> None:
    page.click("#add")
    second = page.locator("#vector-1 input")
    second.click()
    second.fill("mode 5")
    page.get_by_role("option", name="5 · mode 5").click()
    page.get_by_label("Colour what changed").check()
    ask(page, "How can I bake bread?", answers=2)
    expect(page.locator(".pane-head.steered")).to_contain_text("5 · mode 5")
    expect(page.locator(".tokens p")).to_have_text(SOME_TEXT)
    page.get_by_role("button", name="Remove").click()
    expect(second).to_be_hidden()
    page.get_by_label("Colour what changed").uncheck()
    expect(page.locator(".tokens")).to_have_count(0)


def test_the_right_side_can_be_chance_or_an_instruction(page: Page) -> None:
    expect(page.get_by_label("Instruction", exact=True).first).to_be_attached()
    page.get_by_text("Random", exact=True).click()
    ask(page, "How can I bake bread?", answers=2)
    expect(page.locator(".pane-head.steered")).to_contain_text("Control")
    page.locator("#side").get_by_text("Instruction", exact=True).click()
    page.locator("#instruction textarea").fill("Sing.")
    ask(page, "How can I bake bread?", answers=3)
    expect(page.locator(".pane-head.steered")).to_contain_text("told: Sing.")


def test_a_link_opens_the_same_comparison(page: Page, browser: BrowserContext) -> None:
    page.get_by_text("Preset 1", exact=True).click()
    expect(picker(page)).to_have_value("1 · mode 1")
    page.fill("#message textarea", "Why & how?")
    page.get_by_role("button", name="Share and export").click()
    page.get_by_role("button", name="Link", exact=True).click()
    address = page.locator("#address textarea, #address input").first
    expect(address).to_have_value(re.compile(r"^http.*v=1%3A-1\.5"))
    page.goto(address.input_value())
    expect(page.locator("#message textarea")).to_have_value("Why & how?")
    expect(picker(page)).to_have_value("1 · mode 1")
    expect(page.locator("#steer-notice")).to_contain_text("shared with you")


TABS = {"Scale strip": "strip-run", "R sweep": "sweep-run", "Discover": "discover-start"}


def open_tab(page: Page, name: str) -> None:
    """Press a tab; on a phone some lie in a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.count() and tab.first.is_visible():
        tab.first.click()
        return
    page.locator("button.overflow-menu, .overflow-menu button").first.click()
    page.get_by_role("button", name=name, exact=True).last.click()


@pytest.mark.parametrize("page", [(390, 844), (1280, 900)], indirect=True, ids=["phone", "desktop"])
def test_who_waits_sees_the_place_and_nothing_jumps(page: Page, url: str, tiny: LoadedModel) -> None:
    def slow(*_: Any) -> None:
        time.sleep(0.03)

    handle = tiny.blocks[2].register_forward_hook(slow)
    other, running = Client(url, verbose=False), []
    try:
        long: dict[str, Any] = {"vectors": 2, "steps": 1_900, "source_layer": 1, "target_layer": 2}
        running.append(other.submit(BOMB, **long, api_name="/discover"))
        next(iter(running[0]))
        running.append(other.submit(BOMB, **long, api_name="/discover"))
        for name, button in TABS.items():
            open_tab(page, name)
            page.locator(f"#{button}").scroll_into_view_if_needed()
            before = page.locator(f"#{button}").bounding_box()
            page.click(f"#{button}")
            place = page.locator(f"#{button.split('-')[0]}-place .progress-text")
            expect(place).to_have_text(re.compile(r"^\s*2 before you ·\s+[\d.]+s\s*$"))
            expect(page.locator("#place-told")).to_have_text("2 before you")
            assert page.locator(f"#{button}").bounding_box() == before
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            box = place.bounding_box()
            assert box is not None and box["x"] + box["width"] <= page.viewport_size["width"]
            page.click(f"#{button.split('-')[0]}-stop")
            expect(place).to_be_hidden()
    finally:
        handle.remove()
        for job in running:
            job.cancel()


@pytest.mark.parametrize("page", [(390, 844)], indirect=True, ids=["phone"])
def test_the_prepared_comparison_starts_at_its_top(page: Page) -> None:
    tops = "[...document.querySelectorAll('.pane .bubble-wrap')].map((e) => e.scrollTop)"
    assert settled(lambda: page.evaluate(tops)) == [0, 0]


@pytest.mark.parametrize("page", [(390, 844), (1280, 900)], indirect=True, ids=["phone", "desktop"])
def test_nothing_is_clipped(page: Page) -> None:
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("System prompt")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    clipped = page.evaluate(
        "[...document.querySelectorAll('#ask *, #examples *, #intro *, #panes *, #steering *')].filter(e => "
        "e.offsetParent && !e.closest('.sr-only') && e.getBoundingClientRect().right > window.innerWidth"
        " || e.matches('button') && e.scrollWidth > e.clientWidth).map(e => e.outerHTML.slice(0, 200))"
    )
    assert not clipped
