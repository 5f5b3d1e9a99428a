"""How many pairs each query has: of those that match, or of those that it keeps."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder import storage
from wit_builder.curate import balance
from wit_builder.curate.states import Bucket, QueryList, batches
from wit_builder.units import Done

I64 = npt.NDArray[np.int64]

TALLY = pa.schema([pa.field("query_id", pa.int32(), False), pa.field("pairs", pa.int64(), False)])
"""A number of pairs for each query; those with none have no row."""


class TallyJob(msgspec.Struct, frozen=True):
    """One bucket of matched pairs, whose queries are counted."""

    queries: QueryList
    bucket: Bucket
    out: str


def run_tally(job: TallyJob) -> Done:
    """Publish how many of the bucket's pairs contain each query.

    Counts ``pairs`` and ``matches``.

    Raises:
        StorageError: a table is missing, damaged, or of another query list, or the output cannot be
            written.
    """
    counts = np.zeros(len(job.queries.seeds()), np.int64)
    pairs = 0
    for batch in batches(job.bucket, job.queries, len(counts)):
        balance.tally(batch.pairs.queries, counts)
        pairs += len(batch.states)
    done = storage.write_parquet(job.out, tallied(counts))
    return Done([done], {"pairs": pairs, "matches": int(counts.sum())})


class SumJob(msgspec.Struct, frozen=True):
    """Tallies, to become one."""

    tallies: list[str]
    queries: str
    out: str


def run_sum(job: SumJob) -> Done:
    """Publish the sum of tallies; counts ``queries`` with a match, and ``matches``.

    Raises:
        StorageError: a table is missing or damaged, or the output cannot be written.
    """
    counts = read_tally(job.tallies, len(storage.read_parquet(job.queries, ["query_id"])))
    done = storage.write_parquet(job.out, tallied(counts))
    told = {"queries": int(np.count_nonzero(counts)), "matches": int(counts.sum())}
    return Done([done], told)


def read_tally(urls: Sequence[str], queries: int) -> I64:
    """Return the sum of tallies, int64 [Q].

    Raises:
        StorageError: a table is missing or damaged.
    """
    counts = np.zeros(queries, np.int64)
    for url in urls:
        table = storage.read_parquet(url)
        np.add.at(counts, table["query_id"].to_numpy(), table["pairs"].to_numpy())
    return counts


def tallied(counts: I64) -> pa.Table:
    """Return numbers of pairs, int64 [Q], as a table (``TALLY``)."""
    ids = np.flatnonzero(counts)
    return pa.table([pa.array(ids.astype(np.int32)), pa.array(counts[ids])], schema=TALLY)
