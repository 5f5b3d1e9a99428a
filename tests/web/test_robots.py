"""robots.txt: how it is asked for, and what its absence means; what it says: the corpus."""

from __future__ import annotations

import asyncio

import pytest

from tests import mock_web
from tests.mock_web import jpeg, picture_reply, redirect
from wit_builder.sections import FetchSection
from wit_builder.tables import Outcome, Reason
from wit_builder.web import robots
from wit_builder.web.client import Client
from wit_builder.web.robots import Rules

ALL = b"User-agent: *\nDisallow: /\n"


CUT = b"User-agent: *\n" + b"#" * (robots.MAX_BYTES - 14 - 12) + b"\nDisallow: /private"
"""Its first ``MAX_BYTES`` end in ``Disallow: /``."""


def may(text: bytes) -> bool:
    return Rules(text).refusal("http://a.test/a") is None


def test_a_large_file_is_read_up_to_a_line():
    """Rules within the first 500 KiB count, later ones and half lines do not."""
    filler = b"# filler\n" * ((robots.MAX_BYTES - 100) // 9)
    assert not may(filler + ALL)
    assert may(filler + b"#" * 200 + b"\n" + ALL)
    assert may(CUT)
    assert not may(ALL.replace(b"\n", b"\r") + b"# filler\r" * robots.MAX_BYTES)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_4xx_means_no_rules(web, ask, status):
    """A robots.txt that is not there, or not for us, forbids nothing."""
    web.pages |= {"/robots.txt": (status, {}, ALL), "/a": picture_reply(jpeg())}
    assert ask("http://a.test/a").body


@pytest.mark.parametrize(
    "page",
    [
        (500, {}, b""),
        (503, {}, b""),
        (429, {"Retry-After": "0"}, b""),
        redirect("/robots.txt"),
        redirect("http://127.0.0.1/robots.txt"),
        redirect("file:///etc/passwd"),
        mock_web.silence,
        mock_web.no_http_at_all,
        mock_web.reset_mid_body,
    ],
)
def test_not_now(web, ask, page):
    """A robots.txt that cannot be had defers the pair, and nothing else is asked."""
    web.pages |= {"/robots.txt": page, "/a": picture_reply(jpeg())}
    answer = ask("http://a.test/a", deadline_s=0.3)
    assert answer.refusal.reason is Reason.ROBOTS_UNREACHABLE
    assert answer.outcome is Outcome.DEFERRED
    assert web.asked() == []


def test_redirected_rules_hold_for_the_origin_asked(web, ask):
    """A robots.txt may stand elsewhere, five hops away; its rules are those of the first origin."""
    for hop in range(5):
        web.pages[f"h{hop}.test/robots.txt"] = redirect(f"http://h{hop + 1}.test/robots.txt")
    web.pages["h5.test/robots.txt"] = (200, {}, ALL)
    assert ask("http://h0.test/a").refusal.reason is Reason.ROBOTS_DISALLOWED
    assert web.asked() == []


def test_a_huge_file_is_not_read_to_its_end(web, ask):
    """A robots.txt of 5 MB is cut, not refused."""
    web.pages["/robots.txt"] = (200, {}, ALL + b"# filler\n" * 600_000)
    assert ask("http://a.test/a").refusal.reason is Reason.ROBOTS_DISALLOWED


def test_half_a_rule_is_none(web, ask):
    """Where a large robots.txt is cut in the middle of a rule, what is left does not count."""
    assert CUT[: robots.MAX_BYTES].endswith(b"\nDisallow: /")
    web.pages |= {"/robots.txt": (200, {}, CUT), "/a": picture_reply(jpeg())}
    assert ask("http://a.test/a").body


def test_asked_once_per_origin(web):
    """Many simultaneous requests share one robots.txt per scheme, host and port."""
    web.pages["/a"] = picture_reply(jpeg())

    async def go() -> None:
        async with Client(FetchSection(per_domain_interval_s=0.0), loopback=web.loopback) as client:
            urls = [f"http://{host}.test/a" for host in "ab" for _ in range(10)]
            await asyncio.gather(*(client.get(url, kind="image") for url in urls))

    asyncio.run(go())
    assert sorted(e for e in web.log if e[1] == "/robots.txt") == [
        ("a.test", "/robots.txt"),
        ("b.test", "/robots.txt"),
    ]
    assert len(web.asked()) == 20
