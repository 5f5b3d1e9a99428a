"""What is known of the pairs of a bucket: which are alive, dead, or not known yet.

Pairs are grouped by their URL. An *answer* is what fetching found out of one for good; deferred
pairs have none. A *loser* is alive, but another pair has its picture: as good as dead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder import exchange, storage
from wit_builder.curate.balance import (
    ALIVE,
    DEAD,
    U8,
    UNKNOWN,
    Mask,
    query_seeds,
)
from wit_builder.curate.pairs import Pairs, pairs_of, uid_words
from wit_builder.errors import StorageError
from wit_builder.hashing import U64
from wit_builder.storage import Published
from wit_builder.tables import Outcome
from wit_builder.units import Done

I64 = npt.NDArray[np.int64]

_UID = pa.binary(16)
_FINAL = pa.array([Outcome.ALIVE.value, Outcome.DEAD.value])

ANSWERS = pa.schema(
    [
        pa.field("uid", _UID, nullable=False),
        pa.field("alive", pa.bool_(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.string()),
    ]
)
"""Exchanged by URL: the final answers of a round."""

LOSERS = pa.schema([pa.field("uid", _UID, nullable=False), pa.field("same", pa.bool_(), False)])
"""Exchanged by URL: pairs whose picture another has; ``same`` to the byte, or looking so."""

LIST_KEY = b"wit_builder.queries"
"""Metadata of a matched table: the identity of the query list that its ids are of."""

REMOVED_KEY = b"wit_builder.removed"
"""Metadata of a matched table: the uids (hex) of its pairs that were removed, one after another.

Nobody asks for these again, and no answer finds them, for they have no URL any more.
"""


class QueryList(msgspec.Struct, frozen=True):
    """The query list of a run: where it is, and the identity that matched tables name."""

    url: str
    identity: str
    seed: int

    def seeds(self) -> U64:
        """Return the seeds of all queries' ranks."""
        return query_seeds(storage.read_parquet(self.url, ["query"])["query"], self.seed)


class Bucket(msgspec.Struct, frozen=True):
    """One bucket of matched pairs, and the exchange files that tell of them.

    Attributes:
        number: which bucket.
        matched: its tables (``tables.MATCHED``), of one generation each.
        answers: exchange files of answers by URL.
        losers: exchange files of losers by URL.
    """

    number: int
    matched: list[str]
    answers: list[str] = []
    losers: list[str] = []


class Known(NamedTuple):
    """The pairs of a bucket that are not unknown, in the order of their uids' bytes.

    Attributes:
        high: uint64 [N], first eight bytes of the uid, big-endian.
        low: uint64 [N], its last eight bytes.
        state: uint8 [N].
    """

    high: U64
    low: U64
    state: U8

    def of(self, uids: pa.Array) -> U8:
        """Return the state of every pair; quick where uids are in order."""
        words = uid_words(uids)
        states = np.full(len(words), UNKNOWN, np.uint8)
        _look_up(words[:, 0].byteswap(), words[:, 1].byteswap(), self, states)
        return states


def known(bucket: Bucket) -> Known:
    """Return what is known of a bucket's pairs: 17 bytes each, several times that meanwhile.

    Raises:
        StorageError: an exchange file is missing or damaged.
    """
    columns = [(table, np.where(table["alive"], ALIVE, DEAD)) for table in _answers(bucket)]
    columns += [(t, np.full(len(t), DEAD)) for t in [*_losers(bucket), *_removed(bucket)]]
    words = np.concatenate([np.empty((0, 2), "<u8"), *(uid_words(t["uid"]) for t, _ in columns)])
    state = np.concatenate([np.empty(0, np.uint8), *(s.astype(np.uint8) for _, s in columns)])
    high, low = words[:, 0].byteswap(), words[:, 1].byteswap()
    order = np.lexsort((state, low, high))  # of an alive pair that lost, DEAD comes last
    last = np.ones(len(order), np.bool_)
    last[:-1] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    order = order[last]
    return Known(high[order], low[order], state[order])


def _answers(bucket: Bucket) -> list[pa.Table]:
    return [exchange.gather(bucket.answers, bucket.number)] if bucket.answers else []


def _removed(bucket: Bucket) -> list[pa.Table]:
    uids = [removed_of(_metadata(url)) for url in bucket.matched]
    return [pa.table([some], ["uid"]) for some in uids if len(some)]


