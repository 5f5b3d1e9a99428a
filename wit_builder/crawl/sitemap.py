"""Sitemaps: what pages a site wants to be found (sitemaps.org, protocol 0.9).

XML of any namespace, or a URL a line; also RSS and Atom, which the protocol allows. Strangers write
them: a file with a DTD is refused, for entities could make it any size; of one that is malformed
what stands before the fault is taken.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, NamedTuple
from xml.parsers import expat

from wit_builder.crawl.urls import BadUrlError, resolve

MAX_BYTES = 50 << 20
"""Of one file once decompressed: the protocol's limit."""
MAX_URLS = 50_000
"""In one file: the protocol's limit."""

_CHUNK_BYTES = 1 << 16
_TEXTS = {("url", "loc"), ("sitemap", "loc"), ("item", "link")}
"""Elements, each with the one around it, whose text is a URL."""
_WHOLE_URL = re.compile(r"\s*https?://", re.IGNORECASE)
_MAX_URL_CHARS = 1 << 14
_MAX_DEPTH = 32


class Sitemap(NamedTuple):
    """What a file names, normalised, in order, each once; and what is wrong with it, if anything.

    Attributes:
        pages: URLs of pages.
        sitemaps: URLs of further sitemaps, if it is an index.
        fault: why it ends early.
        is_too_large: whether the fault is its size.
    """

    pages: list[str]
    sitemaps: list[str]
    fault: str = ""
    is_too_large: bool = False


def read_sitemap(body: bytes, url: str) -> Sitemap:
    """Return what a sitemap names.

    Args:
        body: not compressed any more, at most ``MAX_BYTES``.
        url: its own, that relative addresses, though not allowed, are relative to.
    """
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    reader = _Reader(url)
    try:
        # UTF-16 begins with a mark of its own, and its XML with no "<" as such
        if text[:1] == b"<" or text[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            reader.read_xml(text)
        else:
            reader.read_lines(text)
    except _TooManyError:
        return reader.found(f"more than {MAX_URLS} URLs", is_too_large=True)
    except _DtdError:
        return reader.found("has a DTD: no sitemap, or one that is not to be trusted")
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two of encodings
        return reader.found(f"malformed: {error}")
    return reader.found(reader.fault)


class _TooManyError(Exception):
    """More URLs than a file may have."""


class _DtdError(Exception):
    """A document type declaration."""


class _Reader:
    """Gathers URLs while a file is read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pages: dict[str, None] = {}
        self._sitemaps: dict[str, None] = {}
        self._open: list[str] = []
        self._text = ""
        self._named = 0
        self.fault = ""

    def found(self, fault: str, *, is_too_large: bool = False) -> Sitemap:
        return Sitemap(list(self._pages), list(self._sitemaps), fault, is_too_large)

    def read_lines(self, text: bytes) -> None:
        for line in text.decode("utf-8", "replace").splitlines():
            if _WHOLE_URL.match(line):
                self._name(line, self._pages)
        if text and not self._pages:
            self.fault = "malformed: no line of it is a URL"

    def read_xml(self, text: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._take
        for at in range(0, len(text), _CHUNK_BYTES):
            parser.Parse(text[at : at + _CHUNK_BYTES], False)
        parser.Parse(b"", True)

    def _refuse(self, *_: Any) -> None:
        raise _DtdError

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(" ")[2]
        if self._around(local) == ("entry", "link") and "href" in attributes:  # Atom's
            self._name(attributes["href"], self._pages)
        if not self._open and local not in {"urlset", "sitemapindex", "rss", "RDF", "feed"}:
            raise ValueError(f"no sitemap, its root is <{local[:40]}>")
        if len(self._open) == _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} elements in one another")
        self._open.append(local)
        self._text = ""

    def _end(self, _name: str) -> None:
        local = self._open.pop()
        if self._around(local) in _TEXTS:
            into = self._sitemaps if self._open[-1] == "sitemap" else self._pages
            self._name(self._text, into)
        self._text = ""

    def _take(self, text: str) -> None:
        if len(self._text) < _MAX_URL_CHARS:
            self._text += text

    def _around(self, local: str) -> tuple[str, str]:
        return (self._open[-1] if self._open else "", local)

    def _name(self, address: str, into: dict[str, None]) -> None:
        if self._named == MAX_URLS:
            raise _TooManyError
        self._named += 1
        with contextlib.suppress(BadUrlError):  # mailto: and the like, as in the links of pages
            into[resolve(address, self._url)] = None
