"""Asking a web that misbehaves."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import logging
import socket
import time
import zlib

import pytest

from tests import mock_web
from tests.mock_web import jpeg, picture_reply, redirect
from wit_builder import __version__
from wit_builder.errors import RecipeError
from wit_builder.sections import FetchSection
from wit_builder.tables import Outcome, Reason
from wit_builder.web.answer import Answer
from wit_builder.web.client import Client

PICTURE = jpeg()


def reason(answer: Answer) -> Reason | None:
    return None if answer.refusal is None else answer.refusal.reason


def test_a_picture(web, ask):
    """A plain picture comes back whole, with status, final URL and type."""
    web.pages["/a.jpg"] = picture_reply(PICTURE)
    answer = ask("http://a.test/a.jpg#fragment")
    assert (answer.body, answer.status, answer.final_url) == (PICTURE, 200, "http://a.test/a.jpg")
    assert answer.headers == {"content-type": "image/jpeg"}
    assert answer.outcome is Outcome.ALIVE
    assert web.log == [("a.test", "/robots.txt"), ("a.test", "/a.jpg")]


def test_a_conditional_request(web):
    """A page that did not change since comes without a body, and without a refusal."""
    web.pages["/p"] = (304, {"ETag": '"2"'}, b"")
    since = {"If-None-Match": '"1"'}

    async def go() -> Answer:
        async with Client(FetchSection(per_domain_interval_s=0.0), loopback=web.loopback) as client:
            return await client.get("http://a.test/p", kind="page", since=since)

    answer = asyncio.run(go())
    assert (answer.status, answer.body, answer.refusal) == (304, None, None)
    assert web.headers[-1]["if-none-match"] == '"1"'
    assert answer.headers == {"etag": '"2"'}


def test_sitemaps(web):
    """The sitemaps that a robots.txt names are told, whatever else it says."""
    web.pages["a.test/robots.txt"] = (
        200, {}, b"User-agent: *\nDisallow: /\nSitemap: http://a.test/s.xml\nsitemap: /t.xml\n",
    )  # fmt: skip

    async def go() -> list[list[str]]:
        async with Client(FetchSection(per_domain_interval_s=0.0), loopback=web.loopback) as client:
            urls = ["http://a.test/x", "http://none.test/", "file:///etc/passwd"]
            return [await client.gate.sitemaps(url) for url in urls]

    assert asyncio.run(go()) == [["http://a.test/s.xml", "/t.xml"], [], []]


def test_user_agent_is_honest(web, ask):
    """Every request, that for robots.txt included, says who asks and where to complain."""
    ask("http://a.test/a.jpg", contact="https://example.org/bot")
    assert web.agents == {f"wit-builder/{__version__} (+https://example.org/bot)"}


def test_contact_is_required():
    """Without a contact the live web is not asked at all."""
    with pytest.raises(RecipeError, match=r"anonymously.*fetch\.contact"):
        Client(FetchSection())


def test_without_contact_only_mapped_hosts(ask):
    """A client with a loopback map and no contact asks nobody else, not even the resolver."""
    assert reason(ask("http://example.org/a.jpg")) is Reason.PRIVATE_ADDRESS


def test_loopback_is_loud(ask, caplog):
    """A loopback map is warned about."""
    with caplog.at_level(logging.WARNING):
        ask("http://a.test/")
    assert "loopback map in use" in caplog.text


def test_loopback_maps_to_loopback_only():
    """A loopback map cannot lead to another machine."""
    with pytest.raises(RecipeError, match="only lead to loopback"):
        Client(FetchSection(per_domain_interval_s=0.0), loopback={"*.test": "10.0.0.1:80"})


@pytest.mark.parametrize(
    ("page", "limits", "expected"),
    [
        (mock_web.never_ending, {"max_body_bytes": 1 << 20}, Reason.BODY_TOO_LARGE),
        (mock_web.one_byte_at_a_time, {"deadline_s": 1.0}, Reason.DEADLINE),
        (mock_web.silence, {"deadline_s": 1.0}, Reason.DEADLINE),
        (mock_web.wrong_content_length, {}, Reason.BODY_INCOMPLETE),
        (mock_web.reset_mid_body, {}, Reason.BODY_INCOMPLETE),
        (mock_web.no_http_at_all, {}, Reason.CONNECT_FAILED),
        (picture_reply(PICTURE, Content_Length="99999999999"), {}, Reason.BODY_TOO_LARGE),
        (mock_web.gzip_bomb(50 << 20), {"max_body_bytes": 1 << 20}, Reason.BODY_TOO_LARGE),
        (picture_reply(b"not gzip", Content_Encoding="gzip"), {}, Reason.BODY_INCOMPLETE),
        (picture_reply(PICTURE, Content_Encoding="br"), {}, Reason.BODY_INCOMPLETE),
        ((404, {}, b""), {}, Reason.HTTP_4XX),
        ((410, {}, b""), {}, Reason.HTTP_4XX),
        ((500, {}, b""), {}, Reason.HTTP_5XX),
        ((304, {}, b""), {}, Reason.REDIRECT_LOOP),
        ((206, {}, PICTURE), {}, Reason.BODY_INCOMPLETE),
        (redirect("/page"), {}, Reason.REDIRECT_LOOP),
        (redirect("file:///etc/passwd"), {}, Reason.SCHEME_REFUSED),
        (redirect("ftp://a.test/a.jpg"), {}, Reason.SCHEME_REFUSED),
        (redirect("http://127.0.0.1/"), {}, Reason.PRIVATE_ADDRESS),
        (redirect("http://169.254.169.254/latest/meta-data"), {}, Reason.PRIVATE_ADDRESS),
        (redirect("http://[::ffff:10.0.0.1]/"), {}, Reason.PRIVATE_ADDRESS),
        (redirect("http://user:secret@a.test/"), {}, Reason.CREDENTIALS_IN_URL),
        (redirect("http://2130706433/"), {}, Reason.BAD_URL),
        (redirect("http://[oh:no/"), {}, Reason.BAD_URL),
    ],
)  # fmt: skip
def test_ends_in_the_right_reason(web, ask, page, limits, expected):
    """Each misbehaviour ends in its own reason, and where it is final nothing more is asked."""
    web.pages["/page"] = page
    answer = ask("http://a.test/page", **limits)
    assert reason(answer) is expected, answer
    assert answer.body is None
    assert answer.outcome is Outcome.DEAD
    loops = page == redirect("/page")
    assert web.asked() == [("a.test", "/page")] * (6 if loops else 1)


def test_redirect_to_the_server_itself_by_address(web, ask):
    """A redirect to this very machine and port by its address makes no request."""
    web.pages["/a.jpg"] = redirect(f"http://127.0.0.1:{web.port}/secret")
    assert reason(ask("http://a.test/a.jpg")) is Reason.PRIVATE_ADDRESS
    assert web.asked() == [("a.test", "/a.jpg")]


def test_redirects_are_followed_and_asked_about(web, ask):
    """Five hops are followed, across hosts, and robots.txt is asked of every origin on the way."""
    for hop, status in enumerate((301, 302, 303, 307, 308)):
        web.pages[f"h{hop}.a.test/a"] = redirect(f"http://h{hop + 1}.a.test/a", status)
    web.pages["h5.a.test/a"] = picture_reply(PICTURE)
    answer = ask("http://h0.a.test/a")
    assert (answer.body, answer.final_url) == (PICTURE, "http://h5.a.test/a")
    assert answer.redirects == 5
    assert [h for h, p in web.log if p == "/robots.txt"] == [f"h{hop}.a.test" for hop in range(6)]


def test_a_redirect_to_another_domain_is_its_owners_to_ask(web, ask):
    """A redirect to another registrable domain ends as moved, with nothing asked there."""
    web.pages["/a"] = redirect("http://www.a.test/b")
    web.pages["/b"] = redirect("http://b.test/c")
    answer = ask("http://a.test/a", retries=3)
    assert (reason(answer), answer.outcome) == (Reason.MOVED, Outcome.MOVED)
    assert (answer.final_url, answer.status, answer.redirects) == ("http://b.test/c", 302, 2)
    assert {host for host, _ in web.log} == {"a.test", "www.a.test"}


def test_redirects_between_domains_count(web):
    """Whoever goes on with a moved URL follows no more redirects than were left."""
    web.pages["/a"] = redirect("/b")
    web.pages["/b"] = picture_reply(PICTURE)

    async def go() -> list[Answer]:
        fetch, found = FetchSection(max_redirects=3), []
        async with Client(fetch, loopback=web.loopback) as client:
            for so_far in (2, 3):
                asking = client.begin("http://a.test/a", "image")
                asking.redirects = so_far
                found.append(await client.attempt(asking))
        return found

    fine, too_many = asyncio.run(go())
    assert (fine.body, fine.redirects) == (PICTURE, 3)
    assert reason(too_many) is Reason.REDIRECT_LOOP
    assert len(web.asked()) == 3


def test_a_robots_txt_is_followed_to_another_domain(web, ask):
    """A robots.txt that another domain has is read there (RFC 9309, section 2.3.1.2)."""
    web.pages["a.test/robots.txt"] = redirect("http://b.test/rules")
    web.pages["b.test/rules"] = (200, {}, b"User-agent: *\nDisallow: /")
    assert reason(ask("http://a.test/a")) is Reason.ROBOTS_DISALLOWED
    assert web.asked() == [("b.test", "/rules")]


def test_a_redirect_into_what_robots_forbid(web, ask):
    """A redirect into a part of the web that robots.txt forbids ends there, unasked."""
    web.pages["/a"] = redirect("http://b.a.test/private/a")
    web.pages["b.a.test/robots.txt"] = (200, {}, b"User-agent: *\nDisallow: /private/")
    assert reason(ask("http://a.test/a")) is Reason.ROBOTS_DISALLOWED
    assert web.asked() == [("a.test", "/a")]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:,x", "javascript:1", "//a.test/", "a"])
def test_only_http(web, ask, url):
    """What is not http or https is refused by its scheme."""
    assert reason(ask(url)) is Reason.SCHEME_REFUSED
    assert web.log == []


def test_a_name_that_resolves_to_a_private_address(ask):
    """One private address among a name's addresses is enough to refuse it, without a request."""

    async def lookup(_: str) -> list[str]:
        return ["93.184.215.14", "10.1.2.3"]

    answer = ask("http://rebound.example/", lookup=lookup, contact="me@example.org")
    assert reason(answer) is Reason.PRIVATE_ADDRESS
    assert "10.1.2.3" in answer.refusal.detail


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_AGAIN])
def test_a_name_that_does_not_resolve(ask, code):
    """A missing name is not looked up again, a resolver's hiccup is."""
    asked = []

    async def lookup(host: str) -> list[str]:
        asked.append(host)
        raise socket.gaierror(code, "no")

    answer = ask("http://gone.example/", lookup=lookup, contact="me@example.org", retries=1)
    assert reason(answer) is Reason.DNS_FAILED
    assert len(asked) == (1 if code == socket.EAI_NONAME else 2)


