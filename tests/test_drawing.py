"""The closed loop: exact, seeded, independent of order, units, workers and over-draw."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds import SEED, Loop, World, exchanged, worlds
from wit_builder import storage
from wit_builder.curate.states import REMOVED_KEY, AnswersJob, run_answers
from wit_builder.curate.tally import tallied
from wit_builder.drawing import Taken
from wit_builder.errors import UnitsFailedError
from wit_builder.sections import BalanceSection
from wit_builder.tables import IMAGES
from wit_builder.units import Stage, Unit

over_draws = st.sampled_from([1.0, 2.5, 10.0])
shufflers = st.randoms(use_true_random=False)


def shuffled(world: World, shuffler: random.Random) -> list[bytes]:
    uids = list(world.pairs)
    shuffler.shuffle(uids)
    return uids


@settings(max_examples=25, deadline=None)
@given(worlds(), st.integers(1, 5), over_draws, shufflers)
def test_the_loop_keeps_what_the_definition_says(
    tmp_path_factory: pytest.TempPathFactory,
    world: World,
    cap: int,
    over_draw: float,
    shuffler: random.Random,
) -> None:
    """Order, buckets, deferred pairs and over-draw change nothing, and nothing is asked twice."""
    uids = shuffled(world, shuffler)
    balance = BalanceSection(cap_per_query=cap, rounds=50, over_draw=over_draw)
    late = set(uids[: shuffler.randint(0, 3)])
    folder = tmp_path_factory.mktemp("loop")
    loop = Loop(folder, world, balance, uids, shuffler.randint(1, 3), late)
    assert loop.run() == world.kept([cap] * len(world.queries))
    again = sum(map(len, loop.asked)) - len(set().union(*loop.asked))
    assert again <= len(late)


@settings(max_examples=15, deadline=None)
@given(worlds(), st.integers(1, 5), over_draws, shufflers)
def test_removed_pairs_are_dead_and_not_asked_for(
    tmp_path_factory: pytest.TempPathFactory,
    world: World,
    cap: int,
    over_draw: float,
    shuffler: random.Random,
) -> None:
    """A matched table lists them; what is kept is as if their links had been dead all along."""
    uids = shuffled(world, shuffler)
    removed = set(uids[: shuffler.randint(0, len(uids))])
    balance = BalanceSection(cap_per_query=cap, rounds=50, over_draw=over_draw)
    loop = Loop(tmp_path_factory.mktemp("loop"), world, balance, uids, shuffler.randint(1, 3))
    drawing = loop.drawing
    for url in [url for tables in drawing.matched for url, _ in tables]:
        table = storage.read_parquet(url)
        mine = b"".join(uid for uid in table["uid"].to_pylist() if uid in removed).hex()
        metadata = {**table.schema.metadata, REMOVED_KEY: mine.encode()}
        storage.write_parquet(url, table.replace_schema_metadata(metadata))
    gone = replace(world, found={u: None if u in removed else f for u, f in world.found.items()})
    assert loop.run(drawing) == gone.kept([cap] * len(world.queries))
    assert not removed & set().union(*loop.asked)


@settings(max_examples=15, deadline=None)
@given(worlds(), st.integers(1, 5), over_draws, st.integers(1, 3))
def test_rounds_that_run_out_keep_what_is_there(
    tmp_path_factory: pytest.TempPathFactory,
    world: World,
    cap: int,
    over_draw: float,
    rounds: int,
) -> None:
    """After the last round, what was never asked for counts as dead: spare pairs fill the draws."""
    balance = BalanceSection(cap_per_query=cap, rounds=rounds, over_draw=over_draw)
    folder = tmp_path_factory.mktemp("loop")
    loop = Loop(folder, world, balance, list(world.pairs))
    kept = loop.run()
    asked = set().union(*loop.asked)
    answered = {u: d if u in asked else None for u, d in world.found.items()}
    assert kept == replace(world, found=answered).kept([cap] * len(world.queries))


@settings(max_examples=15, deadline=None)
@given(worlds(), st.integers(1, 5))
def test_queries_reach_their_cap_whenever_enough_pairs_live(
    tmp_path_factory: pytest.TempPathFactory, world: World, cap: int
) -> None:
    """With a picture of its own for every live pair, each query keeps min(live pairs, cap)."""
    own = replace(world, found={u: d and u.hex() for u, d in world.found.items()})
    balance = BalanceSection(cap_per_query=cap, rounds=50)
    kept = Loop(tmp_path_factory.mktemp("loop"), own, balance, list(own.pairs)).run()
    for query in range(len(own.queries)):
        live = [u for u, ids in own.pairs.items() if query in ids and own.found[u]]
        assert sum(query in ids for ids in kept.values()) == min(cap, len(live))


@settings(max_examples=15, deadline=None)
@given(worlds(), st.integers(1, 4), st.lists(st.integers(0, 6), min_size=6, max_size=6))
def test_a_later_generation_draws_for_queries_that_are_short(
    tmp_path_factory: pytest.TempPathFactory, world: World, cap: int, before: list[int]
) -> None:
    """Caps are what earlier generations leave of them, and their pictures are not kept again."""
    queries = len(world.queries)
    balance = BalanceSection(cap_per_query=cap, rounds=50)
    loop = Loop(tmp_path_factory.mktemp("loop"), world, balance, list(world.pairs))
    drawing = loop.drawing
    tally = drawing.stages.place("before.parquet")
    kept = storage.write_parquet(tally, tallied(pa.array(before[:queries]).to_numpy()))
    images = drawing.stages.place("before-images.parquet")
    uids = [bytes([n]) * 16 for n in range(3)]
    rows = [
        {"uid": uid, "url": "u", "key": "", "outcome": "alive", "sha256": str(n)}
        for n, uid in enumerate(uids)
    ]
    full = {f.name: None for f in IMAGES} | {
        "text": "t", "text_from": "alt", "archive": "a", "query_ids": [], "drawn_by": [],
    }  # fmt: skip
    storage.write_parquet(images, pa.Table.from_pylist([full | r for r in rows], IMAGES))
    job = AnswersJob([images], loop.buckets, drawing.stages.place("before.arrow"))
    stage = Stage("answers-before", run_answers, [Unit("all", [], job)])
    keeps = drawing.stages.place("before-kept.parquet")  # the third was spare: it holds nothing
    storage.write_parquet(keeps, pa.table({"uid": pa.array(uids[:2], pa.binary(16))}))
    drawing.taken = Taken([exchanged(drawing, stage)], [[(keeps, "")]] * loop.buckets)
    drawing.kept = [(tally, kept.xxh3)]
    caps = [max(cap - n, 0) for n in before[:queries]]
    assert loop.run(drawing) == world.kept(caps, taken=["0", "1"])


def make_world(count: int, *, dead: int = 0) -> World:
    uids = [xxhash.xxh3_128_digest(b"%d" % i) for i in range(count)]
    found = {uid: None if i < dead else uid.hex() for i, uid in enumerate(uids)}
    return World(["q0"], {uid: [0] for uid in uids}, found)


def test_deferred_pairs_come_back_in_the_next_round(tmp_path: Path) -> None:
    """A pair that could not be asked for yet is unknown, not dead."""
    world = make_world(4)
    late = set(list(world.pairs)[:2])
    balance = BalanceSection(cap_per_query=4)
    loop = Loop(tmp_path, world, balance, list(world.pairs), deferred=late)
    assert len(loop.run()) == 4
    assert loop.asked[1] == late


def test_later_rounds_over_draw_by_what_was_lost(tmp_path: Path) -> None:
    """With half the links dead, the second round asks for about twice what is missing."""
    world = make_world(2000, dead=1000)
    loop = Loop(tmp_path, world, BalanceSection(cap_per_query=400, rounds=9), list(world.pairs))
    assert len(loop.run()) == 400
    assert len(loop.asked[0]) == 400
    assert 300 < len(loop.asked[1]) < 500
    assert len(loop.asked) == 2 or len(loop.asked[2]) < 60


def test_the_first_round_asks_ahead_as_told(tmp_path: Path) -> None:
    """An over-draw of two asks for about twice the cap, and keeps no more than the cap."""
    world = make_world(2000)
    balance = BalanceSection(cap_per_query=400, over_draw=2)
    loop = Loop(tmp_path, world, balance, list(world.pairs))
    assert len(loop.run()) == 400
    assert len(loop.asked) == 1
    assert 720 < len(loop.asked[0]) < 880


def test_a_query_that_hardly_any_pair_survives_for_is_filled(tmp_path: Path) -> None:
    """Where less than a quarter lives, the bound is looked for beyond the first range of ranks."""
    world = make_world(3000, dead=2900)
    loop = Loop(tmp_path, world, BalanceSection(cap_per_query=50, rounds=50), list(world.pairs))
    assert loop.run() == world.kept([50])


@settings(max_examples=15, deadline=None)
@given(worlds(), st.integers(1, 5), shufflers)
def test_independent_draws_ask_once(
    tmp_path_factory: pytest.TempPathFactory, world: World, cap: int, shuffler: random.Random
) -> None:
    """A (pair, query) is drawn where its rank is below cap / matches of all ranks; one round."""
    balance = BalanceSection(method="bernoulli", cap_per_query=cap, rounds=9)
    uids = shuffled(world, shuffler)
    own = replace(world, found={u: d and u.hex() for u, d in world.found.items()})
    kept = Loop(tmp_path_factory.mktemp("loop"), own, balance, uids).run()
    matches = [sum(q in ids for ids in own.pairs.values()) for q in range(len(own.queries))]
    wanted = {
        uid: drawn
        for uid, ids in own.pairs.items()
        if own.found[uid]
        and (drawn := [q for q in ids if own.rank(uid, q)[0] < cap / max(matches[q], cap) * 2**64])
    }
    assert kept == wanted


def test_independent_draws_take_the_cap_on_average(tmp_path: Path) -> None:
    """Of forty queries with 500 pairs each, draws of 50 add up to 2,000 within five deviations."""
    uids = [xxhash.xxh3_128_digest(b"%d" % i) for i in range(500)]
    queries = [f"q{i}" for i in range(40)]
    pairs = {uid: list(range(40)) for uid in uids}
    world = World(queries, pairs, {uid: uid.hex() for uid in uids})
    balance = BalanceSection(method="bernoulli", cap_per_query=50)
    kept = Loop(tmp_path, world, balance, uids).run()
    draws = sum(map(len, kept.values()))
    assert abs(draws - 2000) < 5 * (40 * 500 * 0.1 * 0.9) ** 0.5


def test_pictures_that_look_alike_are_one_only_if_asked_for(tmp_path: Path) -> None:
    """Equal perceptual hashes make pairs rivals when look-alikes are dropped; bodies always do."""
    uids = [xxhash.xxh3_128_digest(b"%d" % i) for i in range(3)]
    found: dict[bytes, str | None] = dict(zip(uids, ("a", "b", "b"), strict=True))
    world = World(["q0"], {uid: [0] for uid in uids}, found)
    drop = BalanceSection(look_alikes="drop")
    for number, (balance, left) in enumerate([(BalanceSection(), 2), (drop, 1)]):
        folder = tmp_path / str(number)
        loop = Loop(folder, world, balance, uids, phash="0f0f")
        assert len(loop.run()) == left
        tables = [str(p) for p in sorted((folder / "g0/rejected").iterdir())]
        reasons = pa.concat_tables(map(storage.read_parquet, tables))["reason"].to_pylist()
        assert sorted(reasons) == sorted(["duplicate_image"] + ["similar_image"] * (2 - left))


def test_another_seed_draws_anew_in_the_same_folder(tmp_path: Path) -> None:
    """The seed decides ranks alone, and is among what every unit of a draw depends on."""
    world = make_world(200)
    loop = Loop(tmp_path, world, BalanceSection(cap_per_query=20), list(world.pairs))
    first = loop.run()
    drawing = loop.drawing
    drawing.queries = msgspec.structs.replace(drawing.queries, seed=SEED + 1)
    assert set(loop.run(drawing)) != set(first)
    assert loop.run() == first


def test_a_loop_may_be_run_again(tmp_path: Path) -> None:
    """What is known is what it was at first, so nothing is counted twice."""
    world = make_world(50, dead=10)
    loop = Loop(tmp_path, world, BalanceSection(cap_per_query=20), list(world.pairs))
    drawing = loop.drawing
    assert loop.run(drawing) == loop.run(drawing) == world.kept([20])


def test_a_table_of_another_query_list_is_refused(tmp_path: Path) -> None:
    """Queries and matches from different runs are told apart by the list that the table names."""
    world = make_world(3)
    loop = Loop(tmp_path, world, BalanceSection(), list(world.pairs))
    drawing = loop.drawing
    drawing.queries = type(drawing.queries)(drawing.queries.url, "other", drawing.queries.seed)
    with pytest.raises(UnitsFailedError, match="matched with another query list"):
        loop.run(drawing)


def test_a_query_id_outside_the_list_is_refused(tmp_path: Path) -> None:
    """A matched table with an id beyond the list is named."""
    world = make_world(3)
    strange = replace(world, pairs={uid: [7] for uid in world.pairs})
    loop = Loop(tmp_path, strange, BalanceSection(), list(world.pairs), buckets=1)
    with pytest.raises(UnitsFailedError, match=r"names query 7, but the query list ends at 0"):
        loop.run()
