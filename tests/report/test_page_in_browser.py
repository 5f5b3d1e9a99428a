"""The page in a real headless Chromium, opened as a file, with the network denied by its policy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from wit_builder.report import build

from .conftest import HOSTILE

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="NOT TESTED: the report's page needs Chromium: apt-get install chromium",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", autouse=True)
def _report(job) -> None:
    build.run(job)


@pytest.fixture
def page(browser, job) -> Iterator[Page]:
    """The report's page, desktop sized; it must open without any error or request."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    troubles, requests = [], []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(Path(job.root, "report", "index.html").as_uri())
    yield page
    page.close()
    assert troubles == []
    assert len(requests) == 1


def _column(page: Page, place: int) -> list[str]:
    return page.locator(f"#table tbody tr > :nth-child({place})").all_text_contents()


def _numbers(page: Page, place: int) -> list[int]:
    return [int(text.replace(",", "")) for text in _column(page, place)]


def test_script_shows_what_the_page_held_without_it(page, job, browser):
    """The script's first rows are those written as HTML, so nothing changes when it starts."""
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(Path(job.root, "report", "index.html").as_uri())
    rows = "#table tbody tr"
    assert plain.locator(rows).all_text_contents() == page.locator(rows).all_text_contents()
    expect(plain.locator("#filters")).to_be_hidden()
    plain.context.close()


def test_search_filters_as_one_types(page):
    """Typing keeps the queries that contain it, says how many, and says so where there is none."""
    page.get_by_label("Search").fill("QUERY 000")
    expect(page.locator("#found")).to_have_text("9 of 60 queries")
    assert all(q.startswith("query 000") for q in _column(page, 1))
    page.get_by_label("Search").fill("zebra")
    expect(page.locator("#table tbody")).to_contain_text("No query fits")
    expect(page.locator("#found")).to_have_text("0 of 60 queries")


def test_source_and_status_filter_together(page):
    """Both choices hold at once."""
    page.locator("#filters").get_by_label("Source").select_option(label="bigram")
    page.locator("#filters").get_by_label("Status").select_option(label="empty")
    assert set(_column(page, 7)) == {"empty"}
    assert set(_column(page, 8)) == {"bigram"}
    assert set(_numbers(page, 2)) == {0}


def test_any_column_sorts_both_ways_and_says_so(page):
    """A header's button sorts; pressed again it turns round; aria-sort tells which."""
    for place, name in enumerate(["Query", "Matched", "Drawn", "Alive", "Kept", "Contained"], 1):
        if name == "Matched":
            continue  # the order it opens in
        header = page.locator("#table").get_by_role("columnheader", name=name, exact=True)
        header.get_by_role("button").click()
        first = header.get_attribute("aria-sort")
        read = (
            (lambda: _column(page, 1)[1:]) if name == "Query" else lambda p=place: _numbers(page, p)
        )
        assert first == ("ascending" if name == "Query" else "descending")
        once = read()
        assert once == sorted(once, reverse=first == "descending")
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") != first
    assert page.locator("#table [aria-sort]").count() == 1


def test_the_keyboard_is_enough(page):
    """Tab reaches search, filters and sort buttons in that order, and Enter sorts."""
    page.get_by_label("Search").focus()
    for expected in ("source", "status"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == expected
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Query"
    page.keyboard.press("Enter")
    expect(
        page.locator("#table").get_by_role("columnheader", name="Query", exact=True)
    ).to_have_attribute("aria-sort", "ascending")


def test_pages_turn(page):
    """Sixty queries are two pages of fifty and ten."""
    page.get_by_role("button", name="Next").click()
    assert len(_column(page, 1)) == 10
    expect(page.locator("#place")).to_have_text("51 to 60")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    assert len(_column(page, 1)) == 50


def test_a_hostile_query_runs_nothing(page, job):
    """A query made of a script is shown and searched as text, and leaves the page alone."""
    page.get_by_label("Search").fill("<script>")
    assert _column(page, 1) == [HOSTILE]
    assert page.title() == f"{job.title}: balance report"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_readable(page, scheme):
    """Text stands out from its ground by at least 4.5 to 1 (WCAG 2.2, 1.4.3), quiet text too."""
    page.emulate_media(color_scheme=scheme)
    for selector in (
        "h1",
        ".lede",
        ".note",
        "figcaption",
        "#table tbody td",
        "#table thead button",
    ):
        assert page.evaluate(_CONTRAST, selector) >= 4.5, selector
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")


_CONTRAST = """selector => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const element = document.querySelector(selector);
  let under = element;
  while (channels(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const pair = [getComputedStyle(element).color, getComputedStyle(under).backgroundColor]
    .map((c) => light(channels(c))).sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
}"""


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_never_scrolls_sideways(page, width):
    """At any width the page fits; wide tables scroll inside their frames."""
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        "[...document.querySelectorAll('.plot text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(sizes) >= 9
