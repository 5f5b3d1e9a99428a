"""Regroup rows by key through storage, without a shuffle service.

A *map* unit writes one file: its rows sorted by bucket, one compressed Arrow IPC stream per
non-empty bucket, and a sidecar ``.index`` with the byte offsets (little-endian int64: the end of
the header, then the end of every bucket). The header is an empty stream, so that an empty bucket
still has a schema. A *reduce* unit reads its bucket's range from every file. That is the whole
shuffle: it survives crashes, needs no daemon, and works on object storage.

A map unit that cannot hold its rows adds them piece by piece to a ``Scatterer``, which writes what
it holds to local disk whenever that is too much, and puts the pieces together at the end. The file
has the same bytes as if all had been held.

Every reduce unit makes two small reads of every file. When files times buckets exceed
``MAX_SLICES``, groups of files are merged first: a merge unit copies its files to local disk,
whole, and writes one file with their rows, bucket by bucket.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

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

HELD_BYTES = 64 << 20
"""Arrow bytes that a ``Scatterer`` holds before it writes them to local disk."""

_BATCH_ROWS = 65_536

_SPILLED = pa.ipc.IpcWriteOptions(compression="lz4")
"""How pieces go to local disk, to be read once: zstd took twice the time where buckets are many."""


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
    done: list[storage.Published] = []
    with scattering(
        url, table.schema, buckets, done, compression=compression, held_bytes=table.nbytes
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
    compression: str | None = "zstd",
    held_bytes: int = HELD_BYTES,
) -> Iterator[Scatterer]:
    """Give a ``Scatterer``; on a clean exit publish what was added to it, as ``scatter`` does.

    Args:
        url: the file's place; ``url + ".index"`` is its sidecar, published last.
        schema: of the tables to come.
        buckets: how many there are.
        published: gets the two files.
        compression: IPC codec, or None for what is compressed already (pictures).
        held_bytes: Arrow bytes held before they go to local disk.

    Raises:
        StorageError: the file cannot be written, or local disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="wit-") as folder:
        options = pa.ipc.IpcWriteOptions(compression=compression)
        scatterer = Scatterer(schema, buckets, folder, held_bytes)
        yield scatterer
        _publish(scatterer.slices(), schema, url, published, options)


class Scatterer:
    """Takes rows with their buckets, and gives them back bucket by bucket; made by ``scattering``.

    Memory is what is held, a copy of it when it is written, and one bucket.
    """

    def __init__(self, schema: pa.Schema, buckets: int, folder: str, held_bytes: int) -> None:
        self._schema, self._buckets = schema, buckets
        self._folder, self._held_bytes = Path(folder), held_bytes
        self._tables: list[pa.Table] = []
        self._bucket: list[npt.NDArray[np.integer]] = []
        self._held = 0
        self._files: list[str] = []

    def add(self, table: pa.Table, bucket: npt.NDArray[np.integer]) -> None:
        """Take rows, and the bucket of each in ``[0, buckets)``; rows of a bucket keep their order.

        Raises:
            StorageError: local disk is full.
        """
        assert table.num_rows == len(bucket)
        self._tables.append(table)
        self._bucket.append(bucket)
        self._held += table.nbytes
        if self._held > self._held_bytes:
            self._spill()

    def slices(self) -> Iterator[pa.Table]:
        """Yield every bucket's rows, in one chunk, so that spilling leaves no trace in the file."""
        if not self._files:
            yield from self._held_slices()
            return
        self._spill()
        ends = [_ends(file) for file in self._files]
        for bucket in range(self._buckets):
            parts = (_read_at(f, bucket, e) for f, e in zip(self._files, ends, strict=True))
            yield pa.concat_tables(parts).combine_chunks()

    def _held_slices(self) -> Iterator[pa.Table]:
        """Yield every bucket's rows of those held, and let go of them."""
        bucket = np.concatenate([np.empty(0, np.uint16), *self._bucket])
        held = pa.concat_tables(self._tables or [self._schema.empty_table()]).combine_chunks()
        self._tables, self._bucket, self._held = [], [], 0
        # numpy sorts 16 bits by radix
        narrow = bucket.astype(np.uint16) if self._buckets <= 1 << 16 else bucket
        order = np.argsort(narrow, kind="stable")
        starts = np.searchsorted(bucket[order], np.arange(self._buckets + 1))
        for start, end in pairwise(starts):
            # not slices of the whole in order: their bytes would depend on their neighbours
            yield held.take(pa.array(order[start:end]))

    def _spill(self) -> None:
        path = self._folder / f"{len(self._files)}.arrow"
        with storage.translated(str(path), "write"):
            ends = _write(self._held_slices(), self._schema, path, _SPILLED)
            Path(f"{path}.index").write_bytes(ends)
        self._files.append(str(path))


def _publish(
    slices: Iterable[pa.Table],
    schema: pa.Schema,
    url: str,
    published: list[storage.Published],
    options: pa.ipc.IpcWriteOptions,
) -> None:
    """Publish the file and then its index."""
    with storage.publishing(url, published) as path:
        ends = _write(slices, schema, path, options)
    published.append(storage.publish_bytes(url + ".index", ends))


def _write(
    slices: Iterable[pa.Table], schema: pa.Schema, path: Path, options: pa.ipc.IpcWriteOptions
) -> bytes:
    """Write one stream per non-empty slice, a slice per bucket; return the index."""
    with path.open("wb") as sink:
        _write_stream(sink, schema.empty_table(), options)
        ends = [sink.tell()]
        for part in slices:
            if part.num_rows:
                _write_stream(sink, part, options)
            ends.append(sink.tell())
    return np.array(ends, "<i8").tobytes()


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
    return _read_at(url, bucket, _ends(url))


def _read_at(url: str, bucket: int, ends: npt.NDArray[np.int64]) -> pa.Table:
    """Return a bucket's rows, the file's index being known."""
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


def rewrite(url: str, change: Callable[[pa.Table], pa.Table], compression: str | None) -> None:
    """Replace every bucket's rows by what ``change`` returns of them: fewer rows, or none.

    A bucket that has a stream keeps one, though it may be empty. So should the process end between
    file and index, ``reindex`` can mend that.

    Raises:
        StorageError: the file is missing or damaged, or cannot be written.
    """
    reindex(url)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    ends = list[int]()
    with storage.publish(url) as path, path.open("wb") as sink:
        for found in streams(url):
            _write_stream(sink, change(found.table), options)
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
        published: list[storage.Published] = []
        options = pa.ipc.IpcWriteOptions(compression=job.compression)
        _publish(slices, schema, job.out, published, options)
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
