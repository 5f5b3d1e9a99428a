"""The balanced draw: exact, seeded, independent of order, and a closed loop."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder import storage
from wit_builder.curate import draw
from wit_builder.curate.balance import matches_of, query_seeds
from wit_builder.curate.draw import DrawJob, KeepJob, SelectJob
from wit_builder.sections import BalanceSection
from wit_builder.tables import IMAGES, MATCHED

SEED = 5


@dataclass(frozen=True)
class World:
    """Pairs and what fetching would find: the picture's digest, or None for a dead link."""

    queries: list[str]
    pairs: dict[bytes, list[int]]
    found: dict[bytes, str | None]


@st.composite
def worlds(drawn: st.DrawFn) -> World:
    """Up to six queries over up to forty pairs; some links dead, some pictures twice."""
    queries = [f"q{i}" for i in range(drawn(st.integers(1, 6)))]
    ids = st.lists(st.sampled_from(range(len(queries))), min_size=1, unique=True).map(sorted)
    lists = drawn(st.lists(ids, max_size=40))
    pairs = {xxhash.xxh3_128_digest(b"%d" % i): q for i, q in enumerate(lists)}
    pictures = st.one_of(st.none(), st.integers(0, 60).map(str))
    return World(queries, pairs, {uid: drawn(pictures) for uid in pairs})


def matched_table(world: World, uids: list[bytes]) -> pa.Table:
    rows = [
        {
            "uid": uid,
            "url": f"http://a.test/{uid.hex()}",
            "text": "t",
            "text_from": "alt",
            "archive": "a",
            "query_ids": world.pairs[uid],
        }
        for uid in uids
    ]
    return pa.Table.from_pylist(rows, MATCHED)


def image_table(world: World, selected: pa.Table, deferred: set[bytes]) -> pa.Table:
    rows = []
    for row in selected.to_pylist():
        digest = world.found[row["uid"]]
        outcome = "dead" if digest is None else "alive"
        outcome = "deferred" if row["uid"] in deferred else outcome
        rows.append({**row, "key": "", "outcome": outcome, "sha256": digest})
    return pa.Table.from_pylist(rows, IMAGES)


@dataclass
class Loop:
    """The rounds as the pipeline does them, on tables in a folder."""

    folder: Path
    world: World
    balance: BalanceSection
    uids: list[bytes]
    buckets: int = 2

    def url(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, deferred: set[bytes] | None = None) -> pa.Table:
        """Return the kept pairs after all rounds; ``deferred`` pairs are put off in round 0."""
        queries = pa.table(
            {
                "query_id": pa.array(range(len(self.world.queries)), pa.int32()),
                "query": self.world.queries,
            }
        )
        storage.write_parquet(self.url("queries"), queries)
        matched = [self.url(f"m{b}") for b in range(self.buckets)]
        for b, url in enumerate(matched):
            storage.write_parquet(url, matched_table(self.world, self.uids[b :: self.buckets]))
        images: list[list[str]] = []
        self.asked: list[set[bytes]] = []
        self.unknown: list[int] = []
        for number in range(self.balance.rounds):
            thresholds = self.url(f"t{number}")
            job = DrawJob(self.url("queries"), matched, images, SEED, self.balance, thresholds)
            self.unknown.append(draw.run_draw(job).counts["unknown"])
            if not self.unknown[-1]:
                break
            parts, asked = [], set()
            for b, url in enumerate(matched):
                out = self.url(f"s{number}-{b}")
                draw.run_select(SelectJob(self.url("queries"), url, images, thresholds, SEED, out))
                selected = storage.read_parquet(out)
                asked |= set(selected["uid"].to_pylist())
                parts.append(self.url(f"i{number}-{b}"))
                late = deferred or set() if number == 0 else set()
                storage.write_parquet(parts[-1], image_table(self.world, selected, late))
            images.append(parts)
            self.asked.append(asked)
        kept = self.url("kept")
        draw.run_keep(KeepJob(self.url("queries"), images, SEED, self.balance, kept, self.url("r")))
        return storage.read_parquet(kept)


def rank(world: World, uid: bytes, query: int) -> tuple[int, bytes]:
    """The definition of a rank, with the xxhash package."""
    seed = xxhash.xxh64_intdigest(world.queries[query].encode(), SEED)
    return xxhash.xxh64_intdigest(uid, seed), uid


def reference_kept(world: World, cap: int, alive: set[bytes]) -> dict[bytes, list[int]]:
    """The definition of what is kept, pair by pair."""
    kept: dict[bytes, list[int]] = {}
    for query in range(len(world.queries)):
        having = [uid for uid in alive if query in world.pairs[uid]]
        for uid in sorted(having, key=lambda u: rank(world, u, query))[:cap]:
            kept.setdefault(uid, []).append(query)
    return kept


