"""The bounds of a draw, found by units that hold no more than a batch of a bucket.

1. ``start``: which queries have more matches (see ``tally``) than their cap; the same for all
   rounds.
2. ``steps``: for these queries, the ranks of each bucket's living pairs are counted by
   step; ``narrow`` adds the buckets up and says in which step each bound is. Where it is in none,
   or in one with too many, these two are done again with other steps.
3. ``collect``: the matches in those steps go to the unit of their query; ``bound`` sorts them.

See ``balance`` for the steps themselves.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.curate import balance
from wit_builder.curate.balance import (
    ALIVE,
    DEAD,
    STEPS,
    UNKNOWN,
    Bounds,
    Collected,
    Search,
    slots,
)
from wit_builder.curate.pairs import any_where
from wit_builder.curate.states import Bucket, QueryList, batches
from wit_builder.curate.tally import read_tally
from wit_builder.hashing import U64
from wit_builder.storage import Published
from wit_builder.units import Done

I64 = npt.NDArray[np.int64]

_COUNTS = pa.list_(pa.field("element", pa.int64(), nullable=False), STEPS + 2)
COUNTS = pa.schema(
    [
        pa.field("query_id", pa.int32(), nullable=False),
        pa.field("living", _COUNTS, nullable=False),
        pa.field("unknown", _COUNTS, nullable=False),
    ]
)
"""Of one bucket: matches by step of rank, of pairs that are not dead, and of unknown ones."""

SEARCHES = pa.schema(
    [
        pa.field("query_id", pa.int32(), nullable=False),
        pa.field("cap", pa.int64(), nullable=False),
        pa.field("start", pa.uint64(), nullable=False),
        pa.field("shift", pa.int64(), nullable=False),
        pa.field("is_found", pa.bool_(), nullable=False),
        pa.field("below", pa.int64(), nullable=False),
        pa.field("unknown", pa.int64(), nullable=False),
        pa.field("living", pa.int64(), nullable=False),
    ]
)
"""Where the bounds of queries over their cap are looked for, or were found to be."""

COLLECTED = pa.schema(
    [
        pa.field("query_id", pa.int32(), nullable=False),
        pa.field("rank", pa.uint64(), nullable=False),
        pa.field("high", pa.uint64(), nullable=False),
        pa.field("low", pa.uint64(), nullable=False),
        pa.field("unknown", pa.bool_(), nullable=False),
    ]
)
"""Exchanged by query: matches in the step where the query's bound is."""

BOUNDS = pa.schema(
    [
        pa.field("query_id", pa.int32(), nullable=False),
        pa.field("rank", pa.uint64(), nullable=False),
        pa.field("high", pa.uint64(), nullable=False),
        pa.field("low", pa.uint64(), nullable=False),
        pa.field("ask", pa.uint64(), nullable=False),
    ]
)
"""See ``balance.Bounds``; queries that draw all have no row."""


def read_bounds(url: str, queries: int) -> Bounds:
    """Return the bounds of a draw.

    Raises:
        StorageError: the table is missing or damaged.
    """
    table = storage.read_parquet(url)
    slot = slots(table["query_id"].to_numpy(), queries)
    return Bounds(slot, *(table[name].to_numpy() for name in ("rank", "high", "low", "ask")))


class CapsJob(msgspec.Struct, frozen=True):
    """What says which queries have more matches than they may draw.

    Attributes:
        tally: how many matched pairs contain each query.
        kept: tallies of what earlier generations keep.
        queries: the query list.
        cap: pairs per query.
        out: place of the table.
    """

    tally: str
    kept: list[str]
    queries: str
    cap: int
    out: str

    def limited(self) -> tuple[npt.NDArray[np.int32], I64, I64]:
        """Return the queries with more matches than their cap, their caps, and their matches."""
        queries = len(storage.read_parquet(self.queries, ["query_id"]))
        matched = read_tally([self.tally], queries)
        caps = np.maximum(self.cap - read_tally(self.kept, queries), 0)
        limited = np.flatnonzero(matched > caps)
        return limited.astype(np.int32), caps[limited], matched[limited]


