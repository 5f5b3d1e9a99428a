"""The page in a real headless Chromium, opened as a file, with the network denied by its policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from wit_builder.report import build
from wit_builder.text import normalise

from .browser import NEEDED, column, numbers, opened
from .conftest import HOSTILE, rendered

pytestmark = NEEDED


@pytest.fixture(scope="module", autouse=True)
def _report(job) -> None:
    build.run(job)


@pytest.fixture
def page(browser, job) -> Iterator[Page]:
    """The report's page."""
    with opened(browser, Path(job.root, "report", "index.html")) as page:
        yield page


def test_script_shows_what_the_page_held_without_it(page, job, browser):
    """The script's first rows are those written as HTML, so nothing changes when it starts."""
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(Path(job.root, "report", "index.html").as_uri())
    rows = "#table tbody tr"
    assert plain.locator(rows).all_text_contents() == page.locator(rows).all_text_contents()
    expect(plain.locator("#filters")).to_be_hidden()
    expect(plain.locator("#found")).to_contain_text("The 50 most matched of 60 queries")
    plain.context.close()


def test_a_browser_that_cannot_unpack_says_so(job, browser):
    """Without DecompressionStream the static rows stay, and the page says what is missing."""
    old = browser.new_page()
    troubles = []
    old.on("pageerror", lambda error: troubles.append(str(error)))
    old.add_init_script("delete window.DecompressionStream")
    old.goto(Path(job.root, "report", "index.html").as_uri())
    expect(old.locator("#found")).to_contain_text("no DecompressionStream. The 50 most matched")
    expect(old.locator("#filters")).to_be_hidden()
    assert old.locator("#table tbody tr").count() == 50
    assert troubles == []
    old.close()


def test_a_browser_of_some_years_ago_unpacks_it_too(job, browser):
    """Without Uint8Array.fromBase64, new in 2025, the search is there all the same."""
    older = browser.new_page()
    older.add_init_script("delete Uint8Array.fromBase64")
    older.goto(Path(job.root, "report", "index.html").as_uri())
    older.wait_for_selector("#filters:not([hidden])")
    expect(older.locator("#found")).to_have_text("60 queries")
    older.close()


def test_a_page_cut_short_says_so(job, browser, tmp_path):
    """Where the embedded columns are damaged, the static rows stay and the error is told."""
    html = Path(job.root, "report", "index.html").read_text()
    start = html.index('id="packed">') + len('id="packed">')
    broken = tmp_path / "broken.html"
    broken.write_text(html[: start + 40] + html[html.index("</script>", start) :])
    torn = browser.new_page()
    torn.goto(broken.as_uri())
    expect(torn.locator("#found")).to_contain_text("could not be unpacked")
    assert torn.locator("#table tbody tr").count() == 50
    torn.close()


def test_search_filters_as_one_types(page):
    """Typing keeps the queries that contain it, says how many, and says so where there is none."""
    page.get_by_label("Search").fill("QUERY 000")
    expect(page.locator("#found")).to_have_text("9 of 60 queries")
    assert all(q.startswith("query 000") for q in column(page, 1))
    page.get_by_label("Search").fill("zebra")
    expect(page.locator("#table tbody")).to_contain_text("No query fits")
    expect(page.locator("#found")).to_have_text("0 of 60 queries")
    assert page.locator("#place").text_content() == ""


def test_what_normalises_to_nothing_is_no_search(page):
    """Emoji and punctuation find nothing, and the page says that it does not look for them."""
    for typed in ("\N{DOG FACE}", "?!"):
        page.get_by_label("Search").fill(typed)
        said = "Nothing to search for: letters and digits count. 60 queries"
        expect(page.locator("#found")).to_have_text(said)
    page.get_by_label("Search").fill(" ")
    expect(page.locator("#found")).to_have_text("60 queries")


def test_search_takes_what_matching_takes(page):
    """A needle is normalised as queries are: width, case and punctuation do not matter."""
    for typed in ("Query, 0005!", "  \uff31\uff35\uff25\uff32\uff39\u00a00006", "query--0007"):
        page.get_by_label("Search").fill(typed)
        assert column(page, 1) == [normalise(typed)]


