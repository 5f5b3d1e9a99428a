"""The records of a WARC file, and its HTML pages, streamed, whatever is broken in between.

FastWARC reads; it stops at the first fault. ``recovery`` then finds the record at fault, which is
rejected, and the next one to go on from. A page is handed out only once the record after it was
found where it should be, so one with a wrong length never passes its neighbours' bytes as its own.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from fastwarc.stream_io import BrotliReader, ChunkedReader, GzipReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from wit_builder import storage
from wit_builder.crawl.recovery import BROKEN, Archive, opened
from wit_builder.errors import ArchiveError, GoneError
from wit_builder.ranges import open_ranges
from wit_builder.tables import Reason

Item = TypeVar("Item")

HTML = re.compile(r"(text/html|application/xhtml\+xml)\b", re.IGNORECASE)
"""A content type of a page."""


class Response(NamedTuple):
    """An HTML page as a server sent it; header names as they were spelled."""

    url: str
    headers: tuple[tuple[str, str], ...]
    charset: str | None
    body: bytes
    captured: datetime | None


class Rejected(NamedTuple):
    """A record that gives no page, and why."""

    reason: Reason
    detail: str
    url: str | None = None


Read = Callable[[WarcRecord], Item | Rejected | None]
"""What becomes of a record: something, a rejection, or nothing."""


def responses(place: str, max_html_bytes: int) -> Iterator[Response | Rejected]:
    """Yield the HTML responses of a WARC file in order, and what was rejected among its records.

    Args:
        place: ``.warc`` or ``.warc.gz``, local or remote; read in one pass, a chunk at a time.
        max_html_bytes: larger pages are rejected.

    Raises:
        ArchiveError: there is no WARC record in it.
        StorageError: it cannot be read.
    """
    return records(place, WarcRecordType.response, partial(_response, max_bytes=max_html_bytes))


def records(place: str, types: WarcRecordType, read: Read[Item]) -> Iterator[Item | Rejected]:
    """Yield what is read from the records of some types, in order, and what was rejected.

    A file that is not there, or not any more, is a rejection; what it had until then is kept.

    Raises:
        ArchiveError: there is no WARC record in it, or none of these types.
        StorageError: it cannot be read.
    """
    try:
        with open_ranges(place) as stream:
            archive = opened(stream, place)
            start = archive.next_record(0)
            if start is None:
                raise ArchiveError(
                    "not a WARC file",
                    where=storage.redact(place),
                    fix="give .warc, .wat or their .gz files",
                )
            reading = partial(_Reading[Item], archive, types, read)
            if not (yield from _all(archive, start, reading)):
                raise ArchiveError(
                    "whole, but without a record of the kind to read",
                    where=storage.redact(place),
                    fix="check kind: 'warc' is for pages, 'wat' for what was extracted from them",
                )
    except GoneError as error:
        yield Rejected(Reason.ARCHIVE_MISSING, str(error), place)


def _all(
    archive: Archive, begin: int, reading_from: Callable[[int], _Reading[Item]]
) -> Generator[Item | Rejected, None, bool]:
    """Yield all items; return whether there was a record to read, or anything broken."""
    some = begin > 0
    if begin:
        yield Rejected(Reason.BAD_RECORD, "the file begins with something else")
    start: int | None = begin
    while start is not None:
        reading = reading_from(start)
        yield from reading
        fault = archive.first_fault(reading.last)
        if reading.pending is not None and fault != reading.last:
            yield reading.pending
        some |= reading.some
        if fault is None and reading.error is None:
            return some
        some = True
        detail = reading.error or "cut off, or of another length than it says"
        yield Rejected(Reason.BAD_RECORD, detail)
        start = archive.next_record((reading.last if fault is None else fault) + 1)
    return some


class _Reading(Generic[Item]):
    """One run of FastWARC, up to the file's end or the first fault; holds back its last item."""

    def __init__(
        self, archive: Archive, types: WarcRecordType, read: Read[Item], start: int
    ) -> None:
        self._archive, self._types, self._read = archive, types, read
        self.last = start
        self.pending: Item | Rejected | None = None
        self.error: str | None = None
        self.some = False

    def __iter__(self) -> Iterator[Item | Rejected]:
        stream, parse_http = self._archive.stream, self._types == WarcRecordType.response
        stream.seek(self.last)
        try:
            for record in ArchiveIterator(stream, record_types=self._types, parse_http=parse_http):
                if self.pending is not None:
                    yield self.pending
                self.pending, self.some = None, True
                self.last = record.stream_pos
                self.pending = self._read(record)
        except BROKEN as error:
            self.error = str(error)[:200]


def _response(record: WarcRecord, max_bytes: int) -> Response | Rejected | None:
    """Return the page of a response record; None for one that has none (a redirect)."""
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    http = record.http_headers
    status = http.status_code if http is not None else None
    if status is None:
        return Rejected(Reason.BAD_RECORD, "no HTTP response in it", url)
    if status >= 400:
        return Rejected(Reason.HTTP_5XX if status >= 500 else Reason.HTTP_4XX, str(status), url)
    if status != 200:
        return None
    kind = http.get("Content-Type") or record.headers.get("WARC-Identified-Payload-Type") or ""
    if not HTML.match(kind.strip()):
        return Rejected(Reason.NOT_HTML, kind[:100], url)
    try:
        body = _body(record, http, max_bytes + 1)
    except _UndecodableError as error:
        return Rejected(Reason.BAD_RECORD, str(error), url)
    if len(body) > max_bytes:
        return Rejected(Reason.TOO_LARGE_HTML, f"more than {max_bytes} bytes", url)
    captured = record.record_date if record.headers.get("WARC-Date") else None
    return Response(url, http.to_tuples(), record.http_charset, body, captured)


class _UndecodableError(ValueError):
    """A body whose transfer or content encoding is not what its header says."""


_GZIPS = frozenset({"gzip", "x-gzip"})
_DECODERS: dict[str, Any] = {
    "gzip": GzipReader,
    "x-gzip": GzipReader,
    "br": BrotliReader,
    "chunked": ChunkedReader,
    "deflate": lambda stream: GzipReader(stream, zlib=True),
}


def _body(record: WarcRecord, http: Any, size: int) -> bytes:
    """Return up to ``size`` bytes of a body, its encodings undone if the archive kept them."""
    raw = read_up_to(record.reader, size)
    for name in ("transfer-encoding", "content-encoding"):
        lines = [value for key, value in http.to_tuples() if key.lower() == name]
        for coding in reversed(",".join(lines).lower().replace(" ", "").split(",")):
            if coding in {"", "identity"} or (coding in _GZIPS and raw[:1] == b"<"):
                continue  # archives of ten years ago undid gzip and left the header
            try:
                raw = _decoded(raw, coding, size)
            except (KeyError, *BROKEN) as error:
                raise _UndecodableError(f"cannot undo {name}: {coding[:40]}") from error
    return raw


def _decoded(raw: bytes, coding: str, size: int) -> bytes:
    try:
        return read_up_to(_DECODERS[coding](io.BytesIO(raw)), size)
    except BROKEN:
        if coding != "deflate":
            raise
    # without the zlib header that RFC 9110, 8.4.1.2, asks for: servers do so, browsers read it
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, size)


def read_up_to(reader: Any, size: int) -> bytes:
    """Return what a reader has, up to so many bytes."""
    parts, left = [], size
    while left and (part := reader.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
