"""Reduce: pairs sent to a shard are put in order and written; then the data set is listed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder import exchange, storage
from wit_builder.errors import ShardFormatError
from wit_builder.hashing import binary_buffers
from wit_builder.pack.scatter import CARRIED
from wit_builder.shards import manifest
from wit_builder.shards.layout import Metadata, key_of, tar_name
from wit_builder.shards.write import Bodies, Encoded, write_encoded
from wit_builder.units import Done

Order = npt.NDArray[np.int64]


class ShardJob(msgspec.Struct, frozen=True, kw_only=True):
    """A shard to write.

    Attributes:
        sources: places of the exchange files that have its pairs.
        bucket: where they are in those.
        shard: its number.
        first_key: position of its first sample in the data set.
        samples: how many pairs the plan has for it.
        queries_url: place of the query list (``tables.QUERIES``); empty if none is known.
        folder: the data set's folder.
        max_block_bytes: a block is cut before it would grow beyond this.
    """

    sources: list[str]
    bucket: int
    shard: int
    first_key: int
    samples: int
    queries_url: str = ""
    folder: str
    max_block_bytes: int

    @property
    def place(self) -> str:
        """Where the shard's tar will be."""
        return storage.join(self.folder, tar_name(self.shard))


def run(job: ShardJob) -> Done:
    """Publish a shard and its samples table, in the order of (place, uid).

    Memory is the shard: its pictures are written from where they were read to.

    Raises:
        ShardFormatError: not the pairs that were planned, or a pair twice.
        StorageError: something cannot be read or written.
    """
    rows = exchange.gather(job.sources, job.bucket)
    refuse_unplanned(rows["uid"], job)
    queries = storage.read_parquet(job.queries_url, ["query"])["query"].combine_chunks()
    return written(rows, in_order(rows), queries, job)


def run_again(job: ShardJob) -> Done:
    """Do as ``run``, of samples of finished shards (``unpack.SENT``): their members stay.

    Raises:
        ShardFormatError: not the pairs that were planned, or a pair twice.
        StorageError: something cannot be read or written.
    """
    rows = exchange.gather(job.sources, job.bucket)
    refuse_unplanned(rows["uid"], job)
    order = in_order(rows)
    members = zip(*(bodies(rows[name], order) for name in ("jpg", "txt", "json")), strict=True)
    return _published(rows["uid"].take(pa.array(order)), members, job)


def in_order(rows: pa.Table) -> Order:
    """Return the numbers of rows in the order of (place, uid); of equal ones, as they come."""
    data, offsets = binary_buffers(rows["uid"].combine_chunks())
    words = data[offsets[0] : offsets[-1]].view(">u8").reshape(-1, 2)
    return np.lexsort((words[:, 1], words[:, 0], rows["place"].to_numpy()))


def written(rows: pa.Table, order: Order, queries: pa.StringArray, job: ShardJob) -> Done:
    """Publish a shard.

    Args:
        rows: ``scatter.SENT``.
        order: numbers of the rows to write, in the order of their keys.
        queries: the query list, which ``kept_by`` counts in.
        job: which shard it is.

    Raises:
        StorageError: it cannot be written.
    """
    told = rows.select([*CARRIED, "kept_by"]).take(pa.array(order))
    pictures = bodies(rows["jpg"], order)
    texts = _texts(told, queries)
    members = ((jpg, *others) for jpg, others in zip(pictures, texts, strict=True))
    return _published(told["uid"], members, job)


def _texts(told: pa.Table, queries: pa.StringArray) -> Iterator[tuple[bytes, bytes]]:
    """Yield caption and metadata of every pair."""
    columns = {name: told[name].to_pylist() for name in CARRIED}
    columns["caption"], columns["queries"] = columns.pop("text"), _names(told["kept_by"], queries)
    columns["uid"] = [uid.hex() for uid in columns["uid"]]
    ordered = (columns[name] for name in Metadata.__struct_fields__)
    encode = msgspec.json.Encoder().encode
    for row in zip(*ordered, strict=True):  # 3 us a pair, and 3 for the columns, measured
        metadata = Metadata(*row)
        yield metadata.caption.encode(), encode(metadata)


def _names(kept_by: pa.ChunkedArray, queries: pa.StringArray) -> Iterator[list[str]]:
    """Yield the queries that keep each pair."""
    lists = kept_by.combine_chunks()
    names = queries.take(lists.flatten()).to_pylist()
    ends = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())]).tolist()
    return (names[start:end] for start, end in pairwise(ends))


def bodies(column: pa.ChunkedArray, order: Order) -> Iterator[memoryview]:
    """Yield the values of a binary column in some order; nothing is copied."""
    found = [binary_buffers(chunk) for chunk in column.chunks]
    views = [memoryview(data.data) for data, _ in found]
    rows = [len(offsets) - 1 for _, offsets in found]
    chunk = np.repeat(np.arange(len(found)), rows)[order].tolist()
    starts, ends = (
        np.concatenate([np.empty(0, np.int64), *(part[at] for _, part in found)])[order].tolist()
        for at in (slice(None, -1), slice(1, None))
    )
    return (views[c][start:end] for c, start, end in zip(chunk, starts, ends, strict=True))


def _published(uids: pa.ChunkedArray, members: Iterator[Bodies], job: ShardJob) -> Done:
    samples = (
        Encoded(key_of(job.first_key + number), uid, bodies)
        for number, (uid, bodies) in enumerate(zip(uids.to_pylist(), members, strict=True))
    )
    made = write_encoded(job.folder, job.shard, samples, job.max_block_bytes)
    return Done(made.outputs, {"samples": made.record.samples, "bytes": made.record.bytes})


def refuse_unplanned(uids: pa.ChunkedArray, job: ShardJob) -> None:
    """Refuse other pairs than were planned.

    Raises:
        ShardFormatError: more or fewer, or one twice.
    """
    unique = len(uids.unique())
    if (len(uids), unique) != (job.samples, job.samples):
        raise ShardFormatError(
            f"{len(uids)} pairs ({unique} different ones) arrived, {job.samples} were planned",
            where=storage.redact(job.place),
            fix="remove the pack stage's markers and start again",
        )


class FinishJob(msgspec.Struct, frozen=True):
    """A data set whose shards are all written; see ``shards.manifest.finish``."""

    folder: str
    shards: int
    generation: str
    recipe: str
    max_block_bytes: int


def finish(job: FinishJob) -> Done:
    """Publish manifest, block table, sizes and ``dataset.json``.

    Raises:
        ShardFormatError: there is no shard.
        StorageError: something cannot be read or written.
    """
    outputs = manifest.finish(
        job.folder,
        job.shards,
        generation=job.generation,
        recipe=job.recipe,
        max_block_bytes=job.max_block_bytes,
    )
    return Done(outputs, {"shards": job.shards})
