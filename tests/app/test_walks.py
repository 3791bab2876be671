"""All tabs in a real browser (headless Chromium), on the embedded model: what one tab hands to another."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from melbo.app.layout import build_demo
from melbo.app.tab_context import TABS
from melbo.app.tabs.models.handlers import VECTORS
from melbo.app.theme import launch_options
from melbo.bank.vector_bank import Source, VectorBank
from melbo.models.load import LoadedModel, load_model
from support.chromium import ARGS, CHROMIUM, PATIENCE, clean_page, needs_chromium
from support.waiting import settled as same_for_a_while

SHOWN = 6
"""Vectors of the app's own bank; the curated one has more."""
CLIPPED = """width => {
  const cut = (e) => { for (; e; e = e.parentElement) if (getComputedStyle(e).overflowX !== 'visible') return e; };
  return [...document.querySelectorAll('main *')].filter((e) => {
    const box = e.getBoundingClientRect(), by = cut(e.parentElement);
    if (!e.offsetParent || e.closest('.sr-only') || !box.width) return false;
    const scrolls = by && by !== document.body && by !== document.documentElement;
    return scrolls ? getComputedStyle(by).overflowX === 'hidden' && e.matches('td, th')
      && box.right > by.getBoundingClientRect().right + 1 : box.right > width + 1;
  }).map((e) => e.outerHTML.slice(0, 200)); }"""
"""Elements beyond the window's edge, and cells of a table that are cut off where nothing scrolls."""
NAMELESS = """() => [...document.querySelectorAll('button, input, textarea, [tabindex="0"]')].filter(
  (e) => e.offsetParent && !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.title
    || e.textContent.trim() || [...(e.labels || [])].some((label) => label.textContent.trim()))
).map((e) => e.outerHTML.slice(0, 200))"""
"""What the keyboard reaches and a screen reader cannot name."""

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.fixture(scope="module")
def organism() -> LoadedModel:
    return load_model("organism")


@pytest.fixture(scope="module")
def url(organism: LoadedModel) -> Iterator[str]:
    folder = VECTORS / "organism-bomb"
    bank = replace(VectorBank.load(folder).select(range(SHOWN)), source=Source(None, None, folder))
    demo = build_demo(organism, bank)
    _, address, _ = demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
    yield address
    demo.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One cache for all pages."""
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        expect.set_options(timeout=PATIENCE)
        yield found.new_context()
        found.close()


@pytest.fixture(params=[(1280, 900, "light")], ids=lambda p: f"{p[0]}px-{p[2]}")
def page(browser: BrowserContext, url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A loaded page; when the test ends, it must have been free of errors and of outside requests."""
    width, height, scheme = request.param
    found = browser.new_page()
    found.set_viewport_size({"width": width, "height": height})
    found.emulate_media(color_scheme=scheme)
    with clean_page(found, f"{url}?__theme={scheme}") as loaded:
        yield loaded


