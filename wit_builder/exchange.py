"""Regroup rows by key through storage, without a shuffle service.

A *map* unit writes one file: its rows sorted by bucket, one compressed Arrow IPC stream per
non-empty bucket, and a sidecar ``.index`` with the byte offsets (little-endian int64: the end of
the header, then the end of every bucket). The header is an empty stream, so that an empty bucket
still has a schema. A *reduce* unit reads its bucket's range from every file. That is the whole
shuffle: it survives crashes, needs no daemon, and works on object storage.

A map unit that cannot hold its rows adds them piece by piece to a ``Scatterer``, which writes what
it holds to local disk whenever that is too much, and puts the pieces together at the end. The file
has the same bytes as if all had been held.

Every reduce unit makes two small reads of every file: of its two offsets, and of its rows. When
files times buckets exceed ``MAX_SLICES``, groups of files are merged first: a merge unit copies its
files to local disk, whole, and writes one file with their rows, bucket by bucket. Packing, whose
rows are pictures, goes by coarse buckets instead (``pack.plan.Ways``).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from wit_builder import ahead, storage
from wit_builder.errors import StorageError
from wit_builder.hashing import hash_column
from wit_builder.scatterer import PICTURES, ROWS, Kind, Scatterer, batched, write, write_stream
from wit_builder.units import Done

__all__ = [
    "HELD_BYTES", "MAX_SLICES", "PICTURES", "ROWS", "Kind", "MergeJob", "Scatterer", "Stream",
    "bucket_of", "gather", "reindex", "rewrite", "run_merge", "scatter", "scattering", "schema_of",
    "slices", "streams",
]  # fmt: skip

MAX_SLICES = 1_000_000
"""Pairs of file and bucket above which files are merged: hours of small reads from a bucket."""

HELD_BYTES = 64 << 20
"""Arrow bytes that a ``Scatterer`` holds before it writes them to local disk."""

_READERS = 16
"""Slices of remote files that are read at once."""


def bucket_of(keys: pa.Array | pa.ChunkedArray, buckets: int) -> npt.NDArray[np.int64]:
    """Return ``xxh64(key) mod buckets`` for every key of a string or binary column."""
    return (hash_column(keys) % np.uint64(buckets)).astype(np.int64)


def scatter(
    table: pa.Table,
    bucket: npt.NDArray[np.integer],
    buckets: int,
    url: str,
    *,
    kind: Kind = ROWS,
) -> list[storage.Published]:
    """Publish a table's rows grouped by bucket; rows of a bucket keep their order.

    Args:
        table: any rows.
        bucket: the bucket of each row, in ``[0, buckets)``.
        buckets: how many there are.
        url: the file's place; ``url + ".index"`` is its sidecar, published last.
        kind: what the rows are like.

    Raises:
        StorageError: the file cannot be written.
    """
    done: list[storage.Published] = []
    with scattering(
        url, table.schema, buckets, done, kind=kind, held_bytes=table.nbytes
    ) as scatterer:
        scatterer.add(table, bucket)
    return done


@contextlib.contextmanager
def scattering(
    url: str,
    schema: pa.Schema,
    buckets: int,
    published: list[storage.Published],
    *,
    kind: Kind = ROWS,
    held_bytes: int = HELD_BYTES,
) -> Iterator[Scatterer]:
    """Give a ``Scatterer``; on a clean exit publish what was added to it, as ``scatter`` does.

    Args:
        url: the file's place; ``url + ".index"`` is its sidecar, published last.
        schema: of the tables to come.
        buckets: how many there are.
        published: gets the two files.
        kind: what the rows are like.
        held_bytes: Arrow bytes held before they go to local disk.

    Raises:
        StorageError: the file cannot be written, or local disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="wit-") as folder:
        scatterer = Scatterer(schema, buckets, folder, held_bytes, kind)
        yield scatterer
        _publish(scatterer.write, url, published)


def _publish(write: Callable[[Path], bytes], url: str, published: list[storage.Published]) -> None:
    """Publish the file and then its index."""
    with storage.publishing(url, published) as path:
        ends = write(path)
    published.append(storage.publish_bytes(url + ".index", ends))


def gather(urls: list[str], bucket: int) -> pa.Table:
    """Return the rows of one bucket of several files, in the order of the files.

    Raises:
        StorageError: a file or its index is missing or damaged.
    """
    return pa.concat_tables([*slices(urls, bucket)] or [_header(url) for url in urls[:1]])


def slices(urls: list[str], bucket: int) -> Iterator[pa.Table]:
    """Yield the rows that each file has in one bucket, in the order of the files; nothing of none.

    Of remote files, ``_READERS`` are read at once, and as many slices are in memory.

    Raises:
        StorageError: a file or its index is missing or damaged.
    """
    read = partial(_slice, bucket=bucket)
    found = ahead.mapped(read, urls, _READERS) if _are_remote(urls) else map(read, urls)
    return (table for table in found if table is not None)


def _are_remote(urls: list[str]) -> bool:
    return any(storage.is_remote(url) for url in urls)


def _slice(url: str, bucket: int) -> pa.Table | None:
    """Return a bucket's rows, or None; of the index, only the bucket's part is read."""
    assert bucket >= 0
    data = storage.read_bytes(f"{url}.index", 8 * bucket, 8 * bucket + 16)
    start, end = np.frombuffer(data, "<i8").tolist() if len(data) == 16 else (0, -1)
    if not 0 <= start <= end:
        raise _no_bucket(url, bucket)
    return None if start == end else _rows(url, bucket, start, end)


