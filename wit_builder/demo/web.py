"""The demo's web: a loopback server that is many hosts, and misbehaves as the web does.

One port serves every host of the plan, told apart by the ``Host`` header, so that addresses carry
no port and are the same in every run. ``demo.faults`` has the table of how it misbehaves; here is
what each of them sends. ``DemoWeb`` runs the server in a process of its own and ends it;
``python -m wit_builder.demo.web --data DIR`` does the same for a person who wants to look.

Started for others, it writes its port as one line to standard output once it listens, and leaves
when its standard input ends: so it never outlives who started it, even if that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import http.client
import json
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from wit_builder.demo import data, site
from wit_builder.demo.faults import Fault
from wit_builder.demo.site import Picture, Plan, Settings
from wit_builder.errors import DemoError, WitError

COUNTS_PATH = "/-/counts"
"""Asked of the server by its address, not by one of its hosts: what it was asked so far."""

_ENDLESS_CHUNKS = 4096  # of 64 KiB: 256 MiB, more than any sane limit, so that it does end
_MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
_PIXEL = bytes.fromhex(  # a GIF of one transparent pixel
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)

Handler = Callable[[web.BaseRequest, Picture], Awaitable[web.StreamResponse]]


class Server:
    """Answers for every address of a plan.

    Attributes:
        counts: requests so far: ``robots``, ``page``, ``unknown``, and each picture's fault.
    """

    def __init__(self, plan: Plan) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._pages = plan.pages
        self._asked = plan.pictures
        self._served = plan.served

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the response to any request."""
        host = request.headers.get("Host", "").partition(":")[0].lower()
        if host in ("127.0.0.1", "localhost") and request.path == COUNTS_PATH:
            return web.json_response(dict(sorted(self.counts.items())))
        if request.path == "/robots.txt":
            self.counts["robots"] += 1
            status, text = site.robots(host)
            return web.Response(status=status, text=text)
        url = f"http://{host}{request.path}"
        if page := self._pages.get(url):
            self.counts["page"] += 1
            return web.Response(body=page.html(), headers=page.headers())
        if request.path == "/pixel.gif":
            return web.Response(body=_PIXEL, content_type="image/gif")
        return await self._picture(request, url)

    async def _picture(self, request: web.BaseRequest, url: str) -> web.StreamResponse:
        asked, served = self._asked.get(url), self._served.get(url)
        if asked is not None:
            self.counts[asked.fault] += 1
            return await _ANSWERS.get(asked.fault, _plain)(request, asked)
        if served is not None:  # where a redirect leads
            return await _plain(request, served)
        self.counts["unknown"] += 1
        return _error(404)


# --- what each fault sends -------------------------------------------------


def _drawn(picture: Picture) -> bytes:
    return data.colour(picture.concept, picture.look)


def _image(body: bytes, kind: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, content_type=_MIME[kind], headers=headers)


def _error(status: int, headers: dict[str, str] | None = None) -> web.Response:
    body = f"<!doctype html><title>{status}</title><h1>Sorry: {status}</h1>\n"
    return web.Response(status=status, text=body, content_type="text/html", headers=headers)


def _status(status: int, headers: dict[str, str] | None = None) -> Handler:
    async def send(_request: web.BaseRequest, _picture: Picture) -> web.StreamResponse:
        return _error(status, headers)

    return send


async def _plain(_request: web.BaseRequest, picture: Picture) -> web.StreamResponse:
    return _image(_drawn(picture), picture.look.kind)


async def _no_ai(_request: web.BaseRequest, picture: Picture) -> web.StreamResponse:
    return _image(_drawn(picture), picture.look.kind, {"X-Robots-Tag": "noai"})


async def _moved(_request: web.BaseRequest, picture: Picture) -> web.StreamResponse:
    status = 301 if picture.fault is Fault.MOVED else 302
    return web.Response(status=status, headers={"Location": picture.target})


async def _loop(request: web.BaseRequest, picture: Picture) -> web.StreamResponse:
    """Send on to the same path with a query, and from there back."""
    there = picture.url if request.query_string else f"{picture.url}?again"
    return web.Response(status=302, headers={"Location": there})


