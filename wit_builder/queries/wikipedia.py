"""Articles of a MediaWiki ``pages-articles`` dump, streamed: memory does not grow with it.

The format is MediaWiki's XML export (https://www.mediawiki.org/wiki/Help:Export). Expat reads it a
megabyte at a time. A dump declares no document type, so one that does is refused, and with it
every entity but XML's own five: nothing can be expanded into gigabytes.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import re
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple
from xml.parsers import expat

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.queries.wikitext import MEDIA_AND_CATEGORY

MAX_PAGE_CHARS = 16 << 20
"""A longer page is skipped and counted. MediaWiki's own limit is 2 MiB (``$wgMaxArticleSize``)."""

_CHUNK_BYTES = 1 << 20
_MEDIA_KEYS = ("-2", "6", "14")  # Media, File and Category in every MediaWiki
_REDIRECT = re.compile(r"\s*#REDIRECT\b", re.IGNORECASE)
_FIX = "download it again, and compare with the checksums published beside it"


class Article(NamedTuple):
    """A page of the main namespace that is no redirect: its title and wikitext."""

    title: str
    wikitext: str


class Dump:
    """One dump file; iterate over it, once, for its articles in the order of the file.

    After (and during) the iteration ``pages`` is how many pages were read, articles or not,
    ``oversized`` how many of them were skipped for their length, and ``hidden_links`` has the link
    prefixes that show no words, in the dump's own language too.

    Args:
        place: ``.xml``, ``.xml.bz2`` (multistream or not) or ``.xml.gz`` file, local or remote.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.pages = 0
        self.oversized = 0
        self.hidden_links = MEDIA_AND_CATEGORY
        self._ready: list[Article] = []
        self._inside = False
        self._fields: dict[str, list[str]] = {}
        self._into: list[str] | None = None
        self._chars = 0
        self._redirect = False

    def __iter__(self) -> Iterator[Article]:
        """Yield the articles.

        Raises:
            QueryListError: not there, cut short, damaged, or not such a dump; says where.
        """
        parser = self._parser()
        for chunk in self._chunks():
            self._feed(parser, chunk)
            yield from self._ready
            self._ready.clear()
        self._feed(parser, None)
        if not self.pages:
            raise QueryListError(
                "no page in the dump", where=self.place, fix="take a pages-articles dump"
            )

    def _chunks(self) -> Iterator[bytes]:
        try:
            raw = storage.open_read(self.place)
        except StorageError as error:
            raise QueryListError(
                f"cannot read the dump: {error.what}",
                where=self.place,
                fix="check queries.wikipedia.dumps in the recipe",
            ) from error
        with raw, contextlib.closing(_decompressed(self.place, raw)) as stream:
            while chunk := self._read(stream, raw):
                yield chunk

    def _read(self, stream: IO[bytes] | gzip.GzipFile, raw: IO[bytes]) -> bytes:
        try:
            return stream.read(_CHUNK_BYTES)
        except EOFError as error:
            where = f"{self.place}, byte {raw.tell()}"
            raise QueryListError("the dump is cut short", where=where, fix=_FIX) from error
        except (OSError, zlib.error) as error:
            what = f"the dump cannot be decompressed: {error}"
            where = f"{self.place}, before byte {raw.tell()}"
            raise QueryListError(what, where=where, fix=_FIX) from error

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
                where=f"{self.place}, line {error.lineno}, column {error.offset + 1} of the XML",
                fix=_FIX,
            ) from error

    def _doctype(self, name: str, *_: object) -> None:
        raise QueryListError(
            f"the dump declares a document type ({name}), which no MediaWiki dump does",
            where=self.place,
            fix="take dumps from their publisher only",
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._inside and name != "mediawiki":
            raise QueryListError(
                f"not a MediaWiki dump: its root is <{name}>",
                where=self.place,
                fix="take a pages-articles dump",
            )
        self._inside = True
        if name == "page":
            self._fields, self._chars, self._redirect = {}, 0, False
        elif name == "redirect":
            self._redirect = True
        elif name in ("title", "ns", "text") or attributes.get("key") in _MEDIA_KEYS:
            self._into = self._fields[name] = []

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

    def _page(self) -> None:
        self.pages += 1
        title, namespace, text = (
            "".join(self._fields.get(field, [])) for field in ("title", "ns", "text")
        )
        self._fields = {}
        if self._chars > MAX_PAGE_CHARS:
            self.oversized += 1
        elif namespace.strip() == "0" and not self._redirect and not _REDIRECT.match(text):
            self._ready.append(Article(title.strip(), text))


def _decompressed(place: str, raw: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    if place.endswith(".bz2"):
        return bz2.BZ2File(raw)
    if place.endswith(".gz"):
        return gzip.GzipFile(fileobj=raw)
    if place.endswith(".xml"):
        return raw
    raise QueryListError(
        "unknown kind of dump", where=place, fix="give a .xml, .xml.bz2 or .xml.gz file"
    )