def _no_bucket(url: str, bucket: int) -> StorageError:
    return StorageError(
        f"the exchange file has {len(_ends(url)) - 1} buckets, not a bucket {bucket}",
        where=url,
        fix="remove the file and its unit's marker, then start again",
    )


def schema_of(url: str) -> pa.Schema:
    """Return the schema of a file's rows.

    Raises:
        StorageError: it or its index is missing or damaged.
    """
    return _header(url).schema


def _header(url: str) -> pa.Table:
    return _rows(url, 0, 0, int(_ends(url)[0]))


def _rows(url: str, bucket: int, start: int, end: int) -> pa.Table:
    try:
        return pa.ipc.open_stream(storage.read_bytes(url, start, end)).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(
            f"bucket {bucket} of the exchange file is damaged",
            where=f"{url} byte {start}",
            fix="remove the file and start again: its unit will be done anew",
        ) from error


def _ends(url: str) -> npt.NDArray[np.int64]:
    """Return the offsets that a file's index has."""
    data = storage.read_bytes(url + ".index")
    ends = np.frombuffer(data[: len(data) // 8 * 8], "<i8")
    if len(data) % 8 or len(ends) < 2 or ends[0] < 0 or (np.diff(ends) < 0).any():
        raise StorageError(
            "the index of the exchange file is damaged",
            where=url + ".index",
            fix="remove the file and start again: its unit will be done anew",
        )
    return ends


class Stream(NamedTuple):
    """The rows of a bucket as they stand in a file, and where they end; the header comes first."""

    table: pa.Table
    end: int


def streams(url: str, columns: list[str] | None = None) -> Iterator[Stream]:
    """Yield the header of an exchange file, and then its buckets that have a stream, in order.

    The index is not read.

    Args:
        url: the file.
        columns: to read; those that the file does not have are left out. None: all.

    Raises:
        StorageError: it is missing or damaged.
    """
    with storage.open_arrow(url) as file:
        header = pa.ipc.open_stream(file)
        yield Stream(header.read_all(), file.tell())
        wanted = header.schema.names if columns is None else columns
        fields = [i for i, name in enumerate(header.schema.names) if name in wanted] or [0]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        while file.tell() < file.size():
            yield Stream(pa.ipc.open_stream(file, options=options).read_all(), file.tell())


def rewrite(url: str, change: Callable[[pa.Table], pa.Table], kind: Kind) -> None:
    """Replace every bucket's rows by what ``change`` returns of them: fewer rows, or none.

    A bucket that has a stream keeps one, though it may be empty. So should the process end between
    file and index, ``reindex`` can mend that.

    Raises:
        StorageError: the file is missing or damaged, or cannot be written.
    """
    reindex(url)
    ends = list[int]()
    with storage.publish(url) as path, path.open("wb") as sink:
        for table, _ in streams(url):
            batches = batched([change(table)], kind.batch_rows)
            write_stream(sink, table.schema, batches, kind.options)
            ends.append(sink.tell())
    _publish_ends(url, ends)


def reindex(url: str) -> None:
    """Publish the index anew if it is that of the file before a ``rewrite`` that was cut short.

    Raises:
        StorageError: the file or its index is missing or damaged.
    """
    ends = [found.end for found in streams(url, [])]
    if _distinct(_ends(url)) != ends:
        _publish_ends(url, ends)


def _distinct(ends: npt.NDArray[np.int64]) -> list[int]:
    """Return where the streams of a file end: buckets without one end where those before do."""
    first = np.ones(len(ends), np.bool_)
    first[1:] = ends[1:] != ends[:-1]
    found: list[int] = ends[first].tolist()
    return found


def _publish_ends(url: str, ends: list[int]) -> None:
    """Publish the index of a file whose streams end elsewhere now; which buckets have one stays."""
    before = _ends(url)
    number = np.cumsum(np.diff(before, prepend=-1) != 0) - 1
    if number[-1] + 1 != len(ends):
        raise StorageError(
            "the exchange file and its index are not of one make",
            where=url,
            fix="remove both and start again: their unit will be done anew",
        )
    storage.publish_bytes(url + ".index", np.array(ends, "<i8")[number].tobytes())


class MergeJob(msgspec.Struct, frozen=True):
    """Some exchange files with the same buckets, to become one at ``out``."""

    sources: list[str]
    out: str
    kind: Kind = ROWS


def run_merge(job: MergeJob) -> Done:
    """Publish one file with, bucket by bucket, the rows of the sources in their order.

    Local disk must hold remote sources for a while, memory one bucket of them.

    Raises:
        StorageError: a source is missing or damaged, or the file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        copies = [stack.enter_context(_nearby(url)) for url in job.sources]
        number, schema = len(_ends(copies[0])) - 1, schema_of(copies[0])

        def merged(path: Path) -> bytes:
            buckets = (batched(slices(copies, n), job.kind.batch_rows) for n in range(number))
            return write(buckets, schema, path, job.kind.options)

        published: list[storage.Published] = []
        _publish(merged, job.out, published)
        return Done(published, {"files": len(copies)})


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
