"""The hashes of a data set's pictures, made once: a table a shard, kept for the next test set.

A shard is a unit. Its table is named after the shard's bytes (the SHA-256 in its manifest) and the
members that are pictures; so a shard that samples were removed from is hashed anew, and nothing
else. No torch is needed, so that processes start soon.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from wit_builder import storage
from wit_builder.ahead import mapped
from wit_builder.errors import StorageError
from wit_builder.shards.block_index import slots_in
from wit_builder.shards.layout import Foreign
from wit_builder.shards.read import Dataset
from wit_train.decode import pixels
from wit_train.overlap.variants import hash_of
from wit_train.source import Source

_AT_ONCE = 2  # blocks: one is read while another is decoded
_OWN = Foreign(root="")
_TOLD = "json"
VERSION = 1
"""Raised when the same pictures would get other hashes."""


class State(IntEnum):
    """What is known of a picture."""

    HASHED = 0
    FLAT = 1
    UNDECODABLE = 2
    REMOVED = 3

    @property
    def words(self) -> str:
        """For people."""
        return ("hashed", "one brightness", "do not decode", "removed")[self]


HASHED = pa.schema(
    [
        ("key", pa.string()),  # of the sample
        ("state", pa.int8()),  # State
        ("phash", pa.uint64()),  # 0 unless hashed
        ("picture_offset", pa.int64()),  # in the tar
        ("picture_size", pa.int64()),
        ("told_offset", pa.int64()),  # of its JSON
        ("told_size", pa.int64()),  # 0: it has none
    ]
)
"""A row a slot of the shard, in its order."""


class Hashing(msgspec.Struct, frozen=True):
    """How hashes are made and kept.

    Attributes:
        cache: folder to keep them in, local or remote.
        processes: to make them with.
        told: is told how it gets on.
    """

    cache: str
    processes: int = 1
    told: Callable[[str], None] = lambda _: None


class Job(msgspec.Struct, frozen=True):
    """A shard to hash: of which data set, and where its table is to be.

    Attributes:
        folder, digest: of the data set.
        shard: its number.
        out: the table.
    """

    folder: str
    digest: str
    shard: int
    out: str


class _Row(NamedTuple):
    key: str
    state: int
    phash: int
    picture_offset: int
    picture_size: int
    told_offset: int
    told_size: int


def hash_shards(dataset: Dataset, hashing: Hashing) -> list[Job]:
    """Return the units of a data set's shards; the tables that are not there yet are made.

    Raises:
        ShardFormatError: a block is damaged.
        StorageError: something cannot be read or written.
    """
    there = storage.sizes(hashing.cache)
    names = [_name(dataset, row) for row in dataset.manifest.to_pylist()]
    jobs = [
        Job(dataset.url, dataset.info.digest, shard, storage.join(hashing.cache, name))
        for shard, name in enumerate(names)
    ]
    missing = [job for job, name in zip(jobs, names, strict=True) if name not in there]
    for done, pictures in enumerate(_each(missing, hashing.processes), start=1):
        hashing.told(f"hashed shard {done} of {len(missing)}: {pictures:,} pictures")
    return jobs


def read_table(job: Job, columns: list[str]) -> pa.Table:
    """Return columns of a shard's table; one that is damaged is made anew, as caches are.

    Raises:
        ShardFormatError: a block of the shard is damaged.
        StorageError: the shard cannot be read, or the table not be written.
    """
    try:
        return storage.read_parquet(job.out, columns)
    except StorageError:
        run_hash(job)
        return storage.read_parquet(job.out, columns)


def _name(dataset: Dataset, shard: dict[str, Any]) -> str:
    foreign = _foreign(dataset)
    what = [VERSION, shard["sha256"], shard["bytes"], shard["revision"], list(foreign.image)]
    return f"{xxhash.xxh3_128_hexdigest(msgspec.json.encode(what))}.parquet"


def _foreign(dataset: Dataset) -> Foreign:
    return _OWN if dataset.info.foreign is msgspec.UNSET else dataset.info.foreign


def _each(jobs: list[Job], processes: int) -> Iterator[int]:
    """Yield how many pictures each unit hashed, as they are done."""
    if processes <= 1 or len(jobs) <= 1:
        yield from map(run_hash, jobs)
        return
    # Not forked: what calls has threads of torch by now.
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), spawned, cv2.setNumThreads, (1,)) as pool:
        running = [pool.submit(run_hash, job) for job in jobs]
        try:
            for future in as_completed(running):
                yield future.result()
        finally:
            for future in running:
                future.cancel()


def run_hash(job: Job) -> int:
    """Publish a shard's table of hashes; return how many pictures were hashed. Memory: two blocks.

    0.5 ms a picture of 342 x 256 on one core, most of it for decoding.
    """
    dataset = _opened(job.folder, job.digest)
    blocks = np.flatnonzero(dataset.blocks["shard"].to_numpy() == job.shard).tolist()
    source = Source(dataset)
    try:
        parts = list(mapped(lambda block: _rows(source, block), blocks, _AT_ONCE))
    finally:
        source.close()
    rows = [row for part in parts for row in part]
    columns = zip(*rows, strict=True) if rows else [()] * len(HASHED)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, HASHED, strict=True)]
    table = pa.table(arrays, schema=HASHED)
    storage.write_parquet(job.out, table)
    return int(np.count_nonzero(table["state"].to_numpy() == State.HASHED))


@lru_cache(maxsize=1)
def _opened(folder: str, digest: str) -> Dataset:
    del digest  # another one: samples were removed since
    return Dataset.open(folder)


def _rows(source: Source, block: int) -> list[_Row]:
    dataset = source.dataset
    offset, length = (dataset.blocks[name][block].as_py() for name in ("offset", "length"))
    data = bytearray(length)
    source.read(block, memoryview(data))
    foreign, rows = _foreign(dataset), []
    for found in slots_in(data, foreign):  # 7 us a sample, and 0.5 ms for its picture
        there = (found.members[e] for e in foreign.image if e in found.members)
        picture = next(member for member in there if member.size)
        told = found.members.get(_TOLD)
        state, phash = _hashed(memoryview(data)[picture.offset : picture.offset + picture.size])
        known = (offset + told.offset, told.size) if told else (0, 0)
        rows.append(_Row(found.key, state, phash, offset + picture.offset, picture.size, *known))
    return rows


def _hashed(body: memoryview) -> tuple[State, int]:
    if body[0] == 0 and not any(body):
        return State.REMOVED, 0
    picture = pixels(body)
    if picture is None:
        return State.UNDECODABLE, 0
    phash = hash_of(picture)
    return (State.FLAT, 0) if phash is None else (State.HASHED, phash)
