"""The rounds of a balanced draw: thresholds, what a round asks for, and what is kept at the end.

A pair is *unknown* until it was asked for, then *alive* or *dead* (rejected, or a picture that an
earlier pair has already). A round asks for the drawn pairs that are unknown, plus an over-draw to
make up for the losses seen so far. When no drawn pair is unknown any more the loop has converged,
and what is kept depends on neither over-draw, order nor workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.curate.balance import (
    I64,
    Mask,
    Matches,
    ids_where,
    in_draw_order,
    lowest,
    matches_of,
    query_seeds,
)
from wit_builder.curate.dedup import rejections
from wit_builder.hashing import U64, hash_column, label_seed
from wit_builder.sections import BalanceSection
from wit_builder.tables import IMAGES, KEPT, SELECTED, Outcome, Reason, conform
from wit_builder.units import Done

_UNKNOWN, _ALIVE, _DEAD = 0, 1, 2

THRESHOLDS = pa.schema(
    [
        pa.field("query_id", pa.int32(), nullable=False),
        pa.field("rank", pa.uint64(), nullable=False),
        pa.field("high", pa.uint64(), nullable=False),
        pa.field("low", pa.uint64(), nullable=False),
    ]
)
"""For queries that draw anything: rank and uid of the last pair of the draw."""


class Earlier(msgspec.Struct, frozen=True):
    """What earlier generations have: tables of kept pairs, and of all that was asked for."""

    kept: list[str] = []
    images: list[str] = []


class DrawJob(msgspec.Struct, frozen=True):
    """All matched pairs and what earlier rounds found out, to become thresholds."""

    queries: str
    matched: list[str]
    images: list[list[str]]
    """Image tables of the rounds before, in order."""
    seed: int
    balance: BalanceSection
    out: str
    earlier: Earlier = Earlier()


class SelectJob(msgspec.Struct, frozen=True):
    """One bucket of matched pairs, of which the drawn and unknown ones are asked for."""

    queries: str
    matched: str
    images: list[list[str]]
    thresholds: str
    seed: int
    out: str
    earlier: Earlier = Earlier()


class KeepJob(msgspec.Struct, frozen=True):
    """The outcomes of all rounds, to become the pairs that are kept."""

    queries: str
    images: list[list[str]]
    seed: int
    balance: BalanceSection
    out: str
    rejected: str
    earlier: Earlier = Earlier()


@dataclass(frozen=True)
class Outcomes:
    """What earlier rounds found out; a pair that was deferred is unknown still.

    Attributes:
        alive: pairs with a picture of their own.
        doubled: pairs whose picture an alive pair has already: as good as dead.
        dead: pairs that were rejected.
    """

    alive: pa.Table
    doubled: pa.Table
    dead: pa.Table

    @property
    def survival(self) -> float:
        """Share of the asked pairs that live; 1 before anything was asked."""
        lost = self.doubled.num_rows + self.dead.num_rows
        return (self.alive.num_rows + 1) / (self.alive.num_rows + lost + 1)

    def states(self, uids: pa.ChunkedArray) -> I64:
        """Return each pair's state."""
        dead = pa.concat_tables([self.doubled.select(["uid"]), self.dead.select(["uid"])])["uid"]
        states = np.zeros(len(uids), np.int64)
        states[_is_in(uids, dead)] = _DEAD
        states[_is_in(uids, self.alive["uid"])] = _ALIVE
        return states


def _is_in(uids: pa.ChunkedArray, known: pa.ChunkedArray) -> Mask:
    found = pc.is_in(uids.cast(pa.binary()), value_set=known.cast(pa.binary()))
    return found.combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_)


