"""What img2dataset wrote: its shards, the rows of their tables, and their samples.

A shard is ``NNNNN.tar`` (``webdataset``), a folder ``NNNNN`` (``files``), or has its pictures in
``NNNNN.parquet`` (``parquet``). ``NNNNN.parquet`` has a row for every URL, downloaded or not; a
tar may come without it, as published data sets often do. It may come without its tar, which was
lost: its rows count, its pictures are missing. The parts of our own fetch are tars of
this kind, too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.crawl.webdataset import Sample, json_object, samples
from wit_builder.errors import ShardFormatError, StorageError
from wit_builder.fetch.img2dataset.reasons import SUCCESS, reason_of
from wit_builder.recipe import digest
from wit_builder.shards.foreign import Fault
from wit_builder.tables import Reason

PICTURES = ("jpg", "jpeg", "png", "webp")
"""Endings of pictures, as ``encode_format`` names them."""
MISSING = "missing"
"""The kind of a shard that has a table alone, in a download whose pictures are not in tables."""

_SMALL = ("txt", "json")
_NUMBERED = re.compile(r"[0-9]+(-[0-9]+)?")
"""How img2dataset names shards, and how we do; other tables that lie beside them are not theirs."""
_COLUMNS = ["url", "key", "status", "error_message"]
_OUR_COLUMNS = ["url", "key", "reason", "detail"]
_ROWS_AT_ONCE = 256


class Shard(msgspec.Struct, frozen=True):
    """One shard of a download.

    Attributes:
        name: without ending.
        kind: how it has its pictures, as ``output_format`` names it; or ``MISSING``.
        place: of the tar, the folder, or the table with the pictures; empty if they are missing.
        table: place of the table of its rows; empty if there is none.
    """

    name: str
    kind: str
    place: str
    table: str

    def identities(self) -> list[str]:
        """Return strings that change when the shard does.

        Raises:
            StorageError: it is not there any more, or cannot be read.
        """
        places = {self.table, self.place} - {""}
        if self.kind == "files":
            places -= {self.place}
            inside = [digest(sorted(storage.sizes(self.place).items()))]
        else:
            inside = []
        return [storage.identity(place) for place in sorted(places)] + inside


class Found(NamedTuple):
    """A sample: its key, its picture's bytes, its text if it has one, and what is said of it."""

    key: str
    picture: bytes
    text: bytes | None
    metadata: dict[str, Any]


def is_folder(place: str) -> bool:
    """Return whether there is a folder at a place."""
    fs, path = storage.filesystem(place)
    with storage.translated(place, "look up"):
        return bool(fs.isdir(path))


def shards(folder: str) -> list[Shard]:
    """Return the shards of a download, in the order of their names.

    Raises:
        ShardFormatError: there are none.
        StorageError: the folder cannot be listed.
    """
    files = {storage.name_of(url): url for url in storage.list_files(folder)}
    tables = {n.removesuffix(".parquet"): u for n, u in files.items() if n.endswith(".parquet")}
    tars = {n.removesuffix(".tar"): u for n, u in files.items() if n.endswith(".tar")}
    if tars:
        return _beside("webdataset", tars, tables)
    folders = set(storage.list_folders(folder)) & set(tables)
    if folders:
        return _beside("files", {name: storage.join(folder, name) for name in folders}, tables)
    with_pictures = [n for n, url in tables.items() if _picture_column(url)]
    if with_pictures:
        return [Shard(n, "parquet", tables[n], tables[n]) for n in with_pictures]
    raise ShardFormatError(
        "there is nothing here that img2dataset downloaded",
        where=storage.redact(folder),
        fix="name its output folder; of its formats, webdataset, files and parquet can be packed",
    )


def _beside(kind: str, places: dict[str, str], tables: dict[str, str]) -> list[Shard]:
    """Return shards whose pictures are not in their tables, and those of which a table is left."""
    lost = {name for name in tables if _NUMBERED.fullmatch(name)} - set(places)
    return [
        Shard(n, MISSING if n in lost else kind, places.get(n, ""), tables.get(n, ""))
        for n in sorted(lost.union(places))
    ]


def _picture_column(table: str) -> str:
    with storage.open_arrow(table) as file:
        names = pq.ParquetFile(file).schema_arrow.names
    return next((name for name in PICTURES if name in names), "")


class Listed(NamedTuple):
    """A row of a download's table; ``reason`` is None where there is a picture."""

    url: str
    key: str
    reason: Reason | None
    detail: str


