"""Examine one shard of others: its bytes are those that were indexed, and blocks hold what is said.

There is no record of members here, so a wrong byte is named by its block; and by its member only
where ``decode`` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import xxhash

from wit_builder import storage
from wit_builder.errors import WitError
from wit_builder.ranges import open_ranges
from wit_builder.shards.block_index import caption_of, place_of, slots_in
from wit_builder.shards.decodable import complaint
from wit_builder.shards.examine import Examined, Expected
from wit_builder.shards.faults import Fault, reason
from wit_builder.shards.layout import Foreign
from wit_builder.shards.survey import Tape
from wit_builder.shards.write import Block

_CHANGED = "was the shard replaced? then: wit index, again; else copy it from where it is whole"

_CUT = "the file is cut short within this block"
_DIFFERS = "the block's bytes are not those that were indexed"


def examine(expected: Expected, foreign: Foreign) -> Examined:
    """Return what a shard holds, and all its faults."""
    faults: list[Fault] = []
    url = storage.join(expected.folder, expected.shard)
    samples = size = 0
    try:
        with open_ranges(url) as stream:
            tape = Tape(stream)
            examination = _Examination(expected, foreign, tape, faults)
            blocks = expected.blocks or []
            if _ascend(blocks):  # else the tables' own fault is told already
                samples = sum(examination.block(block) for block in blocks)
            tape.wind()
            examination.whole()
            size = tape.end
    except WitError as error:
        faults.append(Fault(expected.shard, "", -1, f"not readable: {reason(error)}"))
    return Examined(samples, size, "", "", faults)


class _Examination(NamedTuple):
    expected: Expected
    foreign: Foreign
    tape: Tape
    faults: list[Fault]

    def fault(self, member: str, offset: int, what: str, fix: str = _CHANGED) -> None:
        """Note a fault of the shard."""
        self.faults.append(Fault(self.expected.shard, member, offset, what, fix))

    def block(self, block: Block) -> int:
        """Check a block; return how many samples it is said to have."""
        name = f"samples {block.first_sample} to {block.first_sample + block.samples - 1}"
        data = self.tape.part(block.offset, block.offset + block.length)
        if len(data) < block.length:
            self.fault(name, block.offset, _CUT)
        elif xxhash.xxh3_64_intdigest(data) != block.xxh3:
            self.fault(name, block.offset, _DIFFERS)
        else:
            self._samples(block, name, data)
            return block.samples
        if self.expected.decode:
            self._samples(block, name, data)
        return block.samples

    def _samples(self, block: Block, name: str, data: bytes) -> None:
        found = 0
        for sample in slots_in(data, self.foreign):
            found += 1
            place = place_of(sample.members, self.foreign)
            if self.expected.decode and place is not None:
                at, size, caption_at, caption_size = place
                self._picture(sample.key, block.offset + at, data[at : at + size])
                caption = data[caption_at : caption_at + caption_size]
                if not caption_of(caption, self.foreign):
                    self.fault(sample.key, block.offset + caption_at, "no caption can be read")
        if found != block.samples:
            self.fault(name, block.offset, f"there are {found} in it: index it again")

    def _picture(self, key: str, offset: int, picture: bytes) -> None:
        if what := complaint(picture):
            self.fault(f"the picture of {key}", offset, what, "a stream puts another in its place")

    def whole(self) -> None:
        """Compare size and SHA-256, unless a wrong byte was named already."""
        manifest = self.expected.manifest
        wrong = [fault for fault in self.faults if fault.what in (_CUT, _DIFFERS)]
        if len(wrong) == len(self.expected.blocks or ()) > 1:
            self.faults[:] = [f for f in self.faults if f not in wrong]
            self.fault("", -1, "it is not the shard that was indexed: no block is as it was")
        if manifest is None or self.faults:
            return
        if self.tape.end != manifest["bytes"]:
            what = f"has {self.tape.end} bytes, the manifest says {manifest['bytes']}"
            self.fault("", -1, what)
        elif self.tape.sha256 != manifest["sha256"]:
            self.fault(
                "", -1, "its SHA-256 is not the manifest's: bytes between its samples differ"
            )


def _ascend(blocks: Sequence[Block]) -> bool:
    ends = [0, *(block.offset + block.length for block in blocks)]
    return all(end <= block.offset for end, block in zip(ends, blocks, strict=False))
