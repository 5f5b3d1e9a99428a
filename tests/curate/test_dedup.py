"""One pair per URL, whatever the order."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.curate.dedup import dedup
from wit_builder.hashing import label_seed
from wit_builder.tables import MATCHED


def pair(url: int, text: int, page: str | None = "p") -> dict[str, Any]:
    """A matched pair whose uid is made from URL and text."""
    return {
        "uid": xxhash.xxh3_128_digest(b"%d|%d" % (url, text)),
        "url": f"http://a.test/{url}",
        "text": f"text {text}",
        "text_from": "alt",
        "page_url": page,
        "license": None,
        "archive": "a",
        "found_at": None,
        "query_ids": [text],
    }


def table(pairs: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(pairs, MATCHED)


places = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from(["p", "q", None]))


@given(st.lists(places, max_size=40), st.randoms(use_true_random=False))
def test_one_pair_per_url_and_nothing_lost(
    rows: list[tuple[int, int, str | None]], shuffler: random.Random
) -> None:
    """Each URL keeps the text lowest in the seeded hash; kept and dropped together are all rows."""
    pairs = [pair(*row) for row in rows]
    kept, dropped = dedup(table(pairs), seed=3)
    assert kept.num_rows + dropped.num_rows == len(pairs)
    assert sorted(kept["url"].to_pylist()) == sorted({p["url"] for p in pairs})
    seed = label_seed(3, "dedup")
    for row in kept.to_pylist():
        rivals = [p["uid"] for p in pairs if p["url"] == row["url"]]
        assert row["uid"] == min(rivals, key=lambda uid: xxhash.xxh64_intdigest(uid, seed))
    shuffled = list(pairs)
    shuffler.shuffle(shuffled)
    assert dedup(table(shuffled), seed=3)[0].sort_by("uid").equals(kept.sort_by("uid"))


def test_a_pair_found_twice_keeps_the_lowest_page() -> None:
    """The same pair on two pages is one pair, from the page first in order."""
    kept, dropped = dedup(table([pair(1, 1, "z"), pair(1, 1, "a")]), seed=0)
    assert kept["page_url"].to_pylist() == ["a"]
    assert dropped["page_url"].to_pylist() == ["z"]


def test_a_pair_of_two_archives_of_one_name_does_not_depend_on_their_order() -> None:
    """Rows that differ in the licence alone are put in order by it."""
    rows = [pair(1, 1) | {"license": said} for said in ("http://b.test/", "http://a.test/")]
    kept = [dedup(table(order), seed=0)[0] for order in (rows, rows[::-1])]
    assert kept[0].equals(kept[1])
