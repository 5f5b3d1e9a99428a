"""Which kept pairs are in which map unit's parts: found by two exchanges, of uids alone.

Kept pairs are known by the bucket of their URL, pictures by the part that they were fetched in. So
every map unit says which alive pairs it has, by the bucket of their URL (``run_locate``); and each
bucket tells the units which of these are kept, and by which queries (``run_want``). Nobody reads
all kept pairs.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.tables import KEPT, Outcome
from wit_builder.units import Done

LOCATED = pa.schema(
    [pa.field("uid", pa.binary(16), nullable=False), pa.field("unit", pa.int32(), nullable=False)]
)
"""An alive pair, and the number of the map unit that has its picture."""

WANTED = pa.schema([KEPT.field(name).remove_metadata() for name in ("uid", "kept_by")])
"""A pair to pack, and the queries that keep it."""


class LocateJob(msgspec.Struct, frozen=True):
    """The parts of a map unit, whose alive pairs go to the buckets of their URLs.

    Attributes:
        tables: of the parts (``tables.IMAGES``).
        unit: number of the map unit.
        buckets: how many buckets of URLs there are.
        out: place of the exchange file (``LOCATED``).
    """

    tables: list[str]
    unit: int
    buckets: int
    out: str


def run_locate(job: LocateJob) -> Done:
    """Publish which alive pairs the parts have; counts ``alive``.

    Raises:
        StorageError: something cannot be read or written.
    """
    published: list[storage.Published] = []
    alive = 0
    with exchange.scattering(job.out, LOCATED, job.buckets, published) as scatterer:
        for url in job.tables:
            for rows in storage.parquet_batches(url, ["uid", "url", "outcome"]):
                there = rows.filter(pc.equal(rows["outcome"], Outcome.ALIVE.value))
                unit = pa.array(np.full(len(there), job.unit, np.int32))
                located = pa.table([there["uid"], unit], schema=LOCATED)
                scatterer.add(located, exchange.bucket_of(there["url"], job.buckets))
                alive += len(there)
    return Done(published, {"alive": alive})


class WantJob(msgspec.Struct, frozen=True):
    """A bucket of URLs, whose kept pairs are told to the map units that have their pictures.

    Attributes:
        located: exchange files of all map units (``LOCATED``).
        bucket: its number.
        kept: the bucket's kept pairs (``tables.KEPT``).
        units: how many map units there are.
        out: place of the exchange file (``WANTED``).
    """

    located: list[str]
    bucket: int
    kept: str
    units: int
    out: str


def run_want(job: WantJob) -> Done:
    """Publish the kept pairs, grouped by map unit; counts ``pairs``. Memory is the bucket.

    A pair that two units have is told to both, so that it is noticed.

    Raises:
        StorageError: something cannot be read or written.
    """
    located = exchange.gather(job.located, job.bucket)
    kept = storage.read_parquet(job.kept, WANTED.names)
    at = pc.index_in(located["uid"], value_set=kept["uid"])
    there = pc.is_valid(at)
    wanted = kept.take(at.filter(there)).cast(WANTED)
    unit = located["unit"].filter(there).to_numpy()
    return Done(exchange.scatter(wanted, unit, job.units, job.out), {"pairs": wanted.num_rows})
