"""Send what a round asks for to the worker that owns its domain, so that limits are global.

Pairs whose picture a shard holds go by that shard instead: nobody is asked for them, and one worker
reads what lies together. Pairs that a domain redirected to another go to that one's owner, in a
pass that follows.
"""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.tables import IMAGES, SELECTED, Outcome, conform
from wit_builder.units import Done
from wit_builder.web.answer import Refusal
from wit_builder.web.gate import domain_of, parse


class RouteJob(msgspec.Struct, frozen=True):
    """One table of selected pairs, to be grouped by registrable domain, or by shard.

    Attributes:
        selected: place of the table (``tables.SELECTED``).
        buckets: how many fetch units there are.
        out: place of the exchange file.
    """

    selected: str
    buckets: int
    out: str


def run(job: RouteJob) -> Done:
    """Publish the pairs, grouped by ``hash(registrable domain)``, or by that of a shard's name.

    Raises:
        StorageError: the table is missing or damaged, or the file cannot be written.
    """
    table = storage.read_parquet(job.selected)
    bucket = exchange.bucket_of(owners(table), job.buckets)
    outputs = exchange.scatter(table, bucket, job.buckets, job.out)
    return Done(outputs, {"pairs": table.num_rows})


class MovedJob(msgspec.Struct, frozen=True):
    """Parts of a fetch unit, of which the moved pairs are to be grouped by their new domain.

    Attributes:
        images: places of the parts' tables (``tables.IMAGES``).
        buckets: how many fetch units there are.
        out: place of the exchange file.
    """

    images: list[str]
    buckets: int
    out: str


MOVED = pa.schema([*SELECTED, IMAGES.field("final_url"), IMAGES.field("redirects")])
"""What a pass that follows asks for: ``final_url`` rather than ``url``."""


def run_moved(job: MovedJob) -> Done:
    """Publish the pairs that moved, grouped by the domain that they moved to.

    Raises:
        StorageError: a table is missing or damaged, or the file cannot be written.
    """
    tables = [storage.read_parquet(url, [*MOVED.names, "outcome"]) for url in job.images]
    moved = [t.filter(pc.equal(t["outcome"], Outcome.MOVED.value)) for t in tables]
    table = pa.concat_tables([MOVED.empty_table(), *(conform(t, MOVED) for t in moved)])
    table = table.combine_chunks()
    bucket = exchange.bucket_of(domains(table["final_url"]), job.buckets)
    outputs = exchange.scatter(table, bucket, job.buckets, job.out)
    return Done(outputs, {"pairs": table.num_rows})


def asked(selection: pa.Table) -> tuple[pa.ChunkedArray, list[int]]:
    """Return the URL to ask for of each pair, and how many redirects led to it."""
    if "final_url" not in selection.column_names:
        return selection["url"], [0] * len(selection)
    return selection["final_url"], selection["redirects"].to_pylist()


def owners(table: pa.Table) -> pa.Array:
    """Return what decides who fetches each pair: its shard's file name, else its domain."""
    at = table["picture_at"].combine_chunks()
    shards = pc.replace_substring_regex(at, r"^(?:.*/)?([^/]*)@[0-9]+\+[0-9]+$", r"\1")
    asked = pc.is_null(at)
    return pc.replace_with_mask(shards, asked, domains(table["url"].filter(asked)))


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
