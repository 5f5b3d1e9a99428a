"""A WARC or a WAT of any size for the benchmarks, made from real web pages.

    python benchmarks/web_corpus.py [NAME.warc.gz|NAME.warc.wat.gz] [--megabytes 300]

The pages are those of the data folder: real ones, 944 addresses, 73 KB on average, repeated until
there is enough. Each repetition lives on hosts of its own (``www.a.example`` is moved to
``c3.www.a.example`` in the page's address and in all that it links to), so that no page's address
is there twice; its texts are the same again. Pages have the charset that they declare; two of three
servers say it in their header.

As Common Crawl has it, a page is three records (request, response, metadata), each its own gzip
member. The WAT tells of each, and of the WARC's first record, in a JSON record of its own
(``web_metadata.py``). In a WAT that is made without its WARC, offsets and packed lengths are those
of a WARC that repeats the first copies. The same arguments give the same bytes, and a smaller
archive is how a larger one begins.
"""

from __future__ import annotations

import argparse
import codecs
import itertools
import json
import os
import re
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import xxhash

from benchmarks.web_metadata import Json, Member, Record, compact, describe, digest, html_metadata

Kind = Literal["warc", "wat"]

FILENAME = "CC-MAIN-20260109085416-20260109115416-00000.warc.gz"
BEGUN = datetime(2026, 1, 9, 8, 54, 16, tzinfo=UTC)

_AHEAD = 64  # pages that are made at once
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)

# Headers as common servers send them; Common Crawl adds the X-Crawler ones.
_SERVERS = [
    [
        "Date: {date}",
        "Server: Apache/2.4.41 (Ubuntu)",
        "X-Powered-By: PHP/7.4.3",
        "Set-Cookie: PHPSESSID={session}; path=/",
        "Expires: Thu, 19 Nov 1981 08:52:00 GMT",
        "Cache-Control: no-store, no-cache, must-revalidate",
        "Pragma: no-cache",
        "Vary: Accept-Encoding",
        "X-Crawler-Content-Encoding: gzip",
    ],
    [
        "Server: nginx",
        "Date: {date}",
        "X-Crawler-Transfer-Encoding: chunked",
        "Connection: keep-alive",
        "Vary: Accept-Encoding",
        "X-Frame-Options: SAMEORIGIN",
        "X-Content-Type-Options: nosniff",
        "Strict-Transport-Security: max-age=31536000",
        "X-Crawler-Content-Encoding: gzip",
    ],
    [
        "Date: {date}",
        "Connection: keep-alive",
        "CF-Ray: {session}-IAD",
        "Server: cloudflare",
        "CF-Cache-Status: DYNAMIC",
        "Set-Cookie: __cf_bm={session}; path=/; HttpOnly; Secure",
        "Set-Cookie: visit={session}; path=/",
        'Report-To: {{"endpoints":[{{"url":"https://a.nel.cloudflare.com/report/v4"}}]}}',
        "X-Crawler-Content-Encoding: br",
    ],
    [
        "Cache-Control: private",
        "Server: Microsoft-IIS/10.0",
        "X-AspNet-Version: 4.0.30319",
        "X-Powered-By: ASP.NET",
        "Date: {date}",
    ],
]


class Corpus(NamedTuple):
    """What was written: bytes of records, of HTML they stand for, and of the file; and pages."""

    raw_bytes: int
    html_bytes: int
    file_bytes: int
    pages: int


class Page(NamedTuple):
    """A page of the data folder: address, body as a server sends it, and what it says of it."""

    url: str
    body: bytes
    charset: str | None


class Capture(NamedTuple):
    """The three records of a page, as Common Crawl has them one after another."""

    request: Record
    response: Record
    metadata: Record


def write(place: Path, data: Path, megabytes: float, kind: Kind) -> Corpus:
    """Write a WARC or a WAT; it appears whole.

    Args:
        place: ``NAME.warc.gz`` or ``NAME.warc.wat.gz``.
        data: the data folder.
        megabytes: millions of bytes of records, at least; at most a page more.
        kind: which of the two.
    """
    pages = load(data)
    corpus = Corpus(0, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix=".corpus-", dir=place.parent) as folder:
        made = Path(folder, place.name)
        with made.open("wb") as file:
            for raw_bytes, html_bytes, packed in _pieces(pages, kind):
                file.write(packed)
                corpus = Corpus(
                    corpus.raw_bytes + raw_bytes,
                    corpus.html_bytes + html_bytes,
                    file.tell(),
                    corpus.pages + (html_bytes > 0),
                )
                if corpus.raw_bytes >= megabytes * 1e6:
                    break
        made.replace(place)
    return corpus