def outcomes(images: list[list[str]], seed: int, earlier: Earlier = Earlier()) -> Outcomes:  # noqa: B008 - frozen
    """Return what the rounds found out.

    Of the pairs with one picture (same sha256) the one of the earliest round is alive, among those
    the lowest in ``hash(seed, "dedup", uid)``; none if an earlier generation has the picture.

    Raises:
        StorageError: an image table is missing or damaged.
    """
    columns = ["uid", "url", "query_ids", "outcome", "sha256"]
    empty = pa.schema([IMAGES.field(c) for c in columns]).empty_table()
    tables = [empty.append_column("round", pa.array([], pa.int32()))]
    for number, urls in enumerate(images):
        for url in urls:
            table = storage.read_parquet(url, columns)
            table = table.cast(empty.schema)
            tables.append(table.append_column("round", pa.array([number] * len(table), pa.int32())))
    rows = pa.concat_tables(tables)
    place = hash_column(rows["uid"], label_seed(seed, "dedup"))
    rows = rows.append_column("place", pa.array(place, pa.uint64()))
    living = rows.filter(pc.equal(rows["outcome"], Outcome.ALIVE)).sort_by(
        [(key, "ascending") for key in ("sha256", "round", "place", "uid")]
    )
    digest = living["sha256"].combine_chunks()
    first = np.ones(len(digest), np.bool_)
    if len(digest) > 1:
        first[1:] = pc.not_equal(digest[1:], digest[:-1]).to_numpy(zero_copy_only=False)
    known = pc.is_in(living["sha256"], value_set=_pictures_of(earlier))
    first &= ~known.to_numpy(zero_copy_only=False).astype(np.bool_)
    return Outcomes(
        alive=living.filter(pa.array(first)),
        doubled=living.filter(pa.array(~first)),
        dead=rows.filter(pc.equal(rows["outcome"], Outcome.DEAD)),
    )


def _pictures_of(earlier: Earlier) -> pa.ChunkedArray:
    """Return the digests of the pictures that earlier generations keep or could keep."""
    found = [pa.array([], pa.string())]
    for url in earlier.images:
        table = storage.read_parquet(url, ["outcome", "sha256"])
        alive = table.filter(pc.equal(table["outcome"], Outcome.ALIVE))
        found += [chunk.cast(pa.string()) for chunk in alive["sha256"].chunks]
    return pa.chunked_array(found, pa.string())


def _caps(queries: int, balance: BalanceSection, earlier: Earlier) -> I64:
    """Return how many pairs each query may still keep: the cap less what it keeps already."""
    kept = np.zeros(queries, np.int64)
    for url in earlier.kept:
        lists = storage.read_parquet(url, ["kept_by"])["kept_by"].combine_chunks()
        kept += np.bincount(lists.flatten().to_numpy(), minlength=queries)
    return np.maximum(balance.cap_per_query - kept, 0)


def run_draw(job: DrawJob) -> Done:
    """Publish each query's threshold for this round.

    ``counts["unknown"]`` tells how many drawn pairs are unknown: none means converged.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    before = outcomes(job.images, job.seed, job.earlier)
    matches, states = _living(job, before)
    queries = len(storage.read_parquet(job.queries, ["query_id"]))
    cap = _caps(queries, job.balance, job.earlier)
    drawn = lowest(matches, cap)
    unknown = drawn & (states[matches.pair] == _UNKNOWN)
    size = _asked_for(cap, np.bincount(matches.query[unknown], minlength=queries), job, before)
    thresholds = _thresholds(matches, size)
    counts = {
        "drawn": int(np.unique(matches.pair[drawn]).size),
        "unknown": int(np.unique(matches.pair[unknown]).size),
        "alive": before.alive.num_rows,
    }
    return Done([storage.write_parquet(job.out, thresholds)], counts)


def _living(job: DrawJob, before: Outcomes) -> tuple[Matches, I64]:
    tables = [storage.read_parquet(url, ["uid", "query_ids"]) for url in job.matched]
    table = pa.concat_tables(tables)
    seeds = query_seeds(storage.read_parquet(job.queries, ["query"])["query"], job.seed)
    matches = matches_of(table["uid"], table["query_ids"], seeds)
    states = before.states(table["uid"])
    return matches.where(states[matches.pair] != _DEAD), states


def _asked_for(cap: I64, unknown: I64, job: DrawJob, before: Outcomes) -> I64:
    """Return each query's draw size with over-draw: enough unknown pairs to end with ``cap``."""
    factor = job.balance.over_draw if not job.images else 1 / before.survival
    return cap + np.array([math.ceil(u * (factor - 1)) for u in unknown], np.int64)


