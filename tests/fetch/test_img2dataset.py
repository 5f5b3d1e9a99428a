"""The engine that runs img2dataset, against a web on loopback; the package is the real one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import io
import os
import signal
import subprocess
import sys
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests import mock_web
from tests.mock_web import jpeg, picture_reply
from wit_builder.errors import EngineError, MissingPartError
from wit_builder.fetch.img2dataset.answers import Ask
from wit_builder.fetch.img2dataset.engine import Engine
from wit_builder.fetch.img2dataset.main import Settings
from wit_builder.fetch.img2dataset.process import Process
from wit_builder.fetch.img2dataset.turns import Limit, Manners
from wit_builder.fetch.outcome import Maker
from wit_builder.fetch.store import Row
from wit_builder.sections import BlockSection, DomainSection, FetchSection, ImageSection
from wit_builder.web.blocklists import Blocklists
from wit_builder.web.client import Client

MANNERS = Manners(
    agent="test",
    domains={"a.test": Limit(1, 0.0)},
    deadline_s=60.0,
    max_body_bytes=1,
    max_pause_s=1.0,
    breaker_failures=1,
    breaker_pause_s=1.0,
    max_pixels=1,
    loopback={},
)


def engine_of(
    web: mock_web.MockWeb,
    block: BlockSection | None = None,
    image: ImageSection | None = None,
    **limits: Any,
) -> Engine:
    fetch = FetchSection(**{"retries": 0, "deadline_s": 3.0, **limits})
    maker = Maker(image or ImageSection(size_px=64), Blocklists.load(block or BlockSection(), ""))
    return Engine(fetch, maker, web.loopback)


def rows(engine: Engine, urls: list[str]) -> list[Row]:
    """Return what became of some URLs, in their order."""

    async def ask() -> list[Row]:
        async with Client(engine.fetch, loopback=engine.loopback) as client:
            asks = [Ask(position, url) for position, url in enumerate(urls)]
            async with contextlib.aclosing(engine.rows(asks, client)) as found:
                return sorted([row async for row in found], key=lambda row: row.position)

    return asyncio.run(ask())


def reasons(found: list[Row]) -> list[str | None]:
    return [row.columns.get("reason") for row in found]


@pytest.mark.slow
def test_outcomes(web, tmp_path):
    """Each pair gets its reason, asked for by img2dataset with our user agent and manners."""
    good, listed = jpeg(200, 100), jpeg(90, 80, seed=5)
    upright = jpeg(60, 40, exif=_exif(orientation=6, gps=True))
    png = mock_web.encoded(mock_web.picture(80, 120), "PNG")
    web.pages |= {
        "/good.jpg": picture_reply(good),
        "/moved.jpg": mock_web.redirect("/good.jpg"),
        "/turned.jpg": picture_reply(upright),
        "/a.png": picture_reply(png),
        "/html.jpg": picture_reply(b"<!DOCTYPE html><html>"),
        "/bomb.png": picture_reply(mock_web.png_header(50_000, 50_000)),
        "/thin.jpg": picture_reply(jpeg(900, 10)),
        "/cut.jpg": picture_reply(jpeg(60, 50)[:-300]),
        "/listed.jpg": picture_reply(listed),
        "/noai.jpg": picture_reply(good, X_Robots_Tag="noai"),
        "/reserved.jpg": picture_reply(good, tdm_reservation="1"),
        "/slow.jpg": mock_web.one_byte_at_a_time,
        "/endless.jpg": mock_web.never_ending,
        "/short.jpg": mock_web.wrong_content_length,
        "/reset.jpg": mock_web.reset_mid_body,
        "/ssh.jpg": mock_web.no_http_at_all,
        "/zipped.png": mock_web.gzip_bomb(50 << 20),
        "/error.jpg": (500, {}, b""),
        "/busy.jpg": (429, {"Retry-After": "600"}, b""),
        "/later.jpg": (429, {"Retry-After": "600"}, b""),  # whichever comes second is not asked
        "/away.jpg": mock_web.redirect("http://b.test/good.jpg"),
        "/inside.jpg": mock_web.redirect("http://169.254.169.254/latest"),
        "/file.jpg": mock_web.redirect("file:///etc/passwd"),
        "/circle.jpg": mock_web.redirect("/circle.jpg"),
        "no.test/robots.txt": (200, {}, b"User-agent: wit-builder\nDisallow: /"),
    }
    expected = {
        "http://a.test/good.jpg": None,
        "http://a.test/moved.jpg": None,
        "http://a.test/turned.jpg": None,
        "http://a.test/a.png": None,
        "http://a.test/html.jpg": "not_an_image",
        "http://a.test/bomb.png": "image_too_large",
        "http://a.test/thin.jpg": "image_aspect",
        "http://a.test/cut.jpg": "image_truncated",
        "http://a.test/listed.jpg": "blocked",
        "http://a.test/noai.jpg": "opt_out_image",
        "http://a.test/reserved.jpg": "opt_out_image",
        "http://a.test/slow.jpg": "deadline",
        "http://a.test/endless.jpg": "body_too_large",
        "http://a.test/short.jpg": "body_incomplete",
        "http://a.test/reset.jpg": "body_incomplete",
        "http://a.test/ssh.jpg": "connect_failed",
        "http://a.test/zipped.png": "body_too_large",
        "http://a.test/error.jpg": "http_5xx",
        "http://a.test/gone.jpg": "http_4xx",
        "http://busy.test/busy.jpg": "rate_limited",
        "http://busy.test/later.jpg": "rate_limited",
        "http://a.test/again.jpg": None,
        "http://a.test/away.jpg": "moved",
        "http://a.test/inside.jpg": "private_address",
        "http://a.test/file.jpg": "scheme_refused",
        "http://a.test/circle.jpg": "redirect_loop",
        "http://no.test/good.jpg": "robots_disallowed",
        "http://127.0.0.1/good.jpg": "private_address",
        "ftp://a.test/good.jpg": "scheme_refused",
    }
    crowd = _Crowd(good)
    web.pages |= {f"/{i}.jpg": crowd for i in range(12)}
    expected |= {f"http://h{i % 5}.same.test/{i}.jpg": None for i in range(12)}
    web.then["/again.jpg"] = [(503, {}, b""), picture_reply(good)]
    hashes = tmp_path / "md5"
    hashes.write_text(hashlib.md5(listed).hexdigest() + "\n")
    engine = engine_of(
        web,
        BlockSection(md5=[str(hashes)]),
        max_body_bytes=1 << 20,
        per_domain_concurrency=2,
        retries=1,
        domains={
            "a.test": DomainSection(concurrency=16),
            "busy.test": DomainSection(concurrency=1),
        },
    )
    found = rows(engine, list(expected))
    assert dict(zip(expected, reasons(found), strict=True)) == expected
    assert web.agents == {"wit-builder/0.1.0"}
    asked = web.asked()
    assert ("no.test", "/good.jpg") not in asked
    assert ("b.test", "/good.jpg") not in asked
    assert asked.count(("a.test", "/circle.jpg")) == 1
    assert len(web.asked("busy.test")) == 1
    assert len(web.asked(path="/again.jpg")) == 2
    assert 1 <= crowd.most <= 2
    _check_rows(dict(zip(expected, found, strict=True)), good)


class _Crowd:
    """Serves a picture, slowly enough to count how many are asked for at once."""

    def __init__(self, body: bytes) -> None:
        self._body, self._under_way, self.most = body, 0, 0

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        await asyncio.sleep(0.05)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self._body)
        writer.write(head + self._body)
        await writer.drain()
        self._under_way -= 1


def _exif(*, orientation: int, gps: bool) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if gps:
        exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def _check_rows(found: dict[str, Row], good: bytes) -> None:
    row = found["http://a.test/moved.jpg"]
    assert row.columns["final_url"] == "http://a.test/good.jpg"
    assert (row.columns["redirects"], row.columns["http_status"]) == (1, 200)
    row = found["http://a.test/good.jpg"]
    sizes = ("original_width", "original_height", "width", "height", "size_bytes")
    assert [row.columns[name] for name in sizes] == [200, 100, 128, 64, len(good)]
    assert row.columns["sha256"] == hashlib.sha256(good).hexdigest()
    assert row.columns["md5"] == hashlib.md5(good).hexdigest()
    assert (row.columns["outcome"], row.columns["mime"]) == ("alive", "image/jpeg")
    assert len(row.columns["phash"]) == 16
    assert row.jpeg is not None
    assert Image.open(io.BytesIO(row.jpeg)).size == (128, 64)
    turned = found["http://a.test/turned.jpg"]
    assert turned.jpeg is not None
    picture = Image.open(io.BytesIO(turned.jpeg))
    assert picture.size == (40, 60)
    assert not picture.getexif()
    assert found["http://a.test/a.png"].columns["mime"] == "image/png"
    assert found["http://a.test/noai.jpg"].columns["opt_outs"] == ["noai"]
    away = found["http://a.test/away.jpg"].columns
    assert (away["outcome"], away["final_url"]) == ("moved", "http://b.test/good.jpg")
    assert found["http://busy.test/busy.jpg"].columns["outcome"] == "deferred"
    assert found["http://busy.test/later.jpg"].columns["outcome"] == "deferred"


def test_nothing_allowed(web):
    """Where the gate allows nothing, img2dataset is not started."""
    web.pages["/robots.txt"] = (200, {}, b"User-agent: *\nDisallow: /")
    assert reasons(rows(engine_of(web), ["http://a.test/a.jpg"])) == ["robots_disallowed"]
    assert rows(engine_of(web), []) == []


def test_not_installed(web, monkeypatch):
    """Without the package the error names the extra."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPartError, match=r"wit-builder\[img2dataset\]"):
        rows(engine_of(web), ["http://a.test/a.jpg"])


