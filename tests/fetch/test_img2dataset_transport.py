"""The manners under img2dataset's downloads, without img2dataset: they run in its threads."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from tests import mock_web
from tests.mock_web import MockWeb, jpeg, picture_reply
from wit_builder.fetch.img2dataset.reasons import reason_of, status_of
from wit_builder.fetch.img2dataset.transport import Transport
from wit_builder.fetch.img2dataset.turns import Ended, EndedError, Limit, Manners, ended
from wit_builder.tables import Reason


def transport_of(web: MockWeb, folder: Path, interval_s: float = 0.0) -> Transport:
    names = ["a.test", "private.example", "busy.test"]
    return Transport(
        Manners(
            agent="wit-builder/test",
            domains=dict.fromkeys(names, Limit(4, interval_s)),
            deadline_s=1.0,
            max_body_bytes=1 << 20,
            max_pause_s=5.0,
            breaker_failures=3,
            breaker_pause_s=60.0,
            max_pixels=10_000_000,
            loopback=web.loopback,
            notes=str(folder / "notes"),
        )
    )


def end_of(transport: Transport, url: str) -> Ended:
    with pytest.raises(EndedError) as caught:
        transport.open(urllib.request.Request(url))
    told = ended(str(caught.value))
    assert told == caught.value.ended
    return told


def test_a_body(web, tmp_path):
    """A body comes with its headers, is noted, and is asked for in our own name."""
    body = jpeg(50, 40)
    web.pages["/a.jpg?b=c"] = picture_reply(body, X_Other="yes")
    with transport_of(web, tmp_path).open(urllib.request.Request("http://a.test/a.jpg?b=c")) as got:
        assert (got.read(), got.headers.get_all("X-Other")) == (body, ["yes"])
    assert web.log == [("a.test", "/a.jpg?b=c")]
    assert web.agents == {"wit-builder/test"}
    note = json.loads((tmp_path / "notes").read_text())
    assert (note["size_bytes"], note["mime"], note["status"]) == (len(body), "image/jpeg", 200)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
def test_no_way_into_a_private_network(web, tmp_path, monkeypatch, address):
    """A name with any address that is not public is not connected to, whatever the gate saw."""

    def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", ("93.184.215.14", 80)), (10, 1, 6, "", (address, 80))]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    end = end_of(transport_of(web, tmp_path), "http://private.example/a.jpg")
    assert end.reason is Reason.PRIVATE_ADDRESS


def test_what_is_no_server(web, tmp_path):
    """A failure has the reason that our own client would give it."""
    transport = transport_of(web, tmp_path)
    web.pages["/drip.jpg"] = mock_web.one_byte_at_a_time
    assert end_of(transport, "http://a.test/drip.jpg").reason is Reason.DEADLINE
    assert end_of(transport, "http://a.test/a%20b\x7f").reason is Reason.BAD_URL
    assert end_of(transport, "http://a.test/gone.jpg").status == 404


def test_no_tls(tmp_path):
    """Over https nothing is believed that is not TLS."""
    with MockWeb() as web, socket.create_server(("127.0.0.1", 0)) as server:
        web.port = server.getsockname()[1]
        transport = transport_of(web, tmp_path)

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert end_of(transport, "https://a.test/a.jpg").reason is Reason.TLS_FAILED
        thread.join()


def test_a_redirect_is_not_followed(web, tmp_path):
    """A redirect ends the request and says where it leads, for the gate to be asked."""
    web.pages["/a.jpg"] = mock_web.redirect("http://b.test/b.jpg")
    end = end_of(transport_of(web, tmp_path), "http://a.test/a.jpg")
    assert (end.reason, end.onward, end.status) == (None, "http://b.test/b.jpg", 302)
    assert len(web.log) == 1


def test_the_breaker(web, tmp_path):
    """A domain that fails again and again is left alone; others are not."""
    web.pages |= {"/error.jpg": (500, {}, b""), "busy.test/fine.jpg": picture_reply(jpeg())}
    transport = transport_of(web, tmp_path)
    reasons = [end_of(transport, "http://a.test/error.jpg").reason for _ in range(5)]
    assert reasons == [Reason.HTTP_5XX] * 3 + [Reason.DOMAIN_DOWN] * 2
    assert len(web.log) == 3
    transport.open(urllib.request.Request("http://busy.test/fine.jpg"))


@pytest.mark.parametrize("pause", ["600", "Wed, 21 Oct 2065 07:28:00 GMT"])
def test_a_pause_that_is_asked_for(web, tmp_path, pause):
    """After a long ``Retry-After`` the domain is not asked again, and the pause is told."""
    web.pages["/busy.jpg"] = (429, {"Retry-After": pause}, b"")
    transport = transport_of(web, tmp_path)
    first, second = (end_of(transport, "http://busy.test/busy.jpg") for _ in range(2))
    assert first.reason is second.reason is Reason.RATE_LIMITED
    assert first.pause_s is not None
    assert first.pause_s >= 600
    assert (first.status, second.status) == (429, None)
    assert len(web.log) == 1


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        ("failed_to_download", "HTTP Error 404: Not Found", "http_4xx"),
        ("failed_to_download", "HTTP Error 503: Service Unavailable", "http_5xx"),
        ("failed_to_download", "HTTP Error 429: Too Many Requests", "rate_limited"),
        ("failed_to_download", "The read operation timed out", "deadline"),
        ("failed_to_download", "<urlopen error timed out>", "deadline"),
        (
            "failed_to_download",
            "<urlopen error [Errno -2] Name or service not known>",
            "dns_failed",
        ),
        (
            "failed_to_download",
            "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>",
            "tls_failed",
        ),
        ("failed_to_download", "<urlopen error [Errno 111] Connection refused>", "connect_failed"),
        ("failed_to_download", "IncompleteRead(7 bytes read, 3 more expected)", "body_incomplete"),
        (
            "failed_to_download",
            "Use of image disallowed by X-Robots-Tag directive",
            "opt_out_image",
        ),
        ("failed_to_download", "unknown url type: 'x'", "bad_url"),
        ("failed_to_resize", "Image decoding error", "not_an_image"),
        ("failed_to_resize", "image too small", "image_too_small"),
        ("failed_to_resize", "aspect ratio too large", "image_aspect"),
    ],
)
def test_reasons(status, message, reason):
    """What img2dataset says of a failure is one of our reasons, of the same kind."""
    assert reason_of(status, message) == reason
    assert status_of(Reason(reason)) == status
    assert status_of(None) == "success"
