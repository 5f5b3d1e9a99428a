"""Links that are taken without the walk, beside the same ones that the walk goes through."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crawl.test_wat import image, page
from wit_builder.crawl import wat_json
from wit_builder.crawl.blocks import BLOCK
from wit_builder.crawl.json_strings import strings

TEXT = st.text(st.sampled_from('ab"\\/[],: \né😀'), max_size=8) | st.sampled_from(["x" * 62, ""])
LINKS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries(
        {"path": st.sampled_from(["IMG@/src", "A@/href", "IMG@/srcset"])},
        optional={
            "url": TEXT | st.just("https://creativecommons.org/licenses/by/4.0/"),
            "text": TEXT,
            "alt": TEXT,
            "title": TEXT,
            "rel": TEXT | st.just("License"),
            "target": TEXT,
            "more": st.sampled_from([None, 1, [], [{}], ["a"]]),
        },
    ),
    max_size=5,
)


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def scanned(*documents: bytes) -> list[Any]:
    """Return whether each document is valid, and what the pictures and signals of all say."""
    data = np.frombuffer(b"".join(documents), np.uint8)
    found = wat_json.scan(data, np.cumsum([0, *map(len, documents)]))
    told = [found.records[:, wat_json.VALID].tolist()]
    for rows, columns in ((found.pictures, (1, 3, 5)), (found.signals, (2, 4))):
        texts = [strings(data, rows[:, c : c + 2]).to_pylist() for c in columns]
        told.append(list(zip(rows[:, 0].tolist(), *texts, strict=True)))
    return told


def walked(document: bytes) -> bytes:
    """Return a document without plain links: a space behind each bracket (texts have none)."""
    return document.replace(b"{", b"{ ")


@settings(max_examples=300)
@given(LINKS, st.data())
def test_plain_links_say_what_the_walk_reads(links: list[dict[str, Any]], data: Any) -> None:
    """Whole or with a byte lost, added or changed: the same links, and as valid."""
    raw = bytearray(compact(page(links)))
    begin = raw.index(b'"Links"')
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(begin, len(raw) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                del raw[at]
            case 1:
                raw.insert(at, data.draw(st.sampled_from(b'"\\}[],:x ')))
            case _:
                raw[at] = data.draw(st.sampled_from(b'"\\}[],:x '))
    other = compact(page([image("o.jpg", alt="other")]))
    assert scanned(bytes(raw), other) == scanned(walked(bytes(raw)), walked(other))


@pytest.mark.parametrize(
    "odd", ['{"path":"A@/href",}', '{"path":"A@/href"', '{"path":"A@/href"},', "{,}", '{"path"}']
)
def test_what_is_no_json_among_plain_links(odd: str) -> None:
    """A comma too many, or a bracket too few, makes a record no JSON."""
    raw = compact(page([{"path": "A@/href"}]))
    assert scanned(raw)[0] == [1]
    assert scanned(raw.replace(b'{"path":"A@/href"}', odd.encode()))[0] == [0]


def test_a_record_that_is_cut_anywhere() -> None:
    """It is never valid, and costs neither what it said before nor the record after it."""
    links = [image("a.jpg", alt='\\"' * 9, title="t"), image("b.jpg", alt="\\")]
    raw, other = compact(page(links)), compact(page([image("o.jpg", alt="other")]))
    ends = [raw.index(b"}", raw.index(name)) + 1 for name in (b"a.jpg", b"b.jpg")]
    for cut in range(len(raw)):
        valid, pictures, _ = scanned(raw[:cut], other)
        expected = [(0, p["url"], p["alt"], p.get("title", "")) for p in links]
        assert valid == [0, 1]
        assert pictures == [
            *expected[: sum(cut >= end for end in ends)],
            (1, "o.jpg", "other", ""),
        ]


def test_a_record_that_is_cut_at_the_end_of_the_data() -> None:
    """Nothing is read beyond the last record, wherever it ends."""
    raw = compact(page([{"path": "A@/href", "url": "http://h.example/"}, image("b.jpg", alt="x")]))
    for cut in range(raw.index(b'"Links"'), len(raw)):
        assert scanned(raw[:cut])[0] == [0]


def test_links_at_any_place_of_a_block() -> None:
    """Where a block ends makes no difference to a link."""
    for shift in range(2 * BLOCK):
        link = image("a" * shift, alt='"q" \\', title="\\" * (shift % 9))
        pictures = scanned(compact(page([link, image("b", alt="x")])))[1]
        assert pictures == [(0, "a" * shift, link["alt"], link["title"]), (0, "b", "x", "")]


@pytest.mark.parametrize(
    ("url", "signals"),
    [
        ("https://creativecommons.org/licenses/by/4.0/", 1),
        ("HTTP://www.creativecommons.org/", 1),
        ("//creativecommons.org/", 1),
        ("//creativecommons.org", 0),
        ("//www.creativecommons.org", 0),
        ("https://creativecommons.example/licenses/", 0),
        ("a/creativecommons.org/licenses/", 0),
        ("", 0),
    ],
)
def test_links_to_creative_commons(url: str, signals: int) -> None:
    """They are told by their first bytes."""
    raw = compact(page([{"path": "A@/href", "url": url}]))
    expected = [(0, "", url)] * signals
    assert scanned(raw)[2] == scanned(walked(raw))[2] == expected