def test_source_and_status_filter_together(page):
    """Both choices hold at once."""
    page.locator("#filters").get_by_label("Source").select_option(label="bigram")
    page.locator("#filters").get_by_label("Status").select_option(label="empty")
    assert set(column(page, 7)) == {"empty"}
    assert set(column(page, 8)) == {"bigram"}
    assert set(numbers(page, 2)) == {0}


def test_any_column_sorts_both_ways_and_says_so(page):
    """A header's button sorts; pressed again it turns round; aria-sort tells which."""
    names = ["Query", "Matched", "Drawn", "Alive", "Kept", "Contained"]
    for place, name in enumerate(names, 1):
        if name == "Matched":
            continue  # the order it opens in
        header = page.locator("#table").get_by_role("columnheader", name=name, exact=True)
        header.get_by_role("button").click()
        first = header.get_attribute("aria-sort")
        read = (
            (lambda: column(page, 1)[1:]) if name == "Query" else lambda p=place: numbers(page, p)
        )
        assert first == ("ascending" if name == "Query" else "descending")
        once = read()
        assert once == sorted(once, reverse=first == "descending")
        header.get_by_role("button").click()
        assert header.get_attribute("aria-sort") != first
    assert page.locator("#table [aria-sort]").count() == 1


def test_words_sort_by_kind(page):
    """Status and source sort in the order of their legends, equal ones by the alphabet."""
    page.locator("#table").get_by_role("button", name="Status").click()
    order = ["full", "exhausted", "short", "empty"]
    ended = column(page, 7)
    assert ended == sorted(ended, key=order.index)
    page.locator("#table").get_by_role("button", name="Source").click()
    rows = list(zip(column(page, 8), column(page, 1), strict=True))
    order = ["wordnet", "unigram", "bigram", "title"]
    assert rows == sorted(rows, key=lambda row: (order.index(row[0]), row[1]))


def test_a_search_keeps_the_sort(page):
    """Searching after sorting stays sorted, and a filter narrows the search."""
    page.locator("#table").get_by_role("button", name="Kept").click()
    page.locator("#table").get_by_role("button", name="Kept").click()
    page.get_by_label("Search").fill("query 00")
    kept = numbers(page, 5)
    assert kept == sorted(kept)
    page.locator("#filters").get_by_label("Status").select_option(label="full")
    assert set(column(page, 7)) == {"full"}
    assert all("query 00" in q for q in column(page, 1))


