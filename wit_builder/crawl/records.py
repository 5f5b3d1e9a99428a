"""The HTML pages of a WARC file, streamed, whatever is broken in between.

FastWARC reads; it stops at the first fault. ``recovery`` then finds the record at fault, which is
rejected, and the next one to go on from. A page is handed out only once the record after it was
found where it should be, so one with a wrong length never passes its neighbours' bytes as its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from fastwarc.stream_io import BrotliReader, ChunkedReader, GzipReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from wit_builder import storage
from wit_builder.crawl.recovery import BROKEN, Archive, opened
from wit_builder.errors import ArchiveError
from wit_builder.tables import Reason

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


def responses(place: str, max_html_bytes: int) -> Iterator[Response | Rejected]:
    """Yield the HTML responses of a WARC file in order, and what was rejected among its records.

    Args:
        place: ``.warc`` or ``.warc.gz``, local or remote; read in one pass, a chunk at a time.
        max_html_bytes: larger pages are rejected.

    Raises:
        ArchiveError: there is no WARC record in it.
        StorageError: it cannot be read.
    """
    with storage.open_read(place) as stream:
        archive = opened(stream, place)
        start = archive.next_record(0)
        if start is None:
            raise ArchiveError(
                "not a WARC file", where=storage.redact(place), fix="give .warc or .warc.gz files"
            )
        yield from _responses(archive, start, max_html_bytes)


def _responses(archive: Archive, begin: int, max_html_bytes: int) -> Iterator[Response | Rejected]:
    if begin:
        yield Rejected(Reason.BAD_RECORD, "the file begins with something else")
    start: int | None = begin
    while start is not None:
        reading = _Reading(archive, start, max_html_bytes)
        yield from reading
        fault = archive.first_fault(reading.last)
        if reading.pending is not None and fault != reading.last:
            yield reading.pending
        if fault is None and reading.error is None:
            return
        detail = reading.error or "cut off, or of another length than it says"
        yield Rejected(Reason.BAD_RECORD, detail)
        start = archive.next_record((reading.last if fault is None else fault) + 1)


class _Reading:
    """One run of FastWARC, up to the file's end or the first fault; holds back its last item."""

    def __init__(self, archive: Archive, start: int, max_html_bytes: int) -> None:
        self._archive, self._max = archive, max_html_bytes
        self.last = start
        self.pending: Response | Rejected | None = None
        self.error: str | None = None

    def __iter__(self) -> Iterator[Response | Rejected]:
        self._archive.stream.seek(self.last)
        try:
            for record in ArchiveIterator(
                self._archive.stream, record_types=WarcRecordType.response
            ):
                if self.pending is not None:
                    yield self.pending
                self.pending = None
                self.last = record.stream_pos
                self.pending = _read(record, self._max)
        except BROKEN as error:
            self.error = str(error)[:200]


def _read(record: WarcRecord, max_html_bytes: int) -> Response | Rejected | None:
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
        body = _body(record, http, max_html_bytes + 1)
    except _UndecodableError as error:
        return Rejected(Reason.BAD_RECORD, str(error), url)
    if len(body) > max_html_bytes:
        return Rejected(Reason.TOO_LARGE_HTML, f"more than {max_html_bytes} bytes", url)
    captured = record.record_date if record.headers.get("WARC-Date") else None
    return Response(url, http.to_tuples(), record.http_charset, body, captured)


class _UndecodableError(ValueError):
    """A body whose transfer or content encoding is not what its header says."""


_DECODERS: dict[str, Any] = {
    "gzip": GzipReader,
    "x-gzip": GzipReader,
    "br": BrotliReader,
    "chunked": ChunkedReader,
    "deflate": lambda stream: GzipReader(stream, zlib=True),
}


def _body(record: WarcRecord, http: Any, size: int) -> bytes:
    """Return up to ``size`` bytes of a body, its encodings undone if the archive kept them."""
    raw = _read_up_to(record.reader, size)
    for name in ("Transfer-Encoding", "Content-Encoding"):
        for coding in reversed((http.get(name) or "").lower().replace(" ", "").split(",")):
            if coding in {"", "identity"}:
                continue
            try:
                raw = _read_up_to(_DECODERS[coding](io.BytesIO(raw)), size)
            except (KeyError, *BROKEN) as error:
                raise _UndecodableError(f"cannot undo {name}: {coding[:40]}") from error
    return raw


def _read_up_to(reader: Any, size: int) -> bytes:
    parts, left = [], size
    while left and (part := reader.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