def run_start(job: CapsJob) -> Done:
    """Publish the first searches; counts ``queries:limited``.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    limited, caps, matched = job.limited()
    search = balance.first_search(caps, matched)
    nothing = np.zeros(len(limited), np.int64)
    columns = [limited, caps, *search, caps == 0, nothing, nothing, matched]
    table = pa.table([pa.array(c) for c in columns], schema=SEARCHES)
    return Done([storage.write_parquet(job.out, table)], {"queries:limited": len(limited)})


class StepsJob(msgspec.Struct, frozen=True):
    """One bucket, whose ranks are counted by step.

    Attributes:
        searches: of all queries over their cap.
        final: whether pairs that are unknown are as good as dead.
    """

    queries: QueryList
    bucket: Bucket
    searches: str
    final: bool
    out: str


def run_steps(job: StepsJob) -> Done:
    """Publish the bucket's matches by step of rank.

    Counts ``pairs:unlimited``: unknown pairs that a query without a limit draws.

    Raises:
        StorageError: a table is missing, damaged, or of another query list, or the output cannot be
            written.
    """
    seeds = job.queries.seeds()
    table, search = _read_searches(job.searches)
    slot = slots(table["query_id"].to_numpy(), len(seeds))
    living, unknown = np.zeros((2, len(table), STEPS + 2), np.int64)
    unlimited = 0
    for batch in batches(job.bucket, job.queries, len(seeds)):
        there = batch.in_state(ALIVE) if job.final else ~batch.in_state(DEAD)
        matches = balance.ranked(batch.pairs, there, seeds, slot)
        balance.count_ranks(matches, search, living)
        if not job.final:
            balance.count_ranks(matches, search, unknown, batch.in_state(UNKNOWN))
            free = any_where(batch.pairs, slot[batch.pairs.queries] < 0)
            unlimited += int(np.count_nonzero(free & batch.in_state(UNKNOWN)))
    some = living.any(axis=1)
    columns = [table["query_id"].filter(pa.array(some)), _rows(living[some]), _rows(unknown[some])]
    done = storage.write_parquet(job.out, pa.table(columns, schema=COUNTS))
    return Done([done], {"pairs:unlimited": unlimited})


def _read_searches(url: str) -> tuple[pa.Table, Search]:
    table = storage.read_parquet(url)
    return table, Search(table["start"].to_numpy(), table["shift"].to_numpy())


def _rows(counts: I64) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(counts.ravel(), type=_COUNTS)


class NarrowJob(msgspec.Struct, frozen=True):
    """What all buckets counted, to say where each bound is."""

    searches: str
    counts: list[str]
    out: str


def run_narrow(job: NarrowJob) -> Done:
    """Publish in which step each bound is; queries that have no more than their cap leave.

    Counts ``queries:open``: those whose bound must be looked for further.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    table, search = _read_searches(job.searches)
    living, unknown = np.zeros((2, len(table), STEPS + 2), np.int64)
    row = slots(table["query_id"].to_numpy(), _length(table["query_id"]))
    for url in job.counts:
        counted = storage.read_parquet(url)
        rows = row[counted["query_id"].to_numpy()]
        for column, total in (("living", living), ("unknown", unknown)):
            flat = counted[column].combine_chunks().flatten().to_numpy()
            total[rows] += flat.reshape(-1, STEPS + 2)
    caps = table["cap"].to_numpy()
    over = living.sum(axis=1) > caps
    left = int(unknown[~over].sum())
    caps, living, unknown = caps[over], living[over], unknown[over]
    found = balance.narrow(Search(search.start[over], search.shift[over]), caps, living)
    columns = [
        table["query_id"].filter(pa.array(over)), caps, found.search.start, found.search.shift,
        found.is_found | (caps == 0), found.before(living), found.before(unknown),
        living.sum(axis=1),
    ]  # fmt: skip
    done = storage.write_parquet(job.out, pa.table(columns, schema=SEARCHES))
    is_open = ~found.is_found & (caps > 0)
    return Done([done], {"queries:open": int(np.count_nonzero(is_open)), "pairs:unlimited": left})


def _length(ids: pa.ChunkedArray) -> int:
    return int(ids[-1].as_py()) + 1 if len(ids) else 0


class CollectJob(msgspec.Struct, frozen=True):
    """One bucket, of which the matches in the steps that hold the bounds go to their queries."""

    queries: QueryList
    bucket: Bucket
    searches: str
    final: bool
    buckets: int
    out: str


