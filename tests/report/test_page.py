"""The page as text: what it holds, and that nothing in it can run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from wit_builder.report import build, page
from wit_builder.report.folder import script_json
from wit_builder.report.summary import Step

from .conftest import HOSTILE, rendered


@pytest.fixture(scope="module")
def html(job):
    """The page of the run."""
    build.run(job)
    return Path(job.root, "report", "index.html").read_text()


def test_hostile_strings_are_only_text(html):
    """A query or a title with markup in it appears as written and makes no element."""
    tree = LexborHTMLParser(html)
    assert tree.css("h1")[0].text() == "animals & <b>things</b>"
    assert HOSTILE in [cell.text() for cell in tree.css("tbody th")]
    assert len(tree.css("script")) == 3
    assert "<script>document" not in html


def test_the_page_asks_for_nothing(html):
    """No link, image, font or script of another place; its policy allows none."""
    assert not re.search(r"https?://|<link|@import|url\(", html)
    assert "default-src 'none'" in html


def test_the_page_has_no_place_and_no_time(html, job):
    """Nothing of the machine is in it; the footer names recipe and digest."""
    assert job.root not in html
    footer = LexborHTMLParser(html).css("footer")[0].text()
    assert job.title in footer
    assert job.recipe_digest in footer


@given(st.lists(st.text()))
def test_script_json_is_json_and_cannot_end_its_element(texts):
    """Any strings come back from it, and no angle bracket stands in it."""
    assert json.loads(script_json(texts)) == texts
    assert not set("<>&\u2028\u2029") & set(script_json(texts))


def _rows(matched: list[int], kept: list[int]) -> pa.Table:
    names = [f"q{i}" for i in range(len(matched))]
    return pa.table({"query": names, "matched": matched, "kept": kept})


def test_both_ends_have_their_tables():
    """Most matched, most lost below the cap, and least matched of those with a match."""
    tables = page.end_tables(_rows([5, 0, 90, 1, 8, 1], [5, 0, 10, 0, 2, 1]), cap_per_query=10)
    said = {t["title"]: [(r["query"], r["lost"]) for r in t["rows"]] for t in tables}
    assert said == {
        "Most matched": [("q2", 0), ("q4", 6), ("q0", 0), ("q3", 1), ("q5", 0)],
        "Lost the most": [("q4", 6), ("q3", 1)],
        "Least matched": [("q3", 1), ("q5", 0)],
    }
    assert tables[2]["note"] == "all 2 with 1 matched pair"
    [_, _, rare] = page.end_tables(_rows([5, 2], [5, 1]), cap_per_query=10)
    assert rare["note"] == "the only one with 2 matched pairs"


def test_many_equally_rare_queries_are_shown_from_all_over():
    """Of a hundred with one match, the few shown are spread over the alphabet."""
    tables = page.end_tables(_rows([1] * 100, [1] * 100), cap_per_query=10)
    [_, rare] = tables
    places = [int(r["query"][1:]) for r in rare["rows"]]
    assert (places[0], places[-1], len(places)) == (0, 99, page.END_ROWS)
    assert rare["note"] == f"{page.END_ROWS} of the 100 with 1 matched pair"


def test_nothing_matched_has_no_ends():
    """Without a match there is neither most nor least."""
    assert page.end_tables(_rows([0, 0], [0, 0]), cap_per_query=3) == []
    assert page.end_tables(_rows([], []), cap_per_query=3) == []


def test_shares_are_of_the_step_before_in_the_same_unit():
    """Pairs are no share of pages, and a step of nothing has no share after it."""
    steps = [Step("read", 7, "pages"), Step("a", 40), Step("b", 10), Step("c", 0), Step("d", 0)]
    rows = page.funnel_rows(steps)
    assert [r["share"] for r in rows] == ["", "", "25.0\xa0%", "0\xa0%", "n/a"]
    assert [bool(r["bar"]) for r in rows] == [False, True, True, True, True]


def _told(html: str) -> str:
    """Return all that a reader sees, white space collapsed."""
    body = LexborHTMLParser(html).body
    assert body is not None
    body.strip_tags(["script"])
    return " ".join(body.text().split())


def test_where_nothing_is_kept_there_is_no_after():
    """A run all of whose links were dead says so, and shows and names nothing after balancing."""
    html = rendered([50, 3, 0], [0, 0, 0], cap=20)
    told = _told(html)
    assert "No pair was kept, so there are no shards." in told
    assert "This head holds 94.3 % of all matches before balancing; the rest is the tail." in told
    assert "Nothing was kept, so there is no after." in told
    assert "n/a" not in told
    assert "after: kept" not in told
    assert "there are no shards: no pair was kept" in told
    assert "the last after" not in html


def test_where_nothing_is_matched_one_notice_says_so():
    """Without a match, the notice on it stands alone."""
    told = _told(rendered([0, 0], [0, 0]))
    assert "No text contains any of the queries" in told
    assert "No pair was kept, so" not in told


def test_generations_are_explained_where_there_are_several():
    """A reader of one generation is not troubled with the word's meaning."""
    said = "A generation, g0 and so on, is what one set of archives gave"
    assert said not in _told(rendered([3], [3]))
    assert said in _told(rendered([3], [3], generation="g2"))


def test_the_page_says_what_a_cap_is_for():
    """Who never read the paper learns why there is a cap and why a query may exceed it."""
    told = _told(rendered([3, 1], [2, 1]))
    assert "A cap keeps common words from crowding out rare ones." in told
    assert "A curve that stays low until late is even." in told
    assert "rare queries keep pairs that contain it, too" in told


def test_one_of_a_kind_is_told_in_the_singular():
    """One query with one match is neither "1 queries" nor "1 matche"."""
    told = _told(rendered([1], [1]))
    assert "1 match before, 1 after" in told
    assert "for 1 query, at most" in told
    assert "the only one with 1 matched pair" in told
    assert "matche " not in told


def test_figures_and_signs_stay_on_one_line(html):
    """No break may fall between a share and its sign, or a size and its unit."""
    cells = LexborHTMLParser(html).css("dd, td, strong, .share")
    told = [cell.text() for cell in cells]
    assert not [text for text in told if re.match(r"[\d.]+ (%|[kMGT]?B)", text)]
    assert [text for text in told if re.match(r"[\d.]+\xa0%", text)]
    assert [text for text in told if re.match(r"[\d.]+\xa0MB", text)]
