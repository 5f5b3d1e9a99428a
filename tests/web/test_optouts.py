"""The one reader of opt-out signals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.web.optouts import DIRECTIVES, forbids_following, opt_outs


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["noai"], ["noai"]),
        (["NOAI, NoImageAI"], ["noai", "noimageai"]),
        (["noindex", "nofollow"], ["noindex"]),
        (["none"], ["none"]),
        (["noai noimageai"], ["noai", "noimageai"]),
        (["wit-builder: noai"], ["noai"]),
        (["WIT-Builder/1.0: noai"], ["noai"]),
        (["*: noai"], ["noai"]),
        (["otherbot: noai"], []),
        (["otherbot: nofollow, noai"], []),
        (["otherbot: noai, wit-builder: noindex"], ["noindex"]),
        (["otherbot: noai", "noimageai"], ["noimageai"]),
        (["max-image-preview: none"], []),
        (["max-image-preview:none, noai"], ["noai"]),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noindex"], ["noindex"]),
        (["noai\u00a0", "noimageai\0", "\u00e9noindex\ufffd"], ["noai", "noimageai", "noindex"]),
        (['"noai"', "'noimageai'.", "\u201cnone\u201d"], ["noai", "noimageai", "none"]),
        (['"otherbot: noai"', 'wit-builder: "noindex"'], ["noindex"]),
        (['max-image-preview:"none"', "no-noai noai-x"], []),
        (["all", "nofollow", "noarchive", "", "noairports"], []),
    ],
)
def test_x_robots_tag(lines, expected):
    """What each form of the header says to us."""
    assert opt_outs([("X-Robots-Tag", line) for line in lines]) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("TDM-Reservation", " 1 ", ["tdm-reservation"]),
        ("tdm-reservation", "0", []),
        ("tdm-reservation", "1 ; x", ["tdm-reservation"]),
        ("tdm-reservation", '"1"\0', ["tdm-reservation"]),
        ("tdm-reservation", "0, 1", ["tdm-reservation"]),
        ("tdm-reservation", "0; x=1", []),
        ("tdm-reservation", "10", []),
        ("Content-Usage", "train-ai=n", ["train-ai=n"]),
        ("Content-Usage", 'search=y, train-ai=n;note="x"', ["train-ai=n"]),
        ("Content-Usage", "train-ai=y", []),
        ("Content-Type", "noai", []),
    ],
)
def test_other_headers(name, value, expected):
    """TDMRep and Content-Usage are read; other headers are not."""
    assert opt_outs([(name, value)]) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("robots", "noai, noimageai", ["noai", "noimageai"]),
        ("ROBOTS", "noindex,nofollow", ["noindex"]),
        ("wit-builder", "none", ["none"]),
        ("googlebot", "noindex", []),
        ("Robots,googlebot", "noindex", ["noindex"]),
        ("googlebot wit-builder", "noai", ["noai"]),
        ("'robots'\ufffd", "noai", ["noai"]),
        ("robots-x", "noai", []),
        ("x; TDM-Reservation", "1", ["tdm-reservation"]),
        ("robots", "max-image-preview:none", []),
        ("tdm-reservation", "1", ["tdm-reservation"]),
        ("description", "noai", []),
    ],
)
def test_metas(name, content, expected):
    """Metas for all robots and for us are read, those for others are not."""
    assert opt_outs(metas=[(name, content)]) == expected


@given(st.text(), st.text())
def test_any_text_is_survived(name, value):
    """Whatever a server sends, only known signals come out, sorted, each once."""
    found = opt_outs([("X-Robots-Tag", value), (name, value)], [("robots", value)])
    assert found == sorted(set(found))
    assert set(found) <= DIRECTIVES | {"tdm-reservation", "train-ai=n"}


@pytest.mark.parametrize(
    ("headers", "metas", "expected"),
    [
        ([("X-Robots-Tag", "index, NoFollow")], [], True),
        ([("x-robots-tag", "none")], [], True),
        ([("X-Robots-Tag", "otherbot: nofollow")], [], False),
        ([("X-Robots-Tag", "otherbot: all, wit-builder: nofollow")], [], True),
        ([("X-Robots-Tag", "noai"), ("X-Follow", "nofollow")], [], False),
        ([], [("ROBOTS", "noarchive,nofollow")], True),
        ([], [("wit-builder", "nofollow")], True),
        ([], [("googlebot", "nofollow"), ("description", "nofollow")], False),
    ],
)
def test_forbids_following(
    headers: list[tuple[str, str]], metas: list[tuple[str, str]], *, expected: bool
) -> None:
    """Links are not to be followed where a header or meta that addresses us says so."""
    assert forbids_following(headers, metas) == expected
