from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.crawl.test_wat import image, page
from wit_builder.crawl import wat_json
from wit_builder.crawl.json_strings import strings
from wit_builder.crawl.wat_kept import Kept

TEXTS = st.text(st.sampled_from('ab"\\é'), max_size=5)
PAGES = st.builds(
    lambda texts, url, base, robots: page(
        [image(a, alt=b) for a, b in texts],
        url=url,
        head={"Base": base} if base else {},
        headers={"X-Robots-Tag": robots},
    ),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=3),
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=3),
)


def said(data: Any, found: wat_json.Scan) -> list[Any]:
    """Return all that is said: flags and numbers, and strings with whether they are there."""
    tables = ((found.records, 2), (found.pictures, 1), (found.signals, 2))
    told: list[Any] = []
    for rows, first in tables:
        told.append(rows[:, :first].tolist())
        for column in range(first, rows.shape[1], 2):
            told.append((rows[:, column] > 0).tolist())
            told.append(strings(data, rows[:, column : column + 2]).to_pylist())
    return told


@given(st.lists(st.lists(PAGES, max_size=3), min_size=1, max_size=4))
def test_what_is_kept_in_turn_is_what_one_scan_finds(turns: list[list[dict[str, Any]]]) -> None:
    """However records are divided: the same strings, none where there is none, counted on."""
    kept = Kept()
    everything = []
    for pages in turns:
        raw = [json.dumps(p).encode() for p in pages]
        data = np.frombuffer(b"".join(raw), np.uint8)
        kept.add(data, wat_json.scan(data, np.cumsum([0, *map(len, raw)])))
        everything += raw
    whole = np.frombuffer(b"".join(everything), np.uint8)
    found = wat_json.scan(whole, np.cumsum([0, *map(len, everything)]))
    assert (kept.records, kept.of_bytes) == (len(everything), whole.size)
    assert said(*kept.all()) == said(whole, found)