async def _truncated(_request: web.BaseRequest, picture: Picture) -> web.StreamResponse:
    body = _drawn(picture)
    return _image(body[: len(body) // 2], "jpg")


async def _cut_off(request: web.BaseRequest, picture: Picture) -> web.StreamResponse:
    body = _drawn(picture)
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _not_a_picture(_request: web.BaseRequest, _picture: Picture) -> web.StreamResponse:
    return _image(b"<!doctype html><title>Please log in</title><p>Members only.\n", "jpg")


async def _huge(_request: web.BaseRequest, _picture: Picture) -> web.StreamResponse:
    return _image(png(30_000, 30_000, rows=1), "png")


async def _tiny(_request: web.BaseRequest, _picture: Picture) -> web.StreamResponse:
    return _image(png(4, 4), "png")


async def _banner(_request: web.BaseRequest, _picture: Picture) -> web.StreamResponse:
    return _image(png(900, 12), "png")


async def _endless(request: web.BaseRequest, _picture: Picture) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    await response.prepare(request)
    await response.write(b"\xff\xd8\xff\xe0")
    with contextlib.suppress(ConnectionError):  # the client has seen enough
        for _ in range(_ENDLESS_CHUNKS):
            await response.write(bytes(65_536))
    return response


async def _slow(_request: web.BaseRequest, _picture: Picture) -> web.StreamResponse:
    await asyncio.Event().wait()  # cancelled when the client leaves
    raise AssertionError


_ANSWERS: dict[Fault, Handler] = {
    Fault.DEAD: _status(404),
    Fault.GONE: _status(410),
    Fault.NO_AI: _no_ai,
    Fault.MOVED: _moved,
    Fault.MOVED_AWAY: _moved,
    Fault.LOOP: _loop,
    Fault.TRUNCATED: _truncated,
    Fault.CUT_OFF: _cut_off,
    Fault.NOT_A_PICTURE: _not_a_picture,
    Fault.HUGE: _huge,
    Fault.TINY: _tiny,
    Fault.BANNER: _banner,
    Fault.ENDLESS: _endless,
    Fault.SLOW: _slow,
    Fault.BROKEN: _status(500),
    Fault.BUSY: _status(429, {"Retry-After": "1"}),
}


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """Return a white one-bit PNG; with ``rows``, its pixels end after so many of them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    row = b"\0" + b"\xff" * ((width + 7) // 8)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(row * (height if rows is None else rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


# --- the process -----------------------------------------------------------


class DemoWeb:
    """The web in a process of its own, for as long as the context lasts.

    Attributes:
        port: of 127.0.0.1, where every host of the web is; set once the context is entered.

    Raises:
        DemoError: it could not start (on entering).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        command = [
            sys.executable,
            "-m",
            "wit_builder.demo.web",
            *_options(self.settings),
            "--child",
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip().isdigit():
            self._end()
            raise DemoError("the demo's web did not start", fix="see what it printed above")
        self.port = int(line)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def counts(self) -> dict[str, int]:
        """Return how often the web was asked for what: see ``Server.counts``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", COUNTS_PATH)
            counts: dict[str, int] = json.loads(connection.getresponse().read())
        return counts

    def _end(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):  # it is gone already
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _options(settings: Settings) -> list[str]:
    options = [f"--data={settings.data}", f"--seed={settings.seed}"]
    options += [f"--variants={settings.variants}"]
    return options + ([f"--concepts={settings.concepts}"] if settings.concepts is not None else [])


async def _serve(
    plan: Plan, port: int, ready: Callable[[int], None], until: Callable[[], Awaitable[None]]
) -> None:
    """Serve on loopback, say on which port, and stop when ``until`` is done."""
    server = web.Server(Server(plan).answer, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        listening = web.TCPSite(runner, "127.0.0.1", port)
        await listening.start()
        ready(runner.addresses[0][1])
        await until()
    finally:
        await runner.cleanup()


async def _input_ends() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


async def _for_ever() -> None:
    await asyncio.Event().wait()


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wit_builder.demo.web", description=__doc__)
    parser.add_argument("--data", default=".data", help="the demo's data folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concepts", type=int, default=None, help="only so many")
    parser.add_argument("--variants", type=int, default=5, help="pictures a concept")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--port-file", default=None, help="write the port there, too")
    parser.add_argument("--child", action="store_true", help="leave when standard input ends")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Serve until interrupted (or until standard input ends), and return the exit code."""
    given = _arguments(arguments)

    def ready(port: int) -> None:
        if given.port_file:
            part = Path(given.port_file + ".part")
            part.write_text(f"{port}\n")
            part.replace(given.port_file)
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

    if given.child:
        # Ctrl-C reaches the whole terminal; those who still ask must not find the web dead
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = Settings(given.data, given.seed, given.concepts, given.variants)
    try:
        plan = site.plan(settings)
        until = _input_ends if given.child else _for_ever
        asyncio.run(_serve(plan, given.port, ready, until))
    except WitError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{DemoError('cannot serve', where=str(error), fix='try another port')}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
