"""The frontier of a site's crawl on disk: what each visit asked for, and what it keeps of that.

``ROOT/sites/DOMAIN/DOMAIN-VVV-PPPPP.parquet`` (visit, part) has a row for every URL asked for
(``tables.VISITED``), in the order in which the crawl takes them. Beside it, if asked for, there is
the same name with ``.warc.gz``, the pages themselves. The WARC file comes first: a part without its
table does not count.

A row has what the reader found on a page, not the page: so a part is small, and to crawl on after a
kill is to crawl again, with rows where there are some and the web where there are none. A later
visit takes from the rows of the one before what has not changed.

The order is the crawl's, so one part after the other is read, and no more than a few are held.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec
import pyarrow as pa

from wit_builder import storage
from wit_builder.crawl import warc_record
from wit_builder.tables import VISITED

Kind = Literal["page", "sitemap", "robots"]

_MADE_BY = b"wit.visit"
_PART_BYTES = 16 << 20
_PARTS_HELD = 4


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A URL that was asked for, and what came of it; the fields are those of ``tables.VISITED``."""

    url: str
    kind: Kind
    depth: int
    asked_at: datetime
    final_url: str
    status: int | None = None
    etag: str | None = None
    last_modified: str | None = None
    digest: str | None = None
    reason: str | None = None
    detail: str | None = None
    base: str | None = None
    license: str | None = None
    opt_outs: list[str] = []
    without_text: int = 0
    hrefs: list[str] = []
    texts: list[str] = []
    texts_from: list[str] = []
    links: list[str] = []
    sitemaps: list[str] = []
    warc_offset: int | None = None
    warc_length: int | None = None

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        lists = (self.hrefs, self.texts, self.links, self.sitemaps)
        return 1000 + sum(100 + len(text) for texts in lists for text in texts)


class Taken(NamedTuple):
    """A row, and the WARC record of its page, where one is to be kept."""

    row: Row
    record: bytes | None = None


