"""The candidates of one unit: written as they come, in batches.

A candidates file is Arrow IPC with zstd: ``tables.CANDIDATES`` in record batches of bounded size.
What is held is one batch, and for finding repeats the uids of the last million pairs or so: memory
does not grow with the archive. A pair that comes again later than that is left to dedup.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from wit_builder import storage
from wit_builder.crawl.columns import I64, Bad, resolve_urls
from wit_builder.crawl.html import Page, TooDeepError, read_page
from wit_builder.crawl.uids import pair_uids
from wit_builder.hashing import U64
from wit_builder.storage import Published
from wit_builder.tables import CANDIDATES, FOUND, REJECTIONS, Reason, conform
from wit_builder.units import Done

BATCH_ROWS = 1 << 14
BATCH_CHARS = 8 << 20
STAGE = "crawl"

_REMEMBERED = 1 << 20
"""Places for uids already seen, 16 bytes each; a newer one takes the place of an older one."""


class Output(msgspec.Struct, frozen=True):
    """Where a unit's candidates (Arrow IPC) and rejections (parquet) go; the run's folder."""

    candidates: str
    rejections: str
    root: str = ""

    @classmethod
    def of(cls, generation: str, unit: str) -> Output:
        """Return the places of a unit in a generation's folder (``ROOT/g0``)."""
        return cls(
            storage.join(generation, "candidates", f"{unit}.arrow"),
            storage.join(generation, "rejected", f"{STAGE}-{unit}.parquet"),
            generation.rstrip("/").rpartition("/")[0],
        )


class Piece(NamedTuple):
    """A piece of a source, which one unit reads.

    Attributes:
        kind: of the source, as the recipe names it.
        key: what tells it from all others of its kind: a place, or a domain.
        inputs: identities of what is read; a change of any makes the unit anew.
        job: makes the unit's job, given where its output goes.
        earlier: what stood for the same before: of a site its earlier visits, the first one first.
    """

    kind: str
    key: str
    inputs: list[str]
    job: Callable[[Output], Any]
    earlier: tuple[Piece, ...] = ()

    @property
    def origin(self) -> str:
        """The key of the first of those that stood for the same."""
        return self.earlier[0].key if self.earlier else self.key


class Source(msgspec.Struct, frozen=True):
    """What a page's candidates have in common."""

    page_url: str
    archive: str
    found_at: datetime | None = None


PAGES = pa.schema([pa.field("base", pa.string()), *(FOUND.field(n) for n in (
    "page_url", "license", "archive", "found_at"
))])  # fmt: skip
"""Of each page what its pictures have in common; ``base`` is what their URLs are relative to."""


