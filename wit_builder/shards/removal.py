"""Take samples out of a data set: their bytes become zero, their slots stay.

What ``shards/README.md`` calls a removal. Nothing moves, so an order of training and a checkpoint
outlive it. Every file is replaced as a whole, so whoever reads one has it of one revision.

The order of publishing, per shard: its samples table, which says what is removed and what the
shard's digests will be; then the tar. When all shards are done: block table, manifest,
``dataset.json``. So a removal that was cut short shows, as a shard's record of a later revision
than the manifest's, or a manifest that ``dataset.json`` does not have the digest of; and it can be
finished without knowing what was asked for. Readers that have opened the data set before find the
new digests in the shard's record before they find new bytes (``read.Dataset.block_bytes``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import layout, tar
from wit_builder.shards.layout import MEMBERS, Metadata
from wit_builder.shards.manifest import read_record, revise
from wit_builder.shards.read import Dataset, own_info, samples_in
from wit_builder.shards.write import RECORD, Block, ShardRecord
from wit_builder.tables import SHARD_SAMPLES

Mask = npt.NDArray[np.bool_]


class Removal(NamedTuple):
    """What a removal did: how many samples are gone now that were not, and in how many shards."""

    samples: int
    shards: int


def remove(folder: str, uids: pa.Array) -> Removal:
    """Take the samples of some pairs out, and finish what an earlier removal has left undone.

    Doing it again changes nothing. Memory is a block and a shard's samples table.

    Args:
        folder: the data set's.
        uids: binary(16); pairs that are not there, or not there any more, do no harm.

    Raises:
        ShardFormatError: no data set, or a damaged one: damage is not given a digest of its own.
        StorageError: something cannot be read or written.
    """
    folder = folder.rstrip("/")
    info = own_info(folder)
    listed = storage.read_parquet(storage.join(folder, layout.MANIFEST), ["shard", "revision"])
    samples = shards = 0
    for name, revision in zip(*(column.to_pylist() for column in listed.columns), strict=True):
        found = _Shard(folder, name, revision).remove(uids)
        samples, shards = samples + found, shards + (found > 0)
    revise(folder, info)
    return Removal(samples, shards)


def count(folder: str, uids: pa.Array) -> int:
    """Return how many samples a removal of some pairs would take out.

    Raises:
        ShardFormatError: there is no data set.
        StorageError: something cannot be read.
    """
    names = [layout.tar_name(shard) for shard in range(own_info(folder).shards)]
    return sum(int(np.count_nonzero(_wanted(folder, name, uids))) for name in names)


def present(folder: str, uids: pa.Array) -> pa.Array:
    """Return which of some pairs have samples that are not removed.

    Raises:
        ShardFormatError: there is no data set.
        StorageError: something cannot be read.
    """
    found = [uids[:0]]
    for shard in range(own_info(folder).shards if len(uids) else 0):
        name = layout.tar_name(shard)
        table = storage.read_parquet(storage.join(folder, layout.samples_name(name)), ["uid"])
        wanted = pa.array(_wanted(folder, name, uids))
        found += table["uid"].filter(wanted).chunks
    return pa.concat_arrays(found).unique()


def _wanted(folder: str, shard: str, uids: pa.Array) -> Mask:
    """Return which samples of a shard are to go and have not gone."""
    table = storage.read_parquet(
        storage.join(folder, layout.samples_name(shard)), ["uid", "removed"]
    )
    wanted = pc.is_in(table["uid"], value_set=uids).to_numpy()
    return np.asarray(wanted & ~table["removed"].to_numpy(), np.bool_)


def find(folder: str, wanted: Callable[[list[Metadata]], Mask]) -> pa.Array:
    """Return the uids of the samples whose metadata (``KEY.json``) a function says yes to.

    Every shard is read, block by block; removed samples have no metadata any more.

    Raises:
        ShardFormatError: no data set, or a damaged one.
        StorageError: something cannot be read.
    """
    own_info(folder)
    data = Dataset.open(folder)
    found = list[str]()
    for block in range(data.blocks.num_rows):
        told = list(_metadata(data, block))
        found += [m.uid for m, yes in zip(told, wanted(told), strict=True) if yes]
    return pa.array([bytes.fromhex(uid) for uid in sorted(set(found))], pa.binary(16))


def _metadata(data: Dataset, block: int) -> Iterator[Metadata]:
    for sample in samples_in(data.block_bytes(block)):  # 22 us a sample of 25 KB, measured
        if not sample.removed:
            yield msgspec.json.decode(sample.members["json"], type=Metadata)


class _Shard:
    """One shard, and the revision of it that the manifest has."""

    def __init__(self, folder: str, name: str, revision: int) -> None:
        self._folder, self._listed = folder, revision
        self._tar = storage.join(folder, name)
        self._samples = storage.join(folder, layout.samples_name(name))
        self._record = read_record(self._samples)
        if self._record.shard != name or self._record.revision < revision:
            raise _damaged("the shard's record is not of the manifest's revision", self._samples)

    def remove(self, uids: pa.Array) -> int:
        """Zero the samples of some pairs, and those that an earlier removal meant to."""
        wanted = _wanted(self._folder, self._record.shard, uids)
        gone = int(np.count_nonzero(wanted))
        if gone or not self._is_finished():
            self._rewrite(wanted)
        return gone

    def _is_finished(self) -> bool:
        """Return whether the tar is of its record's revision, as far as the two may differ."""
        if self._record.revision == self._listed:
            return True
        table = storage.read_parquet(self._samples, ["removed"])
        removed = np.flatnonzero(table["removed"].to_numpy())
        return all(
            xxhash.xxh3_64_intdigest(self._read(block)) == block.xxh3
            for block in self._record.blocks
            if _has_any(block, removed)
        )

    def _read(self, block: Block) -> bytes:
        return storage.read_bytes(self._tar, block.offset, block.offset + block.length)

    def _rewrite(self, wanted: Mask) -> None:
        table = storage.read_parquet(self._samples)
        removed = wanted | table["removed"].to_numpy()
        # What was published of an unfinished revision was of no manifest: it is the same one still.
        revision = self._listed + 1
        with storage.publish(self._tar) as part:
            blocks, sha256 = self._copy(part, table, removed)
            record = replace(self._record, sha256=sha256, revision=revision, blocks=blocks)
            storage.write_parquet(self._samples, _with_removed(table, removed, record))

    def _copy(self, part: Path, table: pa.Table, removed: Mask) -> tuple[list[Block], str]:
        """Write the tar with the members of some samples zeroed; return its blocks and SHA-256."""
        spans = [_spans(table[extension]) for extension in MEMBERS]
        before = self._digests_before()
        blocks, sha256 = list[Block](), hashlib.sha256()
        with part.open("wb") as sink:
            for block in self._record.blocks:
                data = bytearray(self._read(block))
                if xxhash.xxh3_64_intdigest(data) not in {block.xxh3, before.get(block.offset)}:
                    raise _damaged("a block is damaged", f"{self._tar} byte {block.offset}")
                rows = range(block.first_sample, block.first_sample + block.samples)
                for row in (row for row in rows if removed[row]):
                    for offsets, sizes in spans:
                        start, size = int(offsets[row]) - block.offset, int(sizes[row])
                        data[start : start + size] = bytes(size)
                assert len(data) == block.length, "a row leads out of its block"
                sink.write(data)
                sha256.update(data)
                blocks.append(block._replace(xxh3=xxhash.xxh3_64_intdigest(data)))
            sink.write(tar.TRAILER)
            sha256.update(tar.TRAILER)
        return blocks, sha256.hexdigest()

    def _digests_before(self) -> dict[int, int]:
        """Return the digests that blocks may have yet, by offset, if a removal was cut short."""
        if self._record.revision == self._listed:
            return {}
        names = ["shard", "offset", "xxh3"]
        table = storage.read_parquet(storage.join(self._folder, layout.BLOCKS), names)
        number = int(self._record.shard.removesuffix(".tar"))
        mine = table.filter(pc.equal(table["shard"], number))
        return dict(zip(mine["offset"].to_pylist(), mine["xxh3"].to_pylist(), strict=True))


