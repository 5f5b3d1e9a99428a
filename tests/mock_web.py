"""A web on loopback that misbehaves on purpose, each behaviour by name; it logs every request.

It speaks raw sockets, because a decent server library would refuse to lie. Hosts are virtual: the
client maps ``*.test`` to the one port, and what a path answers does not depend on the host, unless
``robots`` or ``pages`` say so.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import struct
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Self

import numpy as np
from PIL import Image

Reply = tuple[int, dict[str, str], bytes]
Page = Reply | Callable[[asyncio.StreamWriter], Awaitable[None]]


def jpeg(width: int = 320, height: int = 240, seed: int = 0, **options: object) -> bytes:
    """Return a JPEG of smooth colours."""
    return encoded(picture(width, height, seed), "JPEG", **options)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and has hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def picture_reply(body: bytes, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return 200, {"Content-Type": "image/jpeg", **named}, body


def redirect(to: str, status: int = 302) -> Reply:
    return status, {"Location": to}, b""


def unless_known(page: Page, asked: dict[str, str]) -> Page:
    """Return a 304 where the request says that it knows the page; its header values are lower."""
    if callable(page):
        return page
    status, headers, _ = page
    for condition, told in (("if-none-match", "ETag"), ("if-modified-since", "Last-Modified")):
        if condition in asked and told in headers:
            same = asked[condition] == headers[told].lower()
            return (304, headers, b"") if same and status == 200 else page
    return page


async def never_ending(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def one_byte_at_a_time(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def wrong_content_length(writer: asyncio.StreamWriter) -> None:
    body = jpeg()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1000) + body)


async def reset_mid_body(writer: asyncio.StreamWriter) -> None:
    body = jpeg()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    writer.write(head + body[: len(body) // 2])
    await writer.drain()
    linger = struct.pack("ii", 1, 0)  # closing now sends RST
    writer.get_extra_info("socket").setsockopt(1, 13, linger)
    writer.transport.abort()


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    """Close the connection without a word."""
    writer.close()


async def no_http_at_all(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def gzip_bomb(size: int) -> Reply:
    body = gzip.compress(b"\0" * size)
    return 200, {"Content-Type": "image/png", "Content-Encoding": "gzip"}, body


_LOOK_EVERY_S = 0.05


class MockWeb:
    """The server, in a thread of its own; use as a context.

    ``pages`` maps a path, or ``host/path``, to what it answers; ``then`` to a list of answers to
    give first. ``log`` has every (host, path) asked for, ``agents`` every user agent seen,
    ``headers`` those of every request, ``connections`` how many there were, ``at`` when each
    request of ``log`` came, by ``time.monotonic``, and ``lag_s`` by how much the server was late at
    its worst, because the machine was busy.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.then: dict[str, list[Page]] = {}
        self.log: list[tuple[str, str]] = []
        self.agents: set[str] = set()
        self.headers: list[dict[str, str]] = []
        self.at: list[float] = []
        self.lag_s = 0.0
        self.connections = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._serving: set[object] = set()  # asyncio itself holds tasks only weakly
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def loopback(self) -> dict[str, str]:
        """The map that leads ``*.test`` here."""
        return {"*.test": f"127.0.0.1:{self.port}"}

    def asked(self, host: str = "", path: str = "") -> list[tuple[str, str]]:
        """Return the logged requests but those for robots.txt; of a host or path if given."""
        return [
            (h, p)
            for h, p in self.log
            if p != "/robots.txt" and (not host or h == host) and (not path or p == path)
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._serving.add(self._loop.create_task(self._watch_lag()))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _watch_lag(self) -> None:
        while True:
            due_at = time.monotonic() + _LOOK_EVERY_S
            await asyncio.sleep(_LOOK_EVERY_S)
            self.lag_s = max(self.lag_s, time.monotonic() - due_at)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._serving.add(asyncio.current_task())
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                page = self._page(request.decode())
                if callable(page):
                    await page(writer)
                    return
                status, headers, body = page
                lines = [f"HTTP/1.1 {status} x"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                if "Content-Length" not in headers:
                    lines.append(f"Content-Length: {len(body)}")
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._serving.discard(asyncio.current_task())

    def _page(self, request: str) -> Page:
        first, *lines = request.split("\r\n")
        path = first.split(" ")[1]
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        host = headers["host"]
        self.log.append((host, path))
        self.at.append(time.monotonic())
        self.headers.append(headers)
        self.agents.add(headers.get("user-agent", ""))
        for name in (host + path, path):
            if self.then.get(name):
                return unless_known(self.then[name].pop(0), headers)
            if name in self.pages:
                return unless_known(self.pages[name], headers)
        return 404, {}, b"nothing here"