def _thresholds(matches: Matches, size: I64) -> pa.Table:
    order, place = in_draw_order(matches)
    query = matches.query[order]
    last = np.r_[query[1:] != query[:-1], True] if query.size else np.zeros(0, np.bool_)
    edge = order[(place == size[query] - 1) | (last & (place < size[query]))]
    columns = [matches.query[edge], matches.rank[edge], matches.high[edge], matches.low[edge]]
    return pa.table([pa.array(c) for c in columns], schema=THRESHOLDS)


def run_select(job: SelectJob) -> Done:
    """Publish the bucket's pairs that this round asks for, with the queries that draw them.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    table = storage.read_parquet(job.matched)
    seeds = query_seeds(storage.read_parquet(job.queries, ["query"])["query"], job.seed)
    matches = matches_of(table["uid"], table["query_ids"], seeds)
    mask = _within(matches, storage.read_parquet(job.thresholds), seeds.size)
    drawn_by = ids_where(matches, mask, table.num_rows)
    states = outcomes(job.images, job.seed, job.earlier).states(table["uid"])
    asked = (np.diff(drawn_by.offsets.to_numpy()) > 0) & (states == _UNKNOWN)
    selected = table.append_column("drawn_by", drawn_by).filter(pa.array(asked))
    done = storage.write_parquet(job.out, conform(selected, SELECTED))
    return Done([done], {"pairs": selected.num_rows})


def _within(matches: Matches, thresholds: pa.Table, queries: int) -> Mask:
    """Return which matches are at or below their query's threshold in (rank, uid)."""
    has = np.zeros(queries, np.bool_)
    limit: U64 = np.zeros((queries, 3), np.uint64)
    ids = thresholds["query_id"].to_numpy()
    has[ids] = True
    for column, name in enumerate(("rank", "high", "low")):
        limit[ids, column] = thresholds[name].to_numpy()
    rank, high, low = limit[matches.query].T
    tie = (matches.high < high) | ((matches.high == high) & (matches.low <= low))
    return has[matches.query] & ((matches.rank < rank) | ((matches.rank == rank) & tie))


def run_keep(job: KeepJob) -> Done:
    """Publish the kept pairs: the union over queries of their ``cap`` lowest-ranked alive pairs.

    Other alive pairs are spare.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    found = outcomes(job.images, job.seed, job.earlier)
    alive = found.alive.select(["uid", "query_ids"]).sort_by("uid")
    queries = storage.read_parquet(job.queries, ["query"])["query"]
    matches = matches_of(alive["uid"], alive["query_ids"], query_seeds(queries, job.seed))
    cap = _caps(len(queries), job.balance, job.earlier)
    kept_by = ids_where(matches, lowest(matches, cap), alive.num_rows)
    keep = pa.array(np.diff(kept_by.offsets.to_numpy()) > 0)
    kept = conform(alive.append_column("kept_by", kept_by).filter(keep), KEPT)
    doubled = rejections(found.doubled, "dedup", Reason.DUPLICATE_IMAGE)
    outputs = [storage.write_parquet(job.out, kept), storage.write_parquet(job.rejected, doubled)]
    counts = {
        "kept": kept.num_rows,
        "spare": alive.num_rows - kept.num_rows,
        f"rejected:{Reason.DUPLICATE_IMAGE}": doubled.num_rows,
    }
    return Done(outputs, counts)