def test_a_crash_is_told(web, tmp_path, monkeypatch):
    """When img2dataset ends early the unit fails, with what it printed."""
    (tmp_path / "img2dataset.py").write_text("raise MemoryError('of no use here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"ended with status 1.*of no use here.*start again"):
        rows(engine_of(web), ["http://a.test/a.jpg"])


def test_a_hang_is_ended(web, monkeypatch):
    """When it takes too long the unit fails, and nothing of it is left running."""
    started: list[int] = []
    start = asyncio.create_subprocess_exec

    async def remembered(*arguments: Any, **options: Any) -> Any:
        process = await start(*arguments, **options)
        started.append(process.pid)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remembered)
    monkeypatch.setattr("wit_builder.fetch.img2dataset.process._STARTING_S", 0.5)
    monkeypatch.setattr(Engine, "_limit_s", lambda *_: 0.0)
    with pytest.raises(EngineError, match=r"did not finish a shard in 0 s"):
        rows(engine_of(web), ["http://a.test/a.jpg"])
    with pytest.raises(ProcessLookupError):
        os.killpg(started[0], 0)


@pytest.mark.parametrize("status", ["failed_to_download", "success"])
def test_what_it_lost_is_told(tmp_path, status):
    """A URL or picture that is not in its output fails the unit: no pair is lost in silence."""
    (tmp_path / "out").mkdir()
    (tmp_path / "printed").write_text("Sample 1 failed to download: no memory")
    (tmp_path / "out" / "00000.tar").write_bytes(bytes(1024))
    rows = [{"index": i, "key": str(i), "url": "", "status": status} for i in range(3)]
    rows = rows if status == "success" else rows[:2]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "out" / "00000.parquet")
    process = Process(tmp_path, [""] * 3, MANNERS, {}, lambda _: 0.0)
    lost = 3 if status == "success" else 1
    with pytest.raises(EngineError, match=rf"lost {lost} of 3 URLs; it printed: \.\.\.Sample 1 fa"):
        process.read(0, 3)


def test_it_ends_with_whoever_started_it(tmp_path):
    """When the program that started it is killed, it asks for nothing more."""
    notes = tmp_path / "notes"
    manners = msgspec.structs.replace(MANNERS, notes=str(notes))
    settings = tmp_path / "settings.json"
    settings.write_bytes(msgspec.json.encode(Settings(manners, {})))
    command = [sys.executable, "-m", "wit_builder.fetch.img2dataset.main", str(settings)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == -signal.SIGKILL
    assert not notes.exists()
