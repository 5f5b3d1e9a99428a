"""The page in a real headless Chromium, opened as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.report.browser import CHROMIUM, FLAGS, NEEDED

from .test_page import HOSTILE, _page

pytestmark = NEEDED


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Page]:
    """The page; it must open without any error, message or request but its own."""
    place = tmp_path / "index.html"
    place.write_text(_page(), "utf-8")
    troubles, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("dialog", lambda dialog: troubles.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(place.as_uri())
        yield page
        browser.close()
    assert troubles == []
    assert [url for url in requests if not url.startswith("data:")] == [place.as_uri()]


def _names(page: Page) -> list[str]:
    return page.locator("#table tbody tr:not([hidden]) th").all_inner_texts()


def test_the_table_of_classes_is_sorted_and_searched(opened):
    """Columns sort both ways, a search hides the others, pictures show, and no width scrolls."""
    by_accuracy = [HOSTILE, "cat & dog", "owl"]
    assert _names(opened) == by_accuracy
    heading = opened.locator("#table").get_by_role("columnheader", name="Answered")
    for said, names in (
        ("descending", ["owl", "cat & dog", HOSTILE]),
        ("ascending", [HOSTILE, "cat & dog", "owl"]),
    ):
        heading.get_by_role("button").click()
        assert (heading.get_attribute("aria-sort"), _names(opened)) == (said, names)
    opened.locator("#table").get_by_role("button", name="Class").click()
    assert _names(opened) == [HOSTILE, "cat & dog", "owl"]
    opened.locator("#table").get_by_role("button", name="Most often").click()
    assert _names(opened)[-1] == "owl"  # which is never mistaken
    opened.get_by_label("Search").fill("CAT")
    assert _names(opened) == ["cat & dog"]
    expect(opened.locator("#found")).to_have_text("1 of 3 classes")
    opened.get_by_label("Search").fill("")
    expect(opened.locator("#found")).to_have_text("3 classes")
    shown = opened.locator(".gallery img").first
    assert (
        shown.evaluate("async image => { await image.decode(); return image.naturalWidth }") == 60
    )
    for width in (320, 390, 768, 1200):
        opened.set_viewport_size({"width": width, "height": 800})
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
