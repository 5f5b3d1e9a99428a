from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wit_builder.crawl.blocks import BLOCK
from wit_builder.crawl.quotes import index_quotes, room

PIECES = st.lists(
    st.sampled_from(['"', "\\", "\\" * 7, "\\" * BLOCK, "a", "é", "b" * 61, '"' * 20, '\\"']),
    max_size=12,
).map(lambda pieces: "".join(pieces).encode())


def indexed(data: bytes, start: int, end: int) -> list[int]:
    places = room(end - start)
    places[:] = -1
    index_quotes(np.frombuffer(data, np.uint8), start, end, places)
    found = places.tolist()
    count = found.index(end)
    assert found[count : count + 4] == [end] * 4
    return found[:count]


def one_by_one(data: bytes, start: int, end: int) -> list[int]:
    """Return the quotes with an even number of backslashes before them."""
    found, run = [], 0
    for at in range(start, end):
        if data[at] == ord('"') and run % 2 == 0:
            found.append(at)
        run = run + 1 if data[at] == ord("\\") else 0
    return found


@settings(max_examples=300)
@given(PIECES, PIECES, PIECES)
@example(b"", b"", b"")
@example(b"\\", b'"', b'"')
@example(b"", b"a" * (BLOCK - 1) + b"\\" + b'"', b"")
def test_quotes_are_those_that_are_not_escaped(before: bytes, data: bytes, behind: bytes) -> None:
    """Wherever blocks end, and whatever stands before the JSON and behind it."""
    start, end = len(before), len(before) + len(data)
    whole = before + data + behind
    assert indexed(whole, start, end) == one_by_one(whole, start, end)


def test_backslashes_over_the_ends_of_blocks() -> None:
    """A run of backslashes counts from its first one, blocks back if need be."""
    for run in range(2 * BLOCK + 2):
        for shift in (0, 1, BLOCK - 2, BLOCK - 1):
            data = b"a" * shift + b"\\" * run + b'""'
            assert indexed(data, 0, len(data)) == one_by_one(data, 0, len(data))