def load(data: Path) -> list[Page]:
    """Return the pages of the data folder in the order of its index, of an address the last."""
    urls = json.loads((data / "pages.json").read_bytes())
    names = {url: name for name, url in urls.items()}
    return [
        Page(url, *_served((data / "pages" / name).read_bytes())) for url, name in names.items()
    ]


def _served(body: bytes) -> tuple[bytes, str | None]:
    """Return a page in the charset that it declares, and the charset's name.

    The data folder has all in UTF-8. What that cannot be is left as it is, and not named.
    """
    declared = _CHARSET.search(body, 0, 4096)
    name = declared[1].decode() if declared else "utf-8"
    try:
        codec = codecs.lookup(name).name
        text = body.decode()
    except (LookupError, UnicodeDecodeError):
        return body, None
    if codec.startswith("utf"):
        return body, "utf-8"
    return text.encode(codec, "xmlcharrefreplace"), name


def moved(data: bytes, copy: int) -> bytes:
    """Return HTML, JSON or an address with all hosts moved to those of a copy; of 0 as it is."""
    if not copy:
        return data
    label = b"//c%d." % copy
    return data.replace(b"://", b":" + label).replace(b'"//', b'"' + label)


def capture(page: Page, number: int, copy: int) -> Capture:
    """Return the records of a page, the ``number``-th of the archive."""
    when = BEGUN + timedelta(seconds=number)
    url = moved(page.url.encode(), copy).decode()
    to = _Writer(number, when, url)
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    asked = (
        f"GET {path.replace(' ', '%20')} HTTP/1.1\r\n"
        "User-Agent: CCBot/2.0 (https://commoncrawl.org/faq/)\r\n"
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
        "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: br,gzip\r\n"
        f"Host: {parts.netloc}\r\nConnection: Keep-Alive\r\n\r\n"
    )
    body = moved(page.body, copy)
    served = _http_header(page, number, when, len(body)) + body
    digests = [("WARC-Payload-Digest", digest(body)), ("WARC-Block-Digest", digest(served))]
    http, told = "application/http; msgtype=", "application/warc-fields"
    concurrent = [("WARC-Concurrent-To", to.record_id("request"))]
    fetched = f"fetchTimeMs: {number % 900}\r\ncharset-detected: {page.charset or 'UTF-8'}\r\n"
    return Capture(
        to.record("request", f"{http}request", asked.encode(), []),
        to.record("response", f"{http}response", served, [*concurrent, *digests]),
        to.record("metadata", told, f"{fetched}\r\n".encode(), concurrent),
    )


def _http_header(page: Page, number: int, when: datetime, length: int) -> bytes:
    named = f"; charset={page.charset}" if page.charset and number % 3 else ""
    session = xxhash.xxh3_64_hexdigest(str(number).encode())
    server = _SERVERS[xxhash.xxh3_64_intdigest(urlsplit(page.url).netloc.encode()) % len(_SERVERS)]
    date = format_datetime(when, usegmt=True)
    lines = ["HTTP/1.1 200 OK", *(line.format(date=date, session=session) for line in server)]
    lines += [f"Content-Type: text/html{named}", f"X-Crawler-Content-Length: {length // 4}"]
    lines += [f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


class _Writer(NamedTuple):
    """Makes the records of one page."""

    number: int
    when: datetime
    url: str

    def record_id(self, kind: str) -> str:
        return _record_id(f"{self.number} {kind}")

    def record(
        self, kind: str, content_type: str, block: bytes, more: list[tuple[str, str]]
    ) -> Record:
        fields = [
            ("WARC-Type", kind),
            ("WARC-Date", _date(self.when)),
            ("WARC-Record-ID", self.record_id(kind)),
            ("Content-Length", str(len(block))),
            ("Content-Type", content_type),
            ("WARC-Warcinfo-ID", _record_id(f"warcinfo {FILENAME}")),
            *more[:1],
            ("WARC-IP-Address", f"192.0.2.{self.number % 254 + 1}"),
            ("WARC-Target-URI", self.url),
            *more[1:],
        ]
        return Record(fields, block)


def _record_id(name: str) -> str:
    return f"<urn:uuid:{uuid.UUID(int=xxhash.xxh3_128_intdigest(name.encode()), version=4)}>"


def _date(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


_OF_WARC = b"""\
isPartOf: CC-MAIN-2026-04
publisher: Common Crawl
description: Wide crawl of the web for January 2026
operator: Common Crawl Admin
software: Apache Nutch 1.20 (modified)
robots: checked via crawler-commons
format: WARC File Format 1.1
"""

_OF_WAT = b"""\
Software-Info: ia-web-commons.1.1.10-SNAPSHOT
Extracted-Date: Fri, 09 Jan 2026 14:02:11 GMT
ip: 192.0.2.1
hostname: extractor.example
format: WARC File Format 1.0
"""


def warcinfo(filename: str, block: bytes) -> Record:
    """Return the first record of an archive."""
    fields = [
        ("WARC-Type", "warcinfo"),
        ("WARC-Date", _date(BEGUN)),
        ("WARC-Filename", filename),
        ("WARC-Record-ID", _record_id(f"warcinfo {filename}")),
        ("Content-Type", "application/warc-fields"),
        ("Content-Length", str(len(block))),
    ]
    return Record(fields, block)


def about(record: Record, told: bytes) -> Record:
    """Return the WAT's record about a record, given its JSON."""
    fields = dict(record.fields)
    return Record(
        [
            ("WARC-Type", "metadata"),
            ("WARC-Target-URI", fields.get("WARC-Target-URI", fields.get("WARC-Filename", ""))),
            ("WARC-Date", fields["WARC-Date"]),
            ("WARC-Record-ID", _record_id("about " + fields["WARC-Record-ID"])),
            ("WARC-Refers-To", fields["WARC-Record-ID"]),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(told))),
        ],
        told,
    )


