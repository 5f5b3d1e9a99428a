"""Where the hashes of training pictures come from, part by part, and what each picture is.

Shards that lie in a run have their hashes beside them already, in the tables of its pictures
(``tables.IMAGES``). Those of other shards are made once, and kept (``hashed``). Either way a part
is what is in memory at a time: a table of pictures, or a shard.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.ahead import mapped
from wit_builder.shards.read import Dataset
from wit_train.overlap.hashed import HASHED, Hashing, State, hash_shards, read_table

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_READERS = 8
_GENERATION = re.compile(r"g[0-9]+")
_OF_A_RUN = re.compile(r"(.+)/g[0-9]+/shards")


class Part(NamedTuple):
    """Hashes of some training pictures.

    Attributes:
        hash_N: uint64.
        row_N: int64, rows of the part's table.
        counts: of pictures by what they are: ``hashed``, ``one brightness``, ``do not decode``,
            ``removed``.
    """

    hash_N: U64
    row_N: I64
    counts: dict[str, int]


class Place(NamedTuple):
    """A training picture: where it is, and what is known of it without reading it.

    Attributes:
        shard: file name of the tar.
        key: of the sample.
        uid: 16 bytes; none of shards of others.
        picture, told: offset and size in the tar of the picture, and of its JSON (size 0: none).
    """

    shard: str
    key: str
    uid: bytes | None
    picture: tuple[int, int]
    told: tuple[int, int]


class Training(ABC):
    """The pictures of a data set of shards, by their hashes.

    Attributes:
        dataset: the data set.
        parts: how many parts there are.
    """

    dataset: Dataset
    parts: int

    @abstractmethod
    def part(self, number: int) -> Part:
        """Return a part; any number of threads may ask.

        Raises:
            StorageError: it cannot be read.
        """

    @abstractmethod
    def places(self, rows: Collection[tuple[int, int]]) -> dict[tuple[int, int], Place]:
        """Return the pictures at some (part, row); without those that no shard has (any more).

        Raises:
            StorageError: a table cannot be read.
        """

    @abstractmethod
    def is_whole(self) -> bool:
        """Return whether the parts, all of which were asked for, had all pictures of the shards."""


class Tables(Training):
    """Hashes out of the tables of a run's pictures; no picture is read.

    Of the pictures there, those count that were packed and not removed: half of their uids, 8 bytes
    of each, are in memory, and a mark of each.
    """

    def __init__(self, dataset: Dataset, urls: Sequence[str]) -> None:
        self.dataset, self._urls, self.parts = dataset, urls, len(urls)
        shards = range(dataset.manifest.num_rows)
        self._packed = np.sort(np.concatenate(list(mapped(self._uids, shards, _READERS))))
        self._seen = np.zeros(len(self._packed), np.bool_)

    @staticmethod
    def of(dataset: Dataset) -> Tables | None:
        """Return the tables beside a data set; None if it lies in no run, or in one without."""
        url = dataset.url
        inside = _OF_A_RUN.fullmatch(url if storage.is_remote(url) else str(Path(url).absolute()))
        if inside is None:
            return None
        generations = [g for g in storage.list_folders(inside[1]) if _GENERATION.fullmatch(g)]
        folders = [storage.join(inside[1], g, "images") for g in generations]
        rounds = [storage.join(f, r) for f in folders for r in storage.list_folders(f)]
        urls = [url for r in rounds for url in storage.list_files(r, ".parquet")]
        return Tables(dataset, urls) if urls else None

    def part(self, number: int) -> Part:
        """Return the pictures of a table that are in a shard."""
        table = storage.read_parquet(self._urls[number], ["uid", "phash", "outcome"])
        there = pc.equal(table["outcome"], "alive").to_numpy().astype(np.bool_)
        uid_N = _halves(table["uid"])
        place_N = np.searchsorted(self._packed, uid_N).clip(max=max(0, len(self._packed) - 1))
        if len(self._packed):
            there &= self._packed[place_N] == uid_N
            self._seen[place_N[there]] = True
        has = there & pc.is_valid(table["phash"]).to_numpy().astype(np.bool_)
        row_N = np.flatnonzero(has & bool(len(self._packed)))
        flat = int(there.sum()) - len(row_N)
        hash_N = _from_hex(table["phash"].combine_chunks().take(pa.array(row_N)))
        return Part(hash_N, row_N, {"hashed": len(row_N), State.FLAT.words: flat})

    def places(self, rows: Collection[tuple[int, int]]) -> dict[tuple[int, int], Place]:
        """Return the pictures that were packed and not removed: every samples table is read."""
        at_uid: dict[bytes, list[tuple[int, int]]] = {}
        for number in sorted({part for part, _ in rows}):
            uids = storage.read_parquet(self._urls[number], ["uid"])["uid"]
            for row in sorted(row for part, row in rows if part == number):
                at_uid.setdefault(uids[row].as_py(), []).append((number, row))
        wanted = pa.array(sorted(at_uid), pa.binary(16))
        found: dict[tuple[int, int], Place] = {}
        shards = range(self.dataset.manifest.num_rows)
        for places in mapped(lambda shard: self._in_shard(shard, wanted), shards, _READERS):
            found |= {at: place for place in places for at in at_uid[place.uid or b""]}
        return found

    def is_whole(self) -> bool:
        """Return whether the tables had all samples of all shards."""
        return bool(self._seen.all())

    def _uids(self, shard: int) -> U64:
        table = storage.read_parquet(self.dataset.samples_url(shard), ["uid", "removed"])
        return _halves(table["uid"].filter(pc.invert(table["removed"])))

    def _in_shard(self, shard: int, wanted: pa.Array) -> list[Place]:
        table = storage.read_parquet(self.dataset.samples_url(shard))
        found = pc.and_(pc.is_in(table["uid"], value_set=wanted), pc.invert(table["removed"]))
        name = self.dataset.manifest["shard"][shard].as_py()
        return [
            Place(name, row["key"], row["uid"], _span(row["jpg"]), _span(row["json"]))
            for row in table.filter(found).to_pylist()
        ]


class Cached(Training):
    """Hashes that were made of the pictures of shards, of anybody's, and kept.

    Args:
        dataset: the data set.
        hashing: where they are kept, and by how many processes they are made.
    """

    def __init__(self, dataset: Dataset, hashing: Hashing) -> None:
        self.dataset = dataset
        self._jobs = hash_shards(dataset, hashing)
        self.parts = len(self._jobs)

    def part(self, number: int) -> Part:
        """Return the pictures of a shard."""
        table = read_table(self._jobs[number], ["state", "phash"])
        state_N = table["state"].to_numpy()
        row_N = np.flatnonzero(state_N == State.HASHED)
        counts = {state.words: int(np.count_nonzero(state_N == state)) for state in State}
        return Part(table["phash"].to_numpy()[row_N], row_N, counts)

    def places(self, rows: Collection[tuple[int, int]]) -> dict[tuple[int, int], Place]:
        """Return the pictures at some (shard, sample)."""
        found: dict[tuple[int, int], Place] = {}
        for number in sorted({part for part, _ in rows}):
            table = read_table(self._jobs[number], [n for n in HASHED.names if n != "phash"])
            name = self.dataset.manifest["shard"][number].as_py()
            for row in sorted(row for part, row in rows if part == number):
                told = table.slice(row, 1).to_pylist()[0]
                picture = told["picture_offset"], told["picture_size"]
                known = told["told_offset"], told["told_size"]
                found[number, row] = Place(name, told["key"], None, picture, known)
        return found

    def is_whole(self) -> bool:
        """Return True: every picture was looked at."""
        return True


def training(dataset: Dataset, hashing: Hashing) -> Iterator[Training]:
    """Yield the ways to the hashes of a data set, the cheapest first; the last one is whole.

    Raises:
        ShardFormatError: a block is damaged.
        StorageError: it cannot be read.
    """
    if not dataset.info.root and (tables := Tables.of(dataset)):
        yield tables
    yield Cached(dataset, hashing)


def _span(member: dict[str, int]) -> tuple[int, int]:
    return member["offset"], member["size"]


def _halves(uids: pa.ChunkedArray) -> U64:
    """Return the first 8 of the 16 bytes of each uid, as numbers: a hash of it, as all of it is."""
    found = uids.combine_chunks()
    words = np.frombuffer(found.buffers()[1] or b"", np.uint64)
    return words[2 * found.offset : 2 * (found.offset + len(found)) : 2].copy()


def _from_hex(digits: pa.Array) -> U64:
    """Return hashes of 16 hex digits each as numbers."""
    raw = bytes.fromhex("".join(digits.to_pylist()))  # 60 ns a hash
    return np.frombuffer(raw, ">u8").astype(np.uint64)