def rows(shard: Shard) -> list[Listed] | None:
    """Return the rows of a shard's table; None where it has none, or one that tells no failures.

    Raises:
        ShardFormatError: it cannot be read: img2dataset was stopped before it was complete.
    """
    if not shard.table:
        return None
    try:
        with storage.open_arrow(shard.table) as file:
            names = set(pq.ParquetFile(file).schema_arrow.names)
        if names.issuperset(_OUR_COLUMNS):
            return [_of_ours(row) for row in _read_rows(shard.table, _OUR_COLUMNS)]
        if names.issuperset(_COLUMNS):
            return [_of_theirs(row) for row in _read_rows(shard.table, _COLUMNS)]
    except StorageError as error:
        raise ShardFormatError(
            f"the shard is not complete: {error.what}",
            where=storage.redact(shard.table),
            fix="let img2dataset finish the download, or remove the files of this shard",
        ) from error
    return None


def _read_rows(table: str, columns: list[str]) -> list[dict[str, Any]]:
    return storage.read_parquet(table, columns).to_pylist()  # 2 us a row


def _of_ours(row: dict[str, Any]) -> Listed:
    reason = Reason(row["reason"]) if row["reason"] else None
    return Listed(row["url"], row["key"], reason, row["detail"] or "")


def _of_theirs(row: dict[str, Any]) -> Listed:
    status, message = str(row["status"]), str(row["error_message"] or "")
    reason = None if status == SUCCESS else reason_of(status, message)
    return Listed(str(row["url"]), str(row["key"]), reason, message)


def count(shard: Shard) -> int:
    """Return how many samples a shard should have: as its table says, or else its tar's headers.

    Of a shard whose pictures are missing that is none.

    Raises:
        ShardFormatError: its table cannot be read.
        StorageError: its tar cannot be read.
    """
    listed = rows(shard)
    if shard.kind == MISSING:
        return 0
    if listed is not None:
        return sum(row.reason is None for row in listed)
    with storage.translated(shard.place, "read"), storage.open_read(shard.place) as stream:
        found = samples(stream, stream.seek(0, io.SEEK_END), PICTURES, ())
        return sum(isinstance(sample, Sample) for sample in found)


def read(shard: Shard) -> Iterator[Found | Fault]:
    """Yield the samples of a shard in order, and what is wrong with it.

    Raises:
        StorageError: it cannot be read.
    """
    if shard.kind == MISSING:
        return iter(())
    if shard.kind == "webdataset":
        return _of_tar(shard)
    return _of_folder(shard) if shard.kind == "files" else _of_table(shard)


def _of_tar(shard: Shard) -> Iterator[Found | Fault]:
    with storage.translated(shard.place, "read"), storage.open_read(shard.place) as stream:
        size = stream.seek(0, io.SEEK_END)
        for sample in samples(stream, size, PICTURES, _SMALL):
            if isinstance(sample, Fault):
                yield sample
                continue
            member = next((sample.pictures[e] for e in PICTURES if e in sample.pictures), None)
            if member is None or sample.removed:
                yield Fault(f"{sample.key} has no picture", 0)
                continue
            stream.seek(member.offset)
            picture = stream.read(member.size)
            yield _found(sample, picture)


def _of_folder(shard: Shard) -> Iterator[Found | Fault]:
    files = [storage.name_of(url) for url in storage.list_files(shard.place)]
    for key, names in groupby(files, key=lambda name: name.partition(".")[0]):
        members = {
            name.rpartition(".")[2].lower(): storage.read_bytes(storage.join(shard.place, name))
            for name in names
        }
        picture = next((members[e] for e in PICTURES if members.get(e)), None)
        if picture is None:
            yield Fault(f"{key} has no picture", 0)
        else:
            yield _found(Sample(key, {}, members), picture)


def _of_table(shard: Shard) -> Iterator[Found | Fault]:
    column = _picture_column(shard.table)
    with storage.open_arrow(shard.table) as file:
        names = pq.ParquetFile(file).schema_arrow.names
    for batch in storage.parquet_batches(shard.table, names, _ROWS_AT_ONCE):
        for row in batch.to_pylist():
            if row.get("status", SUCCESS) != SUCCESS:
                continue
            picture, text = row.pop(column), row.pop("txt", None)
            if picture:
                yield Found(row["key"], picture, text and text.encode(), row)
            else:
                yield Fault(f"{row['key']} has no picture", 0)


def _found(sample: Sample, picture: bytes) -> Found | Fault:
    try:
        metadata = json_object(sample.small.get("json", b"{}"))
    except (ValueError, RecursionError) as error:
        return Fault(f"{sample.key}.json: {error}", 0)
    return Found(sample.key, picture, sample.small.get("txt"), metadata)