def _has_any(block: Block, rows: npt.NDArray[np.int64]) -> bool:
    first = block.first_sample
    return bool(((rows >= first) & (rows < first + block.samples)).any())


def _spans(places: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    column = places.combine_chunks()
    return column.field("offset").to_numpy(), column.field("size").to_numpy()


def _with_removed(table: pa.Table, removed: Mask, record: ShardRecord) -> pa.Table:
    """Return a samples table in which some rows are removed, with its shard's record."""
    columns = {name: table[name] for name in table.column_names}
    for extension in MEMBERS:
        places = table[extension].combine_chunks()
        offsets, sizes, digests = (places.field(n) for n in ("offset", "size", "xxh3"))
        digests = digests.to_numpy().copy()
        for row in np.flatnonzero(removed):
            digests[row] = xxhash.xxh3_64_intdigest(bytes(sizes[row].as_py()))
        fields = list(SHARD_SAMPLES.field(extension).type)
        made = [offsets, sizes, pa.array(digests)]
        columns[extension] = pa.StructArray.from_arrays(made, fields=fields)
    columns["removed"] = pa.array(removed)
    schema = SHARD_SAMPLES.with_metadata({RECORD: msgspec.json.encode(record)})
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _damaged(what: str, where: str) -> ShardFormatError:
    fix = "run `wit verify` on it; copy or pack it again, then remove"
    return ShardFormatError(what, where=storage.redact(where), fix=fix)
