"""What must outlive a worker: robots.txt files, for a day at most, and the pauses of domains.

A folder of small tables, one written with each published part of a fetch unit; the later row wins.
Whoever owns a bucket of domains owns its folder, so nobody else writes there.
"""

from __future__ import annotations

import time

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.tables import Reason
from wit_builder.web.pace import Pause

_NOTES = pa.schema(
    [
        pa.field("origin", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("until", pa.float64(), nullable=False),
        pa.field("body", pa.binary()),
        pa.field("refusal", pa.string()),
        pa.field("in_a_row", pa.int32()),
    ]
)


_FILE_BYTES = 64 << 10
"""Of a robots.txt that is remembered; a larger one, which is rare, is asked for again."""
_MOST_BYTES = 32 << 20
"""Of all that is remembered, and of what is new since the last time."""


class RobotsFile(msgspec.Struct, frozen=True):
    """What asking for an origin's robots.txt gave: its bytes, or why there are none.

    ``until`` is when it must be asked for anew, in seconds since the epoch.
    """

    origin: str
    until: float
    body: bytes | None
    refusal: str | None = None


class Notes:
    """The notes of one bucket of domains.

    Args:
        folder: theirs, local or remote; empty: nothing is remembered.

    Raises:
        StorageError: a table cannot be read, or a folder of several not be tidied.
    """

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._new: list[RobotsFile] = []
        self._new_bytes = 0
        self._files = storage.list_files(folder) if folder else []
        self._kept = self._read()
        origins = enumerate(self._kept["origin"].to_pylist())
        self._row_of = {origin: row for row, origin in origins if origin is not None}
        if len(self._files) > 1:
            self._tidy()

    def _read(self) -> pa.Table:
        """Return what still holds, the newest of it if there is too much."""
        tables: list[pa.Table] = []
        size = 0
        for file in reversed(self._files):
            table = storage.read_parquet(file)
            table = table.filter(pc.greater(table["until"], time.time()))
            size += table.nbytes
            if size > _MOST_BYTES and tables:
                break
            tables.append(table)
        return pa.concat_tables([_NOTES.empty_table(), *reversed(tables)]).combine_chunks()

    def _tidy(self) -> None:
        """Put what still holds into one file."""
        self._write(self._kept)
        for file in self._files[:-1]:
            storage.remove(file)
        del self._files[:-1]

    def robots(self, origin: str) -> RobotsFile | None:
        """Return the robots.txt that is remembered of an origin, if it still holds."""
        row = self._row_of.get(origin)
        if row is None:
            return None
        found = self._kept.slice(row, 1).to_pylist()[0]
        if found["until"] <= time.time():
            return None
        return RobotsFile(origin, found["until"], found["body"], found["refusal"])

    def add(self, file: RobotsFile) -> None:
        """Remember a robots.txt, once ``publish`` is called, unless it is or they are too large."""
        size = len(file.body or b"")
        if self._folder and size <= _FILE_BYTES and self._new_bytes + size <= _MOST_BYTES:
            self._new.append(file)
            self._new_bytes += size

    @property
    def pauses(self) -> list[Pause]:
        """The pauses that were not over when these notes were read; the last of each domain."""
        rows = self._kept.filter(self._kept["domain"].is_valid())
        names = ["domain", "until", "in_a_row", "refusal"]
        found = zip(*(rows[name].to_pylist() for name in names), strict=True)
        return [Pause(name, until, n, Reason(why)) for name, until, n, why in found]

    def publish(self, pauses: list[Pause]) -> None:
        """Write down the robots.txt files since the last time, and the pauses.

        Raises:
            StorageError: disk full, no permission, bucket unreachable.
        """
        if not self._folder or not (self._new or pauses):
            return
        new, self._new = self._new, []  # others may add while this is written
        self._new_bytes = 0
        robots = [
            {"origin": r.origin, "until": r.until, "body": r.body, "refusal": r.refusal}
            for r in new
        ]
        paused = [
            {"domain": p.domain, "until": p.until, "in_a_row": p.in_a_row, "refusal": p.reason}
            for p in pauses
        ]
        self._write(pa.Table.from_pylist([*robots, *paused], schema=_NOTES))

    def _write(self, table: pa.Table) -> None:
        last = int(storage.name_of(self._files[-1])[:6]) if self._files else -1
        place = storage.join(self._folder, f"{last + 1:06d}.parquet")
        storage.write_parquet(place, table)
        self._files.append(place)
