"""A fetch unit against servers that lie: each ends in its own reason, and nothing is lost."""

from __future__ import annotations

import asyncio
import email.utils
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests import mock_web
from tests.fetch import asking
from tests.mock_web import MockWeb, Page, encoded, jpeg, picture, picture_reply, redirect
from wit_builder.fetch.queue import DomainQueue
from wit_builder.fetch.run import run
from wit_builder.sections import FetchSection
from wit_builder.tables import Outcome, Reason
from wit_builder.web.addresses import Resolver
from wit_builder.web.answer import KIND_OF, Kind
from wit_builder.web.notes import Notes, RobotsFile

BODY = jpeg()
FINE = picture_reply(BODY)
FETCH = FetchSection(retries=1, deadline_s=4.0, max_body_bytes=1 << 20)
NOAI_FOR_US = picture_reply(BODY, X_Robots_Tag="wit-builder: noai")
DISALLOW_ALL = b"User-agent: *\nDisallow: /\n"


class Case(NamedTuple):
    """A host that lies: what it answers, why its ``/a`` is not to be had, how often it is asked.

    Where packets decide how far a lie is understood, any of several reasons will do.
    """

    pages: dict[str, Page]
    reasons: tuple[Reason, ...] = ()
    asked: int = 1
    then: tuple[Page, ...] = ()


