"""Candidates from WAT files, which have the links of Common Crawl's pages: one unit a file.

A WAT has of each page its headers, metas and links, of pictures the ``src``, ``alt`` and ``title``.
It knows neither captions of figures, nor the attributes of lazy loading, nor ``srcset``.

Extractors before August 2019 left character references (``&amp;``) as they were in the page.
"""

from __future__ import annotations

import contextlib
import html
import io
import itertools
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from functools import partial

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from fastwarc.warc import WarcRecord, WarcRecordType

from wit_builder import storage
from wit_builder.crawl.candidates import PAGES, Collector, Output, Piece, collecting, done
from wit_builder.crawl.columns import I64, U8, collapse, normalise_urls
from wit_builder.crawl.json_strings import strings
from wit_builder.crawl.licenses import license_of
from wit_builder.crawl.listings import archives
from wit_builder.crawl.records import Rejected, records
from wit_builder.crawl.urls import BadUrlError, resolve
from wit_builder.crawl.wat_json import (
    ALT,
    BASE,
    DATE,
    HEADER,
    HREF,
    HTML,
    META,
    NAME,
    STATUS,
    TITLE,
    URL,
    VALID,
    VALUE,
    Scan,
    scan,
)
from wit_builder.crawl.wat_kept import Kept
from wit_builder.crawl.wat_links import LINK
from wit_builder.errors import ArchiveError
from wit_builder.sections import WatSource
from wit_builder.storage import Published
from wit_builder.tables import Reason, TextFrom
from wit_builder.units import Done
from wit_builder.web.optouts import opt_outs

Mask = npt.NDArray[np.bool_]
Links = list[tuple[str, str]]

_BATCH_BYTES = 64 << 20
"""Read as one: of so much, columns are long enough."""
_CHUNK_BYTES = 1 << 20
"""Gone through as one: so much stays in a core's cache from reading to scanning."""
_MAX_RECORD_BYTES = 64 << 20
_TELLING = 10
"""Records none of which is JSON: then the file is of another kind, not damaged."""
_UNESCAPED_SINCE = (2019, 8)


class WatJob(msgspec.Struct, frozen=True):
    """One WAT file, and where its candidates go."""

    place: str
    output: Output


def pieces(source: WatSource) -> list[Piece]:
    """Return a piece for every file of a source, in the order of its paths.

    Raises:
        ArchiveError: it names none.
        StorageError: a file is not there, or a pattern matches nothing.
    """
    return [
        Piece("wat", place, [identity], partial(WatJob, place))
        for place, identity in archives(source)
    ]


def run(job: WatJob) -> Done:
    """Write the candidates of one WAT file; what is broken in it is rejected, the rest is kept.

    Counts ``pages``, ``candidates``, ``repeated`` (the same pair again) and ``rejected:REASON``.

    Raises:
        ArchiveError: there is no WARC record in it, or none of its records is JSON.
        StorageError: it cannot be read, or the output cannot be written.
    """
    published: list[Published] = []
    items: Iterator[bytes | _AboutFile | Rejected] = records(job.place, _TYPES, _read)
    with collecting(job.output, published) as collector:
        reader = _Reader(collector, storage.name_of(job.place))
        for found in items:
            if isinstance(found, bytes):
                reader.take(found)
            elif isinstance(found, Rejected):
                collector.reject(found.reason, found.detail, found.url)
            else:
                reader.begin(found)
        reader.flush()
        if not reader.valid and collector.counts[f"rejected:{Reason.BAD_RECORD}"] >= _TELLING:
            raise ArchiveError(
                "none of its records is JSON",
                where=storage.redact(job.place),
                fix="give WAT files; of WARC files, say kind = 'warc'",
            )
    return done(collector, published)


class _AboutFile(msgspec.Struct, frozen=True):
    """What the record about the file itself says."""

    payload: bytes


def _read(record: WarcRecord) -> bytes | _AboutFile | Rejected:
    """Return what a record says: plain bytes where it is of a page, for there are many."""
    if record.content_length > _MAX_RECORD_BYTES:
        url = record.headers.get("WARC-Target-URI")
        return Rejected(Reason.TOO_LARGE_HTML, f"more than {_MAX_RECORD_BYTES} bytes", url)
    payload: bytes = record.reader.read(record.content_length)
    return _AboutFile(payload) if record.record_type == WarcRecordType.warcinfo else payload


_TYPES = WarcRecordType.metadata | WarcRecordType.warcinfo


