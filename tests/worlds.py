"""Small worlds of pairs, the loop of draws over them, and what it must come to, pair by pair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import xxhash
from hypothesis import strategies as st

from wit_builder import exchange, storage
from wit_builder.curate.states import AnswersJob, QueryList, of_list, run_answers
from wit_builder.drawing import Drawing, Exchanged
from wit_builder.hashing import label_seed
from wit_builder.sections import BalanceSection
from wit_builder.stages import Stages
from wit_builder.tables import IMAGES, MATCHED
from wit_builder.units import Marker, Run, Stage, Unit, total

SEED = 5


@dataclass(frozen=True)
class World:
    """Pairs and what fetching would find: the picture's digest, or None for a dead link."""

    queries: list[str]
    pairs: dict[bytes, list[int]]
    found: dict[bytes, str | None]

    def rank(self, uid: bytes, query: int) -> tuple[int, bytes]:
        """Return the definition of a rank, with the xxhash package."""
        seed = xxhash.xxh64_intdigest(self.queries[query].encode(), SEED)
        return xxhash.xxh64_intdigest(uid, seed), uid

    def kept(self, caps: list[int], taken: Iterable[str] = ()) -> dict[bytes, list[int]]:
        """Return what is kept by definition, with the queries that keep it.

        Args:
            caps: of each query.
            taken: pictures of earlier generations.
        """
        rejected = {uid for uid, picture in self.found.items() if picture is None}
        dead = rejected
        while True:
            bounds = [self._bound(q, caps[q], dead) for q in range(len(self.queries))]
            drawn = {
                uid: [q for q in ids if self.rank(uid, q) < bounds[q]]
                for uid, ids in self.pairs.items()
            }
            losers = self._losers({u for u, q in drawn.items() if q} - rejected, set(taken))
            if rejected | losers == dead:
                return {uid: ids for uid, ids in drawn.items() if ids and uid not in dead}
            dead = rejected | losers

    def _bound(self, query: int, cap: int, dead: set[bytes]) -> tuple[float, bytes]:
        """Return the first (rank, uid) that a query does not draw."""
        living = [uid for uid, ids in self.pairs.items() if query in ids and uid not in dead]
        order = sorted(self.rank(uid, query) for uid in living)
        return order[cap] if len(order) > cap else (float("inf"), b"")

    def _losers(self, drawn: set[bytes], taken: set[str]) -> set[bytes]:
        seed = label_seed(SEED, "dedup")
        winners: dict[str | None, bytes] = {}
        for uid in sorted(drawn, key=lambda u: (xxhash.xxh64_intdigest(u, seed), u)):
            winners.setdefault(self.found[uid], uid)
        return {u for u in drawn if winners[self.found[u]] != u or self.found[u] in taken}


@st.composite
def worlds(drawn: st.DrawFn, *, most_pairs: int = 40) -> World:
    """Up to six queries over some pairs; some links dead, some pictures several times."""
    queries = [f"q{i}" for i in range(drawn(st.integers(1, 6)))]
    ids = st.lists(st.sampled_from(range(len(queries))), min_size=1, unique=True).map(sorted)
    lists = drawn(st.lists(ids, max_size=most_pairs))
    pairs = {xxhash.xxh3_128_digest(b"%d" % i): q for i, q in enumerate(lists)}
    pictures = st.one_of(st.none(), st.integers(0, 40).map(str))
    return World(queries, pairs, {uid: drawn(pictures) for uid in pairs})


def matched_table(world: World, uids: Iterable[bytes]) -> pa.Table:
    """Return matched rows of some pairs."""
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


def exchanged(drawing: Drawing, stage: Stage) -> Exchanged:
    """Do a stage that writes exchange files, and return these."""
    done = drawing.stages.do(stage)
    return Exchanged(*drawing.stages.exchanged(stage.name, done, drawing.buckets), total(done))


@dataclass
class Loop:
    """The loop of draws over a world, in a folder, by the program's own stages."""

    folder: Path
    world: World
    balance: BalanceSection
    uids: list[bytes]
    buckets: int = 2
    deferred: set[bytes] = field(default_factory=set)
    """Pairs that the first round has no answer for."""
    asked: list[set[bytes]] = field(default_factory=list)
    """What each round asked for."""
    phash: str | None = None
    """Perceptual hash of every picture."""

    @property
    def drawing(self) -> Drawing:
        """What finds the draws, nothing being known yet."""
        queries = str(self.folder / "queries.parquet")
        ids = pa.array(range(len(self.world.queries)), pa.int32())
        storage.write_parquet(queries, pa.table({"query_id": ids, "query": self.world.queries}))
        every = matched_table(self.world, self.uids)
        bucket = exchange.bucket_of(every["url"], self.buckets)
        matched: list[list[tuple[str, str]]] = []
        for number in range(self.buckets):
            url = str(self.folder / f"g0/matched/{number:05d}.parquet")
            storage.write_parquet(url, of_list(every.filter(pa.array(bucket == number)), "list"))
            matched.append([(url, f"{number}")])
        stages = Stages(Run(str(self.folder)), "g0")
        return Drawing(
            stages, QueryList(queries, "list", SEED), self.balance, self.buckets, matched
        )

    def run(self, drawing: Drawing | None = None) -> dict[bytes, list[int]]:
        """Return the kept pairs, with the queries that keep them."""
        drawing = drawing or self.drawing
        keeps = drawing.keep(drawing.loop(lambda n, asked: self._answers(drawing, n, asked)))
        tables = [
            storage.read_parquet(url)
            for url in drawing.stages.urls(keeps, ".parquet")
            if "/kept/" in url
        ]
        kept = pa.concat_tables(tables)
        return dict(zip(kept["uid"].to_pylist(), kept["kept_by"].to_pylist(), strict=True))

    def _answers(self, drawing: Drawing, number: int, asked: list[Marker]) -> Exchanged:
        selected = [storage.read_parquet(u) for u in drawing.stages.urls(asked, ".parquet")]
        rows = [row for table in selected for row in table.to_pylist()]
        self.asked.append({row["uid"] for row in rows})
        units = []
        for part in range(2):
            images = str(self.folder / f"g0/images/{number}-{part}.parquet")
            told = [self._answer(row, number) for row in rows[part::2]]
            storage.write_parquet(images, pa.Table.from_pylist(told, IMAGES))
            out = str(self.folder / f"g0/exchange/answers-{number}-{part}.arrow")
            job = AnswersJob([images], self.buckets, out)
            units.append(Unit(f"{part}", [f"{len(self.asked)}"], job))
        return exchanged(drawing, Stage(f"answers-{number}", run_answers, units))

    def _answer(self, row: dict[str, object], number: int) -> dict[str, object]:
        uid = row["uid"]
        assert isinstance(uid, bytes)
        digest = self.world.found[uid]
        outcome = "dead" if digest is None else "alive"
        outcome = "deferred" if number == 0 and uid in self.deferred else outcome
        return {**row, "key": "", "outcome": outcome, "sha256": digest, "phash": self.phash}