def retry_after_date(seconds: float) -> Page:
    """Return a 429 whose date is so many seconds after it was asked for."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        date = email.utils.formatdate(time.time() + seconds, usegmt=True)
        head = f"HTTP/1.1 429 x\r\nRetry-After: {date}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())

    return reply


async def never_ending_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: and more\r\n" * 4096)
        await writer.drain()


async def never_ending_head_line(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-More: ")
    while True:
        writer.write(b"more" * 16_384)
        await writer.drain()


async def never_ending_trailers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    while True:
        writer.write(b"X-More: and more\r\n" * 4096)
        await writer.drain()


async def never_ending_informing(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 64)
        await writer.drain()
        await asyncio.sleep(0.01)


async def never_ending_chunks(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10\r\n0123456789abcdef\r\n" * 1024)
        await writer.drain()


def gif_header(width: int, height: int) -> bytes:
    """Return a GIF that claims a size and has hardly any data."""
    gif = bytearray(encoded(picture(8, 8), "GIF"))
    gif[6:10] = struct.pack("<HH", width, height)
    return bytes(gif)


def png_bomb() -> bytes:
    """Return a PNG of 64 x 64 pixels whose data inflates to 16 MB."""
    whole = mock_web.png_header(64, 64)
    data = zlib.compress(b"\0" * (16 << 20), 6)
    begin, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    check = struct.pack(">I", zlib.crc32(b"IDAT" + data))
    return whole[:begin] + struct.pack(">I", len(data)) + b"IDAT" + data + check + whole[end:]


def png_text_bomb() -> bytes:
    """Return a fine PNG with a text that inflates to 16 MB."""
    whole = encoded(picture(64, 64), "PNG")
    data = b"Comment\0\0" + zlib.compress(b"a" * (16 << 20), 6)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data
    return whole[:33] + chunk + struct.pack(">I", zlib.crc32(b"zTXt" + data)) + whole[33:]


def animated(kind: str) -> bytes:
    frames = [picture(64, 64, seed) for seed in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def sixteen_bits() -> bytes:
    ramp = np.linspace(0, 65_535, 64 * 64).reshape(64, 64).astype(np.uint16)
    return encoded(Image.fromarray(ramp), "PNG")


def robots(reply: Page | bytes, reason: Reason | None = Reason.ROBOTS_DISALLOWED) -> Case:
    """Return a host with such a robots.txt; without a reason it allows."""
    pages = {"/robots.txt": (200, {}, reply) if isinstance(reply, bytes) else reply, "/a": FINE}
    return Case(pages, (reason,), asked=0) if reason else Case(pages)


def page(page: Page, *reasons: Reason, asked: int = 1) -> Case:
    return Case({"/a": page}, reasons, asked)


def body(content: bytes, *reasons: Reason) -> Case:
    return page(picture_reply(content), *reasons)


def at_first(page: Page) -> Case:
    """Return a host that is fine when it is asked again."""
    return Case({"/a": FINE}, asked=2, then=(page,))


CASES = {
    # heads and bodies
    "fine": page(FINE),
    "never-ending-body": page(mock_web.never_ending, Reason.BODY_TOO_LARGE),
    "never-ending-chunks": page(never_ending_chunks, Reason.BODY_TOO_LARGE),
    "never-ending-head": page(never_ending_head, Reason.CONNECT_FAILED, asked=2),
    "never-ending-head-line": page(never_ending_head_line, Reason.CONNECT_FAILED, asked=2),
    "never-ending-trailers": page(
        never_ending_trailers, Reason.CONNECT_FAILED, Reason.BODY_INCOMPLETE, asked=2
    ),
    "never-ending-informing": page(never_ending_informing, Reason.DEADLINE),
    "one-byte-at-a-time": page(mock_web.one_byte_at_a_time, Reason.DEADLINE),
    "silence": page(mock_web.silence, Reason.DEADLINE),
    "wrong-length": page(mock_web.wrong_content_length, Reason.BODY_INCOMPLETE, asked=2),
    "reset-mid-body": page(mock_web.reset_mid_body, Reason.BODY_INCOMPLETE, asked=2),
    "no-http": page(mock_web.no_http_at_all, Reason.CONNECT_FAILED, asked=2),
    "gzip-bomb": page(mock_web.gzip_bomb(32 << 20), Reason.BODY_TOO_LARGE),
    # redirects
    "redirect-loop": page(redirect("/a"), Reason.REDIRECT_LOOP, asked=6),
    "redirect-to-loopback": page(redirect("http://127.0.0.1/x"), Reason.PRIVATE_ADDRESS),
    "redirect-to-metadata": page(redirect("http://169.254.169.254/x"), Reason.PRIVATE_ADDRESS),
    "redirect-to-mapped": page(redirect("http://[::ffff:10.0.0.1]/x"), Reason.PRIVATE_ADDRESS),
    "redirect-to-another": page(redirect("http://rules.test/x"), Reason.MOVED),
    "redirect-to-file": page(redirect("file:///etc/passwd"), Reason.SCHEME_REFUSED),
    # pictures
    "html": body(b"<!DOCTYPE html><p>no", Reason.NOT_AN_IMAGE),
    "truncated": body(BODY[:-200], Reason.IMAGE_TRUNCATED),
    "huge-png": body(mock_web.png_header(50_000, 50_000), Reason.IMAGE_TOO_LARGE),
    "huge-gif": body(gif_header(50_000, 50_000), Reason.IMAGE_TOO_LARGE),
    "png-bomb": body(png_bomb()),
    "png-text-bomb": body(png_text_bomb()),
    "cmyk": body(encoded(picture(64, 64).convert("CMYK"), "JPEG")),
    "sixteen-bits": body(sixteen_bits()),
    "animated-gif": body(animated("GIF")),
    "animated-webp": body(animated("WEBP")),
    # not now
    "pause-in-seconds": at_first((429, {"Retry-After": "1"}, b"")),
    "pause-by-date": at_first(retry_after_date(2)),
    "long-pause-in-seconds": page((429, {"Retry-After": "3600"}, b""), Reason.RATE_LIMITED),
    "long-pause-by-date": page(retry_after_date(3600), Reason.RATE_LIMITED),
    "unavailable-then-fine": at_first((503, {}, b"")),
    "unavailable": page((503, {}, b""), Reason.HTTP_5XX, asked=2),
    # robots.txt
    "robots-of-5-mb": robots(DISALLOW_ALL + b"# filler\n" * 600_000),
    "robots-never-ending": robots(mock_web.never_ending, None),
    "robots-gzip-bomb": robots(mock_web.gzip_bomb(32 << 20), None),
    "robots-500": robots((500, {}, b""), Reason.ROBOTS_UNREACHABLE),
    "robots-redirecting": robots(redirect("http://rules.test/elsewhere")),
    "robots-redirecting-inside": robots(redirect("http://10.0.0.1/x"), Reason.ROBOTS_UNREACHABLE),
    "robots-with-a-bom": robots(b"\xef\xbb\xbf" + DISALLOW_ALL),
    "robots-in-odd-case": robots(b"uSER-aGENT: WIT-builder\ndISALLOW: /\n"),
    "robots-with-wildcards": robots(b"User-agent: *\nDisallow: /*a$\n"),
    # opt-outs
    "noai": page(picture_reply(BODY, X_Robots_Tag="noai"), Reason.OPT_OUT_IMAGE),
    "noai-for-us": page(NOAI_FOR_US, Reason.OPT_OUT_IMAGE),
    "noai-for-another": page(picture_reply(BODY, X_Robots_Tag="otherbot: noai")),
}


class Asked(NamedTuple):
    """What became of all cases, and the web that was asked."""

    rows: dict[str, dict[str, object]]
    counts: dict[str, int]
    web: MockWeb


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Ask all of them in one unit: that this returns at all shows that each has its deadline."""
    with MockWeb() as web:
        web.pages["/elsewhere"] = (200, {}, DISALLOW_ALL)
        for host, case in CASES.items():
            web.pages |= {f"{host}.test{path}": page for path, page in case.pages.items()}
            web.then[f"{host}.test/a"] = list(case.then)
        urls = [f"http://{host}.test/a" for host in CASES]
        folder = tmp_path_factory.mktemp("bad")
        done = run(asking.job(folder, web, urls, FETCH))
        rows = asking.rows(str(folder / "images")).to_pylist()
        assert sorted(row["url"] for row in rows) == sorted(urls)
        yield Asked({row["url"][7:-7]: row for row in rows}, done.counts, web)


