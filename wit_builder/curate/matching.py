"""Which candidates are worth keeping: filters on their texts, the matcher, and their language.

In this order: length, file names and boilerplate, queries, language (of what contains a query, for
it costs most). A text is normalised once. The first filter that a text fails is its reason.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.curate import filters, language, repeats
from wit_builder.curate.match import Matcher
from wit_builder.sections import MatchSection
from wit_builder.storage import Published
from wit_builder.tables import MATCHED, REJECTIONS, Reason, conform
from wit_builder.text import normalise_column
from wit_builder.units import Done

Mask = npt.NDArray[np.bool_]

_GROUP_ROWS = 1 << 17
"""Rejections of a row group: few groups, and some ten megabytes held."""

_REASONS = (
    Reason.TEXT_TOO_SHORT,
    Reason.TEXT_TOO_LONG,
    Reason.FILE_NAME,
    Reason.BOILERPLATE,
    Reason.NO_QUERY,
    Reason.LANGUAGE,
)


class MatchJob(msgspec.Struct, frozen=True):
    """One file of candidates, the queries, and where matched pairs and rejections go.

    ``queries_identity`` tells one version of the query list from the next: a worker process keeps
    the matcher of the last one it saw. ``uses`` is the exchange file by which repeated texts are
    counted (see ``repeats``); it is written only if the section limits them.
    """

    candidates: str
    queries: str
    queries_identity: str
    section: MatchSection
    buckets: int
    matched: str
    uses: str
    rejections: str


def run(job: MatchJob) -> Done:
    """Write the candidates that contain a query, by bucket of their URL; reject the others.

    Counts ``candidates``, ``matched``, ``matches`` (pairs of text and query) and
    ``rejected:REASON``. Rows keep the candidates' order within a bucket. What is held does not
    depend on how many candidates there are.

    Raises:
        StorageError: an input cannot be read, or an output cannot be written.
        MissingPartError: languages are filtered, and their detector is not installed.
    """
    matcher = _matcher(job.queries, job.queries_identity)
    published: list[Published] = []
    counts = Counter(candidates=0, matched=0, matches=0)
    with _writing(job, published) as write:
        for candidates in storage.read_batches(job.candidates):
            sifted = sift(matcher, candidates, job.section)
            write(sifted)
            counts.update(_counts(sifted))
    return Done(published, {key: counts[key] for key in sorted(counts)})


@functools.lru_cache(maxsize=1)
def _matcher(queries: str, identity: str) -> Matcher:
    """Return the matcher of a query list; ``identity`` is there to be part of the cache's key."""
    del identity
    return Matcher(storage.read_parquet(queries, ["query"])["query"])


class Sifted(NamedTuple):
    """What became of a batch of candidates.

    Attributes:
        matched: rows of ``tables.MATCHED``, in the candidates' order.
        normalised: their texts, normalised.
        rejected: rows of ``tables.REJECTIONS``, in the candidates' order, without URLs: the uid
            leads to them in the candidates file.
    """

    matched: pa.Table
    normalised: pa.Array
    rejected: pa.Table


def sift(matcher: Matcher, candidates: pa.Table, section: MatchSection) -> Sifted:
    """Return the candidates that contain a query and pass the section's filters, and the others.

    Args:
        matcher: of the query list.
        candidates: rows of ``tables.CANDIDATES``.
        section: lengths are in characters, both bounds allowed.

    Raises:
        MissingPartError: languages are filtered, and their detector is not installed.
    """
    sieve = _Sieve(candidates.num_rows)
    texts = candidates["text"].combine_chunks()
    (texts,) = sieve.drop(
        {
            Reason.TEXT_TOO_SHORT: filters.too_short(texts, section.min_chars),
            Reason.TEXT_TOO_LONG: filters.too_long(texts, section.max_chars),
        },
        texts,
    )
    normalised = normalise_column(texts)
    said = filters.say_nothing(texts, normalised)
    kept = {Reason.FILE_NAME: section.keep_file_names, Reason.BOILERPLATE: section.keep_boilerplate}
    rejected = {reason: mask for reason, mask in said.items() if not kept[reason]}
    texts, normalised = sieve.drop(rejected, texts, normalised)
    ids = matcher.match_normalised(normalised)
    unmatched = pc.equal(pc.list_value_length(ids), 0).to_numpy(zero_copy_only=False)
    texts, normalised, ids = sieve.drop({Reason.NO_QUERY: unmatched}, texts, normalised, ids)
    languages = pa.nulls(len(texts), pa.string())
    if section.languages:
        told = language.tell(texts, section)
        sieve.explain(told.refused, told.details)
        refused = {Reason.LANGUAGE: told.refused}
        normalised, ids, languages = sieve.drop(refused, normalised, ids, told.codes)
    matched = candidates.take(pa.array(sieve.left))
    matched = matched.append_column("language", languages).append_column("query_ids", ids)
    return Sifted(conform(matched, MATCHED), normalised, sieve.rejections(candidates["uid"]))


