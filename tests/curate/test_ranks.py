"""Ranks, over whole columns, are those of the xxhash package."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.worlds import SEED
from wit_builder.curate import balance
from wit_builder.curate.pairs import any_where, pairs_of
from wit_builder.curate.ranks import BLOCK, RUN

QUERIES = 7

sizes = st.integers(0, 3) | st.sampled_from(
    [RUN - 1, RUN, RUN + 1, BLOCK - 1, BLOCK, 2 * BLOCK + 9]
)


@settings(deadline=None)
@given(
    st.lists(sizes, max_size=12),
    st.sets(st.sampled_from(range(QUERIES))),
    st.sampled_from([None, 0.0, 0.3, 1.0]),
    st.randoms(use_true_random=False),
)
@example([1] * (BLOCK - 1) + [0, 2, 0, 3], {1, 4}, 0.5, random.Random(1))
def test_ranks_of_all_matches(lengths, asked, share, shuffler):
    """Pairs with no query or with thousands, wherever blocks end, have the ranks of their uids."""
    uids = [xxhash.xxh3_128_digest(b"%d" % i) for i in range(len(lengths))]
    lists = [shuffler.choices(range(QUERIES), k=length) for length in lengths]
    use = np.array([shuffler.random() < 0.8 for _ in uids], np.bool_)
    strings = [f"q{q}" for q in range(QUERIES)]
    seeds = balance.query_seeds(pa.array(strings), SEED)
    slot = balance.slots(np.array(sorted(asked), np.int64), QUERIES)
    most = min(int((1.0 if share is None else share) * 2**64), 2**64 - 1)
    highest = None if share is None else np.full(len(asked), np.uint64(most))
    pairs = pairs_of(pa.array(uids, pa.binary(16)), pa.array(lists, pa.list_(pa.int32())))

    found = balance.ranked(pairs, use, seeds, slot, highest)
    flat = [(pair, query) for pair, ids in enumerate(lists) for query in ids]
    rank = {
        (pair, query): xxhash.xxh64_intdigest(uids[pair], int(seeds[query])) for pair, query in flat
    }
    wanted = [
        (at, pair, slot[query], rank[pair, query])
        for at, (pair, query) in enumerate(flat)
        if query in asked and use[pair] and rank[pair, query] <= most
    ]
    assert list(zip(*(column.tolist() for column in found), strict=True)) == wanted


@given(st.lists(st.lists(st.booleans(), max_size=2 * RUN), max_size=20), st.integers(0, 3))
def test_pairs_with_any_match(lists, before):
    """Whatever a pair's size and place, also in a slice, it has a match where one is true."""
    values = [None] * before + [[0] * len(flags) for flags in lists]
    column = pa.array([v or [] for v in values], pa.list_(pa.int32())).slice(before)
    uids = pa.array([bytes(16)] * len(lists), pa.binary(16))
    pairs = pairs_of(uids, column)
    mask = np.array([flag for flags in lists for flag in flags], np.bool_)
    assert any_where(pairs, mask).tolist() == [any(flags) for flags in lists]


@pytest.mark.parametrize("before", [0, 2])
def test_a_slice_has_its_own_uids_and_queries(before):
    """Arrow's slices keep the whole column's buffers."""
    uids = pa.array([bytes([i]) * 16 for i in range(4)], pa.binary(16)).slice(before)
    lists = pa.array([[i, i + 1] for i in range(4)], pa.list_(pa.int32())).slice(before)
    pairs = pairs_of(uids, lists)
    assert pairs.words.astype("<u8").tobytes() == b"".join(uids.to_pylist())
    assert pairs.offsets.tolist() == list(range(0, 2 * len(uids) + 1, 2))
    assert pairs.queries.tolist() == [q for ids in lists.to_pylist() for q in ids]