class _Reader:
    """Takes records one by one, and reads them by the batch."""

    def __init__(self, collector: Collector, archive: str) -> None:
        self._collector, self._archive = collector, archive
        self._held, self._ends = io.BytesIO(), [0]
        self._kept = Kept()
        self._escaped = False
        self.valid = 0

    def begin(self, file: _AboutFile) -> None:
        """Take what a file says of itself before its records, or those from here on."""
        self.flush()
        self._escaped = _escapes(file.payload.decode("utf-8", "replace"))

    def take(self, payload: bytes) -> None:
        """Take what a record says."""
        end = self._ends[-1] + self._held.write(payload)
        self._ends.append(end)
        if end >= _CHUNK_BYTES:
            self._scan_held()

    def _scan_held(self) -> None:
        data = np.frombuffer(self._held.getbuffer(), np.uint8)[: self._ends[-1]]
        self._kept.add(data, scan(data, np.array(self._ends)))
        self._ends = [0]
        self._held.seek(0)  # and written over: its memory is in the core's cache
        if self._kept.of_bytes >= _BATCH_BYTES:
            self._give()

    def _give(self) -> None:
        batch = _Batch(*self._kept.all(), escaped=self._escaped)
        self._kept = Kept()
        self.valid += batch.give(self._collector, self._archive)

    def flush(self) -> None:
        """Read what is held."""
        if len(self._ends) > 1:
            self._scan_held()
        if self._kept.records:
            self._give()


def _escapes(info: str) -> bool:
    """Return whether an extractor left character references, going by its date."""
    for line in info.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "extracted-date":
            with contextlib.suppress(ValueError, OverflowError):
                date = parsedate_to_datetime(value.strip())
                return (date.year, date.month) < _UNESCAPED_SINCE
    return False


class _Batch:
    """Some records, in columns.

    Args:
        data: the strings of what was found.
        found: what was.
        escaped: whether character references are still to be undone.
    """

    def __init__(self, data: U8, found: Scan, *, escaped: bool) -> None:
        self._data, self._escaped = data, escaped
        self._records, self._pictures, self._signals = found

    def give(self, collector: Collector, archive: str) -> int:
        """Give the pictures of pages that may be used to the collector, and reject what may not.

        Return how many records are JSON.
        """
        readable = self._readable(collector)
        links = self._obey(readable, collector)
        pictures = self._pictures[readable[self._pictures[:, 0]]]
        said = pictures[(pictures[:, ALT + 1] > pictures[:, ALT]) | (pictures[:, TITLE] > 0)]
        texts, place = _texts(self._strings(said, ALT), self._strings(said, TITLE))
        if silent := len(pictures) - int(np.count_nonzero(_begins(place))):
            collector.counts[f"rejected:{Reason.NO_TEXT}"] += silent
        pictures = said[place]
        begins = _begins(pictures[:, 0])
        numbers, which = pictures[begins, 0], np.cumsum(begins) - 1
        pages = self._pages(numbers, links, archive, collector)
        found = texts.append_column("href", self._strings(pictures, HREF))
        known = pc.is_valid(pages["base"]).to_numpy()[which]
        if not known.all():
            found, which = found.filter(pa.array(known)), which[known]
        if found.num_rows:
            collector.add_pictures(found, which, pages)
        return int(np.count_nonzero(self._records[:, VALID]))

    def _readable(self, collector: Collector) -> Mask:
        """Return which records are of pages; reject what is no JSON, no success, or no HTML."""
        records = self._records
        status = self._statuses()
        valid = records[:, VALID] == 1
        answered = valid & (status >= 0)
        for number in np.flatnonzero(~valid).tolist():
            collector.reject(Reason.BAD_RECORD, "not JSON", self._url(number))
        for number in np.flatnonzero(answered & (status >= 400)).tolist():
            reason = Reason.HTTP_5XX if status[number] >= 500 else Reason.HTTP_4XX
            collector.reject(reason, str(status[number]), self._url(number))
        for number in np.flatnonzero(answered & (status < 100)).tolist():
            collector.reject(Reason.BAD_RECORD, "no HTTP status", self._url(number))
        html = records[:, HTML] == 1
        for number in np.flatnonzero(answered & (status == 200) & ~html).tolist():
            collector.reject(Reason.NOT_HTML, "", self._url(number))
        return valid & html & (status == 200)

    def _statuses(self) -> I64:
        """Return each record's HTTP status, 0 if it is none, -1 where it is not of a response."""
        begin, end = self._records[:, STATUS], self._records[:, STATUS + 1]
        found = np.full(len(begin), -1, np.int64)
        three = end - begin == 3
        digits = self._data[begin[three, None] + np.arange(3)].astype(np.int64) - ord("0")
        codes = digits @ np.array([100, 10, 1])
        found[end > begin] = 0
        found[three] = np.where(((digits >= 0) & (digits <= 9)).all(axis=1), codes, 0)
        return found

    def _obey(self, readable: Mask, collector: Collector) -> dict[int, Links]:
        """Reject pages that opt out; count the pages, and return the others' links to licences."""
        links: dict[int, Links] = {}
        names, values = (self._strings(self._signals, c).to_pylist() for c in (NAME, VALUE))
        kinds = self._signals[:, 1].tolist()
        opted_out = 0
        for number, rows in _runs(self._signals[:, 0].tolist()):
            if not readable[number]:
                continue
            said: dict[int, Links] = {HEADER: [], META: [], LINK: []}
            for row in rows:
                said[kinds[row]].append((names[row], values[row]))
            if seen := opt_outs(said[HEADER]):
                collector.reject(Reason.OPT_OUT_HEADER, ", ".join(seen), self._url(number))
                readable[number] = False
            elif seen := opt_outs(metas=said[META]):
                collector.reject(Reason.OPT_OUT_PAGE, ", ".join(seen), self._url(number))
                readable[number] = False
                opted_out += 1
            elif said[LINK]:
                links[number] = said[LINK]
        collector.counts["pages"] += int(np.count_nonzero(readable)) + opted_out
        return links

    def _pages(
        self, numbers: I64, links: dict[int, Links], archive: str, collector: Collector
    ) -> pa.Table:
        """Return what pictures of some records have in common; null where a page's URL is bad."""
        rows = self._records[numbers]
        urls, bad = normalise_urls(self._strings(rows, URL))
        for _, why in bad:
            collector.reject(Reason.BAD_URL, f"of the page: {why}", None)
        bases = urls.to_pylist()
        based = np.flatnonzero(rows[:, BASE])
        said = self._strings(rows[based], BASE).to_pylist()
        for at, base in zip(based.tolist(), said, strict=True):
            if bases[at] is not None:
                with contextlib.suppress(BadUrlError):
                    bases[at] = resolve(base, bases[at])
        license_urls = [
            license_of(links[number], base) if number in links and base else None
            for number, base in zip(numbers.tolist(), bases, strict=True)
        ]
        columns = [
            pa.array(bases, pa.string()),
            urls,
            pa.array(license_urls, pa.string()),
            pa.repeat(archive, len(urls)),
            _times(self._strings(rows, DATE)),
        ]
        return pa.table(columns, PAGES.names)

    def _strings(self, rows: I64, column: int) -> pa.Array:
        found = strings(self._data, rows[:, column : column + 2])
        return _unescaped(found) if self._escaped else found

    def _url(self, number: int) -> str | None:
        row = self._records[number]
        url = bytes(self._data[row[URL] : row[URL + 1]]).decode("utf-8", "replace")
        return url or None


