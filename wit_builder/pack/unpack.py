"""Map, where finished shards are packed anew: their samples are sent towards other shards."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from wit_builder import ahead, exchange, storage
from wit_builder.errors import ShardFormatError
from wit_builder.pack.plan import Ways, places
from wit_builder.pack.scatter import binary_of
from wit_builder.shards.layout import MEMBERS, samples_name
from wit_builder.shards.manifest import read_record
from wit_builder.shards.write import Block
from wit_builder.units import Done

SENT = pa.schema(
    [
        pa.field("uid", pa.binary(16), nullable=False),
        pa.field("place", pa.uint64(), nullable=False),
        *(pa.field(name, pa.large_binary(), nullable=False) for name in MEMBERS),
    ]
)
"""A sample on its way to another shard: its members as they are."""

_BLOCKS_AHEAD = 4


class UnpackJob(msgspec.Struct, frozen=True):
    """Some shards of a data set, to be packed anew.

    Attributes:
        folder: the data set's.
        shards: names of the tars.
        ways: to the new shards.
        seed: of the new places.
        out: place of the exchange file (``SENT``).
    """

    folder: str
    shards: list[str]
    ways: Ways
    seed: int
    out: str


def run(job: UnpackJob) -> Done:
    """Publish the shards' samples, grouped by new shard or coarse bucket; removed ones stay out.

    Every block is checked against its digest. Counts ``samples``.

    Raises:
        ShardFormatError: a block is damaged.
        StorageError: something cannot be read or written.
    """
    published: list[storage.Published] = []
    samples = 0
    with exchange.scattering(
        job.out, SENT, job.ways.buckets, published, kind=exchange.PICTURES
    ) as scatterer:
        for name in job.shards:
            for table in _samples(job.folder, name, job.seed):
                scatterer.add(table, job.ways.first(table["place"].to_numpy()))
                samples += table.num_rows
    return Done(published, {"samples": samples})


def _samples(folder: str, shard: str, seed: int) -> Iterator[pa.Table]:
    """Yield a shard's samples (``SENT``), a block's at a time."""
    table = storage.join(folder, samples_name(shard))
    rows, record = storage.read_parquet(table), read_record(table)
    url = storage.join(folder, shard)

    def read(block: Block) -> bytes:
        return storage.read_bytes(url, block.offset, block.offset + block.length)

    for block, data in zip(
        record.blocks, ahead.mapped(read, record.blocks, _BLOCKS_AHEAD), strict=True
    ):
        if xxhash.xxh3_64_intdigest(data) != block.xxh3:
            raise ShardFormatError(
                "a block is damaged, or a removal is not finished",
                where=f"{storage.redact(url)} byte {block.offset}",
                fix="run `wit verify` on the data set; finish the removal, or copy the shard again",
            )
        yield _in_block(block, data, rows.slice(block.first_sample, block.samples), seed)


def _in_block(block: Block, data: bytes, rows: pa.Table, seed: int) -> pa.Table:
    rows = rows.filter(pc.invert(rows["removed"]))
    columns = [rows["uid"], pa.array(places(rows["uid"], seed))]
    for name in MEMBERS:  # 2 us a sample, measured
        spans = rows[name].combine_chunks()
        starts = (spans.field("offset").to_numpy() - block.offset).tolist()
        sizes = spans.field("size").to_pylist()
        found = [data[at : at + size] for at, size in zip(starts, sizes, strict=True)]
        columns.append(binary_of(found))
    return pa.table(columns, schema=SENT)