def removed_of(metadata: Mapping[bytes, bytes]) -> pa.Array:
    """Return the uids of the removed pairs of a matched table, by its schema's metadata."""
    told = metadata.get(REMOVED_KEY, b"")
    data = pa.py_buffer(bytes.fromhex(told.decode()))  # hex: metadata is text
    return pa.Array.from_buffers(_UID, len(told) // 32, [None, data])


def _metadata(url: str) -> Mapping[bytes, bytes]:
    with storage.open_arrow(url) as file:
        return pq.read_schema(file).metadata or {}


def _losers(bucket: Bucket) -> list[pa.Table]:
    return [exchange.gather(bucket.losers, bucket.number)] if bucket.losers else []


@numba.njit(cache=True, nogil=True)
def _look_up(high: U64, low: U64, known: Known, states: U8) -> None:
    highs, lows, found = known
    at = 0
    for i in range(high.size):
        if i == 0 or high[i] < high[i - 1] or (high[i] == high[i - 1] and low[i] < low[i - 1]):
            at = np.searchsorted(highs, high[i])
        while at < highs.size and (
            highs[at] < high[i] or (highs[at] == high[i] and lows[at] < low[i])
        ):
            at += 1
        if at < highs.size and highs[at] == high[i] and lows[at] == low[i]:
            states[i] = found[at]


class Batch(NamedTuple):
    """Some pairs of a bucket.

    Attributes:
        rows: their columns of the matched table.
        pairs: with their queries.
        states: uint8 [P].
    """

    rows: pa.RecordBatch
    pairs: Pairs
    states: U8

    def in_state(self, state: int) -> Mask:
        """Return which pairs are in a state, bool [P]."""
        return self.states == state


def batches(
    bucket: Bucket, queries: QueryList, count: int, columns: list[str] | None = None
) -> Iterator[Batch]:
    """Yield the pairs of a bucket, a quarter of a million at a time, with their states.

    Args:
        bucket: which pairs, and what is known of them.
        queries: the list that the ids must be of.
        count: its length.
        columns: of the matched table, besides ``uid`` and ``query_ids``.

    Raises:
        StorageError: a table is missing, damaged, of another query list, or names a query outside
            the list.
    """
    found = known(bucket)
    for url in bucket.matched:
        refuse_other_list(url, queries)
        for rows in storage.parquet_batches(url, ["uid", "query_ids", *(columns or [])]):
            pairs = pairs_of(rows["uid"], rows["query_ids"])
            _refuse_outside(pairs, count, url)
            yield Batch(rows, pairs, found.of(rows["uid"]))


def of_list(matched: pa.Table, queries_identity: str) -> pa.Table:
    """Return a matched table that names the query list which its ids are of."""
    return matched.replace_schema_metadata({LIST_KEY: queries_identity.encode()})


def refuse_other_list(url: str, queries: QueryList) -> None:
    """Refuse a matched table that is not of this query list.

    Raises:
        StorageError: it is of another, or it does not say.
    """
    named = _metadata(url).get(LIST_KEY, b"").decode()
    if named != queries.identity:
        raise StorageError(
            f"matched with another query list ({named[:12] or 'it names none'}) than the run's "
            f"({queries.identity[:12]})",
            where=storage.redact(url),
            fix="remove it and start again: its unit will be done anew",
        )


def _refuse_outside(pairs: Pairs, count: int, url: str) -> None:
    ids = pairs.queries
    if ids.size and not 0 <= ids.min() <= ids.max() < count:
        worst = ids.min() if ids.min() < 0 else ids.max()
        raise StorageError(
            f"names query {worst}, but the query list ends at {count - 1}",
            where=storage.redact(url),
            fix="remove it and start again: its unit will be done anew",
        )


class AnswersJob(msgspec.Struct, frozen=True):
    """Image tables of a fetch unit, whose final answers go to the buckets of their URLs."""

    images: list[str]
    buckets: int
    out: str


def run_answers(job: AnswersJob) -> Done:
    """Publish the final answers by URL.

    Counts ``answers:alive`` and ``answers:dead``.

    Raises:
        StorageError: an image table is missing or damaged, or the output cannot be written.
    """
    published: list[Published] = []
    counts = {"answers:alive": 0, "answers:dead": 0}
    columns = ["uid", "url", "outcome", "sha256", "phash"]
    with exchange.scattering(job.out, ANSWERS, job.buckets, published) as scatterer:
        for url in job.images:
            for asked in storage.parquet_batches(url, columns):
                rows = asked.filter(pc.is_in(asked["outcome"], value_set=_FINAL))
                alive = pc.equal(rows["outcome"], Outcome.ALIVE)
                told = [rows["uid"], alive, rows["sha256"], rows["phash"]]
                scatterer.add(
                    pa.table(told, schema=ANSWERS), exchange.bucket_of(rows["url"], job.buckets)
                )
                counts["answers:alive"] += alive.true_count
                counts["answers:dead"] += len(rows) - alive.true_count
    return Done(published, counts)
