"""Examine one shard down to the last byte; every fault is named by file, member and offset.

A tar of this format is fully determined by its members' bytes: a header has one possible form,
padding is zero. So every byte is either in a member, whose xxh3 is in the samples table, or has
one right value. Where tar and samples table differ, the block's digest says which of them is wrong.

A removal publishes a shard's samples table first, then its tar, and the manifest last of all. So a
record of a later revision than the manifest's is a removal that was cut short: then a block may be
as it was, or as it is to be. It is one fault; whatever else is wrong is told as ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import IO, Any

import msgspec
import xxhash

from wit_builder import storage
from wit_builder.errors import ShardFormatError, WitError
from wit_builder.ranges import open_ranges
from wit_builder.shards import layout, tar
from wit_builder.shards.decodable import OWN, complaint
from wit_builder.shards.faults import FINISH_REMOVAL, Fault, readable_table, reason
from wit_builder.shards.layout import MEMBERS, Metadata
from wit_builder.shards.manifest import read_record
from wit_builder.shards.write import Block, ShardRecord
from wit_builder.tables import SHARD_SAMPLES

_SAMPLES_MEMBER = "row {} ({})"


class Expected(msgspec.Struct, frozen=True):
    """What the data set's tables say of a shard; None where such a table cannot be read."""

    folder: str
    shard: str
    manifest: dict[str, Any] | None
    blocks: list[Block] | None
    decode: bool = False
    """Whether every picture is to be decoded."""


class Examined(msgspec.Struct, frozen=True):
    """What was found in a shard. Keys are empty if there is no sample."""

    samples: int
    bytes: int
    first_key: str
    last_key: str
    faults: list[Fault]


def examine(expected: Expected) -> Examined:
    """Return what a shard holds, and all its faults."""
    return _Examination(expected).run()


class _Examination:
    """One shard under way. The order of the methods is the order of the work."""

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.tar = expected.shard
        self.table = layout.samples_name(expected.shard)
        self.faults: list[Fault] = []
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.broken = False
        """A byte of the tar is wrong, so that its digests cannot be right."""
        self.unfinished = False
        """A removal was cut short: the tar is of the manifest's revision, or of the next."""

    def fault(self, file: str, member: str, offset: int, what: str) -> None:
        self.faults.append(Fault(file, member, offset, what))

    def run(self) -> Examined:
        rows = self._rows()
        record = self._record()
        self.unfinished = self._is_unfinished(record)
        url = storage.join(self.expected.folder, self.tar)
        try:
            with open_ranges(url) as stream:
                self._read(stream, rows, record)
            self._compare_digests(record)
        except WitError as error:
            self.broken = True
            self.fault(self.tar, "", -1, f"not readable: {reason(error)}")
        self._compare_counts(rows, record)
        keys = [row["key"] for row in rows or ()]
        first, last = (keys[0], keys[-1]) if keys else ("", "")
        return Examined(len(keys), self.bytes, first, last, self.faults)

    def _rows(self) -> list[dict[str, Any]] | None:
        found = readable_table(self.expected.folder, self.table, SHARD_SAMPLES, self.faults.append)
        rows = [] if found is None else found.to_pylist()
        for number, row in enumerate(rows):
            if not _possible(row):
                member = _SAMPLES_MEMBER.format(number, row["key"])
                self.fault(self.table, member, -1, "a key or size that cannot be")
                return None
        return None if found is None else rows

    def _record(self) -> ShardRecord | None:
        try:
            return read_record(storage.join(self.expected.folder, self.table))
        except WitError as error:
            if not self.faults:  # else the table as a whole was reported
                self.fault(self.table, "", -1, reason(error))
            return None

    def _is_unfinished(self, record: ShardRecord | None) -> bool:
        manifest = self.expected.manifest
        if record is None or manifest is None or record.revision <= manifest["revision"]:
            return False
        told = f"revision {manifest['revision']} in the manifest, {record.revision} in its record"
        what = f"a removal is not finished: {told}"
        self.faults.append(Fault(self.tar, "", -1, what, FINISH_REMOVAL))
        return True

    def _read(
        self, stream: IO[bytes], rows: list[dict[str, Any]] | None, record: ShardRecord | None
    ) -> None:
        told = [(self.expected.blocks, layout.BLOCKS)]
        told += [(record.blocks, self.table)] if record else []
        usable = [(b, file) for b, file in told if b is not None and _consecutive(b)]
        blocks, file = usable[0] if usable else ([], layout.BLOCKS)
        if rows is None:
            self._read_blocks(stream, blocks)
        else:
            to_be = record.blocks if record and self.unfinished else []
            _SampleReader(self, stream, [*to_be, *blocks], file).read(rows)
        self._read_trailer(stream)

    def _read_blocks(self, stream: IO[bytes], blocks: Sequence[Block]) -> None:
        """Check whole blocks: all that is possible without a samples table."""
        for block in blocks:
            data = self.take(stream, block.length)
            if xxhash.xxh3_64_intdigest(data) != block.xxh3:
                self.broken = True
                last = block.first_sample + block.samples - 1
                self.fault(
                    self.tar,
                    f"samples {block.first_sample} to {last}",
                    block.offset,
                    "the block's bytes are not those that were packed (xxh3 differs)",
                )

    def take(self, stream: IO[bytes], size: int) -> bytes:
        """Return the next bytes, counted and digested."""
        data = stream.read(size)
        self.sha256.update(data)
        self.bytes += len(data)
        return data

    def _read_trailer(self, stream: IO[bytes]) -> None:
        at = self.bytes
        end = self.take(stream, -1)
        if end == tar.TRAILER or (self.broken and not end):
            return
        self.broken = True
        if len(end) < len(tar.TRAILER):
            self.fault(self.tar, "end of archive", at, "the file is cut short")
        elif any(end):
            first = at + len(end) - len(end.lstrip(b"\0"))
            self.fault(self.tar, "end of archive", first, "bytes after the last sample")
        else:
            self.fault(self.tar, "end of archive", at, "more than two zero blocks end it")

    def _compare_digests(self, record: ShardRecord | None) -> None:
        """Compare SHA-256, unless a wrong byte was named: then it cannot but differ."""
        if self.broken:
            return
        found = self.sha256.hexdigest()
        manifest = self.expected.manifest
        told = [(manifest["sha256"], layout.MANIFEST, self.tar)] if manifest else []
        told += [(record.sha256, self.table, "its record")] if record else []
        if told and all(digest != found for digest, _, _ in told):
            self.fault(self.tar, "", -1, "its SHA-256 is not the manifest's")
            return
        if self.unfinished:
            return
        for digest, file, member in told:
            if digest != found:
                self.fault(file, member, -1, "the SHA-256 is not the shard's")

    def _compare_counts(
        self, rows: list[dict[str, Any]] | None, record: ShardRecord | None
    ) -> None:
        manifest = self.expected.manifest
        if record is not None and record.shard != self.tar:
            self.fault(self.table, "its record", -1, f"it is of another shard, {record.shard}")
        if manifest is None:
            return
        if rows is not None and len(rows) != manifest["samples"]:
            what = f"says {manifest['samples']} samples, the samples table has {len(rows)}"
            self.fault(layout.MANIFEST, self.tar, -1, what)
        if not self.broken and self.bytes != manifest["bytes"]:
            what = f"says {manifest['bytes']} bytes, the shard has {self.bytes}"
            self.fault(layout.MANIFEST, self.tar, -1, what)
        if record is None or self.unfinished:
            return
        if record.revision != manifest["revision"]:
            what = f"says revision {manifest['revision']}, the samples table {record.revision}"
            self.fault(layout.MANIFEST, self.tar, -1, what)
        if self.expected.blocks is not None and record.blocks != self.expected.blocks:
            member = f"blocks of {self.tar}"
            self.fault(
                layout.BLOCKS, member, -1, "they are not those of the samples table's record"
            )
        if (record.samples, record.bytes) != (manifest["samples"], manifest["bytes"]):
            self.fault(self.table, "its record", -1, "samples or bytes are not the manifest's")


