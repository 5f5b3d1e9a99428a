"""From a page's bytes to its pictures with their texts, its opt-outs, licence and links.

A page is read as a browser that runs no scripts builds its tree, because none are run here: the
real picture of a page that loads its pictures lazily stands in a ``<noscript>``. An ``<img>`` in
scripts, comments and templates is none.

A picture's address is its ``src``; where that is missing or a ``data:`` placeholder, the first of
``LAZY``; else the largest of its ``srcset``; else the largest of its ``<picture>``'s sources. Its
texts are ``alt``, ``title`` and the caption of the nearest figure around it, each a pair of its own
where it is not empty and not the same as one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, LexborNode

from wit_builder.crawl.charsets import as_utf8
from wit_builder.crawl.licenses import license_of
from wit_builder.crawl.nesting import too_costly
from wit_builder.crawl.urls import BadUrlError, resolve
from wit_builder.tables import TextFrom
from wit_builder.web.optouts import META_NAMES, forbids_following, opt_outs

LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy", "data-image", "data-url")
"""Where lazy-loading scripts of the web keep the address, in the order they are asked."""
LAZY_SETS = ("srcset", "data-srcset", "data-lazy-srcset")

# One pass over the tree. What stands in brackets is told in C: a dict of an element's attributes
# costs a microsecond, and a page has as many metas and ten times as many links as pictures.
_NAMED = ", ".join(f'[name*="{name}" i]' for name in META_NAMES)
_ELEMENTS = (
    f"img, base[href], meta:is({_NAMED}), figcaption, "
    ':is(a, link):is([rel~="license" i], [href*="creativecommons.org/" i])'
)
# Copies of a selected option's content are not made: they would repeat its pictures, in 7 % more
# time for every page.
_OPTIONS = LexborDocumentOptions.WO_EVENTS.value
_MAX_CLIMB = 16  # a caption's figure is near; bounded, so that no page makes it quadratic
_MAX_CAPTION_NODES = 1000  # and a caption is short: what nests in others would be read for each
_MAX_CAPTION_CHARS = 16_384
_INLINE_NAMES = (
    "a abbr b bdi bdo big cite code data del dfn em font i ins kbd mark q s samp small span strike "
    "strong sub sup time tt u var -text"
)
_INLINE = frozenset(_INLINE_NAMES.split())
_NOT_PROSE = frozenset({"script", "style", "template"})


class TooDeepError(ValueError):
    """A page that would take minutes or gigabytes to parse; the message says why."""


class Pair(NamedTuple):
    """A picture and one of its texts.

    Attributes:
        href: the picture's address as it stands in its attribute; empty where there is none.
        text: not empty, white space collapsed.
        text_from: where it stood.
    """

    href: str
    text: str
    text_from: TextFrom


class Page(NamedTuple):
    """What a page says.

    Attributes:
        pairs: in document order; empty where the page opts out.
        base: what their addresses are relative to: the page's URL, or its ``<base>``.
        without_text: pictures that have none.
        opt_outs: as ``web.optouts`` names them.
        license: URL of the licence it links to.
        links: URLs of its links that may be followed, normalised, in document order, each once; on
            request only.
    """

    pairs: list[Pair]
    base: str
    without_text: int
    opt_outs: list[str]
    license: str | None
    links: list[str]


def read_page(body: bytes, url: str, charset: str | None = None, *, links: bool = False) -> Page:
    """Return what an HTML page says.

    Args:
        body: the page as it was served, transfer and content encodings undone.
        url: its URL, normalised.
        charset: that of the ``Content-Type`` header.
        links: whether links are wanted.

    Raises:
        TooDeepError: it is made so that it cannot be parsed in reasonable time and memory.
    """
    text = as_utf8(body, charset)
    if why := too_costly(text):
        raise TooDeepError(why)
    tree = LexborHTMLParser(text, options=_OPTIONS)
    kinds: dict[str, list[LexborNode]] = {}
    for node in tree.css(_ELEMENTS):
        tag = node.tag or ""
        kinds.setdefault("a" if tag == "link" else tag, []).append(node)
    metas = _metas(kinds.get("meta", []))
    seen = opt_outs(metas=metas)
    base = _base(kinds.get("base", []), url)
    license_url = license_of(_rel_and_href(kinds.get("a", [])), base)
    if seen:
        return Page([], base, 0, seen, license_url, [])
    links = links and not forbids_following(metas=metas)
    page = Page([], base, 0, [], license_url, _links(tree, base) if links else [])
    return _with_pictures(page, kinds.get("img", []), kinds.get("figcaption", []))


def _metas(nodes: list[LexborNode]) -> list[tuple[str, str]]:
    attributes = (node.attributes for node in nodes)
    return [(a.get("name") or "", a.get("content") or "") for a in attributes]


def _base(nodes: list[LexborNode], url: str) -> str:
    """Return what relative URLs are relative to: the first ``<base>``, if it can be."""
    for node in nodes[:1]:
        try:
            return resolve(node.attributes.get("href") or "", url)
        except BadUrlError:
            break
    return url


def _rel_and_href(nodes: list[LexborNode]) -> Iterator[tuple[str, str]]:
    attributes = (node.attributes for node in nodes)
    return ((a.get("rel") or "", a.get("href") or "") for a in attributes)


def _links(tree: LexborHTMLParser, base: str) -> list[str]:
    found: dict[str, None] = {}
    for node in tree.css(':is(a, area)[href]:not([rel~="nofollow" i])'):
        try:
            found[resolve(node.attributes.get("href") or "", base)] = None
        except BadUrlError:
            continue  # mailto: and the like
    return list(found)


def _with_pictures(page: Page, images: list[LexborNode], captions: list[LexborNode]) -> Page:
    captioned = _captioned(captions)
    pairs, without_text = page.pairs, 0
    of_pictures: dict[int, str] = {}
    for node in images:  # 1.5 us each, of which reading the attributes is 0.6
        attributes = node.attributes
        alt, title = attributes.get("alt"), attributes.get("title")
        alt = " ".join(alt.split()) if alt else ""
        title = " ".join(title.split()) if title else ""
        caption = _caption_of(node, captioned) if captioned else ""
        if not (alt or title or caption):
            without_text += 1
            continue
        href = (attributes.get("src") or "").strip()
        if not href or href[:5].lower() == "data:":
            href = _lazy_address(attributes) or _of_picture(node, of_pictures) or href
        if alt:
            pairs.append(Pair(href, alt, TextFrom.ALT))
        if title and title != alt:
            pairs.append(Pair(href, title, TextFrom.TITLE))
        if caption and caption not in {alt, title}:
            pairs.append(Pair(href, caption, TextFrom.FIGCAPTION))
    return page._replace(without_text=without_text)


def _lazy_address(attributes: dict[str, str | None]) -> str:
    """Return where a picture without a usable ``src`` says it is; empty if it does not."""
    for name in LAZY:
        if value := (attributes.get(name) or "").strip():
            return value
    for name in LAZY_SETS:
        if value := largest(attributes.get(name) or ""):
            return value
    return ""


def _of_picture(image: LexborNode, known: dict[int, str]) -> str:
    """Return the largest of the sources beside an image in its ``<picture>``, read once each."""
    parent = image.parent
    if parent is None or parent.tag != "picture":
        return ""
    if parent.mem_id not in known:
        sources = [node.attributes for node in parent.iter() if node.tag == "source"]
        sets = (source.get(name) or "" for source in sources for name in LAZY_SETS)
        known[parent.mem_id] = largest(", ".join(sets))
    return known[parent.mem_id]


def largest(srcset: str) -> str:
    """Return the URL of a ``srcset`` with the greatest width or density; empty if it has none.

    Of equals the first. A comma ends a candidate after a URL's last character or in a descriptor;
    elsewhere it is part of the URL (WHATWG HTML, 4.8.4.3.10).
    """
    best, most = "", -1.0
    for url, descriptor in _candidates(srcset):
        size = _size(descriptor)
        if size > most:
            best, most = url, size
    return best


def _candidates(srcset: str) -> Iterator[tuple[str, str]]:
    """Yield each URL of a ``srcset`` with its first descriptor, in order."""
    url = descriptor = ""
    for word in srcset.split():
        rest = word
        while rest:
            if url:
                head, comma, rest = rest.partition(",")
                descriptor, ended = descriptor or head, bool(comma)
            else:
                url, ended, rest = rest.strip(","), rest[-1:] == ",", ""
            if url and ended:
                yield url, descriptor
                url = descriptor = ""
    if url:
        yield url, descriptor


def _size(descriptor: str) -> float:
    """Return the number of ``640w`` or ``2x``; 1 for what is neither."""
    try:
        return float(descriptor[:-1]) if descriptor[-1:] in {"w", "x"} else 1.0
    except ValueError:
        return 1.0


def _captioned(captions: list[LexborNode]) -> dict[int, str]:
    """Return the text of each figure's first caption, by the figure's place in the tree."""
    found: dict[int, str] = {}
    for caption in captions:
        figure = caption.parent
        for _ in range(_MAX_CLIMB):
            if figure is None or figure.tag == "figure":
                break
            figure = figure.parent
        if figure is not None and figure.tag == "figure" and figure.mem_id not in found:
            found[figure.mem_id] = " ".join(_prose(caption).split())
    return found


def _caption_of(image: LexborNode, captioned: dict[int, str]) -> str:
    """Return the caption of the nearest figure around a picture that has one, else nothing."""
    node = image.parent
    for _ in range(_MAX_CLIMB):
        if node is None:
            return ""
        if node.mem_id in captioned:
            return captioned[node.mem_id]
        node = node.parent
    return ""


def _prose(element: LexborNode) -> str:
    """Return an element's text, cut at what no caption needs; words of blocks stay apart."""
    parts: list[str] = []
    for node in itertools.islice(element.traverse(include_text=True), _MAX_CAPTION_NODES):
        before = node.prev
        if node.tag not in _INLINE or (before is not None and before.tag not in _INLINE):
            parts.append(" ")
        if node.is_text_node and (node.parent is None or node.parent.tag not in _NOT_PROSE):
            parts.append(node.text_content or "")
    return "".join(parts)[:_MAX_CAPTION_CHARS]
