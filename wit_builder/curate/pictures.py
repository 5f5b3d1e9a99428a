"""One pair per picture, of those that are drawn.

Of the alive pairs in the draw that have one picture, the lowest in ``hash(seed, "dedup", uid)``
keeps it; the others lose, which makes room in the draws of their queries. A pair that was fetched
ahead of need takes part once it is drawn, not before: else what is kept would depend on how many
were fetched ahead. Pictures of earlier generations are theirs, whoever draws them.

Pictures are the same where the bodies have one SHA-256, and, if asked for, where their perceptual
hashes are equal.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.curate.balance import ALIVE, Mask, drawn
from wit_builder.curate.bounds import read_bounds
from wit_builder.curate.pairs import any_where
from wit_builder.curate.states import LOSERS, Bucket, QueryList, batches
from wit_builder.hashing import hash_column, label_seed
from wit_builder.storage import Published
from wit_builder.units import Done

RIVALS = pa.schema(
    [
        pa.field("picture", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("place", pa.uint64(), nullable=False),
        pa.field("uid", pa.binary(16), nullable=False),
        pa.field("earlier", pa.bool_(), nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
    ]
)
"""Exchanged by picture: alive pairs that compete for it, and the bucket of their URL."""


class RivalsJob(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket's alive pairs, of which those that are drawn compete for their pictures.

    Attributes:
        bucket: the pairs and what is known of them, without losers.
        bounds: of the draw; empty for pairs of earlier generations: those that these keep compete,
            and win.
        kept: tables of the pairs that earlier generations keep.
        look_alikes: whether pictures with equal perceptual hashes are the same.
    """

    queries: QueryList
    bucket: Bucket
    bounds: str
    kept: list[str]
    look_alikes: bool
    buckets: int
    out: str


def run_rivals(job: RivalsJob) -> Done:
    """Publish the competing pairs by picture.

    Raises:
        StorageError: a table is missing, damaged, or of another query list, or the output cannot be
            written.
    """
    published: list[Published] = []
    with exchange.scattering(job.out, RIVALS, job.buckets, published) as scatterer:
        answers = exchange.gather(job.bucket.answers, job.bucket.number)
        alive = answers.filter(answers["alive"])
        compete = _is_drawn(job, alive["uid"]) if job.bounds else _is_kept(job, alive["uid"])
        alive = alive.filter(pa.array(compete))
        rivals = _rivals(job, alive)
        scatterer.add(rivals, exchange.bucket_of(rivals["picture"], job.buckets))
    return Done(published, {"pairs": len(rivals)})


def _is_drawn(job: RivalsJob, uids: pa.ChunkedArray) -> Mask:
    seeds = job.queries.seeds()
    bounds = read_bounds(job.bounds, len(seeds))
    mask = np.zeros(len(uids), np.bool_)
    wanted = uids.cast(pa.binary())
    for batch in batches(job.bucket, job.queries, len(seeds)):
        taken = any_where(batch.pairs, drawn(batch.pairs, batch.in_state(ALIVE), seeds, bounds))
        some = batch.rows["uid"].filter(pa.array(taken)).cast(pa.binary())
        mask |= pc.is_in(wanted, value_set=some).to_numpy()
    return mask


def _is_kept(job: RivalsJob, uids: pa.ChunkedArray) -> Mask:
    mask = np.zeros(len(uids), np.bool_)
    for url in job.kept:
        kept = storage.read_parquet(url, ["uid"])["uid"].cast(pa.binary())
        mask |= pc.is_in(uids.cast(pa.binary()), value_set=kept).to_numpy()
    return mask


def _rivals(job: RivalsJob, alive: pa.Table) -> pa.Table:
    size = len(alive)
    sha256, phash = alive["sha256"], alive["phash"]
    picture = pc.coalesce(phash, sha256) if job.look_alikes else sha256
    place = hash_column(alive["uid"], label_seed(job.queries.seed, "dedup"))
    columns = [
        picture,
        sha256,
        pa.array(place),
        alive["uid"],
        pa.repeat(not job.bounds, size),
        pa.repeat(np.int32(job.bucket.number), size),
    ]
    return pa.table(columns, schema=RIVALS)


class LosersJob(msgspec.Struct, frozen=True):
    """One bucket of pictures, in each of which one pair wins."""

    rivals: list[str]
    bucket: int
    buckets: int
    out: str


def run_losers(job: LosersJob) -> Done:
    """Publish the losers by URL; counts ``losers``.

    Raises:
        StorageError: an exchange file is missing or damaged, or the output cannot be written.
    """
    rivals = exchange.gather(job.rivals, job.bucket)
    order = [("picture", "ascending"), ("earlier", "descending")]
    order += [("place", "ascending"), ("uid", "ascending")]
    rivals = rivals.sort_by(order).combine_chunks()
    is_first = _is_first(rivals["picture"])
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(rivals)), 0))
    loses = ~is_first & ~rivals["earlier"].to_numpy().astype(np.bool_)
    same = pc.equal(rivals["sha256"], rivals["sha256"].take(pa.array(first)))
    losers = pa.table([rivals["uid"], same], schema=LOSERS).filter(pa.array(loses))
    bucket = rivals["bucket"].to_numpy()[loses]
    outputs = exchange.scatter(losers, bucket, job.buckets, job.out)
    return Done(outputs, {"losers": len(losers)})


def _is_first(pictures: pa.ChunkedArray) -> Mask:
    """Return which rows are the first of their picture, in a column in order."""
    first = np.ones(len(pictures), np.bool_)
    column = pictures.combine_chunks()
    if len(column) > 1:
        first[1:] = pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return first
