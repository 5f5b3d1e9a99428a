from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder.crawl.columns import collapse, normalise_urls, resolve_urls
from wit_builder.crawl.join import joined
from wit_builder.crawl.urls import CONTROLS, BadUrlError, normalise, resolve

BASES = [
    "https://a.example/",
    "http://www.b-c.example.org/x/y.html?q=/a/b",
    "https://e.co/d/e/",
    "http://a.b.example/x//z",
]
PIECES = [
    "http://", "https://", "HTTP:", "//", "///", "/", "a", "b.jpg", "..", "../", "./", ".", "?",
    "#", "%20", "%41", "%2F", "%2e", "%2E./", "%c3%A9", "%2C", "%3b", "%zz", "%", "é", " ", "x=1",
    "&", ":", "9:16", "www.a.com/", "a.b/", "\\", "data:", "_", "~", "@", "+", "\t", "\n", "[1]",
    "user:pw@", ":80/", "X.com",
]  # fmt: skip
ESCAPES = st.integers(0, 255).map(lambda code: f"%{code:02x}")
ADDRESSES = st.lists(st.sampled_from(PIECES) | ESCAPES, max_size=8).map("".join)
ABSOLUTE = st.lists(st.sampled_from(["a", ".", "/", "..", "?", "="]) | ESCAPES, max_size=6).map(
    lambda parts: "https://www.a.com/" + "".join(parts)
)


def told(column: pa.Array, bad: list[tuple[int, str]]) -> list[str | None]:
    """Return the URLs, and for refused ones why."""
    why = dict(bad)
    assert [index for index, _ in bad] == sorted(why)
    assert all((url is None) == (i in why) for i, url in enumerate(column.to_pylist()))
    return [f"!{why[i]}" if i in why else url for i, url in enumerate(column.to_pylist())]


def resolved(href: str, base: str) -> str:
    try:
        return resolve(href, base)
    except BadUrlError as error:
        return f"!{error}"


def normalised(url: str) -> str:
    try:
        return normalise(url.strip(CONTROLS))
    except BadUrlError as error:
        return f"!{error}"


@settings(max_examples=300)
@given(st.lists(st.tuples(ADDRESSES | ABSOLUTE, st.integers(0, 3)), min_size=1, max_size=40))
def test_a_column_is_resolved_as_each_address_is(rows: list[tuple[str, int]]) -> None:
    """Whatever addresses say: the same URLs and the same refusals as one at a time."""
    hrefs, which = zip(*rows, strict=True)
    found = resolve_urls(pa.array(hrefs), pa.array(BASES), np.array(which))
    assert told(*found) == [resolved(href, BASES[n]) for href, n in rows]


@settings(max_examples=300)
@given(st.lists(ADDRESSES | ABSOLUTE, min_size=1, max_size=40))
def test_a_column_is_normalised_as_each_url_is(urls: list[str]) -> None:
    """The same normal forms as one at a time; what is refused for another reason is refused."""
    column, bad = normalise_urls(pa.array(urls))
    expected = [normalised(url) for url in urls]
    for url, ours in zip(expected, told(column, bad), strict=True):
        assert ours == url or (ours == "!data: URI" and url.startswith("!"))
    again = pa.array([url for url in column.to_pylist() if url is not None], pa.string())
    assert normalise_urls(again)[0].to_pylist() == again.to_pylist()


@pytest.mark.parametrize(
    "href",
    [
        "https://i.example/a/b.jpg", "//i.example/a.jpg", "/a.jpg", "a.jpg", "../a/./b.jpg?w=1#x",
        " a b.jpg\n", "a%2cb.jpg", "https://i.example/%E2%82%AC.jpg?u=%2F%26",
    ],
)  # fmt: skip
def test_what_the_web_is_full_of_is_plain(href: str) -> None:
    """The kernel does it alone, without Python for each row."""
    column, normal = joined(pa.array([href]), pa.array(BASES), np.array([1]))
    assert normal.tolist() == [True]
    assert column.to_pylist() == [resolve(href, BASES[1])]


def test_slices_of_columns() -> None:
    """A slice of a longer column is read as what it is."""
    hrefs = pa.array(["x", "a.jpg", "b.jpg"])[1:]
    found, bad = resolve_urls(hrefs, pa.array(["https://z.example/", *BASES])[1:], np.array([0, 2]))
    assert (found.to_pylist(), bad) == (["https://a.example/a.jpg", "https://e.co/d/e/b.jpg"], [])
    assert collapse(pa.array([" x", " a  b"])[1:]).to_pylist() == ["a b"]


SPACES = st.sampled_from(
    ["a", "é", "日", " ", "\t", "\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2003"]
)


@settings(max_examples=300)
@given(st.lists(st.lists(SPACES | st.characters(), max_size=8).map("".join), max_size=20))
def test_collapsing_is_splitting_and_joining(texts: list[str]) -> None:
    """White space is what Python takes for it, whatever the script."""
    sound = [text.encode("utf-8", "replace").decode() for text in texts]
    expected = [" ".join(text.split()) for text in sound]
    assert collapse(pa.array(sound, pa.string())).to_pylist() == expected
