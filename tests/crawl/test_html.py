from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from wit_builder.crawl.html import Page, TooDeepError, largest, read_page
from wit_builder.crawl.nesting import too_costly
from wit_builder.crawl.urls import BadUrlError, resolve
from wit_builder.tables import TextFrom

PAGE = "https://page.example/dir/p.html"
HERE = "https://page.example/dir/"
CC_BY = "https://creativecommons.org/Licenses/by/4.0/"


def pairs(html: str | bytes, charset: str | None = None) -> list[tuple[str, str, str]]:
    body = html.encode() if isinstance(html, str) else html
    return resolved(read_page(body, PAGE, charset))


def resolved(page: Page) -> list[tuple[str, str, str]]:
    """What its pairs are once their addresses are resolved; those that cannot be are left out."""
    found = []
    for href, text, text_from in page.pairs:
        with contextlib.suppress(BadUrlError):
            found.append((resolve(href, page.base).removeprefix(HERE), text, text_from.value))
    return found


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        pytest.param(
            '<img src=a.jpg alt="A  dog\n runs">', [("a.jpg", "A dog runs", "alt")], id="alt"
        ),
        pytest.param('<img src=a.jpg title="dog">', [("a.jpg", "dog", "title")], id="title"),
        pytest.param(
            "<figure><p><img src=a.jpg></p>"
            "<figcaption>A <b>big</b> dog<br>runs</figcaption></figure>",
            [("a.jpg", "A big dog runs", "figcaption")],
            id="figcaption",
        ),
        pytest.param(
            "<figure><img src=a.jpg alt=x title=y><figcaption>z</figcaption></figure>",
            [("a.jpg", "x", "alt"), ("a.jpg", "y", "title"), ("a.jpg", "z", "figcaption")],
            id="each-text-is-a-pair",
        ),
        pytest.param(
            "<figure><img src=a.jpg alt=x title=x><figcaption> x </figcaption></figure>",
            [("a.jpg", "x", "alt")],
            id="equal-texts-once",
        ),
        pytest.param(
            "<figure><figure><img src=a.jpg><figcaption>in</figcaption></figure>"
            "<img src=b.jpg><figcaption>out</figcaption></figure>",
            [("a.jpg", "in", "figcaption"), ("b.jpg", "out", "figcaption")],
            id="nearest-figure",
        ),
        pytest.param(
            "<figure><img src=a.jpg>"
            "<figcaption><h3>One</h3>two<script>3</script></figcaption></figure>",
            [("a.jpg", "One two", "figcaption")],
            id="blocks-keep-words-apart",
        ),
        pytest.param(
            "<img src=a.jpg alt='  '><img src=b.jpg><img alt=x>", [], id="nothing-to-keep"
        ),
        pytest.param('<IMG SRC=a.jpg ALT="x">', [("a.jpg", "x", "alt")], id="upper-case"),
        pytest.param(
            "<img src=a.jpg alt='&lt;&eacute;&#x1F600;'>", [("a.jpg", "<é😀", "alt")], id="entities"
        ),
        pytest.param(
            "<base href='/b/'><img src=a.jpg alt=x>",
            [("https://page.example/b/a.jpg", "x", "alt")],
            id="base",
        ),
        pytest.param(
            "<base href='data:x'><img src=a.jpg alt=x>",
            [("a.jpg", "x", "alt")],
            id="impossible-base",
        ),
        pytest.param(
            "<img src='data:image/gif,x' data-src=real.jpg alt=x>",
            [("real.jpg", "x", "alt")],
            id="lazy-behind-placeholder",
        ),
        pytest.param("<img data-original=a.jpg alt=x>", [("a.jpg", "x", "alt")], id="lazy"),
        pytest.param(
            "<img srcset='s.jpg 320w, l.jpg 1280w, m.jpg 640w' alt=x>",
            [("l.jpg", "x", "alt")],
            id="srcset",
        ),
        pytest.param(
            "<img src=a.jpg srcset='l.jpg 2x' alt=x>",
            [("a.jpg", "x", "alt")],
            id="src-before-srcset",
        ),
        pytest.param(
            "<script>'<img src=a.jpg alt=x>'</script><!-- <img src=a.jpg alt=x> -->"
            "<template><img src=a.jpg alt=x></template><textarea><img src=a.jpg alt=x></textarea>"
            "<title><img src=a.jpg alt=x></title>",
            [],
            id="not-in-the-tree",
        ),
        pytest.param(
            "<img src='data:x' class=lazy><noscript><img src=a.jpg alt=x></noscript>",
            [("a.jpg", "x", "alt")],
            id="noscript",
        ),
        pytest.param(
            "<head><noscript><img src=a.jpg alt=x></noscript><meta name=robots content=noai>",
            [],
            id="opt-out-after-noscript",
        ),
        pytest.param(
            "<picture><source srcset='s.webp 320w'><source srcset='l.webp 960w, m.webp 640w'>"
            "<img alt=x></picture><picture><source srcset=s.webp>"
            "<img src='data:,' alt=y></picture>",
            [("l.webp", "x", "alt"), ("s.webp", "y", "alt")],
            id="picture-sources",
        ),
        pytest.param(
            "<picture><source srcset=s.webp><img src=a.jpg alt=x></picture>"
            "<picture><source srcset=s.webp><img srcset=b.jpg alt=y></picture>"
            "<source srcset=s.webp><img alt=z>",
            [("a.jpg", "x", "alt"), ("b.jpg", "y", "alt")],
            id="own-address-before-sources",
        ),
        pytest.param("<img src=a.jpg alt=x", [], id="cut-off-in-a-tag"),
        pytest.param("", [], id="empty"),
        pytest.param(
            "<p><b><img src=a.jpg alt=x></p></i></table>", [("a.jpg", "x", "alt")], id="tag-soup"
        ),
    ],
)
def test_pairs(html: str, expected: list[tuple[str, str, str]]) -> None:
    """A page's pictures and texts are those of the tree that a browser builds."""
    assert pairs(html) == expected


