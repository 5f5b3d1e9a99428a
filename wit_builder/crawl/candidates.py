"""The candidates of one unit: written as they come, in batches, each pair once.

A candidates file is Arrow IPC with zstd: ``tables.CANDIDATES`` in record batches of bounded size,
so that neither side holds more than a batch, whatever the archive's size. What is kept for the
whole unit is the uids seen, about 100 bytes each in a Python set, and the rejections.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.ipc

from wit_builder import storage
from wit_builder.crawl.html import Page, TooDeepError, read_page
from wit_builder.hashing import pair_uid
from wit_builder.storage import Published
from wit_builder.tables import CANDIDATES, REJECTIONS, Reason
from wit_builder.units import Done

BATCH_ROWS = 1 << 14
BATCH_CHARS = 8 << 20
STAGE = "crawl"


class Output(msgspec.Struct, frozen=True):
    """Where a unit's candidates (Arrow IPC) and rejections (parquet) go."""

    candidates: str
    rejections: str

    @classmethod
    def of(cls, generation: str, unit: str) -> Output:
        """Return the places of a unit in a generation's folder (``ROOT/g0``)."""
        return cls(
            storage.join(generation, "candidates", f"{unit}.arrow"),
            storage.join(generation, "rejected", f"{STAGE}-{unit}.parquet"),
        )


class Source(msgspec.Struct, frozen=True):
    """What a page's candidates have in common."""

    page_url: str
    archive: str
    found_at: datetime | None = None


class Collector:
    """Takes what pages say; use as ``with collecting(...) as collector``, then ``done()``."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._rows: list[tuple[Any, ...]] = []
        self._chars = 0
        self._seen: set[bytes] = set()
        self._rejections: list[tuple[Reason, str, str | None]] = []
        self.counts: Counter[str] = Counter(pages=0, candidates=0)

    def reject(self, reason: Reason, detail: str, url: str | None) -> None:
        """Keep why something was dropped; no pair was formed of it."""
        self._rejections.append((reason, detail, url or None))
        self.counts[f"rejected:{reason}"] += 1

    def add_html(
        self, body: bytes, charset: str | None, source: Source, *, links: bool = False
    ) -> list[str]:
        """Take a page as it was served; return its links, if wanted."""
        self.counts["pages"] += 1
        try:
            page = read_page(body, source.page_url, charset, links=links)
        except TooDeepError:
            self.reject(Reason.TOO_LARGE_HTML, "nested too deep to parse", source.page_url)
            return []
        self._add(page, source)
        return page.links

    def _add(self, page: Page, source: Source) -> None:
        if page.opt_outs:
            self.reject(Reason.OPT_OUT_PAGE, ", ".join(page.opt_outs), source.page_url)
        for detail in page.bad_urls:
            self.reject(Reason.BAD_URL, detail, source.page_url)
        # No rows: there is no pair to speak of, and most pictures of the web have no text.
        if page.without_text:
            self.counts[f"rejected:{Reason.NO_TEXT}"] += page.without_text
        for url, text, text_from in page.pairs:
            uid = pair_uid(url, text)
            if uid in self._seen:
                self.counts["repeated"] += 1
                continue
            self._seen.add(uid)
            self._rows.append(
                (uid, url, text, text_from.value, source.page_url, page.license, source.archive,
                 source.found_at)
            )  # fmt: skip
            self._chars += len(url) + len(text) + len(source.page_url)
        if len(self._rows) >= BATCH_ROWS or self._chars >= BATCH_CHARS:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one record batch."""
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, CANDIDATES, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=CANDIDATES))
            self.counts["candidates"] += len(self._rows)
        self._rows, self._chars = [], 0

    def rejections(self) -> pa.Table:
        """Return what was rejected, in order, as ``tables.REJECTIONS``."""
        reasons, details, urls = (
            zip(*self._rejections, strict=True) if self._rejections else ((),) * 3
        )
        size = len(reasons)
        return pa.table(
            [pa.nulls(size, pa.binary(16)), pa.array([STAGE] * size, pa.string()),
             pa.array(reasons, pa.string()), pa.array(details, pa.string()),
             pa.array(urls, pa.string())],
            schema=REJECTIONS,
        )  # fmt: skip


@contextlib.contextmanager
def collecting(output: Output, published: list[Published]) -> Iterator[Collector]:
    """Give a collector; on a clean exit publish its candidates and rejections.

    Raises:
        StorageError: they cannot be written.
    """
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        storage.publishing(output.candidates, published) as path,
        pa.ipc.new_file(str(path), CANDIDATES, options=options) as writer,
    ):
        collector = Collector(writer)
        yield collector
        collector.flush()
    published.append(storage.write_parquet(output.rejections, collector.rejections()))


def done(collector: Collector, published: list[Published]) -> Done:
    """Return what the unit published and counted."""
    return Done(published, dict(sorted(collector.counts.items())))
