"""Send what a round asks for to the worker that owns its domain, so that limits are global."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.units import Done
from wit_builder.web.answer import Refusal
from wit_builder.web.gate import domain_of, parse


class RouteJob(msgspec.Struct, frozen=True):
    """One table of selected pairs, to be grouped by registrable domain.

    Attributes:
        selected: place of the table (``tables.SELECTED``).
        buckets: how many fetch units there are.
        out: place of the exchange file.
    """

    selected: str
    buckets: int
    out: str


def run(job: RouteJob) -> Done:
    """Publish the pairs, grouped by ``hash(registrable domain)``.

    Raises:
        StorageError: the table is missing or damaged, or the file cannot be written.
    """
    table = storage.read_parquet(job.selected)
    bucket = exchange.bucket_of(domains(table["url"]), job.buckets)
    outputs = exchange.scatter(table, bucket, job.buckets, job.out)
    return Done(outputs, {"pairs": table.num_rows})


def domains(urls: pa.ChunkedArray) -> pa.Array:
    """Return the registrable domain of every URL; one that cannot be parsed gives itself.

    Domains are found once per origin: a parse of 10 us, against 0.2 us for a look-up of the origin.
    """
    origins = pc.replace_substring_regex(urls, r"^([^:]*://[^/?#]*).*", r"\1")
    encoded = origins.combine_chunks().dictionary_encode()
    names = pa.array([_domain(origin) for origin in encoded.dictionary.to_pylist()], pa.string())
    return names.take(encoded.indices)


def _domain(origin: str) -> str:
    url = parse(origin)
    return origin if isinstance(url, Refusal) else domain_of(url)