def pack(record: Record) -> bytes:
    """Return a record as a gzip member."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return packer.compress(record.raw()) + packer.flush()


def _pieces(pages: list[Page], kind: Kind) -> Iterator[tuple[int, int, bytes]]:
    """Yield sizes of records and of HTML, and the packed records; a page a piece, without end."""
    first = warcinfo(FILENAME, _OF_WARC.replace(b"\n", b"\r\n"))
    described = compact(describe(first, Member(FILENAME, 0, len(pack(first))), None)).encode()
    name, info = FILENAME.replace(".gz", ".wat.gz"), _OF_WAT.replace(b"\n", b"\r\n")
    wat = [warcinfo(name, info), about(first, described)]
    for record in [first] if kind == "warc" else wat:
        yield len(record.raw()), 0, pack(record)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # zlib and hashlib let others run
        maker = _Warc(pages) if kind == "warc" else _Wat(pages, pool)
        for begin in itertools.count(0, _AHEAD):
            yield from pool.map(maker.piece, range(begin, begin + _AHEAD))


class _Warc(NamedTuple):
    pages: list[Page]

    def piece(self, number: int) -> tuple[int, int, bytes]:
        copy, place = divmod(number, len(self.pages))
        page = self.pages[place]
        records = capture(page, number, copy)
        return _packed(records, len(page.body))


class _Wat:
    def __init__(self, pages: list[Page], pool: ThreadPoolExecutor) -> None:
        self._pages = pages
        self._found: dict[int, bytes] = {}
        self._lengths = list(pool.map(self._packed_lengths, range(len(pages))))
        lengths = itertools.accumulate(itertools.chain.from_iterable(self._lengths), initial=0)
        self._offsets = list(lengths)

    def _packed_lengths(self, number: int) -> list[int]:
        return [len(pack(record)) for record in capture(self._pages[number], number, 0)]

    def _html_metadata(self, place: int) -> bytes:
        if place not in self._found:
            page = self._pages[place]
            text = page.body.decode(page.charset or "utf-8", "replace")
            self._found[place] = compact(html_metadata(text)).encode()
        return self._found[place]

    def piece(self, number: int) -> tuple[int, int, bytes]:
        copy, place = divmod(number, len(self._pages))
        page = self._pages[place]
        records = []
        for turn, record in enumerate(capture(page, number, copy)):
            offset = copy * self._offsets[-1] + self._offsets[3 * place + turn]
            member = Member(FILENAME, offset, self._lengths[place][turn])
            hole: Json | None = {} if turn == 1 else None
            told = compact(describe(record, member, hole)).encode()
            if turn == 1:  # the page's own part is found out once, and moved
                found = b'"HTML-Metadata":' + moved(self._html_metadata(place), copy)
                told = told.replace(b'"HTML-Metadata":{}', found)
            records.append(about(record, told))
        return _packed(records, len(page.body))


def _packed(records: Capture | list[Record], html_bytes: int) -> tuple[int, int, bytes]:
    size = sum(len(record.raw()) for record in records)
    return size, html_bytes, b"".join(map(pack, records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("place", type=Path, nargs="?", help="default: thrown away")
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--kind", choices=["warc", "wat"], default="warc")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.place or Path(folder) / f"corpus.{options.kind}.gz"
        started = time.perf_counter()
        made = write(place, options.data, options.megabytes, options.kind)
        took = time.perf_counter() - started
    print(
        f"{made.pages:,} pages, {made.html_bytes / 1e6:.1f} MB of HTML, {options.kind} of ", end=""
    )
    print(f"{made.raw_bytes / 1e6:.1f} MB, {made.file_bytes / 1e6:.1f} packed: {took:.1f} s")


if __name__ == "__main__":
    main()
