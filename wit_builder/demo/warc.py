"""A part of the demo's web as a crawler would have kept it: WARC files, always the same bytes."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Iterator

from wit_builder import storage
from wit_builder.demo import data
from wit_builder.demo.faults import Fault
from wit_builder.demo.site import Page, Plan, archived_hosts

_CAPTURED = "2024-05-01T12:00:00Z"


def write_warcs(folder: str, web: Plan, files: int = 2) -> list[str]:
    """Write the archived half of the web as WARC files, and return their places in order.

    Beside the pages there is what a crawl brings along: a ``warcinfo`` record, requests, a 404 page
    and a picture, none of which are pages to read.

    Raises:
        StorageError: the folder cannot be written.
    """
    pages = [page for page in web.pages.values() if page.host in archived_hosts()]
    places = []
    for number in range(files):
        place = storage.join(folder, f"demo-{number:05d}.warc.gz")
        # a gzip member a record, without its time, as the format asks (WARC 1.1, annex D)
        members = (gzip.compress(r, mtime=0) for r in _records(place, web, pages[number::files]))
        _publish_if_new(place, b"".join(members))
        places.append(place)
    return places


def _publish_if_new(place: str, data: bytes) -> None:
    """Leave a file that is as it should be alone, so that a resumed build knows it again."""
    if not (storage.exists(place) and storage.read_bytes(place) == data):
        storage.publish_bytes(place, data)


def _records(place: str, web: Plan, pages: list[Page]) -> Iterator[bytes]:
    about = b"software: wit demo\r\nformat: WARC File Format 1.1\r\n"
    yield _record("warcinfo", storage.name_of(place), "application/warc-fields", about)
    for page in pages:
        asked = f"GET {page.path} HTTP/1.1\r\nHost: {page.host}\r\n\r\n".encode()
        yield _record("request", page.url, "application/http;msgtype=request", asked)
        yield _response(page.url, "200 OK", page.headers(), page.html())
    host = pages[0].host
    sorry = b'<title>404</title><img src="/sorry.png" alt="a sad drawing">'
    html = {"Content-Type": "text/html"}
    yield _response(f"http://{host}/no-such-page.html", "404 Not Found", html, sorry)
    picture = next(
        p for p in web.pictures.values() if p.fault is Fault.NONE and p.look.kind == "jpg"
    )
    body = data.colour(picture.concept, picture.look)
    yield _response(picture.url, "200 OK", {"Content-Type": "image/jpeg"}, body)


def _response(url: str, status: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
    return _record("response", url, "application/http;msgtype=response", head + body)


def _record(kind: str, about: str, mime: str, block: bytes) -> bytes:
    target = "WARC-Filename" if kind == "warcinfo" else "WARC-Target-URI"
    lines = [
        "WARC/1.1",
        f"WARC-Type: {kind}",
        f"WARC-Record-ID: <urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {about}')}>",
        f"WARC-Date: {_CAPTURED}",
        f"{target}: {about}",
        f"Content-Type: {mime}",
        f"Content-Length: {len(block)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + block + b"\r\n\r\n"
