"""Read a data set of shards: its tables, its blocks, its samples.

Light to import (no webdataset, no torch), because the trainer's loader processes import it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import braceexpand
import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from wit_builder import storage
from wit_builder.errors import GoneError, ShardFormatError, StorageError
from wit_builder.shards import layout, tar
from wit_builder.shards.block_index import slots_in
from wit_builder.shards.layout import DatasetInfo
from wit_builder.shards.manifest import base_digest, manifest_digest, read_record
from wit_builder.tables import BLOCKS, MANIFEST

_GENERATION = re.compile(r"g[0-9]+")


class Sample(msgspec.Struct, frozen=True):
    """A sample: its key, and its members' bytes by extension (``jpg``, ``txt``, ``json``)."""

    key: str
    members: dict[str, bytes]

    @property
    def removed(self) -> bool:
        """Whether the pair was taken out: the slot is there, its bytes are zero."""
        jpg = self.members.get("jpg", b"")
        return jpg[:1] == b"\0" and not any(jpg)


@dataclass(frozen=True)
class Dataset:
    """An opened data set: where it is, and its tables. Shards are read when asked for.

    Attributes:
        url: the folder, without a slash at its end.
        info: ``dataset.json``.
        manifest: ``tables.MANIFEST``, one row a shard.
        blocks: ``tables.BLOCKS``, in the order of the data; row numbers are block numbers.
    """

    url: str
    info: DatasetInfo
    manifest: pa.Table
    blocks: pa.Table

    @staticmethod
    def open(url: str) -> Dataset:
        """Return the data set in a folder, its tables checked against each other.

        Raises:
            ShardFormatError: not a data set, an incomplete or a newer one, or its files disagree.
            StorageError: the place cannot be read.
        """
        folder = url.rstrip("/")
        info = read_info(folder)
        manifest = _read_table(storage.join(folder, layout.MANIFEST), MANIFEST)
        blocks = _read_table(storage.join(folder, layout.BLOCKS), BLOCKS)
        for what in disagreements(info, manifest, blocks):
            raise _error(what, folder, "run `wit verify` on it; copy or pack it again")
        return Dataset(folder, info, manifest, blocks)

    @property
    def revision(self) -> int:
        """How many times samples were removed from a shard, over all shards; 0 when packed."""
        return _sum(self.manifest, "revision")

    def shard_url(self, shard: int) -> str:
        """Return the place of a shard's tar."""
        return storage.join(self.info.root or self.url, self.manifest["shard"][shard].as_py())

    def samples_url(self, shard: int) -> str:
        """Return the place of a shard's samples table, which only our own shards have."""
        return storage.join(self.url, layout.samples_name(self.manifest["shard"][shard].as_py()))

    def block_bytes(self, block: int) -> bytes:
        """Return a block's bytes (one range read), checked against its digest.

        Samples may have been removed since the data set was opened: then the digest is the one in
        the shard's own record, which a removal publishes before the shard.

        Raises:
            ShardFormatError: they are not what the block table says.
            StorageError: they cannot be read.
        """
        row = self.blocks.slice(block, 1).to_pylist()[0]
        url = self.shard_url(row["shard"])
        data = storage.read_bytes(url, row["offset"], row["offset"] + row["length"])
        found = xxhash.xxh3_64_intdigest(data)
        if found != row["xxh3"] and not self.is_revised(block, found):
            raise _error(
                f"block {block} is damaged",
                f"{url} byte {row['offset']}",
                "run `wit verify` to see what is; copy or pack the shard again",
            )
        return data

    def is_revised(self, block: int, digest: int) -> bool:
        """Return whether the shard's own record is of a later revision, and has this digest.

        Raises:
            StorageError: the record cannot be read.
        """
        row = self.blocks.slice(block, 1).to_pylist()[0]
        with contextlib.suppress(ShardFormatError, GoneError):  # then the block is damaged
            record = read_record(self.samples_url(row["shard"]))
            place = (row["first_sample"], row["samples"], row["offset"], row["length"], digest)
            return record.revision > self.manifest["revision"][row["shard"]].as_py() and any(
                tuple(found) == place for found in record.blocks
            )
        return False

    def samples(self, shard: int) -> Iterator[Sample]:
        """Yield a shard's samples in order, reading block by block.

        Of shards of others, those with a picture and a caption.

        Raises:
            ShardFormatError: a block is damaged.
            StorageError: it cannot be read.
        """
        foreign = self.info.foreign
        for block in np.flatnonzero(self.blocks["shard"].to_numpy() == shard):
            data = self.block_bytes(int(block))
            if foreign is msgspec.UNSET:
                yield from samples_in(data)
                continue
            for found in slots_in(data, foreign):
                members = found.members.items()
                yield Sample(found.key, {e: data[m.offset : m.offset + m.size] for e, m in members})


def samples_in(data: bytes) -> Iterator[Sample]:
    """Yield the samples of a block, or of any run of whole samples of a WebDataset tar.

    As in WebDataset, members of a sample stand together, and a key ends at the first dot of the
    file name.

    Raises:
        ShardFormatError: not whole tar entries.
    """
    key, parts = "", dict[str, bytes]()
    for member in tar.members(data):
        folder, slash, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if folder + slash + stem != key and parts:
            yield Sample(key, parts)
            parts = {}
        key = folder + slash + stem
        parts[extension] = data[member.offset : member.offset + member.size]
    if parts:
        yield Sample(key, parts)


def expand(pattern: str) -> list[str]:
    """Return the places a brace pattern stands for, such as ``a/{000000..000002}.tar``.

    Raises:
        ShardFormatError: unbalanced braces.
    """
    try:
        return list(braceexpand.braceexpand(pattern, escape=False))
    except ValueError as error:
        raise _error("unbalanced braces", pattern, "write {000000..000009}") from error


