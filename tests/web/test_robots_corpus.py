"""A corpus of robots.txt files, each named for what it is about, and what RFC 9309 says of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.tables import Reason
from wit_builder.web.gate import parse
from wit_builder.web.robots import Rules

FOLDER = Path(__file__).parent / "robots"
EXPECTED = tomllib.loads((FOLDER / "expected.toml").read_text(encoding="utf-8"))
KEYS = {"section", "says", "allowed", "refused", "delay_s", "deviation"}


def test_every_file_is_expected_something_of():
    """Table and folder name the same files, and the table nothing that is not read."""
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(EXPECTED)
    for case in EXPECTED.values():
        assert {"section", "says"} <= set(case) <= KEYS
        assert case.get("allowed") or case.get("refused")


@pytest.mark.parametrize("name", EXPECTED)
def test_what_the_rfc_says(name):
    """Every URL of the table is allowed or refused, and the delay is asked for, as it says."""
    case = EXPECTED[name]
    rules = Rules((FOLDER / f"{name}.txt").read_bytes())
    for path in [*case.get("allowed", []), *case.get("refused", [])]:
        url = str(parse(f"http://a.test{path}"))  # as the gate asks
        refusal = rules.refusal(url)
        assert (refusal is None) is (path in case.get("allowed", [])), (case["says"], path)
        assert refusal is None or refusal.reason is Reason.ROBOTS_DISALLOWED
    if "delay_s" in case:
        assert rules.crawl_delay_s == case["delay_s"], case["says"]


LINES = st.one_of(
    st.binary(max_size=20),
    st.builds(
        bytes.__add__,
        st.sampled_from(
            [
                b"User-agent: *",
                b"User-agent: wit-builder/",
                b"Disallow: ",
                b"Allow:/",
                b"Content-Usage: ",
            ]
        ),
        st.binary(max_size=20),
    ),
)


@given(
    lines=st.lists(LINES, max_size=10),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    path=st.text(max_size=20),
)
def test_any_file_says_something(lines, end, path):
    """Whatever stands in a file, it is read without an error, and allows itself to be asked for."""
    rules = Rules(end.join(lines))
    assert rules.refusal("http://a.test/robots.txt") is None
    rules.refusal(f"http://a.test/{path}")


@given(lines=st.lists(LINES, max_size=10), ours=st.booleans())
def test_line_ends_are_all_the_same(lines, ours):
    """A file says the same with CR, LF and CR LF, and with a byte-order mark or none."""
    clean = [line.replace(b"\r", b"").replace(b"\n", b"") for line in lines]
    clean += [b"User-agent: wit-builder", b"Disallow: /a"] if ours else []
    said = {
        mark + end: Rules(mark + end.join(clean)).refusal("http://a.test/a") is None
        for mark in (b"", b"\xef\xbb\xbf")
        for end in (b"\n", b"\r", b"\r\n")
    }
    assert len(set(said.values())) == 1, said
