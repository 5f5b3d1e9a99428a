"""Regroup rows by key through storage, without a shuffle service.

A *map* unit writes one file: its rows sorted by bucket, one compressed Arrow IPC stream per
non-empty bucket, and a sidecar ``.index`` with the byte offsets (little-endian int64: the end of
the header, then the end of every bucket). The header is an empty stream, so that an empty bucket
still has a schema. A *reduce* unit reads its bucket's range from every file. That is the whole
shuffle: it survives crashes, needs no daemon, and works on object storage.

Every reduce unit makes two small reads of every file. When files times buckets exceed
``MAX_SLICES``, groups of files are merged first: a merge unit copies its files to local disk,
whole, and writes one file with their rows, bucket by bucket.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from wit_builder import storage
from wit_builder.errors import StorageError
from wit_builder.hashing import hash_column
from wit_builder.units import Done

MAX_SLICES = 1_000_000
"""Pairs of file and bucket above which files are merged: hours of small reads from a bucket."""

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
    # numpy sorts 16 bits by radix
    narrow = bucket.astype(np.uint16) if buckets <= 1 << 16 else bucket
    order = np.argsort(narrow, kind="stable")
    ordered = table.take(pa.array(order))
    starts = np.searchsorted(bucket[order], np.arange(buckets + 1))
    slices = (ordered.slice(start, end - start) for start, end in pairwise(starts))
    return _write(slices, table.schema, url, compression)


def _write(
    slices: Iterable[pa.Table], schema: pa.Schema, url: str, compression: str | None
) -> list[storage.Published]:
    """Publish one stream per non-empty slice, a slice per bucket."""
    done: list[storage.Published] = []
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with storage.publishing(url, done) as path, path.open("wb") as sink:
        _write_stream(sink, schema.empty_table(), options)
        ends = [sink.tell()]
        for part in slices:
            if part.num_rows:
                _write_stream(sink, part, options)
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
    ends = _ends(url)
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


def _ends(url: str) -> npt.NDArray[np.int64]:
    return np.frombuffer(storage.read_bytes(url + ".index"), "<i8")


class MergeJob(msgspec.Struct, frozen=True):
    """Some exchange files with the same buckets, to become one at ``out``."""

    sources: list[str]
    out: str
    compression: str | None = "zstd"


def run_merge(job: MergeJob) -> Done:
    """Publish one file with, bucket by bucket, the rows of the sources in their order.

    Local disk must hold remote sources for a while, memory one bucket of them.

    Raises:
        StorageError: a source is missing or damaged, or the file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        copies = [stack.enter_context(_nearby(url)) for url in job.sources]
        buckets = range(len(_ends(copies[0])) - 1)
        slices = (gather(copies, bucket) for bucket in buckets)
        schema = gather(copies[:1], 0).schema
        return Done(_write(slices, schema, job.out, job.compression), {"files": len(copies)})


@contextlib.contextmanager
def _nearby(url: str) -> Iterator[str]:
    """Give a place on local disk where the file and its index are."""
    if not storage.is_remote(url):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="wit-") as folder:
        copy = storage.join(folder, storage.name_of(url))
        for suffix in ("", ".index"):
            fs, path = storage.filesystem(url + suffix)
            with storage.translated(url + suffix, "read"):
                fs.get_file(path, copy + suffix)
        yield copy
