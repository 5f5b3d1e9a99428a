"""Texts that come with too many pictures: slogans, templates, names of shops.

Pairs of one text spread over all archives, so they are counted through ``exchange``. For every
matched pair the match stage notes a *use*: a 64-bit hash of the normalised text, and one of the
URL. A unit here has all uses of the texts of its bucket, and publishes those texts, as hashes, that
came with more than N distinct URLs. Dedup then drops their pairs, before it chooses one per URL.
Neither units, nor workers, nor any order has a say in which texts these are.

A text is hit by mistake if it shares its hash with a repeated one. With R repeated texts, that
happens to a given text with a chance of R / 2**64; of a billion texts beside ten million repeated
ones, to one in 1,800 such crawls. That two URLs of one text share a hash, so that N + 1 look like
N, is rarer still.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder import exchange, storage
from wit_builder.hashing import U64, hash_column
from wit_builder.text import normalise_column
from wit_builder.units import Done

_U64 = pa.uint64()
USES = pa.schema([pa.field("text", _U64, nullable=False), pa.field("url", _U64, nullable=False)])
"""A text with a picture: xxh64 of the normalised text, and of the URL."""

SUFFIX = ".uses"
"""How the names of exchange files of uses end, to tell them from those of the matched pairs."""

_REPEATED = pa.schema([pa.field("text", _U64, nullable=False)])


def uses(normalised: pa.Array, urls: pa.ChunkedArray) -> pa.Table:
    """Return the distinct uses (``USES``) of some pairs, in order of text and URL."""
    columns = _distinct(hash_column(normalised), hash_column(urls))
    return pa.table(list(columns), schema=USES)


def bucket_of(uses: pa.Table, buckets: int) -> npt.NDArray[np.int64]:
    """Return the bucket of every use: its text's hash modulo the number of buckets."""
    return (uses["text"].to_numpy() % np.uint64(buckets)).astype(np.int64)


class RepeatsJob(msgspec.Struct, frozen=True):
    """One bucket of all files of uses, to become one table of the texts with too many URLs."""

    sources: list[str]
    bucket: int
    max_urls_per_text: int
    out: str


def run(job: RepeatsJob) -> Done:
    """Publish the hashes of the bucket's repeated texts, ascending.

    Counts ``texts`` and ``repeated``. Memory is one bucket.

    Raises:
        StorageError: a source is missing or damaged, or the output cannot be written.
    """
    found = exchange.gather(job.sources, job.bucket)
    texts, _ = _distinct(found["text"].to_numpy(), found["url"].to_numpy())
    distinct, urls = np.unique(texts, return_counts=True)
    repeated = distinct[urls > job.max_urls_per_text]
    published = storage.write_parquet(job.out, pa.table([repeated], schema=_REPEATED))
    return Done([published], {"texts": distinct.size, "repeated": repeated.size})


def read_repeated(places: list[str]) -> U64:
    """Return the hashes of all repeated texts, ascending.

    Raises:
        StorageError: a table is missing or damaged.
    """
    tables = [storage.read_parquet(place, ["text"])["text"].to_numpy() for place in places]
    return np.sort(np.concatenate([np.empty(0, np.uint64), *tables]))


def is_repeated(texts: pa.ChunkedArray, repeated: U64) -> npt.NDArray[np.bool_]:
    """Return which texts (as found) are among the repeated ones."""
    if not repeated.size:
        return np.zeros(len(texts), np.bool_)
    hashes = hash_column(normalise_column(texts))
    at = np.searchsorted(repeated, hashes)
    return repeated[np.minimum(at, repeated.size - 1)] == hashes


def _distinct(texts: U64, urls: U64) -> tuple[U64, U64]:
    """Return each (text, URL) once, in order."""
    order = np.lexsort((urls, texts))
    texts, urls = texts[order], urls[order]
    first = np.ones(texts.size, np.bool_)
    first[1:] = (texts[1:] != texts[:-1]) | (urls[1:] != urls[:-1])
    return texts[first], urls[first]
