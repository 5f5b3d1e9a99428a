from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.crawl import sitemap
from wit_builder.crawl.sitemap import Sitemap, read_sitemap

HERE = "https://a.example/sitemap.xml"
A, B = "https://a.example/a", "https://a.example/b"


def urlset(*addresses: str, attributes: str = "") -> bytes:
    urls = "".join(f"<url><loc>{address}</loc></url>" for address in addresses)
    return f'<?xml version="1.0"?><urlset {attributes}>{urls}</urlset>'.encode()


@pytest.mark.parametrize(
    "body",
    [
        urlset(A, B, attributes='xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'),
        urlset(A, B),
        urlset(f"\n  {A}\n ", f"<![CDATA[{B}]]>", A),
        b"\xef\xbb\xbf \n" + urlset(A, B),
        urlset(A, B).decode().encode("utf-16"),
        b"<s:urlset xmlns:s='s'><s:url><s:loc>/a</s:loc><s:lastmod>2024</s:lastmod></s:url>%b"
        % b"<s:url><s:priority>0.5</s:priority><s:loc>/b</s:loc></s:url></s:urlset>",
        f"{A}\r\n\r\n{B}\n{A}\n".encode(),
        b"\xef\xbb\xbf" + f"{A}\n{B}".encode(),
        f"<rss><channel><link>https://a.example/</link><item><link>{A}</link></item>"
        f"<item><title>x</title><link>{B}</link></item></channel></rss>".encode(),
        f"<feed xmlns='http://www.w3.org/2005/Atom'><link href='/'/><entry><link href='{A}'/>"
        f"</entry><entry><link rel='alternate' href='{B}'/></entry></feed>".encode(),
    ],
    ids=[
        "as the protocol has it",
        "no namespace",
        "white space, CDATA, a repeat",
        "a mark and a line before the declaration",
        "UTF-16",
        "a prefix, relative addresses",
        "text",
        "text with a mark",
        "RSS",
        "Atom",
    ],
)
def test_pages(body: bytes) -> None:
    """The pages of a sitemap are those of its kind, whatever its dress, each once."""
    assert read_sitemap(body, HERE) == Sitemap([A, B], [])


def test_pictures_and_alternates_are_no_pages() -> None:
    """Of a page's element its own ``loc`` is read alone."""
    body = (
        f"<urlset xmlns:i='i' xmlns:x='x'><url><loc>{A}</loc><i:image><i:loc>{B}</i:loc></i:image>"
        f"<x:link rel='alternate' href='{B}'/></url></urlset>"
    )
    assert read_sitemap(body.encode(), HERE).pages == [A]


def test_an_index() -> None:
    """An index names sitemaps."""
    body = f"<sitemapindex><sitemap><loc>{A}</loc><lastmod>x</lastmod></sitemap></sitemapindex>"
    assert read_sitemap(body.encode(), HERE) == Sitemap([], [A])


def test_cut_off_is_read_as_far_as_it_goes() -> None:
    """What stands before a fault is taken."""
    found = read_sitemap(urlset(A, B, A)[:-40], HERE)
    assert found.pages == [A, B]
    assert "malformed" in found.fault


def test_unescaped_ampersand_ends_it() -> None:
    """The commonest fault of all: what stands before is taken, and the fault is named."""
    found = read_sitemap(urlset(A, "https://a.example/?x=1&y=2", B), HERE)
    assert found.pages == [A]
    assert "malformed" in found.fault


BOMB = b"""<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">
]><urlset><url><loc>https://a.example/&b;</loc></url></urlset>"""
OUTSIDE = b"""<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<urlset><url><loc>https://a.example/&a;</loc></url></urlset>"""


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (BOMB, "has a DTD"),
        (OUTSIDE, "has a DTD"),
        (b"<!doctype html><title>Sorry</title>", "has a DTD|malformed"),
        (b"<html><a href='/x'>x</a></html>", "its root is <html>"),
        (b"<urlset>" + b"<url>" * 40, "more than 32 elements"),
        (b"\x89PNG\r\n\x1a\n\0\0", "no line of it is a URL"),
        (b'<?xml version="1.0" encoding="x-nothing"?><urlset/>', "malformed"),
        (b"<urlset><url><loc>https://a.example/&undefined;</loc></url>", "malformed"),
    ],
    ids=["entities", "a file", "a page", "XHTML", "nesting", "a picture", "charset", "an entity"],
)
def test_what_is_no_sitemap(body: bytes, fault: str) -> None:
    """It names nothing, and what is wrong is told."""
    found = read_sitemap(body, HERE)
    assert (found.pages, found.sitemaps) == ([], [])
    assert any(part in found.fault for part in fault.split("|")), found.fault


def test_addresses_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are left out; a file has no more than the protocol's number of addresses."""
    assert read_sitemap(urlset("mailto:x@a.example", A, "http://", B), HERE).pages == [A, B]
    monkeypatch.setattr(sitemap, "MAX_URLS", 2)
    many = read_sitemap(urlset(A, B, "https://a.example/c"), HERE)
    assert many == Sitemap([A, B], [], "more than 2 URLs", is_too_large=True)
    lines = read_sitemap(f"{A}\n{B}\nhttps://a.example/c".encode(), HERE)
    assert lines == many


def test_an_empty_file() -> None:
    """It names nothing, and nothing is wrong with it."""
    assert read_sitemap(b"", HERE) == Sitemap([], [])
    assert read_sitemap(urlset(), HERE) == Sitemap([], [])


@given(
    st.binary(max_size=300)
    | st.builds(lambda b, n: urlset(A, B)[:n] + b, st.binary(), st.integers(0, 99))
)
def test_any_bytes(body: bytes) -> None:
    """Nothing that a server sends raises."""
    read_sitemap(body, HERE)
