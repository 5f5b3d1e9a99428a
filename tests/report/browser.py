"""Opening a page in the system's Chromium, and reading its table."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
]

NEEDED = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="NOT TESTED: the report's page needs Chromium: apt-get install chromium",
    ),
]
"""Marks of the tests that need a browser."""


@contextlib.contextmanager
def opened(browser: Browser, place: Path) -> Iterator[Page]:
    """The page, desktop sized, its search there; it must open without any error or request."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    troubles, requests = [], []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(place.as_uri())
    page.wait_for_selector("#filters:not([hidden])")
    yield page
    page.close()
    assert troubles == []
    assert requests == [place.as_uri()]


def column(page: Page, place: int) -> list[str]:
    return page.locator(f"#table tbody tr > :nth-child({place})").all_text_contents()


def numbers(page: Page, place: int) -> list[int]:
    return [int(text.replace(",", "")) for text in column(page, place)]