def test_nul_bytes() -> None:
    """NUL bytes do not end a page or a text."""
    assert pairs(b"<p>\0</p><img src=a alt='a\0b'><img src=b alt=c>") == [
        ("a", "a\ufffdb", "alt"),
        ("b", "c", "alt"),
    ]


def test_addresses_come_as_they_stand() -> None:
    """A picture with a text but no usable address is told; one without a text is counted."""
    page = read_page(
        b"<img src='data:image/gif,x' alt=x><img src='http://u:p@h.example/' alt=y>"
        b"<img src=a><img src=' b ' alt=z><img alt=w>",
        PAGE,
    )
    assert page.base == PAGE
    assert page.without_text == 1
    assert [(p.href, p.text) for p in page.pairs] == [
        ("data:image/gif,x", "x"),
        ("http://u:p@h.example/", "y"),
        ("b", "z"),
        ("", "w"),
    ]


@pytest.mark.parametrize(
    "meta",
    [
        "<meta name=robots content='index, noai'>",
        "<META NAME=ROBOTS CONTENT=NOINDEX>",
        "<meta name=tdm-reservation content=1>",
    ],
)
def test_page_opt_out(meta: str) -> None:
    """A page that opts out gives neither pairs nor links."""
    body = f"{meta}<a href=b>b</a><img src=a alt=x>".encode()
    page = read_page(body, PAGE, links=True)
    assert page.opt_outs
    assert (page.pairs, page.links) == ([], [])


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<a rel=license href=/terms>", "https://page.example/terms"),
        ("<link rel='copyright LICENSE' href='t'>", HERE + "t"),
        (
            "<a href=https://creativecommons.org/licenses/by/4.0/><a rel=license href=/terms>",
            "https://page.example/terms",
        ),
        (
            "<a href=https://creativecommons.org/licenses/by/4.0/><a href=https://creativecommons.org/licenses/by-sa/4.0/>",
            "https://creativecommons.org/licenses/by/4.0/",
        ),
        ("<a href=https://creativecommons.org/about>", None),
        ("<a rel=license href=a></a><link rel=license href=b>", HERE + "a"),
        ("<link rel=license href=b><a rel=license href=a>", HERE + "b"),
        ("<a href=HTTPS://CreativeCommons.org/Licenses/by/4.0/>", CC_BY),
        ("<a rel=license href='javascript:x'>", None),
    ],
)
def test_license(html: str, expected: str | None) -> None:
    """The licence is the first link that says it is one, else the first to Creative Commons."""
    assert read_page(html.encode(), PAGE).license == expected


