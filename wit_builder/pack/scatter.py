"""Map: the kept pairs of fetched parts, pictures included, are sent towards their shards.

Pictures are read and passed on some at a time; what is held of them goes to local disk (see
``exchange.Scatterer``), so that memory does not depend on how large the parts are.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.errors import ShardFormatError
from wit_builder.pack.plan import Ways, places
from wit_builder.ranges import open_ranges
from wit_builder.shards import tar
from wit_builder.tables import IMAGES, KEPT, Outcome
from wit_builder.units import Done

CARRIED = (
    "uid", "url", "page_url", "text", "text_from", "license",
    "width", "height", "original_width", "original_height", "sha256",
)  # fmt: skip

SENT = pa.schema(
    [
        *(IMAGES.field(name).remove_metadata() for name in CARRIED),
        KEPT.field("kept_by").remove_metadata(),
        pa.field("place", pa.uint64(), nullable=False),
        pa.field("jpg", pa.large_binary(), nullable=False),
    ]
)
"""A pair on its way to its shard."""

_BATCH_BYTES = 8 << 20
"""Pictures that are read before they are passed on."""


class PartFiles(msgspec.Struct, frozen=True):
    """A fetched part: place of its table (``tables.IMAGES``), and of its tar of ``KEY.jpg``."""

    table: str
    tar: str


class MapJob(msgspec.Struct, frozen=True):
    """Some fetched parts, and what becomes of them.

    Attributes:
        parts: the parts.
        wanted: exchange files that tell every unit the pairs to pack (``wanted.WANTED``).
        unit: number of this one.
        ways: to the shards.
        seed: the run's seed.
        out: place of the exchange file (``SENT``).
    """

    parts: list[PartFiles]
    wanted: list[str]
    unit: int
    ways: Ways
    seed: int
    out: str


def run(job: MapJob) -> Done:
    """Publish the parts' kept pairs with their pictures, grouped by shard, or by coarse bucket.

    Raises:
        ShardFormatError: a part's tar lacks a picture that its table has.
        StorageError: something cannot be read or written.
    """
    kept = exchange.gather(job.wanted, job.unit)
    published: list[storage.Published] = []
    pairs = 0
    with exchange.scattering(
        job.out, SENT, job.ways.buckets, published, kind=exchange.PICTURES
    ) as scatterer:
        for part in job.parts:
            for table in _pairs(part, kept, job.seed):
                scatterer.add(table, job.ways.first(table["place"].to_numpy()))
                pairs += table.num_rows
    return Done(published, {"pairs": pairs})


def _pairs(part: PartFiles, kept: pa.Table, seed: int) -> Iterator[pa.Table]:
    """Yield a part's kept pairs (``SENT``), some at a time, in the order of their tar."""
    rows = _kept_rows(part.table, kept)
    rows = rows.append_column("place", pa.array(places(rows["uid"], seed)))
    for numbers, pictures in _pictures(part.tar, rows["key"].to_pylist()):
        table = rows.take(pa.array(numbers, pa.int64())).drop_columns(["key"])
        yield table.append_column("jpg", binary_of(pictures)).cast(SENT)


def binary_of(values: list[bytes]) -> pa.Array:
    """Return values as an Arrow column; a third of the time that ``pa.array`` takes for it."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)


def _kept_rows(url: str, kept: pa.Table) -> pa.Table:
    """Return the alive and kept rows of a part's table."""
    rows = storage.read_parquet(url, [*CARRIED, "key", "outcome"])
    rows = rows.filter(pc.equal(rows["outcome"], Outcome.ALIVE.value)).drop_columns(["outcome"])
    at = pc.index_in(rows["uid"], value_set=kept["uid"])
    wanted = pc.is_valid(at)
    kept_by = kept["kept_by"].take(at.filter(wanted))
    return rows.filter(wanted).append_column("kept_by", kept_by)


def _pictures(url: str, keys: list[str]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Yield the bytes of ``KEY.jpg`` for every key, and its number, in one pass over the tar."""
    wanted = {f"{key}.jpg": number for number, key in enumerate(keys)}
    numbers, pictures, held = list[int](), list[bytes](), 0
    with open_ranges(url) as stream:
        for member in tar.walk(stream) if wanted else ():  # 5 us a member, reading it included
            number = wanted.pop(member.name, None)
            if number is not None:
                stream.seek(member.offset)
                numbers.append(number)
                pictures.append(stream.read(member.size))
                held += member.size
            if held > _BATCH_BYTES:
                yield numbers, pictures
                numbers, pictures, held = [], [], 0
    if wanted:
        raise ShardFormatError(
            f"{len(wanted)} pictures are missing, the first is {min(wanted)}",
            where=storage.redact(url),
            fix="remove the part and its unit's marker: it will be fetched anew",
        )
    yield numbers, pictures


class RefineJob(msgspec.Struct, frozen=True):
    """What some units sent to a coarse bucket, to be sent on to the shards of that.

    Attributes:
        sources: their exchange files.
        bucket: the coarse bucket.
        ways: to the shards.
        out: place of the exchange file: a bucket a shard.
    """

    sources: list[str]
    bucket: int
    ways: Ways
    out: str


def run_refine(job: RefineJob) -> Done:
    """Publish the pairs of a coarse bucket grouped by shard; counts ``pairs``.

    Raises:
        StorageError: something cannot be read or written.
    """
    published: list[storage.Published] = []
    schema, pairs = exchange.schema_of(job.sources[0]), 0
    with exchange.scattering(
        job.out, schema, job.ways.span, published, kind=exchange.PICTURES
    ) as scatterer:
        for rows in exchange.slices(job.sources, job.bucket):
            place = rows["place"].to_numpy()
            scatterer.add(rows, job.ways.second(np.asarray(place, np.uint64)))
            pairs += rows.num_rows
    return Done(published, {"pairs": pairs})