def run_collect(job: CollectJob) -> Done:
    """Publish those matches by query; counts ``matches``.

    Raises:
        StorageError: a table is missing, damaged, or of another query list, or the output cannot be
            written.
    """
    seeds = job.queries.seeds()
    table, _ = _read_searches(job.searches)
    table = table.filter(pc.greater(table["cap"], 0))
    ids = table["query_id"].to_numpy()
    search = Search(table["start"].to_numpy(), table["shift"].to_numpy())
    slot = slots(ids, len(seeds))
    published: list[Published] = []
    matches = 0
    with exchange.scattering(job.out, COLLECTED, job.buckets, published) as scatterer:
        for batch in batches(job.bucket, job.queries, len(seeds)):
            there = batch.in_state(ALIVE) if job.final else ~batch.in_state(DEAD)
            ranked = balance.ranked(batch.pairs, there, seeds, slot)
            found = balance.collect(ranked, search, batch.pairs, batch.in_state(UNKNOWN))
            rows = pa.table([ids[found.slot], *found[1:]], schema=COLLECTED)
            scatterer.add(rows, ids[found.slot] % job.buckets)
            matches += len(rows)
    return Done(published, {"matches": matches})


class BoundJob(msgspec.Struct, frozen=True, kw_only=True):
    """The queries of one bucket, whose bounds are among what was collected.

    Attributes:
        asked_per_wanted: pairs to ask for per pair that is wanted, at least 1.
    """

    collected: list[str]
    searches: str
    bucket: int
    buckets: int
    asked_per_wanted: float
    out: str


def run_bound(job: BoundJob) -> Done:
    """Publish the bounds of the queries; counts ``matches:unknown`` in their draws.

    Raises:
        StorageError: a file is missing or damaged, or the output cannot be written.
    """
    searches, _ = _read_searches(job.searches)
    mine = searches["query_id"].to_numpy() % job.buckets == job.bucket
    searches = searches.filter(pa.array(mine))
    full = searches.filter(pc.equal(searches["cap"], 0))
    searches = searches.filter(pc.greater(searches["cap"], 0))
    caps, below = searches["cap"].to_numpy(), searches["below"].to_numpy()
    rows = exchange.gather(job.collected, job.bucket)
    ids = searches["query_id"].to_numpy()
    slot = slots(ids, _length(searches["query_id"]))[rows["query_id"].to_numpy()]
    rank, high, low = (rows[name].to_numpy() for name in ("rank", "high", "low"))
    found = Collected(slot, rank, high, low, rows["unknown"].to_numpy().astype(np.bool_))
    at, inside = balance.bounds_in(found, below, caps)
    unknown = searches["unknown"].to_numpy() + inside
    ask = _ask(rank[at], unknown, searches["living"].to_numpy(), job.asked_per_wanted)
    columns = [pa.array(c) for c in (ids, rank[at], high[at], low[at], ask)]
    nothing = pa.array(np.zeros(len(full), np.uint64))
    bounds = pa.concat_tables([
        pa.table(columns, schema=BOUNDS),
        pa.table([full["query_id"], *[nothing] * 4], schema=BOUNDS),
    ]).sort_by("query_id")  # fmt: skip
    return Done([storage.write_parquet(job.out, bounds)], {"matches:unknown": int(unknown.sum())})


class JoinJob(msgspec.Struct, frozen=True):
    """Bounds of all queries' buckets, to become one table."""

    bounds: list[str]
    out: str


def run_join(job: JoinJob) -> Done:
    """Publish the bounds of all queries: 36 bytes for each that has one.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    table = pa.concat_tables(storage.read_parquet(url) for url in job.bounds).sort_by("query_id")
    return Done([storage.write_parquet(job.out, table)], {"queries:limited": len(table)})


def _ask(rank: U64, unknown: I64, living: I64, asked_per_wanted: float) -> U64:
    """Return the ranks below which to ask, so that enough unknown pairs are asked for.

    Ranks are uniform: so many more ranks hold so many more pairs.
    """
    more = np.ceil(unknown * (asked_per_wanted - 1)) / np.maximum(living, 1) * 2.0**64
    room = np.iinfo(np.uint64).max - rank
    return rank + np.minimum(more, room.astype(np.float64) * (1 - 2.0**-52)).astype(np.uint64)


def run_shares(job: CapsJob) -> Done:
    """Publish bounds of ``cap / matches`` of all ranks; counts ``queries:limited``.

    Each (pair, query) is drawn with that chance (arXiv 2309.16671, algorithm 1).

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    limited, caps, matched = job.limited()
    # caps < matches: the quotient, rounded to 53 bits, stays below 1
    rank = (caps / matched * 2.0**64).astype(np.uint64)
    nothing = np.zeros(len(limited), np.uint64)
    columns = [limited, rank, nothing, nothing, nothing]
    table = pa.table([pa.array(c) for c in columns], schema=BOUNDS)
    return Done([storage.write_parquet(job.out, table)], {"queries:limited": len(limited)})
