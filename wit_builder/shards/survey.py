"""One shard that somebody else wrote, read once from front to back: its digests and its blocks.

A *sample* is WebDataset's. Those with a picture and a caption, neither empty, are *slots*; the
others are left out, and counted. Blocks are cut as in our own shards: whole slots, the next one
cut off where it would not fit. They need not cover the tar: what stands between two blocks is no
slot's. What is damaged costs itself alone; it is counted, and named.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import IO

import msgspec
import xxhash

from wit_builder import storage
from wit_builder.errors import ShardFormatError, StorageError
from wit_builder.ranges import open_ranges
from wit_builder.shards import foreign as dialects
from wit_builder.shards.block_index import Found, caption_of, grouped, place_of
from wit_builder.shards.faults import Fault
from wit_builder.shards.layout import MAX_BLOCK_BYTES, Foreign
from wit_builder.shards.tar import Member
from wit_builder.shards.write import Block, ShardRecord

MAX_SAMPLE_BYTES = 32 << 20
"""Longer samples are left out: a stream keeps whole blocks in memory, and a block whole samples."""

_CHUNK_BYTES = 1 << 20
_KEPT_CHUNKS = (MAX_SAMPLE_BYTES + 2 * MAX_BLOCK_BYTES) // _CHUNK_BYTES
_FAULTS_TOLD = 100
_ENDINGS_TOLD = 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\x28\xb5": "zstd", b"\xfd7": "xz"}


class Survey(msgspec.Struct, frozen=True):
    """What a shard holds.

    Attributes:
        record: its rows of the manifest and of the block table.
        counts: samples (slots); ``no_picture``, ``no_caption``, ``too_long`` (left out, each under
            the first that holds); ``unreadable_captions`` (slots whose JSON has no caption);
            ``repeated`` (members that a sample has already); ``faults``.
        faults: the first of them.
        endings: of members, the first few: what could have been asked for.
    """

    record: ShardRecord
    counts: dict[str, int]
    faults: list[Fault]
    endings: list[str]


def survey(place: str, name: str, foreign: Foreign) -> Survey:
    """Return what a shard holds; in memory are 40 MiB at most.

    Args:
        place: of the tar, local or remote.
        name: what the manifest calls it.
        foreign: which members are pictures and captions.

    Raises:
        ShardFormatError: it is compressed, or no tar at all.
        StorageError: it cannot be read, or changes meanwhile.
    """
    with open_ranges(place) as stream:
        tape = Tape(stream)
        refuse_compressed(tape.read(2), place)
        surveyor = _Surveyor(tape, name, foreign, stream.size)
        surveyor.take_all()
        tape.wind()
    if tape.end != stream.size:
        raise StorageError(
            "the shard has changed while it was read",
            where=storage.redact(place),
            fix="start again once it is written",
        )
    return surveyor.result(place)


def refuse_compressed(head: bytes, place: str) -> None:
    """Refuse a file that begins as a compressed one does.

    Raises:
        ShardFormatError: it does.
    """
    if kind := _COMPRESSED.get(head[:2]):
        raise ShardFormatError(
            f"the shard is compressed as a whole ({kind}): nothing in it can be read by its place",
            where=storage.redact(place),
            fix="decompress it to a .tar",
        )


class Tape:
    """A stream read once from front to back, digested; what passed last can be read again.

    ``end`` tells how many bytes have passed.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._at, self.end = stream, 0, 0
        self._chunks: dict[int, bytes] = {}  # all of one size, but for the last of the stream
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hex digest of all that has passed."""
        return self._sha256.hexdigest()

    def has(self, at: int) -> bool:
        """Return whether all from there on is kept."""
        return at // _CHUNK_BYTES in self._chunks or at >= self.end

    def seek(self, at: int, whence: int = 0, /) -> int:
        """Go to a place; nothing is read yet."""
        assert whence == 0
        self._at = at
        return at

    def read(self, size: int = -1, /) -> bytes:
        """Return up to so many bytes from where it stands; fewer only at the end."""
        data = self.part(self._at, self._at + size)
        self._at += len(data)
        return data

    def part(self, start: int, end: int) -> bytes:
        """Return the bytes of ``[start, end)``, fewer at the end of the stream."""
        assert self.has(start)
        self._wind(end, start)
        first, last = start // _CHUNK_BYTES, (end - 1) // _CHUNK_BYTES
        inside = slice(start - first * _CHUNK_BYTES, end - first * _CHUNK_BYTES)
        if first == last:
            return self._chunks.get(first, b"")[inside]
        chunks = (self._chunks.get(number, b"") for number in range(first, last + 1))
        return memoryview(b"".join(chunks))[inside].tobytes()

    def wind(self) -> None:
        """Let all the rest pass."""
        while self._wind(self.end + 1, self.end):
            pass

    def _wind(self, to: int, keep: int) -> bool:
        """Let pass what is before a place, and keep what is after another; False at the end."""
        while self.end < to:
            chunk = self._stream.read(_CHUNK_BYTES)
            if not chunk:
                return False
            self._sha256.update(chunk)
            number = self.end // _CHUNK_BYTES
            self._chunks[number] = chunk
            self.end += len(chunk)
            for oldest in list(self._chunks):
                if oldest >= min(keep // _CHUNK_BYTES, number - _KEPT_CHUNKS):
                    break
                del self._chunks[oldest]
        return True


class _OpenBlock:
    """The block that is growing; ``start`` and ``end`` are bytes of the tar."""

    def __init__(self, first_sample: int, start: int) -> None:
        self.first_sample, self.start, self.end = first_sample, start, start
        self._xxh3 = xxhash.xxh3_64()

    def take(self, tape: Tape, end: int) -> None:
        """Grow up to a byte."""
        self._xxh3.update(tape.part(self.end, end))
        self.end = end

    def block(self, next_sample: int) -> Block:
        """Return it as in the block table; its last sample is the one before ``next_sample``."""
        samples, length = next_sample - self.first_sample, self.end - self.start
        return Block(self.first_sample, samples, self.start, length, self._xxh3.intdigest())


class _Surveyor:
    """A shard under way."""

    def __init__(self, tape: Tape, name: str, foreign: Foreign, size: int) -> None:
        self._tape, self._name, self._foreign, self._size = tape, name, foreign, size
        self._counts: Counter[str] = Counter(samples=0)
        self._faults: list[Fault] = []
        self._endings: dict[str, None] = {}
        self._blocks: list[Block] = []
        self._open: _OpenBlock | None = None

    def take_all(self) -> None:
        """Take the samples of the whole shard."""
        for sample in grouped(self._files()):  # 50 us a sample of 25 KB, measured
            self._take(sample)
        self._close()

    def _files(self) -> Iterator[tuple[int, Member]]:
        """Yield the files of the tar; note its faults."""
        for found in dialects.entries(self._tape, self._size):
            if isinstance(found, dialects.Fault):
                self._counts["faults"] += 1
                if len(self._faults) < _FAULTS_TOLD:
                    self._faults.append(Fault(self._name, "", found.offset, found.what))
            else:
                self._counts["files"] += 1
                yield found

    def _take(self, sample: Found) -> None:
        if len(self._endings) < _ENDINGS_TOLD:
            self._endings |= dict.fromkeys(sample.members)
        self._counts["repeated"] += sample.repeated
        place = place_of(sample.members, self._foreign)
        end = min(sample.end, self._size)  # of the last one, the padding may be missing
        if place is None:
            self._counts[self._what_is_missing(sample)] += 1
        elif end - sample.start > MAX_SAMPLE_BYTES or not self._tape.has(sample.start):
            self._counts["too_long"] += 1
        else:
            self._check_caption(place[2], place[3])
            self._add(sample.start, end)

    def _what_is_missing(self, sample: Found) -> str:
        has_picture = any(
            ending in sample.members and sample.members[ending].size
            for ending in self._foreign.image
        )
        return "no_caption" if has_picture else "no_picture"

    def _check_caption(self, at: int, size: int) -> None:
        if self._foreign.caption_key:
            data = self._tape.part(at, at + size)
            self._counts["unreadable_captions"] += not caption_of(data, self._foreign)

    def _add(self, start: int, end: int) -> None:
        block = self._open
        if block and (end - block.start > MAX_BLOCK_BYTES or not self._tape.has(block.end)):
            self._close()
        if self._open is None:
            self._open = _OpenBlock(self._counts["samples"], start)
        self._open.take(self._tape, end)
        self._counts["samples"] += 1

    def _close(self) -> None:
        if self._open is not None:
            self._blocks.append(self._open.block(self._counts["samples"]))
        self._open = None

    def result(self, place: str) -> Survey:
        """Return what was found.

        Raises:
            ShardFormatError: there is not one file of a tar in it, yet it is damaged.
        """
        files = self._counts.pop("files", 0)
        if self._faults and not files and self._size:
            raise ShardFormatError(
                f"no tar, or one without a sound header ({self._faults[0].what})",
                where=storage.redact(place),
                fix="download it again, or leave it out of what is indexed",
            )
        samples = self._counts["samples"]
        record = ShardRecord(self._name, samples, self._size, self._tape.sha256, 0, self._blocks)
        counts = {name: count for name, count in sorted(self._counts.items()) if count}
        return Survey(record, {"samples": samples} | counts, self._faults, sorted(self._endings))
