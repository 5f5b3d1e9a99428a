"""Text becomes partial counts of its grams, and tables of its pages; a part of a source at a time.

What is counted does not depend on the recipe's floors and budgets, so changing these makes the list
anew and counts nothing again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder import exchange
from wit_builder.errors import QueryListError
from wit_builder.queries import lists, wikipedia, wikitext
from wit_builder.queries.grams import GRAMS, Counter
from wit_builder.queries.streams import Part
from wit_builder.queries.title_form import forms
from wit_builder.queries.titles import PAGES
from wit_builder.queries.wikipedia import Article
from wit_builder.storage import Published
from wit_builder.text import normalise_column
from wit_builder.units import Done

IN_LANGUAGE = "pages_in_"
"""How a count's name begins that tells how many pages a dump says to be in a language."""

_BATCH_CHARS = 8 << 20
_BATCH_PAGES = 1 << 16
_BATCH_ROWS = 256
_GROUP_BYTES = 256 << 20
_GROUP_ROWS = 8_000_000
_FILE_ROWS = 2_000_000


class Rows(msgspec.Struct, frozen=True, tag=True):
    """Row groups ``[start, end)`` of a parquet dump."""

    place: str
    start: int
    end: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Ready counts: row groups ``[start, end)`` of a parquet list, or a whole list."""

    place: str
    start: int = 0
    end: int | None = None


class CountJob(msgspec.Struct, frozen=True):
    """Count a part of a dump, or take ready counts.

    Attributes:
        part: what to count.
        longest: tokens of the longest gram.
        buckets: of the exchange.
        out: how the names of what is published begin: ``OUT.grams-NNN.arrow`` (partial counts,
            ``grams.GRAMS``, by gram) and, of a dump, ``OUT.pages-NNN.arrow`` (``titles.PAGES``, by
            title); of each as many as memory asks for.
    """

    part: Part | Rows | Ready
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
        if not metadata.num_rows:
            raise QueryListError("no row in the table", where=place, fix="take a full one")
        sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    return [Rows(place, start, end) for start, end in _together(sizes, _GROUP_BYTES)]


def ready_parts(place: str) -> list[Ready]:
    """Return the parts of ready counts: of a parquet list, row groups of some 8 million rows.

    Raises:
        QueryListError: a parquet list is not there, or no parquet.
    """
    if not place.endswith(".parquet"):
        return [Ready(place)]
    rows = lists.group_rows(place, "count")
    return [Ready(place, start, end) for start, end in _together(rows, _GROUP_ROWS)]


def _together(sizes: list[int], enough: int) -> list[tuple[int, int]]:
    """Return runs of neighbours, ``[start, end)``, of about so much each."""
    part = (np.cumsum(np.maximum(sizes, 1)) - 1) // enough
    starts = np.flatnonzero(np.diff(part, prepend=-1)).tolist()
    return list(zip(starts, [*starts[1:], len(sizes)], strict=True))


def run_count(job: CountJob) -> Done:
    """Publish the partial counts, and the pages, of one part.

    Raises:
        QueryListError: the source is missing, cut short, damaged, or of another kind.
    """
    counts: dict[str, int] = {}
    if isinstance(job.part, Ready):
        partials = _ready(job.part, job.longest, counts)
        return Done(_publish(partials, "gram", f"{job.out}.grams", job.buckets), counts)
    counter = Counter(job.longest)
    pages = _Pages(f"{job.out}.pages", job.buckets)
    part = job.part
    batches = _of_dump(part, counts) if isinstance(part, Part) else _of_table(part, counts)
    partials = _counted(batches, counter, pages.add)
    done = _publish(partials, "gram", f"{job.out}.grams", job.buckets)
    counts |= {"tokens": counter.tokens, "too_long": counter.too_long}
    return Done(done + pages.publish(), {"articles": pages.articles, **counts})


class Batch(NamedTuple):
    """Plain text of some articles, and the pages (``titles.PAGES``) that were read meanwhile."""

    texts: pa.Array
    pages: pa.Table


def _of_dump(part: Part, counts: dict[str, int]) -> Iterator[Batch]:
    """Yield some 8 million characters of articles at a time."""
    dump = wikipedia.Dump(part)
    texts: list[str] = []
    pages: list[tuple[str, str | None]] = []
    chars = 0
    # A Python loop over pages, most of its time in expat: 300 MB of XML a second.
    for page in dump:
        if isinstance(page, Article):
            pages.append((page.title, None))
            texts.append(page.wikitext)
            chars += len(page.wikitext)
        else:
            pages.append(page)
        if chars >= _BATCH_CHARS or len(pages) >= _BATCH_PAGES:
            yield _batch(texts, pages, dump.hidden_links)
            texts, pages, chars = [], [], 0
    yield _batch(texts, pages, dump.hidden_links)
    counts |= {"pages": dump.pages, "oversized": dump.oversized}
    if dump.language:
        counts[f"{IN_LANGUAGE}{dump.language}"] = dump.pages


def _batch(texts: list[str], pages: list[tuple[str, str | None]], hidden: frozenset[str]) -> Batch:
    columns = list(zip(*pages, strict=True)) or [(), ()]
    table = pa.table([pa.array(column, pa.string()) for column in columns], PAGES.names)
    return Batch(wikitext.plain_column(pa.array(texts, pa.string()), hidden), table)


def _of_table(rows: Rows, counts: dict[str, int]) -> Iterator[Batch]:
    """Yield some hundred articles at a time; their text is plain already."""
    counts["oversized"] = 0
    groups = list(range(rows.start, rows.end))
    with _opened(rows.place) as file:
        for batch in file.iter_batches(_BATCH_ROWS, groups, ["title", "text"], use_threads=False):
            title, text = (
                batch[name].cast(pa.string()).fill_null("") for name in ("title", "text")
            )
            fits = pc.less_equal(pc.utf8_length(text), wikipedia.MAX_PAGE_CHARS)
            counts["oversized"] += len(text) - pc.sum(fits).as_py()
            title, text = title.filter(fits), text.filter(fits)
            yield Batch(text, pa.table([title, pa.nulls(len(title), pa.string())], PAGES.names))


@contextlib.contextmanager
def _opened(place: str) -> Iterator[pq.ParquetFile]:
    """Give a parquet dump, which must have titles and texts."""
    with lists.open_parquet(place, "the dump", "queries.wikipedia.dumps") as file:
        there = file.schema_arrow.names
        if missing := [name for name in ("title", "text") if name not in there]:
            raise QueryListError(
                f"the table has no column {', '.join(missing)}",
                where=place,
                fix=f"it has {', '.join(there)}; rename them",
            )
        yield file


def _counted(
    batches: Iterable[Batch], counter: Counter, take_pages: Callable[[pa.Table], None]
) -> Iterator[pa.Table]:
    for batch in batches:
        take_pages(batch.pages)
        yield from counter.add(batch.texts)
    yield counter.take()


class _Pages:
    """Publishes pages, some million at a time; ``articles`` counts those that are no redirects."""

    def __init__(self, out: str, buckets: int) -> None:
        self.articles = 0
        self._out, self._buckets = out, buckets
        self._waiting = [PAGES.empty_table()]
        self._done: list[Published] = []
        self._files = 0

    def add(self, pages: pa.Table) -> None:
        """Take some pages; one whose title no page can have is none."""
        title = forms(pages["title"])
        known = pages.set_column(0, "title", title).filter(title.is_valid())
        self._waiting.append(known.cast(PAGES))
        self.articles += known["target"].null_count
        if sum(table.num_rows for table in self._waiting) >= _FILE_ROWS:
            self.publish()

    def publish(self) -> list[Published]:
        """Publish what waits; return all that was published so far."""
        pages = pa.concat_tables(self._waiting)
        self._waiting = [PAGES.empty_table()]
        self._done += _publish([pages], "title", self._out, self._buckets, self._files)
        self._files += 1
        return self._done


def _ready(part: Ready, longest: int, counts: dict[str, int]) -> Iterator[pa.Table]:
    """Yield ready counts as ``GRAMS``; empty and too long ones are counted and left out."""
    counts |= {"ready_counts": 0, "too_many_words": 0, "empty": 0}
    groups = None if part.end is None else range(part.start, part.end)
    for table in lists.batches(part.place, "gram", "count", groups):
        gram = normalise_column(table["gram"])
        empty = pc.equal(gram, "")
        n = pc.add(pc.count_substring(gram, " "), 1)
        long = pc.greater(n, longest)
        counts["ready_counts"] += table.num_rows
        counts["empty"] += pc.sum(empty).as_py() or 0
        counts["too_many_words"] += pc.sum(long).as_py() or 0
        keep = pc.invert(pc.or_(empty, long))
        columns = [gram.filter(keep), n.filter(keep).cast(pa.int8()), table["count"].filter(keep)]
        yield pa.table(columns, schema=GRAMS)


def _publish(
    tables: Iterable[pa.Table], key: str, out: str, buckets: int, first: int = 0
) -> list[Published]:
    """Publish tables as exchange files, scattered by a column."""
    done: list[Published] = []
    for number, table in enumerate(tables, start=first):
        bucket = exchange.bucket_of(table[key], buckets)
        done += exchange.scatter(table, bucket, buckets, f"{out}-{number:03d}.arrow")
    return done
