"""Rows by bucket in one file: how ``exchange`` writes it, from rows that need not fit in memory.

The file has one Arrow IPC stream per non-empty bucket, after an empty one, which tells the schema.
Its batches are cut by number of rows, afresh; so its bytes are those of its rows, and tell nothing
of the pieces in which they came.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from wit_builder import storage


class Kind(msgspec.Struct, frozen=True):
    """What rows are like, and so how they are best written.

    Attributes:
        compression: IPC codec, or None for what is compressed already.
        batch_rows: rows of a record batch; one is in memory where buckets are put together.
    """

    compression: str | None = "zstd"
    batch_rows: int = 65_536

    @property
    def options(self) -> pa.ipc.IpcWriteOptions:
        """How the file is written."""
        return pa.ipc.IpcWriteOptions(compression=self.compression)

    @property
    def spilled(self) -> pa.ipc.IpcWriteOptions:
        """How pieces go to local disk, to be read once.

        Not by zstd, which took twice the time where buckets are many.
        """
        return pa.ipc.IpcWriteOptions(compression=self.compression and "lz4")


ROWS = Kind()
PICTURES = Kind(None, 256)


class Scatterer:
    """Takes rows with their buckets, and gives them back bucket by bucket; see ``exchange``.

    Memory is what is held, a copy of it when it is written, and a batch.
    """

    def __init__(
        self, schema: pa.Schema, buckets: int, folder: str, held_bytes: int, kind: Kind
    ) -> None:
        self._schema, self._buckets, self._kind = schema, buckets, kind
        self._folder, self._held_bytes = Path(folder), held_bytes
        self._tables: list[pa.Table] = []
        self._bucket: list[npt.NDArray[np.integer]] = []
        self._held = 0
        self._files: list[Path] = []

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

    def write(self, path: Path) -> bytes:
        """Write the file; return its index.

        Raises:
            StorageError: local disk is full.
        """
        if not self._files:
            return write(self._held_buckets(), self._schema, path, self._kind.options)
        self._spill()
        with contextlib.ExitStack() as stack:
            spilled = [_Spilled(path, stack) for path in self._files]
            buckets = (self._together(spilled, number) for number in range(self._buckets))
            return write(buckets, self._schema, path, self._kind.options)

    def _held_buckets(self) -> Iterator[Iterator[pa.Table]]:
        """Yield every bucket's rows of those held, and let go of them."""
        bucket = np.concatenate([np.empty(0, np.uint16), *self._bucket])
        held = pa.concat_tables(self._tables or [self._schema.empty_table()]).combine_chunks()
        self._tables, self._bucket, self._held = [], [], 0
        # numpy sorts 16 bits by radix
        narrow = bucket.astype(np.uint16) if self._buckets <= 1 << 16 else bucket
        order = np.argsort(narrow, kind="stable")
        starts = np.searchsorted(bucket[order], np.arange(self._buckets + 1))
        for start, end in pairwise(starts.tolist()):
            yield self._taken(held, order[start:end])

    def _taken(self, held: pa.Table, rows: npt.NDArray[np.integer]) -> Iterator[pa.Table]:
        for start in range(0, len(rows), self._kind.batch_rows):
            # not slices of the whole in order: their bytes would depend on their neighbours
            yield held.take(pa.array(rows[start : start + self._kind.batch_rows]))

    def _together(self, spilled: list[_Spilled], bucket: int) -> Iterator[pa.Table]:
        found = (piece for file in spilled for piece in file.read(bucket))
        return batched(found, self._kind.batch_rows)

    def _spill(self) -> None:
        path = self._folder / f"{len(self._files)}.arrow"
        with storage.translated(str(path), "write"):
            index = write(self._held_buckets(), self._schema, path, self._kind.spilled)
            Path(f"{path}.index").write_bytes(index)
        self._files.append(path)


class _Spilled:
    """A piece on local disk, which is read from the first bucket to the last."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self._url, self._file = str(path), stack.enter_context(pa.OSFile(str(path)))
        self._ends = np.fromfile(f"{path}.index", "<i8").tolist()
        self._file.seek(self._ends[0])

    def read(self, bucket: int) -> Iterator[pa.Table]:
        """Yield the rows of the next bucket, a batch at a time."""
        if self._ends[bucket] == self._ends[bucket + 1]:
            return
        assert self._file.tell() == self._ends[bucket], "buckets are read in order"
        with storage.translated(self._url, "read"):
            for batch in pa.ipc.open_stream(self._file):
                yield pa.Table.from_batches([batch])


def batched(pieces: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of all pieces, so many at a time, in buffers of their own."""
    held, count = list[pa.Table](), 0
    for piece in pieces:
        held.append(piece)
        count += piece.num_rows
        while count >= rows:
            left = count - rows
            last = held[-1]
            held[-1] = last.slice(0, last.num_rows - left)
            yield _copied(held)
            held, count = [last.slice(last.num_rows - left)], left
    if count:
        yield _copied(held)


def _copied(pieces: list[pa.Table]) -> pa.Table:
    """Return some rows as one; what is cut out of more is copied, so as not to tell of the rest."""
    if len(pieces) > 1:
        return pa.concat_tables(pieces).combine_chunks()
    return pieces[0].take(pa.array(np.arange(pieces[0].num_rows)))


def write(
    buckets: Iterable[Iterator[pa.Table]],
    schema: pa.Schema,
    path: Path,
    options: pa.ipc.IpcWriteOptions,
) -> bytes:
    """Write a stream for every bucket that has rows; return the index.

    Args:
        buckets: the batches of each.
        schema: of the rows.
        path: of the file.
        options: how rows are written.
    """
    with path.open("wb") as sink:
        write_stream(sink, schema, (), options)
        ends = [sink.tell()]
        for batches in buckets:
            if (first := next(batches, None)) is not None:
                write_stream(sink, schema, _followed(first, batches), options)
            ends.append(sink.tell())
            del first
    return np.array(ends, "<i8").tobytes()


def _followed(first: pa.Table, others: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    del first
    yield from others


def write_stream(
    sink: io.BufferedWriter,
    schema: pa.Schema,
    batches: Iterable[pa.Table],
    options: pa.ipc.IpcWriteOptions,
) -> None:
    """Write batches as one Arrow IPC stream."""
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for batch in batches:
            writer.write_table(batch)
