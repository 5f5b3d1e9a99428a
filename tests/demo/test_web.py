from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from wit_builder.demo import data, site, web
from wit_builder.demo.faults import FAULTS, Fault
from wit_builder.demo.web import DemoWeb
from wit_builder.errors import DemoError


def ask(running, url, timeout=10):
    """Return status, headers and body of one GET."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=timeout)) as client:
        client.request("GET", path, headers={"Host": parts.netloc})
        response = client.getresponse()
        return response.status, response.headers, response.read()


@pytest.fixture
def picture(plan):
    """Return a picture with a fault."""
    return lambda fault: next(p for p in plan.pictures.values() if p.fault is fault)


def _decoded(body):
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)


def test_pages_and_pictures_are_what_the_plan_says(running, plan):
    """Every page, and every picture without a fault, has the planned bytes and type."""
    for page in plan.pages.values():
        status, headers, body = ask(running, page.url)
        assert (status, body) == (200, page.html())
        assert headers["X-Robots-Tag"] == ("noai" if page.no_ai == "header" else None)
    for asked in plan.pictures.values():
        if asked.fault in (Fault.NONE, Fault.TWIN):
            status, headers, body = ask(running, asked.url)
            assert (status, body) == (200, data.colour(asked.concept, asked.look))
            assert headers["Content-Type"] == web._MIME[asked.look.kind]


def test_two_servers_send_the_same_bytes(running, settings, plan):
    """Nothing that is sent depends on the port or the process."""
    urls = [*list(plan.pages)[:10], *list(plan.pictures)[:10]]
    urls = [u for u in urls if u not in plan.pictures or plan.pictures[u].fault is Fault.NONE]
    with DemoWeb(settings) as other:
        assert other.port != running.port
        for url in urls:
            assert ask(running, url)[2] == ask(other, url)[2]


def test_the_held_out_style_is_not_served(running, plan):
    """No body that the web sends is a line drawing, at whatever size it would be compared."""
    drawings = {c.code: _decoded(data.line_drawing(c, 48)) for c in plan.concepts}
    for asked in plan.pictures.values():
        if asked.fault is Fault.NONE:
            body = _decoded(ask(running, asked.url)[2])
            small = cv2.resize(body, (48, 48), interpolation=cv2.INTER_AREA)
            difference = cv2.absdiff(small, drawings[asked.concept.code]).max(axis=2)
            assert (difference > 40).mean() > 0.01


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.DEAD, 404), (Fault.GONE, 410), (Fault.BROKEN, 500), (Fault.BUSY, 429)],
)
def test_errors_have_their_status(running, picture, fault, status):
    """A dead, gone, broken or busy address says so."""
    got, headers, _ = ask(running, picture(fault).url)
    assert got == status
    assert headers["Retry-After"] == ("1" if fault is Fault.BUSY else None)


def test_robots(running):
    """A robots.txt forbids a part, is missing, or is broken."""
    assert ask(running, "http://museum.test/robots.txt")[0] == 200
    assert b"Disallow: /members/" in ask(running, "http://museum.test/robots.txt")[2]
    assert b"User-agent: wit-builder" in ask(running, "http://classroom.test/robots.txt")[2]
    assert ask(running, "http://birdwatch.test/robots.txt")[0] == 404
    assert ask(running, f"http://{site.BROKEN_ROBOTS}/robots.txt")[0] == 500


@pytest.mark.parametrize("fault", [Fault.FORBIDDEN, Fault.ROBOTS_BROKEN])
def test_what_robots_forbid_is_served_and_counted(running, picture, fault):
    """Keeping out is the client's part: the server tells on it."""
    before = running.counts().get(fault, 0)
    assert ask(running, picture(fault).url)[0] == 200
    assert running.counts()[fault] == before + 1


def test_a_picture_with_an_opt_out_says_so(running, picture):
    """The header comes with the picture."""
    status, headers, _ = ask(running, picture(Fault.NO_AI).url)
    assert (status, headers["X-Robots-Tag"]) == (200, "noai")


@pytest.mark.parametrize(("fault", "status"), [(Fault.MOVED, 301), (Fault.MOVED_AWAY, 302)])
def test_redirects_lead_to_the_picture(running, picture, fault, status):
    """One hop, on its host or to another domain."""
    moved = picture(fault)
    got, headers, _ = ask(running, moved.url)
    there = headers["Location"]
    assert got == status
    assert (urlsplit(there).netloc == urlsplit(moved.url).netloc) == (fault is Fault.MOVED)
    assert ask(running, there)[2] == data.colour(moved.concept, moved.look)


def test_a_loop_comes_back(running, picture):
    """Two hops lead to where they began."""
    start = picture(Fault.LOOP).url
    there = ask(running, start)[1]["Location"]
    assert there != start
    assert ask(running, there)[1]["Location"] == start


