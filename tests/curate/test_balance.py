"""Ranks, bounds and draws in memory."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds import SEED, World, worlds
from wit_builder.curate import balance
from wit_builder.curate.balance import Bounds, draw, drawn, query_seeds
from wit_builder.curate.pairs import Pairs, ids_where, pairs_of, uid_words
from wit_builder.curate.states import Known


def columns(world: World, uids: list[bytes]) -> Pairs:
    lists = pa.array([world.pairs[uid] for uid in uids], pa.list_(pa.int32()))
    return pairs_of(pa.array(uids, pa.binary(16)), lists)


@settings(deadline=None)
@given(worlds(), st.integers(1, 5), st.integers(1, 4096), st.randoms(use_true_random=False))
def test_a_draw_is_the_lowest_ranks_of_every_query(
    world: World, cap: int, few: int, shuffler: random.Random
) -> None:
    """Whatever the order of pairs, and however few matches are collected at a time."""
    uids = list(world.pairs)
    shuffler.shuffle(uids)
    pairs = columns(world, uids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "_FEW", few)
        mask = draw(pairs, query_seeds(pa.array(world.queries), SEED), cap)
    for query in range(len(world.queries)):
        having = [uid for uid in uids if query in world.pairs[uid]]
        lowest = set(sorted(having, key=lambda u: world.rank(u, query))[:cap])
        got = {
            uid
            for uid, ids in zip(uids, ids_where(pairs, mask).to_pylist(), strict=True)
            if query in ids
        }
        assert got == lowest


def test_many_pairs_of_one_query_are_searched_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with too many matches is searched by finer ones, and the draw stays exact."""
    monkeypatch.setattr(balance, "_FEW", 1)
    uids = [xxhash.xxh3_128_digest(b"%d" % i) for i in range(5000)]
    world = World(["q0"], {uid: [0] for uid in uids}, {})
    for cap in (1, 3, 2500, 4999, 5000):
        mask = draw(columns(world, uids), query_seeds(pa.array(["q0"]), SEED), cap)
        lowest = set(sorted(uids, key=lambda u: world.rank(u, 0))[:cap])
        assert {uid for uid, taken in zip(uids, mask, strict=True) if taken} == lowest


def test_pairs_of_one_rank_go_by_their_uids() -> None:
    """A bound with a pair's own rank draws that pair only if its uid is lower, byte by byte."""
    uid = xxhash.xxh3_128_digest(b"a")
    world = World(["q0"], {uid: [0]}, {})
    rank, _ = world.rank(uid, 0)
    high, low = int.from_bytes(uid[:8], "big"), int.from_bytes(uid[8:], "big")
    seeds, use = query_seeds(pa.array(["q0"]), SEED), np.ones(1, np.bool_)
    for bound, taken in (
        ((rank, high, low), False), ((rank, high, low + 1), True), ((rank, high + 1, 0), True),
        ((rank, high - 1, low + 1), False), ((rank + 1, 0, 0), True),
        ((rank - 1, high, low), False),
    ):  # fmt: skip
        ends = (np.array([n], np.uint64) for n in (*bound, 0))
        bounds = Bounds(np.zeros(1, np.int32), *ends)
        assert drawn(columns(world, [uid]), use, seeds, bounds).tolist() == [taken]


@given(
    st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=30),
    st.randoms(use_true_random=False),
)
def test_states_are_found_in_any_order(uids: list[bytes], shuffler: random.Random) -> None:
    """A pair has the state that is known of it, whether uids come in order or not."""
    some = sorted(uids[::2])
    words = uid_words(pa.array(some, pa.binary(16))).byteswap()
    state = np.arange(len(some)) % 2 + 1
    known = Known(words[:, 0].copy(), words[:, 1].copy(), state.astype(np.uint8))
    asked = list(uids)
    shuffler.shuffle(asked)
    wanted = dict(zip(some, state.tolist(), strict=True))
    found = known.of(pa.array(asked, pa.binary(16))).tolist()
    assert found == [wanted.get(uid, balance.UNKNOWN) for uid in asked]


def test_a_query_without_a_seed_is_refused() -> None:
    """Matches of another query list are found out before any memory beyond it is read."""
    uid = bytes(16)
    pairs = columns(World(["q0"], {uid: [3]}, {}), [uid])
    with pytest.raises(IndexError, match="query ids from 3 to 3 in a list of 2"):
        draw(pairs, query_seeds(pa.array(["a", "b"]), 0), 1)
