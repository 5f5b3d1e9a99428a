"""Text becomes partial counts of its grams, and a table of its pages; a part of a dump at a time.

What is counted does not depend on the recipe's floors and budgets, so changing these makes the list
anew and counts nothing again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder import exchange, storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.queries import lists, wikipedia, wikitext
from wit_builder.queries.grams import GRAMS, Counter
from wit_builder.queries.streams import FIX, Part
from wit_builder.queries.title_form import forms
from wit_builder.queries.titles import PAGES
from wit_builder.queries.wikipedia import Article
from wit_builder.storage import Published
from wit_builder.text import normalise_column
from wit_builder.units import Done

_BATCH_CHARS = 8 << 20
_GROUP_BYTES = 256 << 20


class Rows(msgspec.Struct, frozen=True, tag=True):
    """Some row groups, ``[start, end)``, of a parquet file."""

    place: str
    start: int
    end: int


class CountJob(msgspec.Struct, frozen=True):
    """Count a part of a dump, or take ready counts.

    Attributes:
        part: of a MediaWiki dump, or of a parquet file with columns ``title`` and ``text``; or the
            place of ready counts.
        longest: tokens of the longest gram.
        buckets: of the exchange.
        out: how the names of what is published begin: ``OUT.grams-NNN.arrow``, as many as memory
            asks for (partial counts, ``grams.GRAMS``, by gram), and, of a dump,
            ``OUT.pages.arrow`` (``titles.PAGES``, by title).
    """

    part: Part | Rows | str
    longest: int
    buckets: int
    out: str


def table_parts(place: str) -> list[Rows]:
    """Return the parts of a parquet dump: row groups of some 256 MiB together.

    Raises:
        QueryListError: not there, no parquet, or without the columns ``title`` and ``text``.
    """
    with _opened(place) as file:
        metadata = file.metadata
        sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    part = (np.cumsum(sizes) - 1) // _GROUP_BYTES
    starts = np.flatnonzero(np.diff(part, prepend=-1)).tolist()
    return [Rows(place, a, b) for a, b in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def run_count(job: CountJob) -> Done:
    """Publish the partial counts, and the pages, of one part.

    Raises:
        QueryListError: the source is missing, cut short, damaged, or of another kind.
    """
    if isinstance(job.part, str):
        return _take_ready(job, job.part)
    counter = Counter(job.longest)
    source = _DumpText(job.part) if isinstance(job.part, Part) else _TableText(job.part)
    done = _publish_grams(_counted(source.batches(), counter), job)
    done += _publish_pages(source, job)
    counts = {**source.counts(), "tokens": counter.tokens, "too_long": counter.too_long}
    return Done(done, counts)


class _DumpText:
    """Plain text of a part's articles; their titles, and its redirects, add up meanwhile."""

    def __init__(self, part: Part) -> None:
        self.titles: list[str] = []
        self.redirects: list[tuple[str, str]] = []
        self._dump = wikipedia.Dump(part)

    def batches(self) -> Iterator[pa.Array]:
        """Yield some 8 million characters of articles at a time."""
        # A Python loop over pages, most of its time in expat: 300 MB of XML a second.
        waiting: list[str] = []
        chars = 0
        for page in self._dump:
            if not isinstance(page, Article):
                self.redirects.append(page)
                continue
            self.titles.append(page.title)
            waiting.append(page.wikitext)
            chars += len(page.wikitext)
            if chars >= _BATCH_CHARS:
                yield self._plain(waiting)
                waiting, chars = [], 0
        yield self._plain(waiting)

    def _plain(self, texts: list[str]) -> pa.Array:
        return wikitext.plain_column(pa.array(texts, pa.string()), self._dump.hidden_links)

    def counts(self) -> dict[str, int]:
        """Return what was read."""
        return {
            "articles": len(self.titles),
            "pages": self._dump.pages,
            "redirects": len(self.redirects),
            "oversized": self._dump.oversized,
        }


