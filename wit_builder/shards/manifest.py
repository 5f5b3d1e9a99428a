"""The data set as a whole: manifest, block table, ``dataset.json`` and ``sizes.json``.

They are made from the record that every shard keeps in the metadata of its samples table, so that
shards can be written anywhere in any order.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import layout
from wit_builder.shards.layout import MAX_BLOCK_BYTES, DatasetInfo, Foreign
from wit_builder.shards.write import RECORD, Block, ShardRecord
from wit_builder.tables import BLOCKS, MANIFEST

_READERS = 16


def finish(
    folder: str, shards: int, *, generation: str, recipe: str, max_block_bytes: int
) -> list[storage.Published]:
    """Publish the four files that make shards a data set; ``dataset.json`` last.

    Args:
        folder: where shards 0 to ``shards`` - 1 and their samples tables are.
        shards: how many there are.
        generation: such as ``g0``.
        recipe: digest of the resolved recipe.
        max_block_bytes: what the shards were cut with.

    Raises:
        ShardFormatError: there are no shards, or one has no record.
        StorageError: a samples table is missing, or something cannot be written.
    """
    if not shards:
        raise ShardFormatError(
            "no shard to list", where=storage.redact(folder), fix="no pair was kept: see the report"
        )
    head = {"generation": generation, "recipe": recipe, "max_block_bytes": max_block_bytes}
    return _publish(folder, _records(folder, shards), head)


def publish_indexed(
    folder: str, records: list[ShardRecord], foreign: Foreign
) -> list[storage.Published]:
    """Publish the four files that make shards of others a data set; ``dataset.json`` last.

    Raises:
        StorageError: something cannot be written.
    """
    head = {"generation": "", "recipe": "", "members": (), "max_block_bytes": MAX_BLOCK_BYTES}
    return _publish(folder, records, {**head, "foreign": foreign})


def _records(folder: str, shards: int) -> list[ShardRecord]:
    urls = [storage.join(folder, layout.samples_name(layout.tar_name(s))) for s in range(shards)]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read_record, urls))


def revise(folder: str, info: DatasetInfo) -> list[storage.Published]:
    """Publish block table, manifest and ``dataset.json`` anew, if shards have been revised since.

    In this order, so that ``dataset.json`` has the manifest's digest only once all is done.

    Raises:
        ShardFormatError: the shards are not those of ``info``.
        StorageError: something cannot be read or written.
    """
    records = _records(folder, info.shards)
    manifest, blocks = manifest_of(records), blocks_of(records)
    if base_digest(manifest, blocks) != info.base:
        raise ShardFormatError(
            "the shards' records are not of this data set (base differs)",
            where=storage.redact(folder),
            fix="run `wit verify` on it; copy or pack it again",
        )
    revised = replace(info, digest=manifest_digest(manifest))
    if revised == info:
        return []
    return [
        storage.write_parquet(storage.join(folder, layout.BLOCKS), blocks),
        storage.write_parquet(storage.join(folder, layout.MANIFEST), manifest),
        storage.publish_bytes(storage.join(folder, layout.DATASET), _readable(revised)),
    ]


def _publish(
    folder: str, records: list[ShardRecord], head: dict[str, Any]
) -> list[storage.Published]:
    manifest, blocks = manifest_of(records), blocks_of(records)
    info = DatasetInfo(
        **head,
        samples=sum(r.samples for r in records),
        shards=len(records),
        blocks=blocks.num_rows,
        bytes=sum(r.bytes for r in records),
        base=base_digest(manifest, blocks),
        digest=manifest_digest(manifest),
    )
    sizes = {record.shard: record.samples for record in records}
    return [
        storage.write_parquet(storage.join(folder, layout.MANIFEST), manifest),
        storage.write_parquet(storage.join(folder, layout.BLOCKS), blocks),
        storage.publish_bytes(storage.join(folder, layout.SIZES), _readable(sizes)),
        storage.publish_bytes(storage.join(folder, layout.DATASET), _readable(info)),
    ]


def _readable(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def read_record(url: str) -> ShardRecord:
    """Return the record in the metadata of a samples table; only the file's footer is read.

    Raises:
        ShardFormatError: it has none.
        StorageError: the table is missing or is not parquet.
    """
    with storage.open_read(url, 64 << 10) as stream, storage.translated(url, "read"):
        try:
            found = (pq.read_schema(stream).metadata or {}).get(RECORD)
            if found is not None:
                return msgspec.json.decode(found, type=ShardRecord)
        except (pa.ArrowException, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _without_record(url) from error
    raise _without_record(url)


def _without_record(url: str) -> ShardFormatError:
    return ShardFormatError(
        "the samples table has no readable record of its shard",
        where=storage.redact(url),
        fix="remove it and its shard, and pack again",
    )


def manifest_of(records: list[ShardRecord]) -> pa.Table:
    """Return the manifest (``tables.MANIFEST``), one row a shard."""
    return pa.table(
        [[getattr(r, column) for r in records] for column in MANIFEST.names], schema=MANIFEST
    )


def blocks_of(records: list[ShardRecord]) -> pa.Table:
    """Return the block table (``tables.BLOCKS``), in the order of the data."""
    blocks = [block for r in records for block in r.blocks]
    shard = np.repeat(np.arange(len(records)), [len(r.blocks) for r in records])
    columns = [shard, *([block[i] for block in blocks] for i in range(len(Block._fields)))]
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, BLOCKS, strict=True)], schema=BLOCKS
    )


def manifest_digest(manifest: pa.Table) -> str:
    """Return SHA-256 over the manifest's lines ``shard samples bytes sha256 revision``."""
    rows = zip(*(manifest[name].to_pylist() for name in MANIFEST.names), strict=True)
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    return hashlib.sha256(lines.encode()).hexdigest()


def base_digest(manifest: pa.Table, blocks: pa.Table) -> str:
    """Return SHA-256 over what no removal changes: which samples are where.

    That is the lines ``shard samples bytes`` of the manifest, then the block table but for its
    digests: ``shard first_sample samples offset length`` as little-endian int64, row by row.
    """
    rows = zip(*(manifest[n].to_pylist() for n in ("shard", "samples", "bytes")), strict=True)
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    columns = [blocks[n].to_numpy() for n in BLOCKS.names if n != "xxh3"]
    digest = hashlib.sha256(lines.encode())
    digest.update(np.column_stack(columns).astype("<i8").tobytes())
    return digest.hexdigest()