class Visit:
    """One visit of a domain: its rows so far, and those that are not published yet.

    Args:
        folder: the domain's (``ROOT/sites/DOMAIN``).
        number: of the visit, from 1.
        made_by: digest of what rows depend on beside the site; parts made otherwise do not count.

    Raises:
        StorageError: a part cannot be read.
    """

    def __init__(self, folder: str, number: int, made_by: str) -> None:
        self._folder = folder
        self._stem = f"{storage.name_of(folder)}-{number:03d}-"
        self._made_by = made_by.encode()
        names = [n for n in storage.sizes(folder) if n.startswith(self._stem)]
        self._warcs = {n for n in names if n.endswith(".warc.gz")}
        self._parts = sorted(n for n in names if n.endswith(".parquet"))
        self._next = max((_part(n) + 1 for n in self._parts), default=0)
        self._remove_lone()
        self._held: OrderedDict[str, pa.Table] = OrderedDict()
        self._row_of: dict[tuple[str, str], tuple[str, int]] = {}
        for name in self._parts:
            self._index(name)
        self._pending: list[Taken] = []
        self._pending_bytes = 0
        self._pending_since = 0.0

    def _remove_lone(self) -> None:
        """Remove the pages of a part that a kill left without its table."""
        lone = f"{self._stem}{self._next:05d}.warc.gz"
        if lone in self._warcs:
            storage.remove(self._place(lone))
            self._warcs.remove(lone)

    def _index(self, name: str) -> None:
        table = storage.read_parquet(self._place(name), columns=["kind", "url"])
        if (table.schema.metadata or {}).get(_MADE_BY) != self._made_by:
            return
        keys = zip(table["kind"].to_pylist(), table["url"].to_pylist(), strict=True)
        self._row_of.update((key, (name, row)) for row, key in enumerate(keys))

    def _place(self, name: str) -> str:
        return storage.join(self._folder, name)

    def row(self, kind: Kind, url: str) -> Row | None:
        """Return what a URL gave, if a part has it; without a record if its file is not there.

        Raises:
            StorageError: the part cannot be read.
        """
        if (found := self._row_of.get((kind, url))) is None:
            return None
        name, number = found
        columns = self._table(name).slice(number, 1).to_pylist()[0]
        if _warc(name) not in self._warcs:
            columns |= {"warc_offset": None, "warc_length": None}
        return Row(**columns)

    def _table(self, name: str) -> pa.Table:
        if name not in self._held:
            self._held[name] = storage.read_parquet(self._place(name))
            if len(self._held) > _PARTS_HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(name)
        return self._held[name]

    def record(self, row: Row) -> bytes | None:
        """Return the WARC record that belongs to a row of this visit, if it is kept.

        Raises:
            StorageError: the file cannot be read.
        """
        if row.warc_offset is None or row.warc_length is None:
            return None
        place = self._place(_warc(self._row_of[row.kind, row.url][0]))
        return storage.read_bytes(place, row.warc_offset, row.warc_offset + row.warc_length)

    def add(self, taken: Taken) -> None:
        """Take the next row of the crawl; ``publish`` writes it down."""
        if not self._pending:
            self._pending_since = time.monotonic()
        self._pending.append(taken)
        self._pending_bytes += taken.row.size_bytes + len(taken.record or b"")

    def due_in_s(self, part_s: float) -> float | None:
        """Return when a part is to be published, in seconds from now; None if there is nothing."""
        if not self._pending:
            return None
        if self._pending_bytes >= _PART_BYTES:
            return 0.0
        return max(0.0, self._pending_since + part_s - time.monotonic())

    def publish(self, about: dict[str, str]) -> None:
        """Write down the rows that were added, as the next part.

        Args:
            about: what a WARC file says of itself.

        Raises:
            StorageError: disk full, no permission, bucket unreachable.
        """
        if not self._pending:
            return
        taken, self._pending, self._pending_bytes = self._pending, [], 0
        name = f"{self._stem}{self._next:05d}.parquet"
        self._next += 1
        rows = self._published_records(_warc(name), taken, about)
        table = pa.Table.from_pylist([msgspec.structs.asdict(row) for row in rows], VISITED)
        marked = table.replace_schema_metadata({_MADE_BY: self._made_by})
        storage.write_parquet(self._place(name), marked)
        self._parts.append(name)

    def _published_records(self, name: str, taken: list[Taken], about: dict[str, str]) -> list[Row]:
        """Publish the records of rows; return the rows, which tell where their records are."""
        rows = [row for row, _ in taken]
        if not any(record for _, record in taken):
            return rows
        data = bytearray(warc_record.warcinfo(name, datetime.now(UTC), about))
        for i, (row, record) in enumerate(taken):
            if record is not None:
                places = {"warc_offset": len(data), "warc_length": len(record)}
                rows[i] = msgspec.structs.replace(row, **places)
                data += record
        storage.publish_bytes(self._place(name), bytes(data))
        self._warcs.add(name)
        return rows

    def forget(self) -> None:
        """Remove all parts, so that all is asked for again.

        Raises:
            StorageError: no permission, bucket unreachable.
        """
        self._pending = []
        for name in [*self._parts, *sorted(self._warcs)]:
            storage.remove(self._place(name))
        self._row_of, self._parts, self._warcs = {}, [], set()


def _part(name: str) -> int:
    return int(name.removesuffix(".parquet").rpartition("-")[2])


def _warc(name: str) -> str:
    return name.removesuffix(".parquet") + ".warc.gz"


def folder_of(sites: str, domain: str) -> str:
    """Return the folder of a domain's visits; of an IPv6 address, with dashes."""
    return storage.join(sites, domain.replace(":", "-"))


def last_before(folder: str, number: int) -> int | None:
    """Return the latest visit before one that has parts; None where there is none."""
    name = re.compile(re.escape(storage.name_of(folder)) + r"-(\d{3,})-\d{5,}\.parquet")
    found = [int(match[1]) for n in storage.sizes(folder) if (match := name.fullmatch(n))]
    return max((n for n in found if n < number), default=None)