def test_a_truncated_picture_is_whole_http_and_half_a_jpeg(running, picture):
    """The length is right, the end of the picture is not there."""
    half = picture(Fault.TRUNCATED)
    _, headers, body = ask(running, half.url)
    assert len(body) == int(headers["Content-Length"])
    assert data.colour(half.concept, half.look).startswith(body)
    assert not body.endswith(b"\xff\xd9")


def test_a_cut_off_body_ends_early(running, picture):
    """The connection closes before the promised length."""
    with pytest.raises(http.client.IncompleteRead):
        ask(running, picture(Fault.CUT_OFF).url)


def test_html_is_called_a_picture(running, picture):
    """A log-in page comes as image/jpeg."""
    _, headers, body = ask(running, picture(Fault.NOT_A_PICTURE).url)
    assert headers["Content-Type"] == "image/jpeg"
    assert body.startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("fault", "size"),
    [(Fault.HUGE, (30_000, 30_000)), (Fault.TINY, (4, 4)), (Fault.BANNER, (900, 12))],
)
def test_sizes_beyond_reason(running, picture, fault, size):
    """The header of the PNG has the size; a huge one is a small file."""
    _, _, body = ask(running, picture(fault).url)
    assert (int.from_bytes(body[16:20]), int.from_bytes(body[20:24])) == size
    assert len(body) < 200
    if fault is not Fault.HUGE:
        assert _decoded(body).shape[:2] == size[::-1]


def test_an_endless_body_goes_on(running, picture):
    """Five megabytes are there for whoever wants them; then the client leaves."""
    parts = urlsplit(picture(Fault.ENDLESS).url)
    with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)) as client:
        client.request("GET", parts.path, headers={"Host": parts.netloc})
        response = client.getresponse()
        assert response.headers["Content-Length"] is None
        assert len(response.read(5 << 20)) == 5 << 20


def test_a_slow_host_does_not_answer(running, picture):
    """Nothing comes before the client's deadline; robots.txt does."""
    slow = picture(Fault.SLOW).url
    with pytest.raises(TimeoutError):
        ask(running, slow, timeout=0.2)
    assert ask(running, f"http://{site.SLOWPOKE}/robots.txt")[0] == 404


def test_every_fault_has_an_answer_of_its_own_or_is_a_picture():
    """The table and the handlers name the same faults."""
    plain = {Fault.FORBIDDEN, Fault.ROBOTS_BROKEN, Fault.TWIN}
    assert set(web._ANSWERS) | plain == set(FAULTS)


def test_an_unknown_address_is_a_404(running):
    """Hosts and paths that are not in the plan are not there."""
    assert ask(running, "http://birdwatch.test/no-such-page.html")[0] == 404
    assert ask(running, "http://nobody.test/")[0] == 404


def test_it_ends_with_its_context(settings, picture):
    """Leaving the context ends the process, even while somebody waits for an answer."""
    parts = urlsplit(picture(Fault.SLOW).url)
    with DemoWeb(settings) as web_of_its_own:
        waiting = socket.create_connection(("127.0.0.1", web_of_its_own.port))
        waiting.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        web_of_its_own.counts()
        process = web_of_its_own._process
    assert process is not None
    assert process.returncode == 0
    waiting.close()


def test_an_interrupt_is_not_for_it(settings):
    """Ctrl-C on the terminal leaves the web to those who still ask; its starter ends it."""
    with DemoWeb(settings) as web_of_its_own:
        process = web_of_its_own._process
        assert process is not None
        process.send_signal(signal.SIGINT)
        assert web_of_its_own.counts() == {}
    assert process.returncode == 0


def test_it_says_when_it_cannot_start(settings, monkeypatch, capfd):
    """A server that ends before it listens is an error with a reason above it."""
    monkeypatch.setattr(web, "_options", lambda _: ["--seed=none"])
    with pytest.raises(DemoError, match="did not start"), DemoWeb(settings):
        pass
    assert "--seed" in capfd.readouterr().err


def test_a_port_in_use_is_one_line(settings, running):
    """The command says what is wrong, without a traceback."""
    command = [sys.executable, "-m", "wit_builder.demo.web", *web._options(settings)]
    done = subprocess.run(
        [*command, f"--port={running.port}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(r"cannot serve .* -> try another port\n", done.stderr)


def test_the_port_file_has_the_port(settings, tmp_path):
    """Whoever starts the command finds the port in a file and on standard output."""
    file = tmp_path / "port"
    command = [sys.executable, "-m", "wit_builder.demo.web", *web._options(settings), "--child"]
    with subprocess.Popen(
        [*command, f"--port-file={file}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == file.read_text()
        process.stdin.close()
        assert process.wait() == 0