def read_info(folder: str) -> DatasetInfo:
    """Return what ``dataset.json`` says.

    Raises:
        ShardFormatError: there is none, it is not of this format, or it is of a newer version.
        StorageError: it cannot be read.
    """
    url = storage.join(folder, layout.DATASET)
    if not storage.exists(url):
        raise _missing(folder)
    try:
        data = storage.read_bytes(url)
        head = msgspec.json.decode(data)
        if not isinstance(head, dict) or head.get("format") != layout.FORMAT:
            raise _error("dataset.json is of another format", url, "name a folder of wit shards")
        if head.get("version") != layout.VERSION:
            version = head.get("version")
            raise _error(f"shard format {version}, not {layout.VERSION}", url, "update wit-builder")
        return msgspec.json.decode(data, type=DatasetInfo)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _error(f"not readable: {error}", url, "copy it again, or pack again") from error


def own_info(folder: str) -> DatasetInfo:
    """Return what ``dataset.json`` says of shards of our own.

    Raises:
        ShardFormatError: as ``read_info``; or the shards are those of others.
        StorageError: it cannot be read.
    """
    info = read_info(folder)
    if info.foreign is not msgspec.UNSET:
        raise _error(
            "these are shards of others, which are never written to",
            folder,
            "take pairs out of a data set of your own: wit pack",
        )
    return info


def _missing(folder: str) -> ShardFormatError:
    names = storage.sizes(folder)
    if layout.MANIFEST in names or any(layout.is_tar_name(n) for n in names):
        return _error(
            "shards without a dataset.json: packing has not finished, or they are not ours",
            folder,
            "finish the build; for shards of others: wit index",
        )
    fix = f"name {' or '.join(map(storage.redact, below))}" if (below := _below(folder)) else ""
    return _error("no data set of shards here", folder, fix or "name the folder with dataset.json")


def _below(run: str) -> list[str]:
    """Return the folders of shards in that of a run, by generation."""
    generations = [name for name in storage.list_folders(run) if _GENERATION.fullmatch(name)]
    folders = [storage.join(run, name) for name in sorted(generations, key=lambda g: int(g[1:]))]
    return [storage.join(f, "shards") for f in folders if "shards" in storage.list_folders(f)]


def _read_table(url: str, schema: pa.Schema) -> pa.Table:
    try:
        table = storage.read_parquet(url)
    except StorageError as error:
        fix = "the data set is incomplete: copy it again, or pack again"
        raise _error(error.what, url, fix) from error
    if table.schema.names != schema.names or table.schema.types != schema.types:
        raise _error("wrong columns", url, "copy it again, or pack again")
    return table


def disagreements(info: DatasetInfo, manifest: pa.Table, blocks: pa.Table) -> Iterator[str]:
    """Yield in what ``dataset.json``, the manifest and the block table do not agree."""
    if manifest_digest(manifest) != info.digest:
        yield "manifest.parquet and dataset.json are not of one revision (digest differs)"
    if base_digest(manifest, blocks) != info.base:
        yield "blocks.parquet does not belong to manifest.parquet and dataset.json (base differs)"
    counted = (
        manifest.num_rows,
        blocks.num_rows,
        *(_sum(manifest, n) for n in ("samples", "bytes")),
    )
    if counted != (info.shards, info.blocks, info.samples, info.bytes):
        yield "dataset.json's counts are not those of manifest.parquet and blocks.parquet"
    yield from _gaps(manifest, blocks, may_have_gaps=info.foreign is not msgspec.UNSET)


def _gaps(manifest: pa.Table, blocks: pa.Table, *, may_have_gaps: bool) -> Iterator[str]:
    """Yield which shards' blocks do not follow each other from the first sample to the last.

    What is no sample's, in shards of others, may stand between the bytes of two blocks.
    """
    shard, first, samples, offset, length = (
        blocks[n].to_numpy().astype(np.int64) for n in BLOCKS.names if n != "xxh3"
    )
    wanted_samples = manifest["samples"].to_numpy().astype(np.int64)
    wanted_bytes = manifest["bytes"].to_numpy() - (0 if may_have_gaps else len(tar.TRAILER))
    follows = _apart if may_have_gaps else _consecutive
    starts = np.searchsorted(shard, np.arange(len(wanted_samples) + 1))
    known = len(shard) == 0 or bool((np.diff(shard) >= 0).all() and shard[-1] < len(wanted_samples))
    if not known or (len(shard) and shard[0] < 0):
        yield "blocks.parquet is not in the order of manifest.parquet"
        return
    for number in range(len(wanted_samples)):
        rows = slice(starts[number], starts[number + 1])
        if not (
            _consecutive(first[rows], samples[rows], wanted_samples[number])
            and follows(offset[rows], length[rows], wanted_bytes[number])
        ):
            wanted = "lie in it one after the other" if may_have_gaps else "cover it without gaps"
            yield f"the blocks of {manifest['shard'][number]} do not {wanted}"


def _consecutive(starts: np.ndarray, lengths: np.ndarray, total: int) -> bool:
    ends = np.cumsum(lengths)
    return bool((starts == ends - lengths).all() and (ends[-1] if len(ends) else 0) == total)


def _apart(starts: np.ndarray, lengths: np.ndarray, total: int) -> bool:
    bounds = np.column_stack([starts, starts + lengths]).ravel()
    return bool((np.diff(bounds, prepend=0, append=total) >= 0).all())


def _sum(table: pa.Table, column: str) -> int:
    return int(table[column].to_numpy().sum())


def _error(what: str, where: str, fix: str) -> ShardFormatError:
    return ShardFormatError(what, where=storage.redact(where), fix=fix)