@settings(max_examples=40, deadline=None)
@given(worlds(), st.integers(1, 5), st.sampled_from([1.0, 2.5]), st.randoms(use_true_random=False))
def test_the_loop_keeps_what_the_definition_says(
    tmp_path_factory: pytest.TempPathFactory,
    world: World,
    cap: int,
    over_draw: float,
    shuffler: random.Random,
) -> None:
    """Order, buckets and over-draw change nothing, and no pair is asked for twice."""
    unique = World(world.queries, world.pairs, {u: d and u.hex() for u, d in world.found.items()})
    uids = list(unique.pairs)
    shuffler.shuffle(uids)
    balance = BalanceSection(cap_per_query=cap, rounds=50, over_draw=over_draw)
    loop = Loop(tmp_path_factory.mktemp("loop"), unique, balance, uids, shuffler.randint(1, 3))
    kept = loop.run()
    alive = {uid for uid, digest in unique.found.items() if digest is not None}
    got = dict(zip(kept["uid"].to_pylist(), kept["kept_by"].to_pylist(), strict=True))
    assert got == reference_kept(unique, cap, alive)
    assert kept["uid"].to_pylist() == sorted(got)
    assert sum(map(len, loop.asked)) == len(set().union(*loop.asked))


@settings(max_examples=30, deadline=None)
@given(worlds(), st.integers(1, 5))
def test_no_query_keeps_more_than_its_cap_and_a_small_one_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, world: World, cap: int
) -> None:
    """Queries over the cap end at the cap; below it, every live picture stays."""
    balance = BalanceSection(cap_per_query=cap, rounds=50)
    kept = Loop(tmp_path_factory.mktemp("loop"), world, balance, list(world.pairs)).run()
    drawn = [q for ids in kept["kept_by"].to_pylist() for q in ids]
    pictures: dict[int, set[str]] = {}
    for uid, ids in world.pairs.items():
        for query in ids:
            digest = world.found[uid]
            pictures.setdefault(query, set()).update([] if digest is None else [digest])
    for query in range(len(world.queries)):
        assert drawn.count(query) <= cap
        own = [d for d in world.found.values() if d is not None]
        if len(set(own)) == len(own):
            assert drawn.count(query) == min(cap, len(pictures.get(query, set())))


@settings(max_examples=20, deadline=None)
@given(worlds())
def test_a_picture_is_kept_once(tmp_path_factory: pytest.TempPathFactory, world: World) -> None:
    """Of the pairs with one picture, one is kept; the draw it lost elsewhere is topped up."""
    balance = BalanceSection(cap_per_query=3, rounds=50)
    kept = Loop(tmp_path_factory.mktemp("loop"), world, balance, list(world.pairs)).run()
    digests = [world.found[uid] for uid in kept["uid"].to_pylist()]
    assert len(set(digests)) == len(digests)


def make_world(count: int, *, dead: int = 0) -> World:
    uids = [xxhash.xxh3_128_digest(b"%d" % i) for i in range(count)]
    found = {uid: None if i < dead else uid.hex() for i, uid in enumerate(uids)}
    return World(["q0"], {uid: [0] for uid in uids}, found)


def test_deferred_pairs_come_back_in_the_next_round(tmp_path: Path) -> None:
    """A pair that could not be asked for yet is unknown, not dead."""
    world = make_world(4)
    late = set(list(world.pairs)[:2])
    loop = Loop(tmp_path, world, BalanceSection(cap_per_query=4), list(world.pairs))
    assert loop.run(deferred=late).num_rows == 4
    assert loop.asked[1] == late


def test_later_rounds_over_draw_by_what_was_lost(tmp_path: Path) -> None:
    """With half the links dead, the second round asks for about twice what is missing."""
    world = make_world(2000, dead=1000)
    loop = Loop(tmp_path, world, BalanceSection(cap_per_query=400, rounds=9), list(world.pairs))
    assert loop.run().num_rows == 400
    assert len(loop.asked[0]) == 400
    assert 300 < len(loop.asked[1]) < 500
    assert len(loop.asked) == 2 or len(loop.asked[2]) < 60


def test_the_rounds_end_at_their_number(tmp_path: Path) -> None:
    """With one round there is no top-up: what is alive of the first draw is kept."""
    world = make_world(100, dead=50)
    loop = Loop(tmp_path, world, BalanceSection(cap_per_query=20, rounds=1), list(world.pairs))
    assert loop.run().num_rows < 20


def test_a_query_id_outside_the_list_is_refused() -> None:
    """Matches of another query list are found out."""
    uids = pa.chunked_array([pa.array([b"0" * 16], pa.binary(16))])
    ids = pa.chunked_array([pa.array([[3]], pa.list_(pa.int32()))])
    with pytest.raises(IndexError, match="query ids up to 3 in a list of 2"):
        matches_of(uids, ids, query_seeds(pa.array(["a", "b"]), 0))
