"""Page views of titles: their sums, and the exchange files in which they travel."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder import storage
from wit_builder.exchange import MergeJob, run_merge, scatter
from wit_builder.hashing import binary_buffers, hash_column

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

VIEWS = pa.schema(
    [pa.field("title", pa.string(), nullable=False), pa.field("views", pa.int64(), nullable=False)]
)
"""Page views of titles; those of one title may stand in several rows."""

WAVE_ROWS = 2_000_000
"""Titles summed in memory at once: some 600 MiB with what summing takes."""


def publish(tables: Iterable[pa.Table], buckets: int, out: str) -> list[storage.Published]:
    """Publish the sums of ``VIEWS`` as one exchange file, scattered by title.

    Rows of a bucket are in the order in which their titles first come, so the same tables give the
    same bytes. What is too much for memory waits on local disk; then a title may come again after
    some ``WAVE_ROWS`` others.
    """
    with tempfile.TemporaryDirectory(prefix="wit-") as folder:
        parts: list[str] = []
        for sums, last in _waves(tables):
            if last and not parts:
                return _scatter(sums, buckets, out)
            parts.append(storage.join(folder, f"{len(parts):05d}"))
            _scatter(sums, buckets, parts[-1])
        return run_merge(MergeJob(parts, out)).outputs


def summed(tables: list[pa.Table]) -> pa.Table:
    """Return the sums of ``VIEWS`` per title, in the order in which titles first come.

    Arrow's ``group_by`` does the same in some four times the time.
    """
    return _sums(tables).views


class _Sums(NamedTuple):
    """Sums of ``VIEWS``, and the hashes of their titles."""

    views: pa.Table
    hashes: U64


def _scatter(sums: _Sums, buckets: int, out: str) -> list[storage.Published]:
    bucket = (sums.hashes % np.uint64(buckets)).astype(np.int64)  # exchange.bucket_of, hashed once
    return scatter(sums.views, bucket, buckets, out)


def _waves(tables: Iterable[pa.Table]) -> Iterator[tuple[_Sums, bool]]:
    """Yield sums of at least ``WAVE_ROWS`` titles each, then one of the rest, which is the last."""
    held: list[pa.Table] = []
    loose = 0
    for table in tables:
        held.append(table)
        loose += table.num_rows
        if loose < WAVE_ROWS:
            continue
        sums = _sums(held)
        held, loose = [sums.views], 0
        if sums.views.num_rows >= WAVE_ROWS:
            held.clear()
            yield sums, False
    yield _sums(held), True


def _sums(tables: list[pa.Table]) -> _Sums:
    rows = pa.concat_tables([VIEWS.empty_table(), *tables])
    titles = rows["title"].combine_chunks()
    data, offsets = binary_buffers(titles)
    hashes = hash_column(titles)
    firsts, sums = np.empty(len(titles), np.int64), np.empty(len(titles), np.int64)
    known = _sum(hashes, data, offsets, rows["views"].to_numpy(), firsts, sums)
    first = firsts[:known]
    columns = [titles.take(pa.array(first)), pa.array(sums[:known].copy())]
    return _Sums(pa.table(columns, schema=VIEWS), hashes[first])


@numba.njit(cache=True, nogil=True)
def _sum(hashes: U64, data: U8, offsets: I64, views: I64, firsts: I64, sums: I64) -> int:
    """Fill in where each title first comes, and the sum of its views; return how many there are."""
    bits = 4
    while 1 << bits < 2 * hashes.size:
        bits += 1
    # the place is the hash's highest bits: its remainder is the same for all titles of a bucket
    shift, last = np.uint64(64 - bits), np.int64((1 << bits) - 1)
    held = np.zeros(1 << bits, np.int64)  # the title's number plus one; 0: nothing here
    known = 0
    for row in range(hashes.size):
        at = np.int64(hashes[row] >> shift)
        while True:
            title = held[at] - 1
            if title < 0:
                held[at] = known + 1
                firsts[known] = row
                sums[known] = views[row]
                known += 1
                break
            first = firsts[title]
            if hashes[first] == hashes[row] and _equal(data, offsets, first, row):
                sums[title] += views[row]
                break
            at = (at + 1) & last
    return known


@numba.njit(cache=True, nogil=True)
def _equal(data: U8, offsets: I64, a: int, b: int) -> bool:
    size = offsets[a + 1] - offsets[a]
    if offsets[b + 1] - offsets[b] != size:
        return False
    for i in range(size):  # noqa: SIM110 - numba inlines no generators
        if data[offsets[a] + i] != data[offsets[b] + i]:
            return False
    return True