def outcome_of(case: Case) -> Outcome:
    """Return what is expected; DEFERRED and MOVED are not the end of a pair."""
    if case.reasons == (Reason.MOVED,):
        return Outcome.MOVED
    if any(KIND_OF.get(reason) is Kind.DEFERRED for reason in case.reasons):
        return Outcome.DEFERRED
    return Outcome.DEAD if case.reasons else Outcome.ALIVE


@pytest.mark.parametrize("host", CASES)
def test_ends_in_the_right_reason(asked: Asked, host: str) -> None:
    """Each lie ends in its own reason, and is asked for no more often than that reason allows."""
    case, row = CASES[host], asked.rows[host]
    assert row["reason"] in (case.reasons or [None]), row
    assert row["outcome"] == outcome_of(case)
    assert len(asked.web.asked(f"{host}.test", "/a")) == case.asked


def test_nothing_is_lost(asked: Asked) -> None:
    """Every pair has one row, and every row is counted once."""
    told = Counter(row["outcome"] for row in asked.rows.values())
    reasons = [row["reason"] for row in asked.rows.values() if row["outcome"] != row["reason"]]
    told += Counter(reason for reason in reasons if reason)
    assert told == asked.counts


def test_robots_are_asked_once_each(asked: Asked) -> None:
    """However often a host's picture is asked for, its robots.txt is once, or twice if it fails."""
    hosts = [host for host, path in asked.web.log if path == "/robots.txt"]
    assert set(hosts) == {f"{host}.test" for host in CASES}
    assert {h for h in hosts if hosts.count(h) > 1} == {"robots-500.test"}


