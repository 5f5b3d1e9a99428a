"""Uids by the column are those of each pair."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.crawl.uids import pair_uids
from wit_builder.hashing import pair_uid


def assert_uids(pairs: list[tuple[str, str]]) -> None:
    urls, texts = (pa.array([pair[n] for pair in pairs], pa.string()) for n in (0, 1))
    assert pair_uids(urls, texts).to_pylist() == [pair_uid(*pair) for pair in pairs]


VALUES = st.text(st.characters(codec="utf-8"), max_size=200)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_a_column_of_uids_is_that_of_each_pair(pairs: list[tuple[str, str]]) -> None:
    """The kernel prefixes lengths and hashes as ``pair_uid`` does."""
    assert_uids(pairs)


@given(st.binary(min_size=32, max_size=32))
def test_uids_of_pairs_of_every_length(seed: bytes) -> None:
    """Whichever way XXH3 goes by an input's length, the kernel or the package follow it."""
    noise = (seed.hex() * 5)[:280]
    assert_uids([(noise[:size], noise[size // 3 : size]) for size in range(280)])


def test_uids_of_slices() -> None:
    """A slice of a longer column is read as what it is; one without rows gives none."""
    urls, texts = pa.array(["x", "https://a.example/", "b"]), pa.array(["a cat", "é", "y"])
    expected = [pair_uid("https://a.example/", "a cat"), pair_uid("b", "é")]
    assert pair_uids(urls[1:], texts[:2]).to_pylist() == expected
    assert len(pair_uids(urls[3:], texts[3:])) == 0