class Collector:
    """Takes what sources find; use as ``with collecting(...) as collector``, then ``done()``."""

    def __init__(self, writer: Any, rejected: Any) -> None:
        self._writer, self._rejected = writer, rejected
        self._seen: U64 = np.zeros((_REMEMBERED, 2), np.uint64)
        self._pages: list[tuple[Any, ...]] = []
        self._pairs: list[tuple[str, str, str, int]] = []
        self._chars = 0
        self._rejections: list[tuple[Reason, str, str | None]] = []
        self._rejected_chars = 0
        self.counts: Counter[str] = Counter(pages=0, candidates=0)

    def reject(self, reason: Reason, detail: str, url: str | None) -> None:
        """Keep why something was dropped; no pair was formed of it."""
        self._rejections.append((reason, detail, _without_credentials(url)))
        self.counts[f"rejected:{reason}"] += 1
        self._rejected_chars += len(url or "")
        if len(self._rejections) >= BATCH_ROWS or self._rejected_chars >= BATCH_CHARS:
            self._flush_rejections()

    def add(self, found: pa.Table) -> None:
        """Take pairs as ``tables.FOUND``: URLs normalised, texts collapsed and not empty."""
        for at in range(0, found.num_rows, BATCH_ROWS):
            self._write(self._fresh(found.slice(at, BATCH_ROWS)))

    def _fresh(self, found: pa.Table) -> pa.Table:
        """Return the pairs that are not remembered, with their ``uid``; count the others."""
        uids = pair_uids(found["url"].combine_chunks(), found["text"].combine_chunks())
        halves = np.frombuffer(uids.buffers()[1], np.uint64).reshape(-1, 2)
        new = np.empty(len(uids), np.bool_)
        _unseen(halves, self._seen, new)
        fresh = found.append_column("uid", uids).filter(pa.array(new))
        if fresh.num_rows < found.num_rows:
            self.counts["repeated"] += found.num_rows - fresh.num_rows
        return fresh

    def _write(self, fresh: pa.Table) -> None:
        if fresh.num_rows:
            self._writer.write_table(conform(fresh, CANDIDATES).combine_chunks())
        self.counts["candidates"] += fresh.num_rows

    def add_pictures(self, pictures: pa.Table, which: I64, pages: pa.Table) -> None:
        """Take pictures of pages, their addresses as they stand there.

        Args:
            pictures: columns ``href``, ``text`` (collapsed, not empty) and ``text_from``.
            which: row in ``pages`` of each picture.
            pages: ``PAGES``.
        """
        for first, last in _slices(pictures, which, pages):
            self._add_some(pictures.slice(first, last - first), which[first:last], pages)

    def _add_some(self, pictures: pa.Table, which: I64, pages: pa.Table) -> None:
        bases = pages["base"].combine_chunks()
        urls, bad = resolve_urls(pictures["href"].combine_chunks(), bases, which)
        self._reject_urls(bad, which, pages)
        found = pictures.drop_columns("href").append_column("url", urls)
        found = found.append_column("place", pa.array(which))
        if bad:
            found = found.filter(pc.is_valid(urls))
        for at in range(0, found.num_rows, BATCH_ROWS):
            # what pages say comes last: a third of the pairs or more may be repeats
            fresh = self._fresh(found.slice(at, BATCH_ROWS))
            for name in PAGES.names[1:]:
                fresh = fresh.append_column(name, pages[name].take(fresh["place"]))
            nowhere = pa.nulls(fresh.num_rows, pa.string())
            self._write(fresh.append_column("picture_at", nowhere))

    def _reject_urls(self, bad: Bad, which: I64, pages: pa.Table) -> None:
        page_urls = pages["page_url"].to_pylist() if bad else []
        for row, why in bad:
            self.reject(Reason.BAD_URL, why, page_urls[which[row]])

    def add_html(self, body: bytes, charset: str | None, source: Source) -> None:
        """Take a page as it was served."""
        try:
            page = read_page(body, source.page_url, charset)
        except TooDeepError as error:
            self.counts["pages"] += 1
            self.reject(Reason.TOO_LARGE_HTML, str(error) or "too deep", source.page_url)
        else:
            self.add_page(page, source)

    def add_page(self, page: Page, source: Source) -> None:
        """Take what a page says."""
        self.counts["pages"] += 1
        if page.opt_outs:
            self.reject(Reason.OPT_OUT_PAGE, ", ".join(page.opt_outs), source.page_url)
        # No rows: there is no pair to speak of, and most pictures of the web have no text.
        if page.without_text:
            self.counts[f"rejected:{Reason.NO_TEXT}"] += page.without_text
        told = (page.base, source.page_url, page.license, source.archive, source.found_at)
        for href, text, text_from in page.pairs:
            if len(self._pairs) >= BATCH_ROWS or self._chars >= BATCH_CHARS:
                self._flush_pages()
            if not self._pages or self._pages[-1] is not told:
                self._pages.append(told)
            self._pairs.append((href, text, text_from.value, len(self._pages) - 1))
            self._chars += len(href) + len(text)

    def _flush_pages(self) -> None:
        if self._pairs:
            hrefs, texts, text_from, which = zip(*self._pairs, strict=True)
            pages = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self._pages, strict=True), PAGES, strict=True)
            ]
            columns = (_strings(hrefs), _strings(texts), _strings(text_from))
            pictures = pa.table(columns, ["href", "text", "text_from"])
            self.add_pictures(pictures, np.array(which), pa.table(pages, PAGES.names))
        self._pages, self._pairs, self._chars = [], [], 0

    def _flush_rejections(self) -> None:
        if self._rejections:
            reasons, details, urls = map(list, zip(*self._rejections, strict=True))
            size = len(reasons)
            columns = [
                pa.nulls(size, pa.binary(16)), pa.array([STAGE] * size, pa.string()),
                _strings(reasons), _strings(details), pa.array(urls, pa.string()),
            ]  # fmt: skip
            self._rejected.write_table(pa.table(columns, schema=REJECTIONS))
        self._rejections, self._rejected_chars = [], 0

    def flush(self) -> None:
        """Write what is held."""
        self._flush_pages()
        self._flush_rejections()


def _without_credentials(url: str | None) -> str | None:
    return storage.redact_credentials(url) if url else None


def _slices(pictures: pa.Table, which: I64, pages: pa.Table) -> Iterator[tuple[int, int]]:
    """Yield first and last rows so that what is written of a slice stays below ``BATCH_CHARS``.

    All that a page says of itself is written with each of its pictures.
    """
    of_page = sum(_lengths(pages[name]) for name in ("base", "page_url", "license"))
    sizes = np.asarray(of_page)[which] + _lengths(pictures["href"]) + _lengths(pictures["text"])
    slice_of_row = np.cumsum(sizes) // BATCH_CHARS
    starts = np.flatnonzero(np.diff(slice_of_row, prepend=-1)).tolist()
    yield from pairwise([*starts, len(which)])


def _lengths(column: pa.ChunkedArray) -> I64:
    lengths = pc.fill_null(pc.binary_length(column), 0)
    return np.asarray(lengths.to_numpy(), np.int64)


def _strings(values: Any) -> pa.Array:
    return pa.array(values, pa.string())


@numba.njit(cache=True, nogil=True)
def _unseen(uids: U64, seen: U64, new: npt.NDArray[np.bool_]) -> None:
    """Tell which uids are not remembered, and remember them."""
    for i in range(new.size):
        high, low = uids[i, 0], uids[i, 1]
        place = low & np.uint64(seen.shape[0] - 1)
        new[i] = seen[place, 0] != high or seen[place, 1] != low
        seen[place, 0], seen[place, 1] = high, low


@contextlib.contextmanager
def collecting(output: Output, published: list[Published]) -> Iterator[Collector]:
    """Give a collector; on a clean exit publish its candidates and rejections.

    Raises:
        StorageError: they cannot be written.
    """
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        storage.parquet_writer(output.rejections, REJECTIONS, published) as rejected,
        storage.publishing(output.candidates, published) as path,
        pa.ipc.new_file(str(path), CANDIDATES, options=options) as writer,
    ):
        collector = Collector(writer, rejected)
        yield collector
        collector.flush()


def done(collector: Collector, published: list[Published]) -> Done:
    """Return what the unit published and counted."""
    return Done(published, dict(sorted(collector.counts.items())))
