"""A corpus of robots.txt files, each named for what it is about, and what RFC 9309 says of it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

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
