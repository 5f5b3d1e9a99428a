from __future__ import annotations

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.errors import ShardFormatError
from wit_builder.pack.plan import Plan, grouped, places, plan, shard_of

_UIDS = st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=200)


def _column(uids: list[bytes]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(uids, pa.binary(16))])


def _plan(uids: list[bytes], seed: int, samples_per_shard: int) -> Plan:
    """Plan for uids in two tables."""
    parts = [_column(uids[:5]), _column(uids[5:])]
    return plan(parts, len(uids), seed, samples_per_shard)


@given(_UIDS, st.integers(0, 2**63), st.integers(1, 50))
def test_plan_counts_every_pair_once_in_any_order(
    uids: list[bytes], seed: int, samples_per_shard: int
) -> None:
    """Shards add up to all pairs, are as many as asked, and do not depend on the rows' order."""
    made = _plan(uids, seed, samples_per_shard)
    assert sum(made.samples) == len(uids)
    assert made.shards == -(-len(uids) // samples_per_shard)
    assert made == _plan(uids[::-1], seed, samples_per_shard)
    assert made.first_keys == [sum(made.samples[:s]) for s in range(made.shards)]


@given(_UIDS, st.integers(0, 2**63))
def test_place_is_two_plain_hashes(uids: list[bytes], seed: int) -> None:
    """Anybody can compute a place with the xxhash package."""
    keyed = xxhash.xxh64_intdigest(b"pack", seed)
    wanted = [xxhash.xxh64_intdigest(uid, keyed) for uid in uids]
    assert places(_column(uids), seed).tolist() == wanted


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 2**32 - 1))
def test_shard_is_exact_integer_arithmetic(places_: list[int], shards: int) -> None:
    """The shard of a place is floor(place * shards / 2**64), for the largest numbers too."""
    import numpy as np

    found = shard_of(np.array(places_, np.uint64), shards).tolist()
    assert found == [place * shards >> 64 for place in places_]


def test_shards_are_about_equal() -> None:
    """With 20,000 pairs in 20 shards, every shard is within five standard deviations of 1,000."""
    uids = [xxhash.xxh3_128_digest(str(i).encode()) for i in range(20_000)]
    assert all(abs(n - 1000) < 5 * 1000**0.5 for n in _plan(uids, 0, 1000).samples)


def test_more_pairs_than_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys have nine digits; more pairs than that are refused before anything is written."""
    monkeypatch.setattr("wit_builder.pack.plan.MAX_SAMPLES", 2)
    with pytest.raises(ShardFormatError, match="nine digits"):
        _plan([bytes([i]) * 16 for i in range(3)], 0, 1)


@given(st.lists(st.integers(0, 20)), st.integers(1, 40))
def test_neighbours_are_grouped_by_size(sizes: list[int], most: int) -> None:
    """Every one is in one group, in order; no group is larger than asked, unless it is of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wit_builder.pack.plan.UNIT_BYTES", most)
        groups = list(grouped(sizes))
    assert [number for group in groups for number in group] == [*range(len(sizes))]
    totals = [sum(sizes[number] for number in group) for group in groups]
    assert all(total <= most or len(g) == 1 for g, total in zip(groups, totals, strict=True))
    assert all(t + sizes[g.stop] > most for t, g in zip(totals, groups[:-1], strict=False))
