"""A proxy in front of an S3 server on loopback: far away, and at fault where it is told to be.

    python benchmarks/s3_proxy.py 127.0.0.1:8333 --delay-ms 30

prints its own endpoint, and serves until its standard input ends. It lets each request wait for
``delay_s``, as long as the first byte of a distant server takes, and passes bodies on inside the
kernel (splice), so that it takes little of the CPU that it shares with what is measured.

Requests go on as they came, with the ``Host`` that the client signed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import socket
import struct
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import Literal, NamedTuple, Self

_PIPE_BYTES = 1 << 20
_PACE_BYTES = 64 << 10


class Fault(NamedTuple):
    """What happens to one answer: where in its body, or which status comes in its stead."""

    kind: Literal["cut", "stall", "flip", "status"]
    at: int = 0
    """The byte of the body before which it is cut or stalls, or of which a bit is flipped."""
    status: int = 503
    header: str = ""
    """A header that comes with the status, with its line break."""

    def head(self) -> bytes:
        """Return an answer of this status."""
        return f"HTTP/1.1 {self.status} told to\r\n{self.header}Content-Length: 0\r\n\r\n".encode()


class Proxy:
    """The proxy, in threads of its own; use as a context.

    Attributes:
        delay_s: how long each request waits before it goes on.
        bytes_per_s: the most that goes over a connection, if not 0.
        faults: of the next answers to requests for shards, one each, in order.
        always: the fault of all those after them.
        requests: how many requests for shards there were.
        stalled: set once an answer stalls.
    """

    def __init__(self, endpoint: str, delay_s: float = 0.0) -> None:
        """Listen on a port of its own, in front of an endpoint (``http://HOST:PORT``)."""
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._to = host, int(port)
        self.delay_s, self.bytes_per_s = delay_s, 0.0
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.requests = 0
        self.stalled = threading.Event()
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join()
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections that are open, in the middle of what they carry."""
        with self._lock:
            for opened in self._open:
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # shut down
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Answer the requests of a connection; a server that is gone ends it without an answer."""
        server = socket.socket()
        with self._lock:
            self._open |= {client, server}
        with client, server, suppress(OSError, _EndedError):
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.connect(self._to)
            with _Pipe() as pipe:
                self._relay(_Incoming(client), _Incoming(server), pipe)
        with self._lock:
            self._open -= {client, server}

    def _relay(self, client: _Incoming, server: _Incoming, pipe: _Pipe) -> None:
        while True:
            request = client.head()
            fault = self._fault(request)
            self._over.wait(self.delay_s)
            if fault and fault.kind == "status":
                client.socket.sendall(fault.head())
                continue
            server.socket.sendall(request)
            if b"100-continue" in request.lower():
                client.socket.sendall(server.head())
            _Body(client, server.socket, pipe, self).pass_all(request)
            head = server.head()
            client.socket.sendall(head)
            body = _Body(server, client.socket, pipe, self)
            if fault:
                self._spoil(body, _length(head), fault)
            elif not request.startswith(b"HEAD "):
                body.pass_all(head)

    def _fault(self, request: bytes) -> Fault | None:
        """Return what is to happen to the answer."""
        if not re.match(rb"GET [^ ]*\.tar", request):
            return None
        with self._lock:
            self.requests += 1
            return self.faults.popleft() if self.faults else self.always

    def _spoil(self, body: _Body, length: int, fault: Fault) -> None:
        body.pass_on(min(fault.at, length))
        if fault.at >= length:
            return
        if fault.kind == "flip":
            body.flip()
            body.pass_on(length - fault.at - 1)
            return
        if fault.kind == "stall":
            self.stalled.set()
            self._over.wait()
        body.reset()


class _EndedError(Exception):
    """The other side has closed the connection."""


class _Incoming:
    """What comes over a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = b""

    def head(self) -> bytes:
        """Return the head of the next request or answer."""
        return self.until(b"\r\n\r\n")

    def until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._buffer += self._more()
        found, _, self._buffer = self._buffer.partition(end)
        return found + end

    def buffered(self, most: int) -> bytes:
        """Return what has come already, up to so many bytes."""
        found, self._buffer = self._buffer[:most], self._buffer[most:]
        return found

    def take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += self._more()
        return self.buffered(count)

    def _more(self) -> bytes:
        data = self.socket.recv(_PACE_BYTES)
        if not data:
            raise _EndedError
        return data


class _Pipe:
    """A pipe through which bytes go from socket to socket without leaving the kernel."""

    def __enter__(self) -> Self:
        self._out, self._in = os.pipe()
        fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        os.close(self._in)

    def move(self, source: socket.socket, to: socket.socket, most: int) -> int:
        """Pass on what is there, up to so many bytes; return how many."""
        moved = os.splice(source.fileno(), self._in, min(most, _PIPE_BYTES))
        if not moved:
            raise _EndedError
        left = moved
        while left:
            left -= os.splice(self._out, to.fileno(), left)
        return moved


class _Body:
    """The body of an answer on its way to the client, or of a request to the server."""

    def __init__(self, source: _Incoming, to: socket.socket, pipe: _Pipe, proxy: Proxy) -> None:
        self._source, self._to, self._pipe, self._proxy = source, to, pipe, proxy

    def pass_all(self, head: bytes) -> None:
        """Pass on the body that a head announces."""
        if b"transfer-encoding: chunked" in head.lower():
            self.pass_chunks()
        else:
            self.pass_on(_length(head))

    def pass_on(self, count: int) -> None:
        """Pass on so many bytes."""
        first = self._source.buffered(count)
        self._to.sendall(first)
        count -= len(first)
        while count:
            rate = self._proxy.bytes_per_s
            most = min(count, _PACE_BYTES) if rate else count
            moved = self._pipe.move(self._source.socket, self._to, most)
            count -= moved
            if rate:
                self._proxy._over.wait(moved / rate)  # noqa: SLF001 - of this module

    def pass_chunks(self) -> None:
        """Pass on a body that comes in chunks (RFC 9112, section 7.1)."""
        while True:
            line = self._source.until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            self._to.sendall(line + self._source.take(size + 2))
            if not size:
                return

    def flip(self) -> None:
        """Pass on a byte with one bit flipped."""
        self._to.sendall(bytes([self._source.take(1)[0] ^ 1]))

    def reset(self) -> None:
        """End the connection as if the other side had crashed."""
        self._to.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _EndedError


def _length(head: bytes) -> int:
    found = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint", help="HOST:PORT of the server")
    parser.add_argument("--delay-ms", type=float, default=30.0)
    given = parser.parse_args()
    with Proxy(given.endpoint, given.delay_ms / 1000) as proxy:
        print(proxy.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