@pytest.mark.parametrize("known", [False, True])
def test_a_name_that_turns_private(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, known: bool
) -> None:
    """A name that is public when it is looked up first and private after is connected to never."""
    looked_up: list[str] = []

    async def lookup(_: Resolver, host: str) -> list[str]:
        looked_up.append(host)
        return ["93.184.215.14"] if len(looked_up) == 1 else ["127.0.0.1"]

    monkeypatch.setattr(Resolver, "_ask_system", lookup)
    monkeypatch.setattr("wit_builder.web.addresses.DNS_KEPT_S", 0.0)
    with MockWeb() as web:
        web.pages["/a"] = FINE
        origin = f"http://rebound.example:{web.port}"
        fetch = FetchSection(contact="me@example.org", retries=0)
        job = asking.job(tmp_path, web, [f"{origin}/a"], fetch, loopback={})
        if known:  # so that it is the picture which is looked up first
            notes = Notes(job.notes)
            notes.add(RobotsFile(origin, time.time() + 1000, b""))
            notes.publish([])
        run(job)
        assert web.connections == 0
    [row] = asking.rows(job.out).to_pylist()
    assert row["reason"] == (Reason.PRIVATE_ADDRESS if known else Reason.ROBOTS_UNREACHABLE)
    assert "127.0.0.1" in row["detail"]
    assert len(looked_up) == 2


def test_a_hundred_thousand_urls_of_one_host(tmp_path: Path) -> None:
    """A round asks a host for no more than its budget; what is beyond is deferred, none lost."""
    urls = [f"http://big.test/{i}" for i in range(100_000)]
    fetch = msgspec.structs.replace(FETCH, max_per_domain_per_round=20, flood_share=1.0)
    with MockWeb() as web:
        job = asking.job(tmp_path, web, urls, fetch)
        assert run(job).counts == {"dead": 20, "deferred": 99_980, "domain_budget": 99_980,
                                   "http_4xx": 20}  # fmt: skip
        assert sorted(web.asked()) == sorted(("big.test", f"/{i}") for i in range(20))
    assert sorted(asking.rows(job.out)["url"].to_pylist()) == sorted(urls)


def test_a_queue_of_one_host_is_linear() -> None:
    """Handing out a hundred thousand pairs of one host takes a look at each, however many wait."""
    count, looks = 100_000, [0]

    def ready_in_s(_: str) -> float:
        looks[0] += 1
        return 0.0

    async def go() -> int:
        queue = DomainQueue(((i, "big.test") for i in range(count)), lambda _: 4, ready_in_s)
        taken = 0

        async def work() -> None:
            nonlocal taken
            while (found := await queue.take()) is not None:
                taken += 1
                await asyncio.sleep(0)
                queue.give_back(found[1])

        await asyncio.gather(*(work() for _ in range(64)))
        return taken

    assert asyncio.run(go()) == looks[0] == count


FLOODS: dict[str, Page] = {
    "body": mock_web.never_ending,
    "head": never_ending_head,
    "line": never_ending_head_line,
    "trailers": never_ending_trailers,
    "gzip": mock_web.gzip_bomb(32 << 20),
    "png": picture_reply(png_bomb()),
    "text": picture_reply(png_text_bomb()),
    "huge": picture_reply(gif_header(50_000, 50_000)),
}
FLOOD = 25
"""Times that each is asked for."""
PEAK_KB = 96 << 10
"""Above what asking for one picture takes: 16 MB are held freely by 64 requests, 4 MB by leave."""


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Hundreds of bodies that never end, and bombs, take no more memory than the recipe allows."""
    fetch = FetchSection(
        retries=0,
        deadline_s=10.0,
        max_body_bytes=2 << 20,
        max_held_bytes=4 << 20,
        per_domain_concurrency=8,
        flood_share=1.0,
    )
    paths = {f"/{i}/{name}": page for name, page in FLOODS.items() for i in range(FLOOD)}
    with MockWeb() as web:
        web.pages |= {**paths, "/fine": FINE}
        urls = [f"http://h{i % 20}.test{path}" for i, path in enumerate(paths)]
        warm = asking.job(tmp_path / "warm", web, ["http://a.test/fine"], fetch)
        flooded = asking.job(tmp_path / "flooded", web, urls, fetch)
        before, after = asking.peaks_kb(tmp_path, [warm, flooded])
    print(f"peak: {before} KB warm, {after} KB flooded")
    assert after - before < PEAK_KB
    assert sorted(asking.rows(flooded.out)["url"].to_pylist()) == sorted(urls)
