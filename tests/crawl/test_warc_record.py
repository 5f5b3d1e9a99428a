from __future__ import annotations

import gzip
import io
from datetime import UTC, datetime

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from wit_builder.crawl import warc_record

DATE = datetime(2024, 5, 1, 12, tzinfo=UTC)
HEAD = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("content-encoding", "gzip"),
    ("Transfer-Encoding", "chunked"),
    ("Set-Cookie", "a=1"),
    ("Set-Cookie", "b=\udcff"),
]


def test_digest() -> None:
    """It is the labelled base32 of SHA-1 (the empty body's is well known)."""
    assert warc_record.digest(b"") == "sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ"


def test_a_file_of_records() -> None:
    """Each record is a gzip member of its own, whole by its digests, and says what it is."""
    body = b"<p>hello" * 1000
    first = warc_record.warcinfo("x.warc.gz", DATE, {"software": "wit-builder/1", "robots": "obey"})
    second = warc_record.response("http://a.test/?q=%C3%BC", DATE, 200, HEAD, body)
    assert first[:3] == second[:3] == b"\x1f\x8b\x08"
    records = ArchiveIterator(io.BytesIO(first + second), parse_http=False)
    info = next(records)
    assert info.record_type == WarcRecordType.warcinfo
    assert info.headers["WARC-Filename"] == "x.warc.gz"
    assert info.verify_block_digest()
    assert info.reader.read() == b"software: wit-builder/1\r\nrobots: obey\r\n"
    page = next(records)
    assert page.record_type == WarcRecordType.response
    assert page.stream_pos == len(first)
    assert page.verify_block_digest()
    page.parse_http()
    assert page.verify_payload_digest()
    assert page.headers["WARC-Target-URI"] == "http://a.test/?q=%C3%BC"
    assert page.record_date == DATE
    assert page.http_headers.status_code == 200
    assert dict(page.http_headers) == {
        "Content-Type": "text/html; charset=utf-8",
        "X-Crawler-content-encoding": "gzip",
        "X-Crawler-Transfer-Encoding": "chunked",
        "Set-Cookie": page.http_headers["Set-Cookie"],
        "Content-Length": str(len(body)),
    }
    assert page.reader.read() == body
    assert next(records, None) is None


def test_bytes_of_headers_stay() -> None:
    """A header value that is no UTF-8 is written as it came."""
    record = warc_record.response("http://a.test/", DATE, 200, HEAD, b"")
    assert b"Set-Cookie: b=\xff\r\n" in gzip.decompress(record)


@pytest.mark.parametrize(("status", "line"), [(203, b"203 Non-Auth"), (299, b"299 \r\n")])
def test_status_line(status: int, line: bytes) -> None:
    """A status has its phrase, where a standard has one."""
    assert b"HTTP/1.1 " + line in gzip.decompress(
        warc_record.response("http://a.test/", DATE, status, [], b"")
    )


def test_the_same_page_is_the_same_bytes() -> None:
    """A record is a function of what it is told; ids of different records differ."""
    made = [
        warc_record.response("http://a.test/", DATE, 200, HEAD, body) for body in (b"", b"", b"x")
    ]
    assert made[0] == made[1]

    def name(data: bytes) -> str:
        (record,) = ArchiveIterator(io.BytesIO(data))
        return str(record.record_id)

    assert name(made[0]) != name(made[2])
