"""One pair per URL: of its texts, the one lowest in ``hash(seed, "dedup", uid)``.

The choice does not depend on which archive came first, nor on the number of units: rows of one URL
meet in one bucket, and are put in an order of their own there.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import exchange, storage
from wit_builder.hashing import hash_column, label_seed
from wit_builder.storage import Published
from wit_builder.tables import MATCHED, REJECTIONS, Reason, conform
from wit_builder.units import Done

_ORDER = (
    "url", "place", "uid", "page_url", "archive", "text_from", "license", "found_at", "picture_at",
    "language",
)  # fmt: skip
"""Everything in which two rows of a pair can differ, so that which file came first cannot show."""


class DedupJob(msgspec.Struct, frozen=True):
    """One bucket of all matched files, to become one table without repeated URLs."""

    sources: list[str]
    bucket: int
    seed: int
    out: str
    rejected: str


def run(job: DedupJob) -> Done:
    """Publish the bucket's pairs in the order of their uids, and what was dropped.

    Raises:
        StorageError: a source is missing or damaged, or the output cannot be written.
    """
    kept, dropped = dedup(exchange.gather(job.sources, job.bucket), job.seed)
    outputs: list[Published] = [
        storage.write_parquet(job.out, kept.sort_by("uid")),
        storage.write_parquet(job.rejected, rejections(dropped, "dedup", Reason.DUPLICATE_URL)),
    ]
    counts = {"pairs": kept.num_rows, f"rejected:{Reason.DUPLICATE_URL}": dropped.num_rows}
    return Done(outputs, counts)


def dedup(matched: pa.Table, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return the pairs to keep, one per URL, and the others.

    A pair found in several places is kept once, with the place lowest in (page_url, archive, ...).
    """
    place = hash_column(matched["uid"], label_seed(seed, "dedup"))
    ordered = matched.append_column("place", pa.array(place)).sort_by(
        [(key, "ascending") for key in _ORDER]
    )
    url = ordered["url"].combine_chunks()
    first = np.ones(len(url), np.bool_)
    if len(url) > 1:
        first[1:] = pc.not_equal(url[1:], url[:-1]).to_numpy(zero_copy_only=False)
    mask = pa.array(first)
    ordered = conform(ordered, MATCHED)
    return ordered.filter(mask), ordered.filter(pc.invert(mask))


def rejections(rows: pa.Table, stage: str, reason: Reason) -> pa.Table:
    """Return the rejection rows of pairs (with ``uid`` and ``url``) dropped for one reason."""
    count = rows.num_rows
    nothing = pa.nulls(count, pa.string())
    columns = [rows["uid"], pa.repeat(stage, count), pa.repeat(reason, count), nothing, rows["url"]]
    return pa.table(columns, schema=REJECTIONS).sort_by("uid")
