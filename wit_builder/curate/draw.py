"""What a round asks for, and what is kept at the end.

A pair is *unknown* until it was asked for, then *alive* or *dead* (rejected, or a picture that
another drawn pair has). A round asks for the drawn pairs that are unknown, and for some ahead of
need, to make up for the losses seen so far. When no drawn pair is unknown any more the loop has
converged, and what is kept depends on neither over-draw, order nor workers.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.curate import balance
from wit_builder.curate.balance import ALIVE, UNKNOWN, drawn
from wit_builder.curate.bounds import read_bounds
from wit_builder.curate.pairs import any_where, ids_where
from wit_builder.curate.states import Bucket, QueryList, batches
from wit_builder.curate.tally import read_tally, tallied
from wit_builder.storage import Published
from wit_builder.tables import KEPT, MATCHED, REJECTIONS, SELECTED, Reason, conform
from wit_builder.units import Done

_REST = [name for name in MATCHED.names if name not in {"uid", "query_ids"}]


class SelectJob(msgspec.Struct, frozen=True):
    """One bucket of matched pairs, of which the drawn and unknown ones are asked for."""

    queries: QueryList
    bucket: Bucket
    bounds: str
    out: str


def run_select(job: SelectJob) -> Done:
    """Publish the bucket's pairs that this round asks for, with the queries that draw them.

    Counts ``pairs``.

    Raises:
        StorageError: a table is missing, damaged, or of another query list, or the output cannot be
            written.
    """
    seeds = job.queries.seeds()
    bounds = read_bounds(job.bounds, len(seeds))
    published: list[Published] = []
    count = 0
    with storage.parquet_writer(job.out, SELECTED, published) as writer:
        for batch in batches(job.bucket, job.queries, len(seeds), _REST):
            mask = drawn(batch.pairs, batch.in_state(UNKNOWN), seeds, bounds, ahead=True)
            rows = pa.Table.from_batches([batch.rows])
            rows = rows.append_column("drawn_by", ids_where(batch.pairs, mask))
            rows = rows.filter(pa.array(any_where(batch.pairs, mask)))
            if len(rows):
                writer.write_table(conform(rows, SELECTED))
            count += len(rows)
    return Done(published, {"pairs": count})


class KeepJob(msgspec.Struct, frozen=True):
    """One bucket, of which the drawn and alive pairs are kept.

    Attributes:
        kept: place of the table of kept pairs (``tables.KEPT``).
        tally: place of the tally of pairs by query that keeps them.
        rejected: place of the rejections of pairs whose picture another has.
    """

    queries: QueryList
    bucket: Bucket
    bounds: str
    kept: str
    tally: str
    rejected: str


def run_keep(job: KeepJob) -> Done:
    """Publish the bucket's kept pairs: of every query, its lowest-ranked alive ones.

    Counts ``kept``, ``spare`` (alive, but in no draw) and ``rejected:REASON``.

    Raises:
        StorageError: a table is missing, damaged, or of another query list, or the output cannot be
            written.
    """
    seeds = job.queries.seeds()
    bounds = read_bounds(job.bounds, len(seeds))
    losers = exchange.gather(job.bucket.losers, job.bucket.number) if job.bucket.losers else None
    published: list[Published] = []
    dropped = [REJECTIONS.empty_table()]
    keeps = np.zeros(len(seeds), np.int64)
    counts = {"kept": 0, "spare": 0}
    with storage.parquet_writer(job.kept, KEPT, published) as writer:
        for batch in batches(job.bucket, job.queries, len(seeds), ["url"]):
            mask = drawn(batch.pairs, batch.in_state(ALIVE), seeds, bounds)
            keep = any_where(batch.pairs, mask)
            rows = pa.Table.from_batches([batch.rows])
            kept_by = ids_where(batch.pairs, mask)
            kept = rows.append_column("kept_by", kept_by).filter(pa.array(keep))
            if len(kept):
                writer.write_table(conform(kept, KEPT))
            balance.tally(batch.pairs.queries[mask], keeps)
            counts["kept"] += len(kept)
            counts["spare"] += int(np.count_nonzero(batch.in_state(ALIVE) & ~keep))
            if losers is not None:
                dropped.append(_dropped(rows, losers))
    rejected = pa.concat_tables(dropped)
    for reason in rejected["reason"].value_counts():
        counts[f"rejected:{reason['values']}"] = reason["counts"].as_py()
    published.append(storage.write_parquet(job.tally, tallied(keeps)))
    published.append(storage.write_parquet(job.rejected, rejected))
    return Done(published, counts)


def _dropped(rows: pa.Table, losers: pa.Table) -> pa.Table:
    """Return the rejections of those of the rows that lost their picture to another."""
    at = pc.index_in(rows["uid"].cast(pa.binary()), losers["uid"].cast(pa.binary()))
    lost = rows.filter(pc.is_valid(at))
    same = losers["same"].take(at.drop_null())
    reason = pc.if_else(same, Reason.DUPLICATE_IMAGE, Reason.SIMILAR_IMAGE)
    nothing = pa.nulls(len(lost), pa.string())
    columns = [lost["uid"], pa.repeat("dedup", len(lost)), reason, nothing, lost["url"]]
    return pa.table(columns, schema=REJECTIONS)


class JoinJob(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket of what several generations keep, to become one.

    Attributes:
        kept: tables of kept pairs (``tables.KEPT``).
        tallies: tallies of pairs by query that keeps them.
        queries: the query list.
        out: place of the joined table.
        tally: place of the joined tally.
    """

    kept: list[str]
    tallies: list[str]
    queries: str
    out: str
    tally: str


def run_join(job: JoinJob) -> Done:
    """Publish the kept pairs of all, in the order of their uids; counts ``kept``.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    kept = pa.concat_tables(storage.read_parquet(url) for url in job.kept).sort_by("uid")
    queries = len(storage.read_parquet(job.queries, ["query_id"]))
    outputs = [
        storage.write_parquet(job.out, kept),
        storage.write_parquet(job.tally, tallied(read_tally(job.tallies, queries))),
    ]
    return Done(outputs, {"kept": len(kept)})


class CountJob(msgspec.Struct, frozen=True):
    """One bucket of matched pairs, of which the drawn and unknown ones are counted."""

    queries: QueryList
    bucket: Bucket
    bounds: str


def run_count(job: CountJob) -> Done:
    """Publish nothing; count the unknown ``pairs`` that any query draws.

    Raises:
        StorageError: a table is missing, damaged, or of another query list.
    """
    seeds = job.queries.seeds()
    bounds = read_bounds(job.bounds, len(seeds))
    pairs = 0
    for batch in batches(job.bucket, job.queries, len(seeds)):
        mask = drawn(batch.pairs, batch.in_state(UNKNOWN), seeds, bounds)
        pairs += int(np.count_nonzero(any_where(batch.pairs, mask)))
    return Done([], {"pairs": pairs})