def test_nobody_listens():
    """Where connections are refused robots.txt is unreachable, which means not now."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    async def go() -> Answer:
        loopback = {"*.test": f"127.0.0.1:{port}"}
        async with Client(FetchSection(retries=0), loopback=loopback) as client:
            return await client.get("http://a.test/a.jpg", kind="image")

    answer = asyncio.run(go())
    assert reason(answer) is Reason.ROBOTS_UNREACHABLE
    assert answer.outcome is Outcome.DEFERRED


def test_503_then_fine(web, ask):
    """A server that is briefly unavailable is asked again."""
    web.pages["/a"] = picture_reply(PICTURE)
    web.then["/a"] = [(503, {}, b"")]
    assert ask("http://a.test/a", retries=1).body == PICTURE
    assert len(web.asked()) == 2


def test_what_is_permanent_is_not_retried(web, ask):
    """A 404 is asked for once, however many retries are allowed."""
    ask("http://a.test/a", retries=5)
    assert len(web.asked()) == 1


def test_429_short_pause(web, ask):
    """A Retry-After that the deadline can bear is waited for."""
    web.pages["/a"] = picture_reply(PICTURE)
    web.then["/a"] = [(429, {"Retry-After": "1"}, b"")]
    started = time.monotonic()
    assert ask("http://a.test/a", retries=1).body == PICTURE
    assert time.monotonic() - started > 1


@pytest.mark.parametrize("status", [429, 503])
def test_not_now_is_deferred_without_retries_too(web, ask, status):
    """A server that says when to come back is asked by a later round, retries or none."""
    web.pages["/a"] = (status, {"Retry-After": "1"}, b"")
    answer = ask("http://a.test/a", retries=0)
    assert reason(answer) is Reason.RATE_LIMITED
    assert answer.outcome is Outcome.DEFERRED
    assert len(web.asked()) == 1


@pytest.mark.parametrize(
    "value",
    [
        "9" * 400,
        "Wed, 21 Oct 99999999999 07:28:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        "tomorrow",
    ],
)
def test_any_retry_after_is_survived(web, ask, value):
    """However a server spells its pause, the pair is deferred, and nothing is raised."""
    web.pages["/a"] = (429, {"Retry-After": value}, b"")
    assert reason(ask("http://a.test/a")) is Reason.RATE_LIMITED


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_long_pause_defers(web, status, form):
    """A Retry-After beyond the deadline, in either form, defers all of the domain, unasked."""
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    value = "3600" if form == "seconds" else date
    web.pages["/a"] = (status, {"Retry-After": value}, b"")

    async def go() -> list[Answer]:
        async with Client(FetchSection(deadline_s=2), loopback=web.loopback) as client:
            urls = ["http://x.a.test/a", "http://x.a.test/b", "http://y.a.test/c"]
            return [await client.get(url, kind="image") for url in urls]

    answers = asyncio.run(go())
    assert [reason(a) for a in answers[:2]] == [Reason.RATE_LIMITED] * 2
    assert [a.outcome for a in answers] == [Outcome.DEFERRED] * 3
    assert web.asked() == [("x.a.test", "/a")]
    assert ("y.a.test", "/robots.txt") not in web.log


def test_deadline_is_for_the_whole_chain(web, ask):
    """A chain of slow redirects ends at the deadline, not at the deadline of each hop."""

    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        writer.write(b"HTTP/1.1 302 x\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n")

    web.pages["/a"] = slow
    answer = ask("http://a.test/a", deadline_s=1.0, max_redirects=50, retries=3)
    assert reason(answer) is Reason.DEADLINE
    assert len(web.asked()) <= 4


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Robots-Tag", "noai, noimageai"),
        ("X-Robots-Tag", "wit-builder: noimageindex"),
        ("tdm-reservation", "1"),
        ("Content-Usage", "train-ai=n"),
    ],
)
def test_opt_out_header(web, ask, header, value):
    """A picture whose headers opt out is refused, its body unread, and not asked for again."""
    web.pages["/a"] = (200, {header: value}, PICTURE)
    answer = ask("http://a.test/a", retries=2)
    assert reason(answer) is Reason.OPT_OUT_IMAGE
    assert answer.opt_outs
    assert len(web.asked()) == 1


def test_opt_out_header_of_a_redirect(web, ask):
    """A redirect whose headers opt out is a refusal, and is not followed."""
    web.pages["/a"] = (302, {"Location": "/b", "X-Robots-Tag": "noai"}, b"")
    web.pages["/b"] = picture_reply(PICTURE)
    answer = ask("http://a.test/a", retries=2)
    assert (reason(answer), answer.opt_outs) == (Reason.OPT_OUT_IMAGE, ["noai"])
    assert web.asked() == [("a.test", "/a")]


def test_no_password_is_kept(web, ask):
    """The credentials of a URL that a redirect leads to stand in no part of the answer."""
    web.pages["/a"] = redirect("http://user:secret@b.test/x")
    answer = ask("http://a.test/a")
    assert answer.final_url == "http://b.test/x"
    assert "secret" not in repr(answer)


def test_opt_out_header_of_a_page(web, ask):
    """A page that opts out in its headers says so with its own reason."""
    web.pages["/p"] = (200, {"X-Robots-Tag": "noai"}, b"<p>")
    assert reason(ask("http://a.test/p", kind="page")) is Reason.OPT_OUT_HEADER


def test_opt_out_of_another_agent(web, ask):
    """An opt-out addressed to somebody else is not ours."""
    web.pages["/a"] = (200, {"X-Robots-Tag": "otherbot: noai"}, PICTURE)
    assert ask("http://a.test/a").body == PICTURE


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "headless"])
def test_compressed_page(web, ask, encoding):
    """Pages come decompressed, even by servers that leave out deflate's zlib header."""
    page = b"<html>" + b"words " * 1000
    headless = zlib.compressobj(wbits=-15)
    bodies = {
        "gzip": gzip.compress(page[:3000]) + gzip.compress(page[3000:]),
        "deflate": zlib.compress(page),
        "headless": headless.compress(page) + headless.flush(),
    }
    named = "gzip" if encoding == "gzip" else "deflate"
    web.pages["/p"] = (200, {"Content-Encoding": named}, bodies[encoding])
    assert ask("http://a.test/p", kind="page").body == page


