"""A web server on loopback that serves ranges of one file, and misbehaves where it is told to."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

OPENING = -1
"""Stands for the request that opens a file, where others are known by their first byte."""


class RangeServer:
    """The server, in threads of its own; use as a context.

    ``faults`` maps a first byte to the answers to give to it, one after the other, before the good
    one. ``asked`` has every range that was asked for as (start, end).
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.headers = {"ETag": '"one"'}
        self.faults: dict[int, list[Fault]] = {}
        self.asked: list[tuple[int, int]] = []
        self.agents: set[str | None] = set()
        self.released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.ranges = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """The place of the file."""
        return f"{self.endpoint}/archive.gz"

    @property
    def endpoint(self) -> str:
        """Where the server is, for which any path names the file."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Have it answer by https from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client keeps its connections open
    ranges: RangeServer

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    server: _Server

    def do_GET(self) -> None:
        ranges = self.server.ranges
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        start, end = int(first), int(last) + 1
        ranges.asked.append((start, end))
        ranges.agents.add(self.headers["User-Agent"])
        key = OPENING if (start, end) == (0, 1) else start
        faults = ranges.faults.get(key)
        (faults.pop(0) if faults else good)(self, start, end)

    def do_HEAD(self) -> None:
        self.head(200, len(self.data))

    def log_message(self, *_: object) -> None:
        """Write no log."""

    @property
    def data(self) -> bytes:
        return self.server.ranges.data

    def head(self, status: int, length: int | None, content_range: str | None = None) -> None:
        self.send_response(status)
        for name, value in self.server.ranges.headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if content_range:
            self.send_header("Content-Range", f"bytes {content_range}")
        self.end_headers()


Fault = Callable[[_Handler, int, int], None]


def good(to: _Handler, start: int, end: int) -> None:
    size = len(to.data)
    if start >= size:
        to.head(416, 0, f"*/{size}")
        return
    part = memoryview(to.data)[start:end]
    to.head(206, len(part), f"{start}-{start + len(part) - 1}/{size}")
    to.wfile.write(part)


def reset_mid_body(to: _Handler, start: int, end: int) -> None:
    to.head(206, end - start, f"{start}-{end - 1}/{len(to.data)}")
    to.wfile.write(to.data[start : (start + end) // 2])
    to.wfile.flush()
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    to.close_connection = True  # lingering for no time: sends RST


def closed_mid_body(to: _Handler, start: int, end: int) -> None:
    to.head(206, end - start, f"{start}-{end - 1}/{len(to.data)}")
    to.wfile.write(to.data[start : (start + end) // 2])
    to.close_connection = True


def closed_before_the_head(to: _Handler, *_: int) -> None:
    to.close_connection = True


def shorter_range(to: _Handler, start: int, end: int) -> None:
    good(to, start, end - 1)


def another_range(to: _Handler, start: int, end: int) -> None:
    good(to, start - 1, end - 1)


def body_shorter_than_its_range(to: _Handler, start: int, end: int) -> None:
    to.head(206, end - start - 1, f"{start}-{end - 1}/{len(to.data)}")
    to.wfile.write(to.data[start : end - 1])


def body_longer_than_its_range(to: _Handler, start: int, end: int) -> None:
    to.head(206, end - start + 1, f"{start}-{end - 1}/{len(to.data)}")
    to.wfile.write(to.data[start:end] + b"!")


def partial_without_a_range(to: _Handler, start: int, end: int) -> None:
    to.head(206, end - start)
    to.wfile.write(to.data[start:end])


def range_of_unknown_size(to: _Handler, start: int, end: int) -> None:
    to.head(206, end - start, f"{start}-{end - 1}/*")
    to.wfile.write(to.data[start:end])


def whole_file(to: _Handler, *_: int) -> None:
    to.head(200, len(to.data))
    to.wfile.write(to.data)


def whole_file_without_a_length(to: _Handler, *_: int) -> None:
    to.send_response(200)
    to.send_header("Transfer-Encoding", "chunked")
    to.end_headers()
    to.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(to.data), to.data))


def silence(to: _Handler, *_: int) -> None:
    to.server.ranges.released.wait()
    to.close_connection = True


def status(code: int) -> Fault:
    return lambda to, *_: to.head(code, 0)
