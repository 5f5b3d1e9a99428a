from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from wit_builder.crawl.records import Rejected, Response, responses

PAGE = b"<img src=/1.jpg alt='picture 1'>" * 20


def only(folder: Path, codings: list[str], body: bytes) -> Response | Rejected:
    """What is read from an archive of one response with these header lines."""
    http = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: text/html", *codings, "", ""]).encode()
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://h.example/\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http + body)}\r\n\r\n"
    )
    place = folder / "x.warc"
    place.write_bytes(head.encode() + http + body + b"\r\n\r\n")
    (found,) = responses(str(place), 1 << 20)
    return found


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("codings", "body"),
    [
        pytest.param(["Content-Encoding: deflate"], zlib.compress(PAGE), id="deflate"),
        pytest.param(["Content-Encoding: deflate"], raw_deflate(PAGE), id="deflate-without-header"),
        pytest.param(
            ["Content-Encoding: deflate, GZIP"], gzip.compress(zlib.compress(PAGE)), id="one-line"
        ),
        pytest.param(
            ["Content-Encoding: deflate", "content-encoding: gzip"],
            gzip.compress(zlib.compress(PAGE)),
            id="two-lines",
        ),
        pytest.param(
            ["Content-Encoding: identity", "Content-Encoding: gzip"],
            gzip.compress(PAGE),
            id="nothing-and-something",
        ),
        pytest.param(
            ["Transfer-Encoding: gzip", "Transfer-Encoding: chunked", "Content-Encoding: deflate"],
            chunked(gzip.compress(zlib.compress(PAGE))),
            id="transfer-encoding",
        ),
    ],
)
def test_encodings_are_undone(tmp_path: Path, codings: list[str], body: bytes) -> None:
    """All encodings of all header lines are undone, the last one first."""
    found = only(tmp_path, codings, body)
    assert isinstance(found, Response)
    assert found.body == PAGE


@pytest.mark.parametrize("coding", ["deflate", "gzip", "br"])
def test_what_is_not_encoded_so(tmp_path: Path, coding: str) -> None:
    """A page that is not encoded as its header says is rejected."""
    found = only(tmp_path, [f"Content-Encoding: {coding}"], b"of no encoding " + PAGE)
    assert isinstance(found, Rejected)
    assert coding in found.detail