class _SampleReader:
    """Reads a tar sample by sample beside its samples table."""

    def __init__(
        self, parent: _Examination, stream: IO[bytes], blocks: Sequence[Block], blocks_file: str
    ) -> None:
        self.parent, self.stream, self.blocks_file = parent, stream, blocks_file
        self.cuts = {b.first_sample + b.samples: b for b in blocks}
        self.known = {(b.first_sample, b.xxh3) for b in blocks}
        self.digest = xxhash.xxh3_64()
        self.suspects: list[tuple[int, Fault]] = []
        """Members unlike their row, until the block's digest tells which of the two is wrong."""

    def read(self, rows: list[dict[str, Any]]) -> None:
        previous = ""
        for number, row in enumerate(rows):  # 50 us a sample of 25 KB, measured
            if not self._read_sample(number, row):
                break
            if row["key"] <= previous:
                self._row_fault(number, row, "its key does not ascend")
            previous = row["key"]
            if block := self.cuts.get(number + 1):
                self._close_block(block)
        if self.suspects:
            self._settle(tar_is_right=False)

    def _read_sample(self, number: int, row: dict[str, Any]) -> bool:
        bodies = {}
        for extension in MEMBERS:
            body = self._read_member(number, row, extension)
            if body is None:
                return False
            bodies[extension] = body
        self._check_content(number, row, bodies)
        return True

    def _read_member(self, number: int, row: dict[str, Any], extension: str) -> bytes | None:
        """Return a member's bytes, or None where the file ends."""
        name, told, at = f"{row['key']}.{extension}", row[extension], self.parent.bytes
        raw = self._take(tar.BLOCK)
        size = self._size(number, row, extension, raw)
        body = self._take(size)
        padding = self._take(tar.padded(size) - size)
        if len(raw) + len(body) + len(padding) < tar.BLOCK + tar.padded(size):
            self.parent.broken = True
            what = f"the file is cut short at byte {self.parent.bytes}, within this member"
            self.parent.fault(self.parent.tar, name, at + tar.BLOCK, what)
            return None
        if any(padding):
            wrong = at + tar.BLOCK + size + len(padding) - len(padding.lstrip(b"\0"))
            self._tar_fault(name, wrong, "the padding after it is not zero")
        if told["offset"] != at + tar.BLOCK:
            what = f"{extension}: its offset is {told['offset']}, in the tar {at + tar.BLOCK}"
            self._row_fault(number, row, what)
        to_be_zeroed = self.parent.unfinished and row["removed"]
        if xxhash.xxh3_64_intdigest(body) != told["xxh3"] and not to_be_zeroed:
            what = "its bytes are not those that were packed (xxh3 differs)"
            self.suspects.append((number, Fault(self.parent.tar, name, at + tar.BLOCK, what)))
        return body

    def _take(self, size: int) -> bytes:
        data = self.parent.take(self.stream, size)
        self.digest.update(data)
        return data

    def _size(self, number: int, row: dict[str, Any], extension: str, raw: bytes) -> int:
        """Return a member's size: the header's where that is whole, else the samples table's."""
        name, size = f"{row['key']}.{extension}", int(row[extension]["size"])
        if len(raw) < tar.BLOCK or (name.isascii() and raw == tar.header(name, size)):
            return size
        found = _canonical(raw)
        at = self.parent.bytes - tar.BLOCK
        if found is None:
            self._tar_fault(name, at, "its tar header is damaged")
            return size
        what = f"{extension}: says {name} of {size} bytes, the tar {found.name} of {found.size}"
        self._row_fault(number, row, what)
        return found.size

    def _check_content(self, number: int, row: dict[str, Any], bodies: dict[str, bytes]) -> None:
        blank = not any(map(any, bodies.values()))
        to_be_zeroed = self.parent.unfinished and row["removed"]
        if blank != row["removed"] and not to_be_zeroed:
            state = "removed" if row["removed"] else "not removed"
            self._row_fault(number, row, f"says {state}, the tar's bytes tell otherwise")
        if blank or any(n == number for n, _ in self.suspects):
            return
        if self.parent.expected.decode and (what := complaint(bodies["jpg"], OWN)):
            name, offset = f"{row['key']}.jpg", row["jpg"]["offset"]
            self.parent.fault(self.parent.tar, name, offset, what)
        try:
            metadata = msgspec.json.decode(bodies["json"], type=Metadata)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._tar_fault(
                f"{row['key']}.json", row["json"]["offset"], f"unlike the format: {error}"
            )
            return
        if metadata.uid != row["uid"].hex():
            self._row_fault(number, row, "its uid is not that of the metadata in the tar")
        if metadata.caption.encode() != bodies["txt"]:
            what = "the caption is not the one in the metadata"
            self._tar_fault(f"{row['key']}.txt", row["txt"]["offset"], what)

    def _close_block(self, block: Block) -> None:
        is_right = (block.first_sample, self.digest.intdigest()) in self.known
        self._settle(tar_is_right=is_right)
        if not is_right and not self.parent.broken:
            what = f"the xxh3 of samples {block.first_sample} and on is not the tar's"
            self.parent.fault(self.blocks_file, f"blocks of {self.parent.tar}", -1, what)
        self.digest.reset()

    def _settle(self, *, tar_is_right: bool) -> None:
        """Blame the samples table where the block is whole, and the tar where it is not."""
        for number, fault in self.suspects:
            if tar_is_right:
                member = _SAMPLES_MEMBER.format(number, fault.member)
                self.parent.fault(self.parent.table, member, -1, "the xxh3 is not the tar's")
            else:
                self.parent.broken = True
                self.parent.faults.append(fault)
        self.suspects = []

    def _tar_fault(self, name: str, offset: int, what: str) -> None:
        self.parent.broken = True
        self.parent.fault(self.parent.tar, name, offset, what)

    def _row_fault(self, number: int, row: dict[str, Any], what: str) -> None:
        self.parent.fault(self.parent.table, _SAMPLES_MEMBER.format(number, row["key"]), -1, what)


def _possible(row: dict[str, Any]) -> bool:
    """Return whether a tar header can say a row's key and sizes."""
    sizes = [row[extension]["size"] for extension in MEMBERS]
    return layout.is_key(row["key"]) and all(0 <= size < 8**11 for size in sizes)


def _consecutive(blocks: Sequence[Block]) -> bool:
    """Return whether blocks follow each other from the first sample and byte on."""
    sample = offset = 0
    for block in blocks:
        if (block.first_sample, block.offset) != (sample, offset) or block.length <= 0:
            return False
        sample, offset = sample + block.samples, offset + block.length
    return True


def _canonical(raw: bytes) -> tar.Member | None:
    """Return the member of a header that is whole, or None."""
    try:
        found = tar.parse(raw, 0)
        whole = found is not None and raw == tar.header(found.name, found.size)
    except (ShardFormatError, AssertionError, UnicodeEncodeError):
        return None
    return found if whole else None
