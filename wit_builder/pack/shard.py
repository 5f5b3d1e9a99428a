"""Reduce: pairs sent to a shard are put in order and written; then the data set is listed."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa

from wit_builder import exchange, storage
from wit_builder.errors import ShardFormatError
from wit_builder.pack.scatter import CARRIED
from wit_builder.shards import manifest
from wit_builder.shards.layout import Metadata, key_of, tar_name
from wit_builder.shards.write import Pair, write_shard
from wit_builder.units import Done


class ShardJob(msgspec.Struct, frozen=True):
    """A shard to write.

    Attributes:
        sources: places of the exchange files of all parts.
        shard: its number.
        first_key: position of its first sample in the data set.
        samples: how many pairs the plan has for it.
        queries_url: place of the query list (``tables.QUERIES``).
        folder: the data set's folder.
        max_block_bytes: a block is cut before it would grow beyond this.
    """

    sources: list[str]
    shard: int
    first_key: int
    samples: int
    queries_url: str
    folder: str
    max_block_bytes: int


def run(job: ShardJob) -> Done:
    """Publish a shard and its samples table, in the order of (place, uid).

    Raises:
        ShardFormatError: not the pairs that were planned, or a pair twice.
        StorageError: something cannot be read or written.
    """
    rows = exchange.gather(job.sources, job.shard)
    refuse_unplanned(rows, job)
    rows = rows.sort_by([("place", "ascending"), ("uid", "ascending")])
    queries = storage.read_parquet(job.queries_url, ["query"])["query"].combine_chunks()
    return written(rows, queries, job)


def written(rows: pa.Table, queries: pa.StringArray, job: ShardJob) -> Done:
    """Publish a shard of rows that are in the order of its keys.

    Args:
        rows: ``scatter.CARRIED``, ``kept_by`` and ``jpg``.
        queries: the query list, which ``kept_by`` counts in.
        job: which shard it is.

    Raises:
        StorageError: it cannot be written.
    """
    made = write_shard(job.folder, job.shard, _pairs(rows, queries, job), job.max_block_bytes)
    record = made.record
    return Done(made.outputs, {"samples": record.samples, "bytes": record.bytes})


def refuse_unplanned(rows: pa.Table, job: ShardJob) -> None:
    """Refuse other pairs than were planned.

    Raises:
        ShardFormatError: more or fewer, or one twice.
    """
    unique = len(rows["uid"].unique())
    if (rows.num_rows, unique) != (job.samples, job.samples):
        raise ShardFormatError(
            f"{rows.num_rows} pairs ({unique} different ones) arrived, {job.samples} were planned",
            where=storage.join(job.folder, tar_name(job.shard)),
            fix="remove the pack stage's markers and start again",
        )


def _pairs(rows: pa.Table, queries: pa.StringArray, job: ShardJob) -> Iterator[Pair]:
    pictures = rows["jpg"]
    carried = rows.select([*CARRIED, "kept_by"]).to_pylist()
    for number, row in enumerate(carried):  # 20 us a sample, measured; writing it takes 50
        kept_by = [queries[q].as_py() for q in row.pop("kept_by")]
        row["caption"] = row.pop("text")
        row["uid"] = row["uid"].hex()
        picture = pictures[number].as_py()
        yield Pair(key_of(job.first_key + number), picture, Metadata(queries=kept_by, **row))


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
