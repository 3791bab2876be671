"""The system's Chromium, as the browser tests drive it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 60_000
"""Milliseconds to wait for the page: a machine busy with training is slow."""
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed; install it, or set CHROMIUM"
)


@contextmanager
def clean_page(page: Page, url: str) -> Iterator[Page]:
    """The app's page, loaded; at the end it must have been free of errors and of outside requests."""
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    asked: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    page.goto(url)
    page.wait_for_selector("#message textarea")
    yield page
    page.close()
    outside = [u for u in asked if urlparse(u).hostname not in (None, "127.0.0.1", "localhost")]
    assert not errors and not outside, (errors, outside)
