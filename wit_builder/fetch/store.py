"""Parts of a fetch unit: what was asked for so far, published atomically every minute or so.

A part is ``BBBBB-PPPPP.tar`` and ``BBBBB-PPPPP.parquet`` (bucket, part). The tar has the alive
pairs in img2dataset's layout (``KEY.jpg``, ``KEY.txt``, ``KEY.json``), the parquet a row for every
pair asked for (``tables.IMAGES``), alive or not. The tar comes first: a part without its parquet
does not count. After a kill, only pairs in no part are asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from wit_builder import storage
from wit_builder.fetch.img2dataset.reasons import status_of
from wit_builder.recipe import digest
from wit_builder.sections import ImageSection
from wit_builder.shards import tar
from wit_builder.storage import Published
from wit_builder.tables import IMAGES, Outcome, Reason

_MADE_BY = b"wit.image_section"


class Row(msgspec.Struct):
    """What became of one pair.

    ``position`` is its row in the unit's selection. ``columns`` has the values of ``tables.IMAGES``
    that the selection does not have; ``jpeg`` is there where the pair is alive.
    """

    position: int
    columns: dict[str, Any]
    jpeg: bytes | None = None


class Part(msgspec.Struct, frozen=True):
    """A published part: its number, its two files, and three columns of its rows."""

    number: int
    files: list[Published]
    uids: list[bytes]
    outcomes: list[str]
    reasons: list[str | None]


class Store:
    """The parts of one unit.

    Args:
        out: folder of the parts.
        bucket: the unit's number.
        selection: the unit's rows (``tables.SELECTED``).
        image: what pictures are made into; parts made into something else are dropped.
    """

    def __init__(self, out: str, bucket: int, selection: pa.Table, image: ImageSection) -> None:
        self._out = out
        self._bucket = bucket
        self._selection = selection
        self._made_by = digest(image).encode()
        self._next = 0

    def kept(self) -> list[Part]:
        """Return the parts that count, and remove what does not: lone tars, pairs not selected.

        Their rows are brought up to date: which queries a pair contains, and which draw it, may
        have changed since; what was fetched has not. A part of which only some pairs are selected
        now, as after lowering the cap, is cut down to these.

        Raises:
            StorageError: a part cannot be read.
        """
        stem = f"{self._bucket:05d}-"
        files = [f for f in storage.list_files(self._out) if storage.name_of(f).startswith(stem)]
        wanted = set(self._selection["uid"].to_pylist())
        parts: list[Part] = []
        for url in [f for f in files if f.endswith(".parquet")]:
            part = self._read(url, files)
            if part is not None and wanted.issuperset(part.uids):
                wanted.difference_update(part.uids)
                parts.append(part)
        good = {f.url for part in parts for f in part.files}
        # Parquets go first, so that a kill here leaves no part that counts without its pictures.
        for url in sorted(set(files) - good, key=lambda f: not f.endswith(".parquet")):
            storage.remove(url)
        self._next = max((p.number + 1 for p in parts), default=0)
        return parts

    def _read(self, url: str, files: list[str]) -> Part | None:
        place = url.removesuffix(".parquet") + ".tar"
        table = storage.read_parquet(url)
        made_by = (table.schema.metadata or {}).get(_MADE_BY)
        rows = pc.index_in(table["uid"], value_set=self._selection["uid"])
        if place not in files or made_by != self._made_by or rows.null_count == len(table):
            return None
        whole = table
        if rows.null_count:
            table, rows = table.filter(rows.is_valid()).combine_chunks(), rows.drop_null()
        current = self._as_selected(table, rows)
        if not current.equals(whole):
            storage.write_parquet(url, current)
        if len(table) < len(whole):
            cut(place, set(table["key"].to_pylist()))
        number = int(storage.name_of(place).removesuffix(".tar").rpartition("-")[2])
        return _part(number, [_published(place), _published(url)], table)

    def _as_selected(self, table: pa.Table, rows: pa.ChunkedArray) -> pa.Table:
        """Return a part's table with the values of the selection's rows where it has a column."""
        now = self._selection.take(rows)
        columns = [
            now[f.name].cast(f.type) if f.name in now.column_names else table[f.name]
            for f in table.schema
        ]
        return pa.table(columns, schema=table.schema)

    def publish(self, rows: list[Row]) -> Part:
        """Publish rows as the next part, in the selection's order.

        Raises:
            StorageError: disk full, no permission, bucket unreachable.
        """
        rows = sorted(rows, key=lambda row: row.position)
        number, self._next = self._next, self._next + 1
        stem = storage.join(self._out, f"{self._bucket:05d}-{number:05d}")
        table = self._table(rows)
        done: list[Published] = []
        with storage.publishing(stem + ".tar", done) as path:
            _write_tar(path, _members(table, rows))
        done.append(storage.write_parquet(stem + ".parquet", table))
        return _part(number, done, table)

    def _table(self, rows: list[Row]) -> pa.Table:
        selected = self._selection.take(pa.array([row.position for row in rows], pa.int64()))
        columns: dict[str, Any] = {name: selected[name] for name in selected.column_names}
        for field in IMAGES:
            if field.name not in columns:
                values = [row.columns.get(field.name) for row in rows]
                columns[field.name] = pa.array(values, field.type)
        columns["key"] = pa.array([self._key(row) for row in rows], pa.string())
        columns |= self._for_img2dataset(rows, columns["text"])
        schema = IMAGES.with_metadata({_MADE_BY: self._made_by})
        return pa.table([columns[f.name].cast(f.type) for f in IMAGES], schema=schema)

    def _for_img2dataset(self, rows: list[Row], texts: Any) -> dict[str, Any]:
        """Return the columns that readers of img2dataset's tables look for."""
        reasons = [row.columns.get("reason") for row in rows]
        details = [row.columns.get("detail") for row in rows]
        told = [": ".join(filter(None, why)) or None for why in zip(reasons, details, strict=True)]
        states = [status_of(reason and Reason(reason)) for reason in reasons]
        return {
            "caption": texts,
            "status": pa.array(states, pa.string()),
            "error_message": pa.array(told, pa.string()),
        }

    def _key(self, row: Row) -> str:
        return "" if row.jpeg is None else f"{self._bucket:05d}{row.position:07d}"