def test_links() -> None:
    """Links come normalised, in document order, each once, those of other schemes left out."""
    html = b"<a href=b>1</a><a href='mailto:x@y'>2</a><map><area href=/c></map><a href='b#x'>3</a>"
    assert read_page(html, PAGE, links=True).links == [HERE + "b", "https://page.example/c"]
    assert read_page(html, PAGE).links == []


def test_links_not_to_be_followed() -> None:
    """Those that are ``nofollow`` are left out, each by itself or all by the page's meta."""
    html = b"<a rel='UGC NoFollow' href=a>1</a><a rel=nofollowed href=b>2</a>"
    html += b"<area href=c rel=nofollow>"
    assert read_page(html, PAGE, links=True).links == [HERE + "b"]
    assert read_page(b"<meta name=robots content=nofollow>" + html, PAGE, links=True).links == []


@pytest.mark.parametrize(
    ("srcset", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a.jpg 2x,b.jpg 3x", "b.jpg"),
        ("a.jpg 640w 480h, b.jpg 320w", "a.jpg"),
        ("/w_300,h_200/a.jpg 300w, /w_600,h_400/a.jpg 600w", "/w_600,h_400/a.jpg"),
        ("a.jpg 1x, b.jpg 1x", "a.jpg"),
        ("a.jpg large, b.jpg -1w", "a.jpg"),
        (" , ,, ", ""),
        ("", ""),
    ],
)
def test_largest(srcset: str, expected: str) -> None:
    """Of a ``srcset`` the candidate with the greatest descriptor counts, the first among equals."""
    assert largest(srcset) == expected


