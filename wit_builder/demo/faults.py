"""How the demo's web misbehaves: one table, from each way to what it answers and how many do it.

The real web does all of this. Which picture has which fault is decided by hashes, so it is the same
in every run; each fault occurs at least once however small the web is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from wit_builder.tables import Reason


class Fault(StrEnum):
    """What is wrong with a picture's address."""

    NONE = "none"
    DEAD = "dead"
    GONE = "gone"
    FORBIDDEN = "forbidden"
    ROBOTS_BROKEN = "robots_broken"
    NO_AI = "no_ai"
    MOVED = "moved"
    MOVED_AWAY = "moved_away"
    LOOP = "loop"
    TWIN = "twin"
    TRUNCATED = "truncated"
    CUT_OFF = "cut_off"
    NOT_A_PICTURE = "not_a_picture"
    HUGE = "huge"
    TINY = "tiny"
    BANNER = "banner"
    ENDLESS = "endless"
    SLOW = "slow"
    BROKEN = "broken"
    BUSY = "busy"


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        share: of all pictures; at least one has it.
        answer: what the server does.
        reason: what a fetcher should call it; None where it should get the picture.
    """

    share: float
    answer: str
    reason: Reason | None


FAULTS: dict[Fault, Row] = {
    Fault.DEAD: Row(0.13, "404, as most of a web page's old links", Reason.HTTP_4XX),
    Fault.GONE: Row(0.02, "410", Reason.HTTP_4XX),
    Fault.FORBIDDEN: Row(
        0.01,
        "the picture, but below /members/, which robots.txt forbids (to all, or to us by name)",
        Reason.ROBOTS_DISALLOWED,
    ),
    Fault.ROBOTS_BROKEN: Row(
        0.005,
        "the picture, but on a host whose robots.txt is a 500",
        Reason.ROBOTS_UNREACHABLE,
    ),
    Fault.NO_AI: Row(0.01, "the picture, with X-Robots-Tag: noai", Reason.OPT_OUT_IMAGE),
    Fault.MOVED: Row(0.02, "301 to another path of its host", None),
    Fault.MOVED_AWAY: Row(0.02, "302 from a link shortener to another domain", None),
    Fault.LOOP: Row(0.003, "302 to an address that sends back here", Reason.REDIRECT_LOOP),
    Fault.TWIN: Row(
        0.02, "the bytes of another picture of its concept, on another host", Reason.DUPLICATE_IMAGE
    ),
    Fault.TRUNCATED: Row(0.006, "the first half of a JPEG, as if whole", Reason.IMAGE_TRUNCATED),
    Fault.CUT_OFF: Row(
        0.002, "the connection closed before Content-Length", Reason.BODY_INCOMPLETE
    ),
    Fault.NOT_A_PICTURE: Row(0.005, "an HTML page called image/jpeg", Reason.NOT_AN_IMAGE),
    Fault.HUGE: Row(
        0.002, "a tiny PNG file that says it is 30,000 by 30,000", Reason.IMAGE_TOO_LARGE
    ),
    Fault.TINY: Row(0.002, "a picture of 4 by 4 pixels", Reason.IMAGE_TOO_SMALL),
    Fault.BANNER: Row(0.002, "a picture of 900 by 12 pixels", Reason.IMAGE_ASPECT),
    Fault.ENDLESS: Row(
        0.0005, "a body that goes on until the client leaves", Reason.BODY_TOO_LARGE
    ),
    Fault.SLOW: Row(0.0008, "nothing, until the client leaves", Reason.DEADLINE),
    Fault.BROKEN: Row(0.004, "500", Reason.HTTP_5XX),
    Fault.BUSY: Row(0.002, "429 with Retry-After: 1", Reason.RATE_LIMITED),
}

RETOLD_SHARE = 0.03
"""Of the pictures: shown again elsewhere under the same URL with another text."""

NO_AI_PAGES_SHARE = 0.03
"""Of the pages, at least one: ``<meta name="robots" content="noai">``."""

NO_AI_HEADER_PAGES_SHARE = 0.015
"""Of the pages, at least one: sent with ``X-Robots-Tag: noai``."""

LURES = [
    ("http://127.0.0.1:9/admin/chart.png", "drawing of the router's own chart"),
    ("http://reader:secret@birdwatch.test/pictures/private.jpg", "a private drawing"),
    ("file:///pictures/drawing.png", "a drawing on my own computer"),
    ("http:///no-host.png", "a drawing from nowhere"),
]
"""Addresses that must be refused without a request, and their texts: on every site's first page."""