class _Sieve:
    """Which rows of a batch are left, and the reasons of those that are not."""

    def __init__(self, rows: int) -> None:
        self.left = np.arange(rows)
        self._reason = np.zeros(rows, np.int8)
        self._detail = np.full(rows, None, object)

    def drop(self, masks: dict[Reason, Mask], *columns: pa.Array) -> list[pa.Array]:
        """Drop those left that a mask names, for its reason; return the columns without them."""
        stays = np.ones(self.left.size, np.bool_)
        for reason, mask in masks.items():
            self._reason[self.left[mask & stays]] = 1 + _REASONS.index(reason)
            stays &= ~mask
        self.left = self.left[stays]
        return [column.filter(pa.array(stays)) for column in columns]

    def explain(self, mask: Mask, details: list[str]) -> None:
        """Note a detail for each of those left that the mask names."""
        self._detail[self.left[mask]] = details

    def rejections(self, uids: pa.ChunkedArray) -> pa.Table:
        """Return what was dropped, in the order of the batch."""
        dropped = np.flatnonzero(self._reason)
        columns = [
            uids.take(pa.array(dropped)),
            pa.repeat("match", dropped.size),
            pa.array([r.value for r in _REASONS]).take(pa.array(self._reason[dropped] - 1)),
            pa.array(self._detail[dropped], pa.string()),
            pa.nulls(dropped.size, pa.string()),
        ]
        return pa.table(columns, schema=REJECTIONS)


def _counts(sifted: Sifted) -> dict[str, int]:
    matched, rejected = sifted.matched, sifted.rejected
    counts = {
        "candidates": matched.num_rows + rejected.num_rows,
        "matched": matched.num_rows,
        "matches": pc.sum(pc.list_value_length(matched["query_ids"])).as_py() or 0,
    }
    reasons = pc.value_counts(rejected["reason"]).to_pylist()
    return counts | {f"rejected:{found['values']}": found["counts"] for found in reasons}


@contextlib.contextmanager
def _writing(job: MatchJob, published: list[Published]) -> Iterator[Callable[[Sifted], None]]:
    """Give a function that takes what became of a batch; publish all of it on a clean exit."""
    with (
        _rejections(job.rejections, published) as reject,
        _uses(job, published) as count,
        exchange.scattering(job.matched, MATCHED, job.buckets, published) as matched,
    ):

        def write(sifted: Sifted) -> None:
            matched.add(sifted.matched, exchange.bucket_of(sifted.matched["url"], job.buckets))
            count(sifted)
            reject(sifted.rejected)

        yield write


@contextlib.contextmanager
def _uses(job: MatchJob, published: list[Published]) -> Iterator[Callable[[Sifted], None]]:
    """Give a function that notes which texts came with which URLs, if anybody wants to know."""
    if not job.section.max_urls_per_text:
        yield lambda _: None
        return
    schema, buckets = repeats.USES, job.buckets
    with exchange.scattering(job.uses, schema, buckets, published) as uses:

        def count(sifted: Sifted) -> None:
            found = repeats.uses(sifted.normalised, sifted.matched["url"])
            uses.add(found, repeats.bucket_of(found, buckets))

        yield count


@contextlib.contextmanager
def _rejections(url: str, published: list[Published]) -> Iterator[Callable[[pa.Table], None]]:
    """Give a function that takes rejections, and writes them a row group at a time."""
    held: list[pa.Table] = []
    with storage.parquet_writer(url, REJECTIONS, published) as writer:

        def reject(rejected: pa.Table) -> None:
            held.append(rejected)
            if sum(table.num_rows for table in held) >= _GROUP_ROWS:
                writer.write_table(pa.concat_tables(held))
                held.clear()

        yield reject
        if held:
            writer.write_table(pa.concat_tables(held))
