"""Map: a fetched part's kept pairs, pictures included, are sent towards their shards."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.errors import ShardFormatError
from wit_builder.pack.plan import places, shard_of
from wit_builder.shards import tar
from wit_builder.tables import Outcome
from wit_builder.units import Done

CARRIED = (
    "uid", "url", "page_url", "text", "text_from", "license",
    "width", "height", "original_width", "original_height", "sha256",
)  # fmt: skip


class MapJob(msgspec.Struct, frozen=True):
    """A fetched part, and what becomes of it.

    Attributes:
        part_tar: place of the part's ``KEY.jpg`` members.
        part_parquet: place of its rows (``tables.IMAGES``).
        kept: tables with ``uid`` and ``kept_by``: the pairs to pack, and which queries keep them;
            pairs of other parts, too. One is in memory at a time.
        shards: how many shards the plan has.
        seed: the run's seed.
        out: place of the exchange file.
    """

    part_tar: str
    part_parquet: str
    kept: list[str]
    shards: int
    seed: int
    out: str


def run(job: MapJob) -> Done:
    """Publish the part's kept pairs with their pictures, grouped by shard.

    Raises:
        ShardFormatError: the part's tar lacks a picture that its table has.
        StorageError: something cannot be read or written.
    """
    rows = _kept_rows(job)
    place = places(rows["uid"], job.seed)
    pictures = _pictures(job.part_tar, rows["key"])
    table = rows.drop_columns(["key"])
    table = table.append_column("place", pa.array(place)).append_column("jpg", pictures)
    shard = shard_of(place, job.shards)
    outputs = exchange.scatter(table, shard, job.shards, job.out, compression=None)
    return Done(outputs, {"pairs": table.num_rows})


def _kept_rows(job: MapJob) -> pa.Table:
    """Return the part's alive and kept rows, in the order of their keys: that of the tar."""
    columns = [*CARRIED, "key", "outcome"]
    rows = storage.read_parquet(job.part_parquet, columns)
    rows = rows.filter(pc.equal(rows["outcome"], Outcome.ALIVE.value)).drop_columns(["outcome"])
    found = [_kept_in(storage.read_parquet(url, ["uid", "kept_by"]), rows) for url in job.kept]
    return pa.concat_tables(found).sort_by("key")


def _kept_in(kept: pa.Table, rows: pa.Table) -> pa.Table:
    at = pc.index_in(rows["uid"], value_set=kept["uid"])
    wanted = pc.is_valid(at)
    kept_by = kept["kept_by"].take(at.filter(wanted))
    return rows.filter(wanted).append_column("kept_by", kept_by)


def _pictures(part_tar: str, keys: pa.ChunkedArray) -> pa.Array:
    """Return the bytes of ``KEY.jpg`` for every key, in one pass over the tar."""
    wanted = {f"{key}.jpg": number for number, key in enumerate(keys.to_pylist())}
    found: list[bytes | None] = [None] * len(wanted)
    with storage.open_read(part_tar) as stream, storage.translated(part_tar, "read"):
        for member in tar.walk(stream):  # 5 us a member and the reading, measured
            number = wanted.get(member.name)
            if number is not None:
                stream.seek(member.offset)
                found[number] = stream.read(member.size)
    missing = [key for key, number in wanted.items() if found[number] is None]
    if missing:
        raise ShardFormatError(
            f"{len(missing)} pictures are missing, the first is {missing[0]}",
            where=storage.redact(part_tar),
            fix="remove the part and its unit's marker: it will be fetched anew",
        )
    return pa.array(found, pa.large_binary())
