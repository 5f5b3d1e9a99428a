"""Partial counts become sums, a hash bucket at a time, and are read back by their counts.

A merged table is sorted by length, then by count, most frequent first, then by gram, and is written
in small row groups. So whoever wants what occurs often reads the beginning of each length alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder import exchange, storage
from wit_builder.queries.grams import GRAMS
from wit_builder.units import Done

GROUP_ROWS = 1 << 17
"""Rows of a row group: what is read at a time."""
_LEAST_ROWS = 2_000_000


class SumJob(msgspec.Struct, frozen=True):
    """Sum up one bucket.

    Attributes:
        sources: exchange files of partial counts (``grams.GRAMS``).
        bucket: which bucket of them.
        out: the parquet file to publish.
    """

    sources: list[str]
    bucket: int
    out: str


def run_sum(job: SumJob) -> Done:
    """Publish the counts of one bucket.

    Raises:
        StorageError: a source is missing or damaged, or the file cannot be written.
    """
    summed = sums(exchange.gather([url], job.bucket) for url in job.sources)
    order = [("n", "ascending"), ("count", "descending"), ("gram", "ascending")]
    ordered = summed.sort_by(order)
    published = storage.write_parquet(job.out, ordered, GROUP_ROWS)
    words = summed.filter(pc.equal(summed["n"], 1))
    tokens = int(pc.sum(words["count"]).as_py() or 0)
    return Done([published], {"grams": summed.num_rows, "tokens": tokens})


def sums(parts: Iterable[pa.Table]) -> pa.Table:
    """Return the sums of several ``GRAMS``, in no particular but always the same order.

    Memory is some three times that of the result, however many parts there are.
    """
    waiting = [GRAMS.empty_table()]
    rows = known = 0
    for part in parts:
        waiting.append(part)
        rows += part.num_rows
        if rows > max(_LEAST_ROWS, known):
            waiting = [_sum(waiting)]
            known, rows = waiting[0].num_rows, 0
    return _sum(waiting)


def _sum(parts: list[pa.Table]) -> pa.Table:
    grouped = pa.concat_tables(parts).group_by(["n", "gram"], use_threads=False)
    summed = grouped.aggregate([("count", "sum")]).rename_columns(["n", "gram", "count"])
    return summed.select(GRAMS.names).cast(GRAMS)


def at_least(url: str, n: int, count: int) -> Iterator[pa.Table]:
    """Yield the grams of a length that occur so often at least, from one merged table.

    Only the row groups that may have some are read, one in memory at a time.

    Raises:
        StorageError: the file is not there, or damaged.
    """
    with storage.open_arrow(url) as opened:
        file = pq.ParquetFile(opened)
        for group in range(file.num_row_groups):
            found = file.metadata.row_group(group)
            sizes, counts = (found.column(i).statistics for i in (1, 2))
            if found.num_rows and sizes.min <= n <= sizes.max and counts.max >= count:
                table = file.read_row_group(group, use_threads=not storage.is_remote(url))
                if sizes.min < sizes.max or counts.min < count:
                    wanted = pc.greater_equal(table["count"], count)
                    table = table.filter(pc.and_(pc.equal(table["n"], n), wanted))
                yield table
