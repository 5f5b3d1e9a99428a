"""Write one shard: the tar, and the table of its samples."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import tar
from wit_builder.shards.layout import MEMBERS, Metadata, samples_name, tar_name
from wit_builder.tables import SHARD_SAMPLES

RECORD = b"wit.shard"
"""Key in the metadata of a samples table: JSON of the shard's ``ShardRecord``."""

_BLOCKS_AHEAD = 2
"""Blocks that may wait for the thread that hashes and writes them."""

Body = bytes | memoryview
Bodies = tuple[Body, Body, Body]


class Pair(NamedTuple):
    """A sample to write: its key, the picture as JPEG, and what is known of it."""

    key: str
    jpg: bytes
    metadata: Metadata


class Encoded(NamedTuple):
    """A sample whose members are bytes already, in the order of ``layout.MEMBERS``."""

    key: str
    uid: bytes
    bodies: Bodies


class Block(NamedTuple):
    """A run of consecutive samples of a shard, as in the block table but for the shard's number."""

    first_sample: int
    samples: int
    offset: int
    length: int
    xxh3: int


class ShardRecord(msgspec.Struct, frozen=True):
    """A shard's rows of the manifest and of the block table; kept beside its samples."""

    shard: str
    samples: int
    bytes: int
    sha256: str
    revision: int
    blocks: list[Block]


class Written(NamedTuple):
    """What writing a shard published (the tar, then its samples table), and its record."""

    outputs: list[storage.Published]
    record: ShardRecord


def write_shard(folder: str, shard: int, pairs: Iterable[Pair], max_block_bytes: int) -> Written:
    """Publish a shard and its samples table; the same pairs give the same bytes.

    Args:
        folder: the data set's folder, local or remote.
        shard: its number, which names it.
        pairs: in the order of their keys.
        max_block_bytes: a block is cut before it would grow beyond this.

    Raises:
        ShardFormatError: keys not ascending, or an empty picture.
        StorageError: it cannot be written.
    """
    return write_encoded(folder, shard, map(_encoded, pairs), max_block_bytes)


def _encoded(pair: Pair) -> Encoded:
    metadata = pair.metadata
    bodies = (pair.jpg, metadata.caption.encode(), msgspec.json.encode(metadata))
    return Encoded(pair.key, bytes.fromhex(metadata.uid), bodies)


def write_encoded(
    folder: str, shard: int, samples: Iterable[Encoded], max_block_bytes: int
) -> Written:
    """Do as ``write_shard``, for members that are bytes already. Memory is a few blocks.

    Raises:
        ShardFormatError: keys not ascending, or an empty picture.
        StorageError: it cannot be written.
    """
    outputs: list[storage.Published] = []
    name = tar_name(shard)
    with storage.publishing(storage.join(folder, name), outputs) as path:
        rows, record = _write_tar(path, name, samples, max_block_bytes)
    table = rows.table().replace_schema_metadata({RECORD: msgspec.json.encode(record)})
    outputs.append(storage.write_parquet(storage.join(folder, samples_name(name)), table))
    return Written(outputs, record)


class _Rows:
    """The columns of a samples table, as far as they are filled."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.uids: list[bytes] = []
        self.sizes: list[int] = []
        self.digests: list[int] = []

    def add(self, sample: Encoded) -> tuple[list[Body], int]:
        """Add a sample; return its bytes in the tar, in pieces, and how many they are."""
        key, uid, bodies = sample
        if not bodies[0]:
            raise ShardFormatError("an empty picture", where=key, fix="reject it before packing")
        parts: list[Body] = []
        length = 0
        for extension, body in zip(MEMBERS, bodies, strict=True):
            size = len(body)
            padding = tar.padding(size)
            parts += (tar.header(f"{key}.{extension}", size), body, padding)
            length += tar.BLOCK + size + len(padding)
            self.sizes.append(size)
            self.digests.append(xxhash.xxh3_64_intdigest(body))
        self.keys.append(key)
        self.uids.append(uid)
        return parts, length

    def table(self) -> pa.Table:
        """Return the samples table; offsets follow from the sizes."""
        sizes = np.array(self.sizes, np.int64)
        whole = tar.BLOCK + -(-sizes // tar.BLOCK) * tar.BLOCK
        offsets = np.cumsum(whole) - whole + tar.BLOCK
        digests = np.array(self.digests, np.uint64)
        columns = [
            pa.array(self.keys, pa.string()),
            pa.array(self.uids, pa.binary(16)),
            *(
                pa.StructArray.from_arrays(
                    [pa.array(a[m :: len(MEMBERS)]) for a in (offsets, sizes, digests)],
                    fields=list(SHARD_SAMPLES.field(extension).type),
                )
                for m, extension in enumerate(MEMBERS)
            ),
            pa.array(np.zeros(len(self.keys), np.bool_)),
        ]
        return pa.table(columns, schema=SHARD_SAMPLES)


def _write_tar(
    path: Path, name: str, samples: Iterable[Encoded], max_block_bytes: int
) -> tuple[_Rows, ShardRecord]:
    rows = _Rows()
    with path.open("wb") as file, ThreadPoolExecutor(1, "wit-shard") as thread:
        sink = _Sink(file, thread)
        blocks = list(_blocks(name, samples, max_block_bytes, rows, sink))
        sink.write(tar.TRAILER)
        sha256 = sink.sha256()
    size = (blocks[-1].offset + blocks[-1].length if blocks else 0) + len(tar.TRAILER)
    return rows, ShardRecord(name, len(rows.keys), size, sha256, 0, blocks)


def _blocks(
    name: str, samples: Iterable[Encoded], max_block_bytes: int, rows: _Rows, sink: _Sink
) -> Iterator[Block]:
    """Write the samples, block by block, and yield every block that is written."""
    block = _OpenBlock(0, 0)
    for sample in samples:  # 8 us a sample, measured; its hashing and writing take 25
        if rows.keys and sample.key <= rows.keys[-1]:
            raise ShardFormatError("keys do not ascend", where=f"{name}: {sample.key}")
        parts, length = rows.add(sample)
        if block.length and block.length + length > max_block_bytes:
            yield block.close(sink)
            block = _OpenBlock(block.first_sample + block.samples, block.offset + block.length)
        block.parts += parts
        block.samples, block.length = block.samples + 1, block.length + length
    if block.length:
        yield block.close(sink)


class _OpenBlock:
    """The block that is being filled."""

    def __init__(self, first_sample: int, offset: int) -> None:
        self.first_sample, self.offset = first_sample, offset
        self.samples = self.length = 0
        self.parts: list[Body] = []

    def close(self, sink: _Sink) -> Block:
        data = b"".join(self.parts)
        sink.write(data)
        digest = xxhash.xxh3_64_intdigest(data)
        return Block(self.first_sample, self.samples, self.offset, self.length, digest)


class _Sink:
    """A file that is written to and hashed in a thread, while the next block is put together.

    Both let go of the interpreter's lock. On one core it costs nothing, on two it is a third less.
    """

    def __init__(self, file: IO[bytes], thread: ThreadPoolExecutor) -> None:
        self._file, self._thread = file, thread
        self._digest = hashlib.sha256()
        self._under_way: deque[Future[None]] = deque()

    def write(self, data: bytes) -> None:
        """Have bytes written; wait if too many are under way."""
        if len(self._under_way) > _BLOCKS_AHEAD:
            self._under_way.popleft().result()
        self._under_way.append(self._thread.submit(self._append, data))

    def _append(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)

    def sha256(self) -> str:
        """Return the digest of all that was written, once it is."""
        while self._under_way:
            self._under_way.popleft().result()
        return self._digest.hexdigest()