def _begins(numbers: I64) -> Mask:
    """Return for each of ascending numbers, none below 0, whether it is the first of its kind."""
    return np.diff(numbers, prepend=-1) > 0


def _runs(numbers: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield each number of an ascending list with the places where it stands."""
    for number, run in itertools.groupby(range(len(numbers)), key=numbers.__getitem__):
        yield number, list(run)


def _texts(alts: pa.Array, titles: pa.Array) -> tuple[pa.Table, I64]:
    """Return the distinct texts of pictures in order, and which picture each is of.

    They are columns ``text`` and ``text_from``; a picture without any has no row.
    """
    alts, titles = collapse(alts), collapse(titles)
    said = pc.not_equal(alts, "")
    more = pc.and_(pc.not_equal(titles, ""), pc.not_equal(titles, alts))
    place = np.concatenate(
        [np.flatnonzero(mask.to_numpy(zero_copy_only=False)) for mask in (said, more)]
    )
    kinds = [pa.repeat(kind.value, pc.sum(mask).as_py() or 0) for kind, mask in (
        (TextFrom.ALT, said), (TextFrom.TITLE, more)
    )]  # fmt: skip
    texts = [alts.filter(said), titles.filter(more)]
    order = np.argsort(place, kind="stable")
    table = pa.table([pa.concat_arrays(texts), pa.concat_arrays(kinds)], ["text", "text_from"])
    return table.take(pa.array(order)), place[order]


def _unescaped(found: pa.Array) -> pa.Array:
    """Return strings with their character references undone, as a browser reads attributes."""
    has = pc.match_substring(found, "&")
    plain = [html.unescape(value) for value in found.filter(has).to_pylist()]
    return pc.replace_with_mask(found, has, pa.array(plain, pa.string()))


def _times(dates: pa.Array) -> pa.Array:
    """Return dates as WARC writes them; null for what is none."""
    read = pc.strptime(dates, format="%Y-%m-%dT%H:%M:%SZ", unit="s", error_is_null=True)
    return read.cast(pa.timestamp("s", tz="UTC"))