class _TableText:
    """Text of some row groups, which is plain already, and their titles."""

    def __init__(self, rows: Rows) -> None:
        self.titles: list[str] = []
        self.redirects: list[tuple[str, str]] = []
        self._rows = rows

    def batches(self) -> Iterator[pa.Array]:
        """Yield some thousand articles at a time."""
        groups = list(range(self._rows.start, self._rows.end))
        with _opened(self._rows.place) as file:
            for batch in file.iter_batches(1024, groups, columns=["title", "text"]):
                self.titles += batch["title"].cast(pa.string()).fill_null("").to_pylist()
                yield batch["text"].cast(pa.string()).fill_null("")

    def counts(self) -> dict[str, int]:
        """Return what was read."""
        return {"articles": len(self.titles)}


@contextlib.contextmanager
def _opened(place: str) -> Iterator[pq.ParquetFile]:
    """Open a parquet dump; what is wrong with it is told with its place."""
    try:
        with storage.open_read(place) as stream:
            file = pq.ParquetFile(stream)
            if missing := {"title", "text"} - set(file.schema_arrow.names):
                raise QueryListError(
                    f"the table has no column {', '.join(sorted(missing))}",
                    where=place,
                    fix=f"it has {', '.join(file.schema_arrow.names)}; rename them",
                )
            yield file
    except StorageError as error:
        fix = "check queries.wikipedia.dumps in the recipe"
        raise QueryListError(f"cannot read the dump: {error.what}", where=place, fix=fix) from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        what = f"not a readable parquet file: {' '.join(str(error).split())}"
        raise QueryListError(what, where=place, fix=FIX) from error


def _counted(texts: Iterable[pa.Array], counter: Counter) -> Iterator[pa.Table]:
    for batch in texts:
        yield from counter.add(batch)
    yield counter.take()


def _take_ready(job: CountJob, place: str) -> Done:
    counts = {"ready_counts": 0, "too_long": 0, "empty": 0}
    done = _publish_grams(_ready(place, job.longest, counts), job)
    return Done(done, counts)


def _ready(place: str, longest: int, counts: dict[str, int]) -> Iterator[pa.Table]:
    """Yield ready counts as ``GRAMS``; empty and too long ones are counted and left out."""
    for table in lists.batches(place, "gram", "count"):
        gram = normalise_column(table["gram"])
        empty = pc.equal(gram, "")
        n = pc.add(pc.count_substring(gram, " "), 1)
        long = pc.greater(n, longest)
        counts["ready_counts"] += table.num_rows
        counts["empty"] += pc.sum(empty).as_py() or 0
        counts["too_long"] += pc.sum(long).as_py() or 0
        rows = pa.table([gram, n.cast(pa.int8()), table["count"]], schema=GRAMS)
        yield rows.filter(pc.invert(pc.or_(empty, long)))


def _publish_grams(partials: Iterable[pa.Table], job: CountJob) -> list[Published]:
    done: list[Published] = []
    for number, partial in enumerate(partials):
        bucket = exchange.bucket_of(partial["gram"], job.buckets)
        url = f"{job.out}.grams-{number:03d}.arrow"
        done += exchange.scatter(partial, bucket, job.buckets, url)
    return done


def _publish_pages(source: _DumpText | _TableText, job: CountJob) -> list[Published]:
    names = [*source.titles, *(title for title, _ in source.redirects)]
    targets = [None] * len(source.titles) + [target for _, target in source.redirects]
    columns = [forms(pa.array(names, pa.string())), pa.array(targets, pa.string())]
    pages = pa.table(columns, PAGES.names)
    pages = pages.filter(pages["title"].is_valid()).cast(PAGES)
    bucket = exchange.bucket_of(pages["title"], job.buckets)
    return exchange.scatter(pages, bucket, job.buckets, f"{job.out}.pages.arrow")
