"""One pair per URL: of its texts, the one lowest in ``hash(seed, "dedup", uid)``.

The choice does not depend on which archive came first, nor on the number of units: rows of one URL
meet in one bucket, and are put in an order of their own there. Pairs of repeated texts go before
the choice is made, and so do those whose URL an earlier generation has.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder import exchange, storage
from wit_builder.curate import repeats
from wit_builder.curate.states import of_list
from wit_builder.hashing import hash_column, label_seed
from wit_builder.storage import Published
from wit_builder.tables import REJECTIONS, Reason
from wit_builder.units import Done

_TIE_BREAK = (
    "uid", "picture_at", "page_url", "archive", "text_from", "license", "found_at", "language",
)  # fmt: skip
"""All else in which two rows of a pair can differ, so that which file came first cannot show.

One whose picture we have already comes before one that would have to be asked for.
"""

_BATCH_ROWS = 1 << 18

Mask = npt.NDArray[np.bool_]


class DedupJob(msgspec.Struct, frozen=True):
    """One bucket of all matched files, to become one table without repeated URLs.

    ``queries_identity`` is that of the query list, which the table will name; ``repeated`` are the
    tables of repeated texts (see ``repeats``), of all buckets; ``earlier`` the matched tables of
    earlier generations in which the bucket's URLs might be.
    """

    sources: list[str]
    bucket: int
    seed: int
    out: str
    rejected: str
    queries_identity: str
    repeated: list[str] = []
    earlier: list[str] = []


def run(job: DedupJob) -> Done:
    """Publish the bucket's pairs in the order of their uids, and what was dropped.

    Counts ``pairs`` and ``rejected:REASON``. Memory is the bucket and the repeated texts' hashes.

    Raises:
        StorageError: a source is missing or damaged, or the output cannot be written.
    """
    matched = exchange.gather(job.sources, job.bucket)
    repeated = repeats.is_repeated(matched["text"], repeats.read_repeated(job.repeated))
    matched, too_often = _split(matched, ~repeated)
    matched, known = _split(matched, ~_in_earlier(matched["url"], job.earlier))
    kept, others = dedup(matched, job.seed)
    duplicate = pa.concat_tables([known, others])
    dropped = [
        rejections(too_often, "dedup", Reason.REPEATED_TEXT),
        rejections(duplicate, "dedup", Reason.DUPLICATE_URL),
    ]
    outputs: list[Published] = [
        storage.write_parquet(job.out, of_list(kept.sort_by("uid"), job.queries_identity)),
        storage.write_parquet(job.rejected, pa.concat_tables(dropped)),
    ]
    counts = {"pairs": kept.num_rows, f"rejected:{Reason.DUPLICATE_URL}": duplicate.num_rows}
    if job.repeated:
        counts[f"rejected:{Reason.REPEATED_TEXT}"] = too_often.num_rows
    return Done(outputs, counts)


def _split(table: pa.Table, mask: Mask) -> tuple[pa.Table, pa.Table]:
    """Return the rows where the mask is true, and the others."""
    return table.filter(pa.array(mask)), table.filter(pa.array(~mask))


def _in_earlier(urls: pa.ChunkedArray, earlier: list[str]) -> Mask:
    """Return which URLs are in tables of earlier generations, read a batch of URLs at a time."""
    seen = np.zeros(len(urls), np.bool_)
    for place in earlier:
        with storage.open_arrow(place) as file:
            parquet = pq.ParquetFile(file)
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=["url"], use_threads=False):
                seen |= pc.is_in(urls, value_set=batch["url"]).to_numpy()
    return seen


def dedup(matched: pa.Table, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return the pairs to keep, one per URL, and the others.

    A pair found in several places is kept once, with the place lowest in (page_url, archive, ...).
    """
    first = np.zeros(matched.num_rows, np.bool_)
    first[_firsts(matched, hash_column(matched["uid"], label_seed(seed, "dedup")))] = True
    return _split(matched, first)


def _firsts(matched: pa.Table, place: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return, for every URL, the row of lowest place; of several, the first by ``_TIE_BREAK``.

    Only where several rows share the lowest place (one pair, found on several pages) are strings
    compared: sorting all rows by all their columns takes more than twice as long.
    """
    url = _numbered(matched["url"])
    order = np.lexsort((place, url))
    url, place = url[order], place[order]
    begins = np.flatnonzero(np.r_[True, url[1:] != url[:-1]][: url.size])
    rows = np.diff(np.r_[begins, url.size])
    lowest = place == np.repeat(place[begins], rows)
    rivals = np.add.reduceat(lowest, begins, dtype=np.int64) if begins.size else begins
    tied = lowest & np.repeat(rivals > 1, rows)
    return np.r_[order[begins[rivals == 1]], _first_of_ties(matched, order[tied], url[tied])]


def _first_of_ties(
    matched: pa.Table, rows: npt.NDArray[np.int64], url: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]:
    """Return of each URL (by its number) the first of these rows by ``_TIE_BREAK``."""
    columns = matched.select(_TIE_BREAK).take(pa.array(rows)).append_column("url", pa.array(url))
    keys = [(name, "ascending") for name in ("url", *_TIE_BREAK)]
    order = pc.sort_indices(columns, keys).to_numpy()
    url = url[order]
    return rows[order[np.r_[True, url[1:] != url[:-1]][: url.size]]]


def _numbered(values: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Return a number for every value: the same for equal ones."""
    chunks = values.dictionary_encode().chunks  # which share one dictionary
    return np.concatenate([np.empty(0, np.int32), *(c.indices.to_numpy() for c in chunks)])


def rejections(rows: pa.Table, stage: str, reason: Reason) -> pa.Table:
    """Return the rejection rows of pairs (with ``uid`` and ``url``) dropped for one reason."""
    count = rows.num_rows
    nothing = pa.nulls(count, pa.string())
    columns = [rows["uid"], pa.repeat(stage, count), pa.repeat(reason, count), nothing, rows["url"]]
    return pa.table(columns, schema=REJECTIONS).sort_by("uid")