def test_connections_are_kept(web):
    """Requests of one host share a connection, also after a 404 and a redirect."""
    web.pages["/a"] = picture_reply(PICTURE)
    web.pages["/r"] = redirect("/a")

    async def go() -> None:
        async with Client(FetchSection(per_domain_interval_s=0.0), loopback=web.loopback) as client:
            for path in ["a", "missing", "r", "a"]:
                await client.get(f"http://a.test/{path}", kind="image")

    asyncio.run(go())
    assert len(web.asked()) == 5
    assert web.connections == 1


def test_a_kept_connection_that_closes_is_asked_once(web, ask):
    """A server that closes a kept connection instead of answering is not asked again unasked."""
    web.pages["/a"] = mock_web.hangs_up
    answer = ask("http://a.test/a", retries=0)
    assert reason(answer) is Reason.CONNECT_FAILED
    assert web.asked() == [("a.test", "/a")]


def test_without_contact_no_address_either(ask):
    """A client without a contact asks no public address, written as such."""
    answer = ask("http://1.2.3.4/a.jpg")
    assert reason(answer) is Reason.PRIVATE_ADDRESS
    assert "contact" in answer.refusal.detail


@pytest.mark.parametrize(
    "target", ["ftp://user:secret@b.test/x", "http://user:secret@ex\u2100.com/"]
)
def test_no_password_of_what_cannot_be_asked(web, ask, target):
    """Nor do those of a URL that cannot be asked for at all."""
    web.pages["/a"] = (302, {"Location": target}, b"")
    assert "secret" not in repr(ask("http://a.test/a"))


def test_the_status_of_a_refusal_before_a_pause(web):
    """A pair that is deferred because of a long pause keeps the status that asked for it."""
    web.pages["/a"] = (429, {"Retry-After": "3600"}, b"")

    async def go() -> Answer:
        async with Client(FetchSection(retries=2), loopback=web.loopback) as client:
            return await client.get("http://a.test/a", kind="image")

    answer = asyncio.run(go())
    assert (reason(answer), answer.status) == (Reason.RATE_LIMITED, 429)
