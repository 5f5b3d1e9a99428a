"""Looking for near hashes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wit_train.overlap.nearest import allowed, near

ALL = 2**64 - 1
words = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40)


queries = st.lists(
    st.tuples(st.integers(0, ALL), st.integers(0, ALL), st.integers(0, 64)), min_size=1
)


@given(words, queries)
def test_every_near_pair_is_found_with_its_distance(hashes, asked):
    """It finds what comparing every one with every one finds, in the bits that count."""
    hash_, sure, most = zip(*asked, strict=True)
    found = near(
        np.array(hashes, np.uint64),
        np.array(hash_, np.uint64),
        np.array(sure, np.uint64),
        np.array(most, np.uint8),
        keep=5,
    )
    expected = {
        (q, h, bits)
        for q, (query, known, limit) in enumerate(asked)
        for h, word in enumerate(hashes)
        if (bits := ((query ^ word) & known).bit_count()) <= limit
    }
    assert set(zip(*(column.tolist() for column in found), strict=True)) == expected


def test_more_pairs_than_there_is_room_for_are_cut_to_the_nearest():
    """Of a flood each that asks keeps so many, the nearest and then the first, over all tiles."""
    drawn = np.random.default_rng(0)
    hashes = drawn.integers(0, 256, 9000, np.uint64)  # differ in the lowest 8 bits
    asked = drawn.integers(0, 256, 7, np.uint64)
    sure, most = np.full(7, ALL, np.uint64), np.array([8, 8, 8, 8, 8, 3, 0], np.uint8)
    found = near(hashes, asked, sure, most, keep=100)
    for q in range(7):
        bits = np.bitwise_count(hashes ^ asked[q])
        order = np.argsort(bits, kind="stable")
        expected = order[bits[order] <= most[q]][:100]
        assert sorted(found.hash_M[found.query_M == q].tolist()) == sorted(expected.tolist())


def test_fewer_sure_bits_allow_fewer_differences():
    """Of 64 bits as many as asked may differ, and never more of fewer bits than of more."""
    sure = np.array([(1 << bits) - 1 for bits in range(65)], np.uint64)
    limits = allowed(sure, 10).tolist()
    assert limits[64] == 10
    assert limits == sorted(limits)
    assert limits[32] == 1
