from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wit_builder.crawl.urls import BadUrlError, normalise, resolve
from wit_builder.web.urls import NORMAL

PAGE = "https://page.example/dir/p.html"


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("x.jpg", "https://page.example/dir/x.jpg"),
        ("../x.jpg", "https://page.example/x.jpg"),
        ("/x.jpg?w=1", "https://page.example/x.jpg?w=1"),
        ("//cdn.example.com/x.jpg", "https://cdn.example.com/x.jpg"),
        ("?q", "https://page.example/dir/p.html?q"),
        ("HTTP://EXAMPLE.com:80/a/../b c?y=é#f", "http://example.com/b%20c?y=%C3%A9"),
        ("http://h.example.com:8080/x", "http://h.example.com:8080/x"),
        ("http://h.example.com", "http://h.example.com/"),
        ("http://h.example.com?x", "http://h.example.com/?x"),
        ("http://bücher.example/ß.jpg", "http://xn--bcher-kva.example/%C3%9F.jpg"),
        ("/x%2fy%7e%41.jpg", "https://page.example/x%2Fy~A.jpg"),
        ("100%.jpg", "https://page.example/dir/100%25.jpg"),
        ("\\\\h.example.com\\a\\b.jpg", "https://h.example.com/a/b.jpg"),
        (" \n x\ny.jpg\t", "https://page.example/dir/xy.jpg"),
        ("http://[::1]/x", "http://[::1]/x"),
    ],
)
def test_resolves_and_normalises(href: str, expected: str) -> None:
    """A URL is resolved as a browser does, and comes out in its normal form."""
    assert resolve(href, PAGE) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("href", "why"),
    [
        ("data:image/gif;base64,R0lGOD", "data: URI"),
        (" DATA:image/gif,x", "data: URI"),
        ("http://user:secret@example.com/x.jpg", "credentials"),
        ("http://user@example.com/x.jpg", "credentials"),
        ("javascript:void(0)", "scheme javascript"),
        ("ftp://example.com/x.jpg", "scheme ftp"),
        ("", "empty"),
        ("http://[::1/x", "malformed"),
        ("http://example.com:99999/", "malformed"),
        ("http://exa mple.com/", "no host, or an impossible one"),
        ("x" * 5000, "too long"),
        ("é" * 2000, "too long"),
    ],
)
def test_refuses(href: str, why: str) -> None:
    """A URL that must not be stored is refused with a reason that does not quote it."""
    with pytest.raises(BadUrlError, match=f"^{re.escape(why)}$"):
        resolve(href, PAGE)


@given(st.text(alphabet="abcABC09./:?#@%&=+é[]|\\ -_~!$'()*,;", max_size=40))
@example("//h.example.com/a?b=c+d%20e&&")
@example("http://h.example.com/a..b/..hidden//.")
def test_normalising_twice_changes_nothing(href: str) -> None:
    """Whatever comes out is a fixed point: the client asks for exactly what is stored."""
    try:
        url = resolve(href, PAGE)
    except BadUrlError:
        return
    assert normalise(url) == url


@given(st.text(alphabet="abZ09/.-_~?&=+;:@!$,()*'", max_size=30).map("http://h.example/".__add__))
def test_the_short_cut_agrees_with_the_long_way(url: str) -> None:
    """A URL taken for normal at a glance is what normalising makes of it."""
    assert not NORMAL.fullmatch(url) or normalise(url) == url