def repeated(piece: str, size_bytes: int) -> bytes:
    """A page of nothing but a piece, in which every # is another number."""
    pieces = (piece.replace("#", str(n)) for n in range(size_bytes // len(piece)))
    return "".join(pieces).encode()[:size_bytes]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(b"<div>" * 400_000, "nested", id="divs"),
        pytest.param(b"<DIV CLASS=x><span>" * 150_000, "nested", id="mixed"),
        pytest.param(b"<figure><img src=a alt=x>" * 100_000, "nested", id="figures"),
        pytest.param(b"<b><i>" * 50_000, "nested", id="formatting"),
        pytest.param(b"<span>" * 300_000 + b"</y>" * 300_000, "nested", id="nothing-to-close"),
        pytest.param(b"<y><div></y>" * 100_000, "nested", id="end-tags-that-close-nothing"),
        pytest.param(b"<svg>" + b"<g>" * 400_000, "nested", id="svg"),
        pytest.param(repeated("<font x=#><p>", 80_000), "formatting", id="misnested"),
        pytest.param(
            repeated("<b x=#>", 30_000) + b"<p>x" * 20_000, "formatting", id="copied-in-each-block"
        ),
        pytest.param(
            b"<table><td>" + repeated("<i x=#>", 30_000) + b"<object></td>" + b"<td><p>" * 20_000,
            "formatting",
            id="marker-left-behind",
        ),
        pytest.param(b"<p " + repeated("a# ", 1_000_000), "attributes", id="attributes"),
        pytest.param(repeated("<html a#>", 250_000), "attributes", id="merged-into-html"),
        pytest.param(
            b"<p " + repeated("a# ", 230_000) + b">", "attributes", id="attributes-of-one-tag"
        ),
        pytest.param(
            (b"<p " + repeated("a# ", 100_000) + b">") * 13, "attributes", id="of-several-tags"
        ),
        pytest.param(
            b"<p " + repeated("a#='>'", 480_000) + b">", "attributes", id="quoted-ends-of-tags"
        ),
        pytest.param(
            b"<p " + repeated("<a# b# c# d# e# ", 300_000) + b">",
            "attributes",
            id="tags-as-attributes",
        ),
        pytest.param(repeated("<x#>", 1_000_000), "nested", id="unknown-elements"),
        pytest.param(repeated("<x#></x#>", 1_500_000), "names", id="names"),
    ],
)
def test_hostile_pages_are_refused(body: bytes, why: str) -> None:
    """A page that would take minutes or gigabytes to parse is refused, and why is said."""
    with pytest.raises(TooDeepError, match=why):
        read_page(body, PAGE)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<p>a<li>b<br><img src=a alt=x>" * 30_000, id="unclosed-but-flat"),
        pytest.param(b"<div><a href=x>y</a></div>" * 60_000, id="large-but-closed"),
        pytest.param(b"<img src=a srcset='" + b"," * 1_000_000 + b"' alt=x>", id="commas"),
        pytest.param(b"<table><tr><td><font size=2>x<td>" * 5_000, id="cells-left-open"),
        pytest.param(b"<font size=2><p>x" * 5_000, id="the-same-formatting-left-open"),
        pytest.param(repeated("<p><font x=#><b>x</b></font></p>", 1_000_000), id="formatting"),
        pytest.param(
            b"<script>'<div>'</script><!-- <b> --><p title='<i>'>" * 30_000, id="tags-in-texts"
        ),
        pytest.param(
            b"<picture><source srcset=a>" + b"<img alt=x>" * 30_000, id="one-picture-of-many"
        ),
        pytest.param(b"<svg>" + b"<path d=x />" * 60_000, id="empty-elements"),
        pytest.param(b"<p " + repeated("a# ", 20_000) + b">", id="thousands-of-attributes"),
        pytest.param(b"<script>" + b"if(a<b)c='d';" * 30_000 + b"</script>", id="no-tags-at-all"),
    ],
)
def test_large_pages_are_read(body: bytes) -> None:
    """A large page is read, however many tags it leaves open where that costs nothing."""
    read_page(body, PAGE)


def test_captions_in_captions_are_cut() -> None:
    """However captions nest, each costs no more than a caption needs."""
    nested = b"<figure><img src=a.jpg><figcaption>" + b"word " * 100
    page = read_page(nested * 200, "http://a.test/")
    assert len(page.pairs) == 200
    assert max(len(pair.text) for pair in page.pairs) <= 16_384
    broken = b"<figure><img src=a.jpg><figcaption>" + b"word<br>" * 5000 + b"</figure>"
    (pair,) = read_page(broken, "http://a.test/").pairs
    assert len(pair.text) < 5000


TAGS = (
    "<table> </table> <td> </td> <tr> </tr> <svg> </svg> <mi> <b_x=#> </b> <a_x=#> <p> </p> <div> "
    "</div> <li> <span> </span> <template> </template> <object> </object> <select> <textarea> "
    "<title> </title> <!-- --> <script> </script> <x/> </x> <form> </form> t"
)


@given(st.lists(st.sampled_from(TAGS.replace("_", "\0").split()), min_size=1, max_size=12))
def test_what_is_not_refused_is_parsed_in_reasonable_memory(tags: list[str]) -> None:
    """However a page of 60 kB repeats its tags, it is refused, or its tree is not much larger."""
    body = repeated("".join(tags).replace("\0", " "), 60_000)
    if too_costly(body) is None:
        assert len(LexborHTMLParser(body).css("*")) < 400_000


def test_deep_but_harmless() -> None:
    """A thousand levels, more than browsers allow, are still read."""
    assert pairs(b"<div>" * 1000 + b"<img src=a alt=x>") == [("a", "x", TextFrom.ALT.value)]
