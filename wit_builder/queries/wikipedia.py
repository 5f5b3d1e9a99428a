"""Articles of a MediaWiki ``pages-articles`` dump, streamed: memory does not grow with it.

The format is MediaWiki's XML export (https://www.mediawiki.org/wiki/Help:Export). Expat reads it a
megabyte at a time. A dump declares no document type, so one that does is refused, and with it
every entity but XML's own five: nothing can be expanded into gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat

from wit_builder.errors import QueryListError
from wit_builder.queries.compressed import AGAIN
from wit_builder.queries.streams import Part, Pieces, header
from wit_builder.queries.wikitext import MEDIA_AND_CATEGORY

MAX_PAGE_CHARS = 16 << 20
"""A longer page is skipped and counted. MediaWiki's own limit is 2 MiB (``$wgMaxArticleSize``)."""

MAX_OVERSIZED = 100
"""More such pages in a part are no accident, but another kind of dump."""

_MEDIA_KEYS = ("-2", "6", "14")  # Media, File and Category in every MediaWiki
_REDIRECT = re.compile(r"\s*#REDIRECT\b(?:\s*:?\s*\[\[([^\]|#]+))?", re.IGNORECASE)
"""As old dumps have it, in the text alone; newer ones have ``<redirect title="...">``."""


class Article(NamedTuple):
    """A page of the main namespace that is no redirect: its title and wikitext."""

    title: str
    wikitext: str


class Redirect(NamedTuple):
    """A page of the main namespace that only leads to another."""

    title: str
    target: str


class Dump:
    """A part of a dump; iterate over it, once, for its articles and redirects, in order.

    After (and during) the iteration ``pages`` is how many pages were read, of any kind,
    ``oversized`` how many of them were skipped for their length, ``language`` what the dump says of
    its own, and ``hidden_links`` has the link prefixes that show no words, in that language too.

    Args:
        part: which file, and which part of it (``streams.parts``).
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.pages = 0
        self.oversized = 0
        self.language = ""
        self.hidden_links = MEDIA_AND_CATEGORY
        self._pieces = Pieces(part)
        self._ready: list[Article | Redirect] = []
        self._inside = self._closed = False
        self._fields: dict[str, list[str]] = {}
        self._into: list[str] | None = None
        self._chars = 0
        self._redirects = False
        self._target = ""

    def __iter__(self) -> Iterator[Article | Redirect]:
        """Yield the articles and redirects.

        Raises:
            QueryListError: not there, cut short, damaged, or not such a dump; says where.
        """
        parser = self._parser()
        if self.part.start:
            self._feed(parser, header(self.part.place))
        for piece in self._pieces:
            self._feed(parser, piece)
            yield from self._ready
            self._ready.clear()
        if self._pieces.to_be_continued and not self._closed:
            self._feed(parser, b"</mediawiki>")
        self._feed(parser, None)
        if not self.pages and self.part == Part(self.part.place):
            raise QueryListError(
                "no page in the dump", where=self.part.place, fix="take a pages-articles dump"
            )

    def _parser(self) -> expat.XMLParserType:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        return parser

    def _feed(self, parser: expat.XMLParserType, chunk: bytes | None) -> None:
        try:
            if chunk is None:
                parser.Parse(b"", True)
            else:
                parser.Parse(chunk, False)
        except expat.ExpatError as error:
            raise QueryListError(
                f"broken XML: {expat.ErrorString(error.code)}",
                where=self._where(error.lineno, error.offset + 1),
                fix=AGAIN,
            ) from error
        except (LookupError, ValueError) as error:  # an encoding that Expat asks Python for
            what = f"an unusual encoding: {error}"
            raise QueryListError(what, where=self.part.place, fix="convert it to UTF-8") from error

    def _where(self, line: int, column: int) -> str:
        place, start = self.part.place, self.part.start
        begins = f" that begins at byte {start}" if start else ""
        return f"{place}, line {line}, column {column} of the XML{begins}"

    def _doctype(self, name: str, *_: object) -> None:
        raise QueryListError(
            f"the dump declares a document type ({name}), which no MediaWiki dump does",
            where=self.part.place,
            fix="take dumps from their publisher only",
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._inside and name != "mediawiki":
            raise QueryListError(
                f"not a MediaWiki dump: its root is <{name}>",
                where=self.part.place,
                fix="take a pages-articles dump",
            )
        self._inside = True
        if name == "mediawiki":
            self.language = attributes.get("xml:lang", "")
        elif name == "page":
            self._fields, self._redirects, self._target = {}, False, ""
        elif name == "redirect":
            self._redirects, self._target = True, attributes.get("title", "")
        elif name == "title" and "title" in self._fields:
            pass  # of something else in the page
        elif name in ("title", "ns", "text") or attributes.get("key") in _MEDIA_KEYS:
            self._into = self._fields[name] = []
            self._chars = 0

    def _characters(self, data: str) -> None:
        if self._into is None:
            return
        self._chars += len(data)
        if self._chars <= MAX_PAGE_CHARS:
            self._into.append(data)

    def _end(self, name: str) -> None:
        self._into = None
        if name == "namespace":
            local = "".join(self._fields.pop("namespace", []))
            self.hidden_links |= {local.lower()} - {""}
        elif name == "page":
            self._page()
        elif name == "mediawiki":
            self._closed = True

    def _page(self) -> None:
        self.pages += 1
        title, namespace, text = (
            "".join(self._fields.get(field, [])) for field in ("title", "ns", "text")
        )
        self._fields = {}
        if self._chars > MAX_PAGE_CHARS:
            self._skip(title.strip())
        elif namespace.strip() == "0":
            self._ready.append(self._kind(title.strip(), text))

    def _skip(self, title: str) -> None:
        self.oversized += 1
        if self.oversized > MAX_OVERSIZED:
            raise QueryListError(
                f"{self.oversized:,} pages of more than {MAX_PAGE_CHARS:,} characters",
                where=f"{self.part.place}, page {title!r}",
                fix="take a pages-articles dump of a Wikipedia",
            )

    def _kind(self, title: str, text: str) -> Article | Redirect:
        written = _REDIRECT.match(text)
        if not self._redirects and not written:
            return Article(title, text)
        return Redirect(title, self._target or (written and written[1]) or "")
