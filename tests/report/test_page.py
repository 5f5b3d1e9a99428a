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

from .conftest import HOSTILE


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
    assert len(tree.css("script")) == 2
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


def _balance(matched: list[int]) -> pa.Table:
    return pa.table({"query_id": list(range(len(matched))), "matched": matched})


def test_a_long_list_shows_both_ends(monkeypatch):
    """Beyond what a page can hold it has the most matched, and the least matched with a match."""
    monkeypatch.setattr(page, "TOP_ROWS", 3)
    monkeypatch.setattr(page, "BOTTOM_ROWS", 2)
    rows = page.embedded_rows(_balance([5, 0, 9, 1, 8, 7, 2, 0]))
    assert rows["matched"].to_pylist() == [9, 8, 7, 2, 1]
    rows = page.embedded_rows(_balance([0, 0, 9, 0, 0, 3, 0]))
    assert rows["matched"].to_pylist() == [9, 3, 0, 0, 0]
    assert rows["query_id"].to_pylist() == [2, 5, 0, 1, 3]
    assert page.embedded_rows(_balance([1, 2]))["matched"].to_pylist() == [2, 1]


def test_shares_are_of_the_step_before_in_the_same_unit():
    """Pairs are no share of pages, and a step of nothing has no share after it."""
    steps = [Step("read", 7, "pages"), Step("a", 40), Step("b", 10), Step("c", 0), Step("d", 0)]
    rows = page.funnel_rows(steps)
    assert [r["share"] for r in rows] == ["", "", "25.0 %", "0 %", "n/a"]
    assert [bool(r["bar"]) for r in rows] == [False, True, True, True, True]
