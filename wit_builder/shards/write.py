"""Write one shard: the tar, and the table of its samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import xxhash

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import tar
from wit_builder.shards.layout import MEMBERS, Metadata, samples_name, tar_name
from wit_builder.tables import SHARD_SAMPLES

RECORD = b"wit.shard"
"""Key in the metadata of a samples table: JSON of the shard's ``ShardRecord``."""


class Pair(NamedTuple):
    """A sample to write: its key, the picture as JPEG, and what is known of it."""

    key: str
    jpg: bytes
    metadata: Metadata


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
    outputs: list[storage.Published] = []
    name = tar_name(shard)
    with storage.publishing(storage.join(folder, name), outputs) as path:
        rows, record = _write_tar(path, name, pairs, max_block_bytes)
    table = _samples_table(rows).replace_schema_metadata({RECORD: msgspec.json.encode(record)})
    outputs.append(storage.write_parquet(storage.join(folder, samples_name(name)), table))
    return Written(outputs, record)


class _Row(NamedTuple):
    key: str
    uid: bytes
    members: tuple[tuple[int, int, int], ...]
    """(offset, size, xxh3) of the picture, the caption and the metadata."""


def _write_tar(
    path: Path, name: str, pairs: Iterable[Pair], max_block_bytes: int
) -> tuple[list[_Row], ShardRecord]:
    rows: list[_Row] = []
    blocks: list[Block] = []
    sha256, offset, block = hashlib.sha256(), 0, _OpenBlock(0, 0)
    with path.open("wb") as sink:
        for pair in pairs:  # 50 us a sample of 25 KB, measured; a third is SHA-256
            if rows and pair.key <= rows[-1].key:
                raise ShardFormatError("keys do not ascend", where=f"{name}: {pair.key}")
            data, row = _encode(pair, offset)
            if block.length and block.length + len(data) > max_block_bytes:
                blocks.append(block.close(len(rows)))
                block = _OpenBlock(len(rows), offset)
            block.add(data)
            sink.write(data)
            sha256.update(data)
            offset += len(data)
            rows.append(row)
        if rows:
            blocks.append(block.close(len(rows)))
        sink.write(tar.TRAILER)
        sha256.update(tar.TRAILER)
    size = offset + len(tar.TRAILER)
    return rows, ShardRecord(name, len(rows), size, sha256.hexdigest(), 0, blocks)


class _OpenBlock:
    """The block that is being filled."""

    def __init__(self, first_sample: int, offset: int) -> None:
        self.first_sample, self.offset, self.length = first_sample, offset, 0
        self._digest = xxhash.xxh3_64()

    def add(self, data: bytes) -> None:
        self._digest.update(data)
        self.length += len(data)

    def close(self, next_sample: int) -> Block:
        samples = next_sample - self.first_sample
        return Block(self.first_sample, samples, self.offset, self.length, self._digest.intdigest())


def _encode(pair: Pair, offset: int) -> tuple[bytes, _Row]:
    """Return a sample as it stands in the tar at an offset, and its row."""
    if not pair.jpg:
        raise ShardFormatError("an empty picture", where=pair.key, fix="reject it before packing")
    metadata = pair.metadata
    parts: list[bytes] = []
    places: list[tuple[int, int, int]] = []
    bodies = (pair.jpg, metadata.caption.encode(), msgspec.json.encode(metadata))
    for extension, body in zip(MEMBERS, bodies, strict=True):
        places.append((offset + tar.BLOCK, len(body), xxhash.xxh3_64_intdigest(body)))
        padding = tar.padded(len(body)) - len(body)
        parts += (tar.header(f"{pair.key}.{extension}", len(body)), body, bytes(padding))
        offset += tar.BLOCK + len(body) + padding
    return b"".join(parts), _Row(pair.key, bytes.fromhex(metadata.uid), tuple(places))


def _samples_table(rows: list[_Row]) -> pa.Table:
    columns = [
        pa.array([row.key for row in rows], pa.string()),
        pa.array([row.uid for row in rows], pa.binary(16)),
        *(_places([row.members[m] for row in rows], m) for m in range(len(MEMBERS))),
        pa.array([False] * len(rows), pa.bool_()),
    ]
    return pa.table(columns, schema=SHARD_SAMPLES)


def _places(places: list[tuple[int, int, int]], member: int) -> pa.StructArray:
    kind = SHARD_SAMPLES.field(MEMBERS[member]).type
    offsets, sizes, digests = ([p[i] for p in places] for i in range(3))
    arrays = [
        pa.array(offsets, pa.int64()),
        pa.array(sizes, pa.int64()),
        pa.array(digests, pa.uint64()),
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))