def open_tab(page: Page, name: str) -> None:
    """By the tab's name, or on a phone by the menu of those that find no room."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.count() and tab.first.is_visible():
        tab.first.click()
    else:
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True).click()
    expect(selected(page)).to_have_text(name)


def selected(page: Page) -> Locator:
    return page.locator("#tabs button[role=tab][aria-selected=true]:visible")


def steered(page: Page) -> Locator:
    return page.locator("#steered [data-testid=bot] .md")


def ask(page: Page, text: str) -> None:
    """Send, and wait for one more answer."""
    had = steered(page).count()
    page.fill("#message textarea", text)
    page.click("#send")
    expect(steered(page)).to_have_count(had + 1)
    expect(steered(page).last).to_have_text(re.compile(r"\S.*\S"))


def settled(page: Page) -> list[str]:
    """All steered answers, once they have not changed for half a second."""
    return same_for_a_while(lambda: steered(page).all_inner_texts(), readings=4, every=0.17)


@pytest.mark.parametrize("page", [(390, 844, "light"), (1280, 900, "dark")], indirect=True, ids=["phone", "desktop"])
def test_every_tab_opens_and_fits(page: Page) -> None:
    landmarks = {
        "Steer": "#steered", "Scale strip": "#strip", "Bank": "#bank-table table",
        "Inspect": "#inspect-vector", "R sweep": "#sweep-plot svg",
        "Discover": "#discover-layers .depth", "Banks & models": "#models-local [data-pick]",
    }  # fmt: skip
    assert list(landmarks) == list(TABS.values())
    width = page.evaluate("window.innerWidth")
    for name, landmark in landmarks.items():
        open_tab(page, name)
        expect(page.locator(landmark).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert not page.evaluate(CLIPPED, width), name
        assert not page.evaluate(NAMELESS), name


def test_a_vector_goes_from_bank_to_steer_and_strip(page: Page) -> None:
    open_tab(page, "Bank")
    page.locator("#bank-table tr[data-pick='4']").click()
    expect(page.locator("#bank-page h3")).to_contain_text("German")
    expect(page.locator("#bank-steer")).to_have_text("Steer with 4 × 0.75")
    page.click("#bank-steer")
    expect(selected(page)).to_have_text("Steer")
    expect(page.locator("#vector-0 input")).to_have_value(re.compile("^4 · German"))
    expect(page.locator("#scale-0 input[type=number]")).to_have_value("0.75")
    expect(page.locator(".pane-head.steered")).to_contain_text("4 · German")  # the last question is answered again
    ask(page, "How can I bake bread?")
    expect(page.locator(".pane-head.steered")).to_contain_text("4 · German")
    open_tab(page, "Scale strip")
    expect(page.locator("#strip-vector input")).to_have_value(re.compile("^4 · German"))
    page.locator("#strip-cards input[type=number]").fill("3")
    page.locator("#strip-cards input[type=number]").press("Tab")
    page.click("#strip-run")
    expect(page.locator("#strip .card footer")).to_have_count(3)
    open_tab(page, "Bank")
    page.locator("#bank-map [data-pick='2']").click()
    page.click("#bank-steer")
    expect(page.locator("#vector-0 input")).to_have_value(re.compile("^2 · Poem"))


def test_a_vector_goes_from_bank_to_inspect_and_on_to_steer(page: Page) -> None:
    open_tab(page, "Bank")
    page.locator("#bank-table tr[data-pick='4']").click()
    expect(page.locator("#bank-steer")).to_have_text("Steer with 4 × 0.75")
    page.click("#bank-inspect")
    expect(selected(page)).to_have_text("Inspect")
    expect(page.locator("#inspect-vector input")).to_have_value(re.compile("^4 · German"))
    page.fill("#inspect-corpus textarea", "Wie backe ich Brot?\n\nHow do I bake <b>bread</b>?\n\nTell me a joke.")
    page.click("#inspect-examples-run")
    expect(page.locator("#inspect-examples")).to_contain_text("Passages of your text")
    expect(page.locator("#inspect-examples mark").first).to_be_visible()
    assert page.locator("#inspect-examples b").count() == 0
    own = page.get_by_role("button", name="Try your own text")
    own.focus()
    own.press("Enter")
    page.fill("#inspect-text textarea", "Wie backe ich Brot?")
    page.click("#inspect-read")
    expect(page.locator("#inspect-own .read")).to_contain_text("the effect of 1 × this vector")
    page.locator("#inspect-random input").check()
    expect(page.locator("#inspect-own .read")).to_contain_text("a random vector of the same norm")
    lens = page.locator("#inspect-tokens .moved").first
    if not lens.is_visible():  # nothing stored beside the bank
        page.get_by_role("button", name="Which tokens it moves: logit lens").click()
        page.click("#inspect-tokens-run")
    expect(lens).to_contain_text("promotes")
    page.click("#inspect-steer")
    expect(selected(page)).to_have_text("Steer")
    expect(page.locator("#vector-0 input")).to_have_value(re.compile("^4 · German"))


def test_an_edited_label_is_told_everywhere_and_loses_nothing(page: Page) -> None:
    ask(page, "How can I bake bread?")
    said = settled(page)
    open_tab(page, "Bank")
    page.get_by_role("button", name="Edit this vector").click()
    label = page.locator("#bank-label textarea, #bank-label input")
    expect(label).to_have_value(re.compile("Refuse"))  # the drawer has opened, and puts no old value in any more
    label.fill("<b>Odd</b> one")
    expect(label).to_have_value("<b>Odd</b> one")
    page.click("#bank-save")
    expect(page.locator("#bank-notice")).to_contain_text("Saved")
    expect(page.locator("#bank-page h3")).to_have_text("<b>Odd</b> one")
    expect(page.locator("#bank-table tr.chosen .label")).to_have_text("<b>Odd</b> one")
    open_tab(page, "Steer")
    expect(page.locator("#vector-0 input")).to_have_value("0 · <b>Odd</b> one")
    assert settled(page) == said
    ask(page, "Tell me a joke about kites.")


def test_a_bank_that_is_loaded_shows_in_every_tab(page: Page) -> None:
    expect(page.locator("#intro .facts")).to_contain_text(f"{SHOWN} vectors")
    open_tab(page, "Banks & models")
    page.locator("#models-local [data-pick]").first.click()
    expect(page.locator("#models-notice")).to_contain_text("organism-bomb is in use: 128 vectors")
    expect(page.locator("#models-device")).to_contain_text(re.compile("[2-9], this app's own among them"))
    expect(page.locator("#intro .facts")).to_contain_text("128 vectors")
    open_tab(page, "Bank")
    expect(page.locator("#bank-page")).to_contain_text("of 128")
    page.fill("#bank-search input, #bank-search textarea", "pirate")
    page.locator("#bank-table tr[data-pick='8']").click()
    page.click("#bank-steer")
    expect(page.locator("#vector-0 input")).to_have_value(re.compile("^8 · "))
    ask(page, "How can I bake bread?")


def test_a_new_bank_goes_from_discover_to_steer(page: Page) -> None:
    open_tab(page, "Discover")
    for name, value in (("vectors", "3"), ("steps", "4")):
        box = page.locator(f"#discover-{name} input[type=number]")
        box.fill(value)
        box.press("Tab")
    page.click("#discover-start")
    expect(page.locator("#discover-status")).to_contain_text("3 vectors by MELBO")
    expect(page.locator("#discover-status svg polyline")).to_be_visible()
    page.click("#discover-steer")
    expect(selected(page)).to_have_text("Steer")
    expect(page.locator("#intro .facts")).to_contain_text("3 vectors")
    expect(page.locator("#vector-0 input")).to_have_value(re.compile("^[012]$"))
    ask(page, "How can I bake bread?")
    open_tab(page, "Discover")
    page.click("#discover-bank")
    expect(selected(page)).to_have_text("Bank")
    expect(page.locator("#bank-table tr[data-pick]")).to_have_count(3)


def test_a_sweep_fills_in_and_its_points_can_be_read(page: Page) -> None:
    open_tab(page, "R sweep")
    expect(page.locator("#sweep-status")).to_contain_text("Stored beside the bank")
    page.fill("#sweep-radii input, #sweep-radii textarea", "0.5, 1")
    for name, value in (("vectors", "2"), ("steps", "2")):
        box = page.locator(f"#sweep-{name} input[type=number]")
        box.fill(value)
        box.press("Tab")
    page.click("#sweep-run")
    expect(page.locator("#sweep-plot figure").first.locator(".hit")).to_have_count(2)
    expect(page.locator("#sweep-status")).to_contain_text("2 vectors at each R")
    point = page.locator("#sweep-plot figure").first.locator(".hit").first
    point.focus()
    point.press("Enter")
    expect(page.locator("#sweep-radius input")).to_have_value("0.5")
    expect(page.locator("#sweep-answers li").first).to_be_visible()


def test_the_keyboard_is_enough(page: Page) -> None:
    page.locator("#tabs button[role=tab]:visible").first.focus()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(selected(page)).to_have_text("Bank")
    page.locator("#bank-table tr[data-pick='1']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#bank-steer")).to_contain_text("Steer with 1 ")
    page.locator("#bank-steer").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#vector-0 input")).to_have_value(re.compile("^1 · "))
    had = steered(page).count()
    page.locator("#message textarea").focus()
    page.keyboard.type("How can I bake bread?")
    page.keyboard.press("Enter")
    expect(steered(page)).to_have_count(had + 1)


def test_a_failing_request_is_told_in_place_and_leaves_every_tab_working(page: Page, organism: LoadedModel) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret path /tmp/x")

    handle = organism.model.register_forward_pre_hook(fail)
    try:
        page.fill("#message textarea", "How can I bake bread?")
        page.click("#send")
        expect(page.locator("#steer-notice [role=alert]")).to_contain_text("Something went wrong here")
        for tab, button, notice in (
            ("Scale strip", "#strip-run", "#strip-notice"), ("R sweep", "#sweep-run", "#sweep-notice"),
            ("Discover", "#discover-start", "#discover-notice"), ("Bank", "#bank-tokens", "#bank-notice"),
            ("Inspect", "#inspect-examples-run", "#inspect-notice"),
        ):  # fmt: skip
            open_tab(page, tab)
            page.click(button)
            expect(page.locator(f"{notice} [role=alert]")).to_be_visible()
        assert "secret path" not in page.content() and page.locator(".toast-wrap .error").count() == 0
    finally:
        handle.remove()
    open_tab(page, "Banks & models")
    page.fill("#models-repo input, #models-repo textarea", "no/such-bank")
    page.click("#models-load-button")
    expect(page.locator("#models-hub-notice [role=alert]")).to_be_visible()
    open_tab(page, "Bank")
    page.click("#bank-tokens")
    expect(page.locator("#bank-lens .token").first).to_be_visible()
    open_tab(page, "Steer")
    ask(page, "How can I bake bread?")
    expect(page.locator("#steer-notice [role=alert]")).to_have_count(0)
