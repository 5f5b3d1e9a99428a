"""Reduce: how many pairs each shard gets, and the shards; a pair that comes again is left out."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.pack import shard
from wit_builder.pack.shard import ShardJob
from wit_builder.tables import Reason
from wit_builder.units import Done

COUNTS = pa.schema([pa.field("samples", pa.int64(), nullable=False)])
"""A row for every shard, in their order."""

SHARDS_AT_ONCE = 64
"""Shards that a unit counts."""


class CountJob(msgspec.Struct, frozen=True):
    """Some shards, to be counted.

    Attributes:
        sources: places of the exchange files of uids.
        first: number of the first of the shards.
        shards: how many.
        out: place of the table (``COUNTS``).
    """

    sources: list[str]
    first: int
    shards: int
    out: str


def run_count(job: CountJob) -> Done:
    """Publish how many different pairs each shard gets; count ``pairs``, and those that come again.

    Raises:
        StorageError: something cannot be read or written.
    """
    samples, arrived = [], 0
    for number in range(job.first, job.first + job.shards):
        uids = exchange.gather(job.sources, number)["uid"]
        arrived += len(uids)
        samples.append(len(uids.unique()))
    table = pa.table([samples], schema=COUNTS)
    counts = {"pairs": sum(samples), f"rejected:{Reason.DUPLICATE_URL}": arrived - sum(samples)}
    return Done([storage.write_parquet(job.out, table)], counts)


def run_pack(job: ShardJob) -> Done:
    """Publish a shard and its samples table, in the order of (place, uid); no queries are known.

    Of samples with the same URL and text the first is packed: by shard of the download, then as
    they stand there.

    Raises:
        ShardFormatError: not the pairs that were counted.
        StorageError: something cannot be read or written.
    """
    rows = exchange.gather(job.sources, job.bucket)
    order = shard.in_order(rows)
    order = order[_first_of_uid(rows["uid"].take(pa.array(order)))]
    shard.refuse_unplanned(rows["uid"].take(pa.array(order)), job)
    return shard.written(rows, order, pa.array([], pa.string()), job)


def _first_of_uid(uids: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have another uid than the row before."""
    column = uids.combine_chunks()
    first = np.ones(len(column), np.bool_)
    if len(column) > 1:
        first[1:] = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return first
