"""WARC records of pages, as ISO 28500 (WARC 1.1) has them: a gzip member each.

A page's body is written as it was read, with its encodings undone. The header lines that told of
these are kept under names of Common Crawl's, ``X-Crawler-Content-Encoding`` and so on, so that no
reader undoes them again.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http
import uuid
from collections.abc import Iterable
from datetime import datetime

_CRLF = b"\r\n"
_TOLD_OF_TRANSFER = frozenset({"content-encoding", "transfer-encoding", "content-length"})


def digest(data: bytes) -> str:
    """Return SHA-1 in base32, labelled, as the format's digest headers have it."""
    sha1 = hashlib.sha1(data, usedforsecurity=False).digest()
    return "sha1:" + base64.b32encode(sha1).decode()


def warcinfo(name: str, date: datetime, about: dict[str, str]) -> bytes:
    """Return the record that a file begins with.

    Args:
        name: of the file.
        date: in UTC.
        about: fields such as ``software``, in order.
    """
    block = _lines(about.items())
    named = {"WARC-Filename": name, "Content-Type": "application/warc-fields"}
    return _record("warcinfo", date, named, block)


def response(
    url: str, date: datetime, status: int, head: list[tuple[str, str]], body: bytes
) -> bytes:
    """Return the record of a page.

    Args:
        url: that the response came from.
        date: when, in UTC.
        status: of the response.
        head: its header lines, as they came.
        body: its encodings undone.
    """
    kept = [(_name(name), value) for name, value in head]
    top = f"HTTP/1.1 {status} {_phrase(status)}".encode() + _CRLF
    length = ("Content-Length", str(len(body)))
    block = top + _lines([*kept, length]) + _CRLF + body
    named = {
        "WARC-Target-URI": url,
        "WARC-Payload-Digest": digest(body),
        "Content-Type": "application/http; msgtype=response",
    }
    return _record("response", date, named, block)


def _name(name: str) -> str:
    return f"X-Crawler-{name}" if name.lower() in _TOLD_OF_TRANSFER else name


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:  # one that no standard knows
        return ""


def _record(kind: str, date: datetime, named: dict[str, str], block: bytes) -> bytes:
    when, of_block = date.strftime("%Y-%m-%dT%H:%M:%SZ"), digest(block)
    told = " ".join([kind, when, *named.values(), of_block])
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, told)}>",
        "WARC-Date": when,
        **named,
        "WARC-Block-Digest": of_block,
        "Content-Length": str(len(block)),
    }
    record = b"WARC/1.1" + _CRLF + _lines(fields.items()) + _CRLF + block + 2 * _CRLF
    return gzip.compress(record, 6, mtime=0)


def _lines(fields: Iterable[tuple[str, str]]) -> bytes:
    # header values may have bytes that are no UTF-8; aiohttp keeps them as surrogates
    return b"".join(
        f"{name}: {value}".encode("utf-8", "surrogateescape") + _CRLF for name, value in fields
    )
