"""A later visit of a site asks for what changed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.mock_web import MockWeb, redirect
from tests.site_crawls import (
    FETCH,
    HTML_BYTES,
    PAGES,
    SEED,
    asked_for,
    change,
    crawl,
    frontier,
    page,
)
from wit_builder.crawl import site
from wit_builder.sections import SiteSource


@pytest.mark.parametrize("warc", [False, True])
def test_a_later_visit_asks_for_changes(web: MockWeb, tmp_path: Path, *, warc: bool) -> None:
    """It asks with what servers said of each page; one that did not change keeps what it had."""
    first, _ = crawl(web, tmp_path, warc=warc)
    assert first.counts["pages"] == PAGES
    change(web)
    web.log.clear()
    web.headers.clear()
    done, found = crawl(web, tmp_path, visit=2, warc=warc)
    conditional = [h for h in web.headers if {"if-none-match", "if-modified-since"} & set(h)]
    assert len(conditional) == 22  # all but the new page; robots.txt is known still
    assert len(asked_for(web)) == PAGES + 1 - 2  # below the removed page and the one that opts out
    assert done.counts["unchanged"] == 19
    assert found["text"].to_pylist() == crawl(web, tmp_path / "anew")[1]["text"].to_pylist()


def test_a_visit_of_a_visit(web: MockWeb, tmp_path: Path) -> None:
    """What a visit found unchanged is known to the next; the numbers need not follow."""
    _, first = crawl(web, tmp_path)
    crawl(web, tmp_path, visit=2)
    web.log.clear()
    done, found = crawl(web, tmp_path, visit=7)
    assert done.counts["unchanged"] == PAGES
    assert found.equals(first)
    assert len(asked_for(web)) == PAGES


def test_a_page_that_leads_elsewhere_now(web: MockWeb, tmp_path: Path) -> None:
    """A 304 from another address says nothing of the page that was kept: that one is read."""
    crawl(web, tmp_path)
    web.pages["/2"] = redirect("/moved")
    web.pages["/moved"] = page(102, ETag='W/"2"')
    _, found = crawl(web, tmp_path, visit=2)
    assert "picture 102" in found["text"].to_pylist()
    assert "picture 2" not in found["text"].to_pylist()


def test_a_304_that_nobody_asked_for(web: MockWeb, tmp_path: Path) -> None:
    """It is a refusal, not an empty page."""
    web.pages["/1"] = (304, {}, b"")
    done, found = crawl(web, tmp_path)
    assert done.counts["rejected:redirect_loop"] == 1
    assert "picture 1" not in found["text"].to_pylist()


def test_headers_of_odd_bytes(web: MockWeb, tmp_path: Path) -> None:
    """A validator that cannot be sent is none; a type that cannot be stored is told as it can."""
    web.pages["/1"] = page(1, ETag='"\u00e4"')
    web.pages["/2"] = (200, {"Content-Type": "\u00e4"}, b"")
    crawl(web, tmp_path, warc=True)
    rows = {row["url"]: row for row in frontier(tmp_path).to_pylist()}
    assert rows["http://a.test/1"]["etag"] is None
    assert rows["http://a.test/2"]["reason"] == "not_html"


def test_pieces_of_visits() -> None:
    """The last visit is the piece; the earlier ones are known with it, by keys of their own."""
    source = SiteSource(seeds=[SEED, "http://b.test/"], visit=3)
    found = site.pieces(source, FETCH, HTML_BYTES, {})
    assert [piece.key for piece in found] == ["a.test, visit 3", "b.test, visit 3"]
    assert [earlier.key for earlier in found[0].earlier] == ["a.test", "a.test, visit 2"]
    assert {piece.origin for piece in found} == {"a.test", "b.test"}
    (first, _) = site.pieces(msgspec.structs.replace(source, visit=1), FETCH, HTML_BYTES, {})
    assert found[0].earlier[0].inputs == first.inputs


def test_what_is_no_page_stays_so(web: MockWeb, tmp_path: Path) -> None:
    """A document that did not change is not sent again, and is none of ours still."""
    web.pages["/1"] = (200, {"Content-Type": "application/pdf", "ETag": '"p"'}, b"%PDF")
    crawl(web, tmp_path)
    done, _ = crawl(web, tmp_path, visit=2)
    rows = {row["url"]: row for row in frontier(tmp_path).to_pylist()}  # of the later visit
    assert rows["http://a.test/1"]["status"] == 304
    assert done.counts["rejected:not_html"] == 1
