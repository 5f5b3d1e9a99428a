"""Regroup rows by key through storage, without a shuffle service.

A *map* unit writes one file: its rows sorted by bucket, one compressed Arrow IPC stream per
non-empty bucket, and a sidecar ``.index`` with the byte offsets (little-endian int64: the end of
the header, then the end of every bucket). The header is an empty stream, so that an empty bucket
still has a schema. A *reduce* unit reads its bucket's range from every file. That is the whole
shuffle: it survives crashes, needs no daemon, and works on object storage. It takes two reads for
every pair of file and bucket, one after the other: choose buckets so that these stay below a
million.
"""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from wit_builder import storage
from wit_builder.errors import StorageError
from wit_builder.hashing import hash_column

_BATCH_ROWS = 65_536


def bucket_of(keys: pa.Array | pa.ChunkedArray, buckets: int) -> npt.NDArray[np.int64]:
    """Return ``xxh64(key) mod buckets`` for every key of a string or binary column."""
    return (hash_column(keys) % np.uint64(buckets)).astype(np.int64)


def scatter(
    table: pa.Table,
    bucket: npt.NDArray[np.integer],
    buckets: int,
    url: str,
    *,
    compression: str | None = "zstd",
) -> list[storage.Published]:
    """Publish a table's rows grouped by bucket; rows of a bucket keep their order.

    Args:
        table: any rows.
        bucket: the bucket of each row, in ``[0, buckets)``.
        buckets: how many there are.
        url: the file's place; ``url + ".index"`` is its sidecar, published last.
        compression: IPC codec, or None for what is compressed already (pictures).

    Raises:
        StorageError: the file cannot be written.
    """
    order = np.argsort(bucket, kind="stable")
    ordered = table.take(pa.array(order))
    starts = np.searchsorted(bucket[order], np.arange(buckets + 1))
    done: list[storage.Published] = []
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with storage.publishing(url, done) as path, path.open("wb") as sink:
        _write_stream(sink, table.schema.empty_table(), options)
        ends = [sink.tell()]
        for start, end in pairwise(starts):
            if end > start:
                _write_stream(sink, ordered.slice(start, end - start), options)
            ends.append(sink.tell())
    done.append(storage.publish_bytes(url + ".index", np.array(ends, "<i8").tobytes()))
    return done


def _write_stream(
    sink: io.BufferedWriter, table: pa.Table, options: pa.ipc.IpcWriteOptions
) -> None:
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=_BATCH_ROWS)


def gather(urls: list[str], bucket: int) -> pa.Table:
    """Return the rows of one bucket of several files, in the order of the files.

    Raises:
        StorageError: a file or its index is missing or damaged.
    """
    return pa.concat_tables(_read_slice(url, bucket) for url in urls)


def _read_slice(url: str, bucket: int) -> pa.Table:
    ends = np.frombuffer(storage.read_bytes(url + ".index"), "<i8")
    if not 0 <= bucket < len(ends) - 1:
        raise StorageError(
            f"the exchange file has {len(ends) - 1} buckets, not a bucket {bucket}",
            where=url,
            fix="remove the file and its unit's marker, then start again",
        )
    start, end = ends[bucket], ends[bucket + 1]
    if start == end:  # an empty bucket: the header tells the schema
        start, end = 0, ends[0]
    try:
        return pa.ipc.open_stream(storage.read_bytes(url, int(start), int(end))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(
            f"bucket {bucket} of the exchange file is damaged",
            where=f"{url} byte {start}",
            fix="remove the file and start again: its unit will be done anew",
        ) from error