def test_the_keyboard_is_enough(page):
    """From the top: skip to the table, search, filter, sort and turn the page without a pointer."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the table of queries"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("query")
    expect(page.locator("#found")).to_have_text("59 of 60 queries")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "source"
    page.keyboard.press("Tab")
    page.keyboard.press("e")  # picks the first status that begins with it
    expect(page.locator("#status")).to_have_value("1")
    page.keyboard.press("Home")
    expect(page.locator("#status")).to_have_value("")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Query"
    page.keyboard.press("Enter")
    expect(
        page.locator("#table").get_by_role("columnheader", name="Query", exact=True)
    ).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Next").focus()
    page.keyboard.press("Space")
    expect(page.locator("#place")).to_have_text("51 to 59")


def test_pages_turn(page):
    """Sixty queries are two pages of fifty and ten."""
    page.get_by_role("button", name="Next").click()
    assert len(column(page, 1)) == 10
    expect(page.locator("#place")).to_have_text("51 to 60")
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.get_by_role("button", name="Previous").click()
    assert len(column(page, 1)) == 50


@pytest.mark.parametrize("width", [360, 1200])
def test_the_next_page_is_read_from_its_beginning(page, width):
    """Turning the page brings its first row into sight, and says which rows there are."""
    page.emulate_media(reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 500})
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#table tbody tr").first).to_be_in_viewport()
    expect(page.locator("#found")).to_be_in_viewport()
    expect(page.get_by_role("status").filter(has_text="51 to 60")).to_have_count(1)


def test_searching_is_told_once(page):
    """As one types, the number found is told; the rows shown are told when they change only."""
    page.evaluate(_COUNT_CHANGES)
    page.get_by_label("Search").fill("query")
    expect(page.locator("#found")).to_have_text("59 of 60 queries")
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#place")).to_have_text("51 to 59")
    assert page.evaluate("window.changes") == {"found": 1, "place": 1}


_COUNT_CHANGES = """() => {
  window.changes = { found: 0, place: 0 };
  for (const id of ["found", "place"]) {
    const seen = new MutationObserver((all) => { window.changes[id] += all.length; });
    seen.observe(document.getElementById(id), { childList: true, subtree: true });
  }
}"""


def test_a_hostile_query_runs_nothing(page, job):
    """A query made of a script is shown and searched as text, and leaves the page alone."""
    page.get_by_label("Search").fill("<script>")
    assert column(page, 1) == [HOSTILE]
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
        ".ends h3 span",
        "summary",
        "#found",
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


def test_a_phone_never_scrolls_sideways(page):
    """At any width the page fits; wide tables scroll inside their frames."""
    page.locator("summary").click()
    for width in (320, 360, 390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        heights = "all => all.map(text => text.getBoundingClientRect().height)"
        sizes = page.locator(".plot text").evaluate_all(heights)
        assert min(sizes) >= 9


@pytest.fixture(scope="module")
def awkward(tmp_path_factory) -> Path:
    """A page of long words and large numbers: a title without a break, long queries, billions."""
    names = ["a " + "very " * 30 + "long query", "donaudampfschiff" * 9, "cat"]
    matched = [1_500_000_000, 706_073_194, 3]
    html = rendered(matched, [20_000, 20_000, 3], names=names, title="recipe_of_one_word" * 6)
    place = tmp_path_factory.mktemp("awkward") / "index.html"
    place.write_text(html)
    return place


@pytest.mark.parametrize("width", [320, 360, 720, 1100])
def test_long_words_and_large_numbers_fit(browser, awkward, width):
    """No title, query or figure sticks out of the page or of its column."""
    with opened(browser, awkward) as page:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".bars .figure").evaluate_all(_STICKING_OUT) == []


_STICKING_OUT = """all => all.filter((e) => {
  const range = document.createRange();
  range.selectNodeContents(e);
  const text = range.getBoundingClientRect(), cell = e.getBoundingClientRect();
  return text.left < cell.left - 1 || text.right > cell.right + 1;
}).map((e) => e.textContent)"""


def test_long_queries_are_read_by_touch_and_keyboard(browser, awkward):
    """A query that is cut is a tab stop, which shows it whole; one that fits is none."""
    with opened(browser, awkward) as page:
        page.set_viewport_size({"width": 360, "height": 800})
        cells = page.locator("#table tbody .query")
        for place in (0, 1):
            long = cells.nth(place)
            expect(long).to_have_attribute("tabindex", "0")
            assert long.evaluate("e => e.scrollHeight > e.clientHeight")
            long.focus() if place else long.click()
            assert long.evaluate("e => e.scrollHeight <= e.clientHeight")
        expect(cells.nth(2)).not_to_have_attribute("tabindex")
        page.set_viewport_size({"width": 1200, "height": 800})
        expect(cells.nth(0)).to_have_attribute("tabindex", "0")


def test_queries_are_whole_without_script(browser, awkward):
    """Who runs no script has no way to open a cut query, so none is cut."""
    plain = browser.new_context(java_script_enabled=False).new_page()
    plain.goto(awkward.as_uri())
    box = plain.locator("#table tbody .query").first.bounding_box()
    assert box is not None
    assert box["height"] > 3 * 16 * 1.4
    plain.context.close()


def test_only_what_scrolls_is_a_tab_stop(page):
    """Frames that hold their table whole are passed over; on a phone, wide ones are stops."""
    frames = page.locator(".scroll[tabindex]")
    expect(frames).to_have_count(0)
    page.set_viewport_size({"width": 360, "height": 800})
    for name in ("Rounds", "Queries by source", "All queries"):
        frame = page.get_by_role("region", name=name, exact=True).last
        expect(frame).to_have_attribute("tabindex", "0")
    rounds = page.get_by_role("region", name="Rounds", exact=True)
    first = rounds.locator("tbody th").first
    before = first.bounding_box()
    assert rounds.evaluate("e => { e.scrollLeft = 500; return e.scrollLeft }") > 0
    assert first.bounding_box() == before  # the row's name stays in sight


def test_a_list_of_one_query(browser, tmp_path):
    """One is told in the singular, by the script as without it."""
    place = tmp_path / "index.html"
    place.write_text(rendered([1], [1]))
    with opened(browser, place) as page:
        expect(page.locator("#found")).to_have_text("1 query")
        page.get_by_label("Search").fill("zebra")
        expect(page.locator("#found")).to_have_text("0 of 1 query")
