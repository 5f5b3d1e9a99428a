"""Which pairs a list names."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from wit_builder.removal import wanted
from wit_builder.removal.finding import Names
from wit_builder.removal.wanted import entry

URLS = [
    "http://example.org/a.jpg",
    "https://img.example.org:8080/a.jpg?x=http://other.example/",
    "http://notexample.org/a.jpg",
    "http://other.example/example.org/a.jpg",
    "http://[2001:db8::1]/a.jpg",
    "wds:cc/00001.tar/000000007",
    "",
]


def named(*entries: tuple[str, str], **columns: Sequence[str | None]) -> list[int]:
    names = Names.of(wanted.joined(wanted.NOTHING, [entry(by, value) for by, value in entries]))
    return [int(row) for row in names.mask(pa.table(columns)).nonzero()[0]]


@pytest.mark.parametrize(
    ("entry_", "rows"),
    [
        (("host", "example.org"), [0, 1]),
        (("host", "img.example.org"), [1]),
        (("host", "other.example"), [3]),
        (("host", "2001:db8::1"), [4]),
        (("url", "http://EXAMPLE.org/a.jpg"), [0]),
        (("url", "wds:cc/00001.tar/000000007"), [5]),
    ],
)
def test_a_host_names_itself_and_those_below(entry_: tuple[str, str], rows: list[int]) -> None:
    """And no host that only ends in its letters, nor one in a path or a query."""
    assert named(entry_, url=URLS) == rows
    assert named(entry_, final_url=[None, *URLS]) == [row + 1 for row in rows]
    assert named(entry_, page_url=URLS) == []


def test_digests_name_pictures() -> None:
    """Each in its own column, wherever it is known."""
    ones = "1" * 32
    assert named(("md5", ones), md5=[None, ones, "2" * 32], sha256=[ones, None, None]) == [1]
    assert named(("phash", "0" * 16), phash=["0" * 16, None]) == [0]


def test_nothing_is_named_by_an_empty_list() -> None:
    """Rows without a URL or digest are not taken for named ones."""
    assert named(url=URLS, md5=[None] * 7) == []


def test_what_names_a_row_is_told() -> None:
    """Every entry that does, and none else."""
    ones = "1" * 32
    asked = [("host", "example.org"), ("host", "img.example.org"), ("md5", ones), ("uid", ones)]
    asked.append(("url", URLS[3]))
    others = [("host", "nowhere.example"), ("url", "http://nowhere.example/"), ("md5", "2" * 32)]
    every = [entry(by, value) for by, value in asked + others]
    names = Names.of(wanted.joined(wanted.NOTHING, every))
    uids = pa.array([bytes.fromhex(ones)] * 3, pa.binary(16))
    columns = [uids, [URLS[0], URLS[1], None], [None, None, URLS[3]], [None, ones, None]]
    table = pa.table(columns, ["uid", "url", "final_url", "md5"])
    assert names.entries(table) == set(every[: len(asked)])