def remove(parts: Iterable[Part]) -> None:
    """Remove published parts.

    Raises:
        StorageError: no permission, bucket unreachable.
    """
    for part in parts:
        for file in reversed(part.files):
            storage.remove(file.url)


def cut(place: str, keys: set[str]) -> None:
    """Leave in a part's tar only the members with some keys.

    Where pairs are only not selected any more, the part's table is cut before: after a kill in
    between, the tar has pictures that nobody asks for, which is no harm.

    Raises:
        ShardFormatError: it is not a tar of ours.
        StorageError: it cannot be read or written.
    """
    with (
        storage.open_read(place) as stream,
        storage.publish(place) as path,
        path.open("wb") as sink,
    ):
        for member in tar.walk(stream):
            if member.name.partition(".")[0] in keys:
                stream.seek(member.offset - tar.BLOCK)
                sink.write(stream.read(tar.BLOCK + tar.padded(member.size)))
        sink.write(tar.TRAILER)


def _part(number: int, files: list[Published], table: pa.Table) -> Part:
    columns = (table[name].to_pylist() for name in ("uid", "outcome", "reason"))
    return Part(number, files, *columns)


def _published(url: str) -> Published:
    """Return the record of a file published earlier, read anew."""
    checksum, size = xxhash.xxh3_64(), 0
    with storage.open_read(url) as stream:
        while chunk := stream.read(1 << 22):
            checksum.update(chunk)
            size += len(chunk)
    return Published(url, size, checksum.hexdigest())


def _members(table: pa.Table, rows: list[Row]) -> Iterator[tuple[str, bytes]]:
    alive = table.filter(pc.equal(table["outcome"], Outcome.ALIVE.value))
    pictures = [row.jpeg for row in rows if row.jpeg is not None]
    # A row at a time: 20 us each, beside milliseconds for having fetched and decoded it.
    for row, jpeg in zip(alive.to_pylist(), pictures, strict=True):
        yield row["key"] + ".jpg", jpeg
        yield row["key"] + ".txt", row["text"].encode()
        yield row["key"] + ".json", _metadata(row)


def _metadata(row: dict[str, Any]) -> bytes:
    """Return img2dataset's JSON of a pair, and what we know beyond it."""
    data = {name: row[name] for name in _JSON_COLUMNS}
    data |= {"caption": row["text"], "uid": row["uid"].hex(), "status": "success"}
    return msgspec.json.encode(data | {"error_message": None}, order="sorted")


_JSON_COLUMNS = [
    "key", "url", "page_url", "text_from", "license", "width", "height", "original_width",
    "original_height", "sha256", "md5",
]  # fmt: skip


def _write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with path.open("wb") as sink:
        for name, data in members:
            sink.writelines((tar.header(name, len(data)), data, tar.padding(len(data))))
        sink.write(tar.TRAILER)
