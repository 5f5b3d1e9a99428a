"""Our shards, and indexed ones of others, as a test set.

A sample's class is the listed name that it was asked for by: the one among its ``queries``. Where
no listed name is, it is the name that equals the caption.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec
import numpy as np

from wit_builder import storage
from wit_builder.errors import TrainingError
from wit_builder.shards.block_index import caption_of, place_of, slots_in
from wit_builder.shards.layout import Foreign
from wit_builder.shards.read import Dataset, samples_in
from wit_train.evaluate import naming
from wit_train.evaluate.item import Item, TestSet
from wit_train.source import Source

_READERS = 4
"""Blocks, of 4 MiB mostly, that are read while one is looked at."""

_AMBIGUOUS = -1
_SILENT = "no caption"


class _Sample(NamedTuple):
    """A sample; one that was removed has no picture."""

    key: str
    picture: bytes
    caption: str
    metadata: bytes


class _Slot(NamedTuple):
    """A sample, and where in the data set it is."""

    position: int
    name: str
    sample: _Sample


class _Told(msgspec.Struct):
    """What is needed of KEY.json."""

    queries: list[str] = []


class ShardSet(TestSet):
    """A data set of shards; block b is rank b mod W's."""

    def __init__(self, place: str, names: str = "", *, captions: bool = False) -> None:
        """Open it.

        Args:
            place: its folder.
            names: see ``naming.listed``; what the shards say is compared without regard to case.
                Empty: all its queries, for which it is read once.
            captions: no classes are wanted.

        Raises:
            TrainingError: the classes are not in order.
            ShardFormatError: it is no finished data set, or a block is damaged.
            StorageError: it cannot be read.
        """
        super().__init__(place)
        self._dataset = Dataset.open(place)
        foreign = self._dataset.info.foreign
        self._foreign = None if foreign is msgspec.UNSET else foreign
        self._captions, self._number = captions, dict[str, int]()
        samples = self._dataset.blocks["samples"].to_numpy().astype(np.int64)
        self._ends = np.cumsum(samples)
        if not captions:
            self._name_classes(names)

    def items(self, rank: int = 0, world_size: int = 1) -> Iterator[Item]:
        """Yield a rank's items: those of its blocks."""
        self.left_out, count = {}, 0
        for slot in self._slots(range(rank, len(self._ends), world_size)):
            item = self._item(slot)
            if isinstance(item, str):
                self._leave_out(item)
            else:
                count += 1
                yield item
        if not count and world_size == 1:
            raise TrainingError(
                f"no picture of {'a caption' if self._captions else 'a listed class'}"
                f" in {len(self._dataset.blocks)} blocks",
                where=storage.redact(self.place),
                fix="list names that are queries of this data set: --names FILE",
            )

    def pictures(self, indices: Collection[int]) -> dict[int, bytes]:
        """Return the bytes of those there are; their blocks are read."""
        wanted = {i for i in indices if 0 <= i < int(self._ends[-1])} if len(self._ends) else set()
        blocks = sorted({int(np.searchsorted(self._ends, i, side="right")) for i in wanted})
        slots = self._slots(blocks)
        found = {s.position: s.sample.picture for s in slots if s.position in wanted}
        return {position: picture for position, picture in found.items() if picture}

    def _item(self, slot: _Slot) -> Item | str:
        """Return the item of a sample, or why it is none."""
        picture, caption = slot.sample.picture, slot.sample.caption
        if not picture:
            return "removed"
        texts = (caption,) if caption.strip() else ()
        if self._captions:
            return Item(slot.position, slot.name, lambda: picture, -1, texts) if texts else _SILENT
        target = self._target(slot.sample)
        if isinstance(target, str):
            return target
        return Item(slot.position, slot.name, lambda: picture, target, texts)

    def _target(self, sample: _Sample) -> int | str:
        """Return the class of a sample, or why it has none."""
        said = {_key(query) for query in _queries(sample.metadata)}
        found = {self._number[key] for key in said if key in self._number}
        caption = _key(sample.caption)
        if not found and caption in self._number:
            found = {self._number[caption]}
        if not found:
            return "no class"
        if len(found) > 1 or _AMBIGUOUS in found:
            return "several classes"
        return found.pop()

    def _name_classes(self, names: str) -> None:
        labels, self.classes = naming.listed(names) if names else self._asked()
        naming.refuse_single(self.classes, names or self.place)
        for number, label in enumerate(labels):
            key = _key(label)
            self._number[key] = _AMBIGUOUS if key in self._number else number

    def _asked(self) -> naming.Naming:
        """Return all queries of the data set, sorted; it is read from front to back."""
        slots = self._slots(range(len(self._ends)))
        asked = sorted({query for slot in slots for query in _queries(slot.sample.metadata)})
        if not asked:
            raise TrainingError(
                "the shards do not say what was asked for (queries in KEY.json)",
                where=storage.redact(self.place),
                fix="list the classes, each as its captions say it: --names FILE",
            )
        return naming.Naming(asked, asked)

    def _slots(self, blocks: Iterable[int]) -> Iterator[_Slot]:
        """Yield the samples of blocks, in order."""
        for block, data in self._read_ahead(blocks):
            end, row = int(self._ends[block]), self._dataset.blocks.slice(block, 1).to_pylist()[0]
            shard = self._dataset.manifest["shard"][row["shard"]].as_py()
            found = list(_samples(data, self._foreign))
            assert len(found) == row["samples"], (block, len(found))
            for position, sample in enumerate(found, end - row["samples"]):
                yield _Slot(position, f"{shard}/{sample.key}", sample)

    def _read_ahead(self, blocks: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks' bytes, some being read meanwhile."""
        source, waiting = Source(self._dataset), deque[tuple[int, Future[bytes]]]()
        with ThreadPoolExecutor(_READERS) as pool:
            try:
                for block in blocks:
                    waiting.append((block, pool.submit(self._block, source, block)))
                    if len(waiting) > _READERS:
                        ready, data = waiting.popleft()
                        yield ready, data.result()
                while waiting:
                    ready, data = waiting.popleft()
                    yield ready, data.result()
            finally:
                source.close()
                pool.shutdown(cancel_futures=True)

    def _block(self, source: Source, block: int) -> bytes:
        data = bytearray(self._dataset.blocks["length"][block].as_py())
        source.read(block, memoryview(data))
        return bytes(data)


def _samples(data: bytes, foreign: Foreign | None) -> Iterator[_Sample]:
    """Yield a block's samples."""
    if foreign is None:
        for sample in samples_in(data):
            members = sample.members
            picture = b"" if sample.removed else members["jpg"]
            caption = caption_of(members["txt"], None)
            yield _Sample(sample.key, picture, caption, members["json"])
        return
    for found in slots_in(data, foreign):
        place, told = place_of(found.members, foreign), found.members.get("json")
        assert place  # that is what makes it a slot
        at, size, text_at, text_size = place
        caption = caption_of(data[text_at : text_at + text_size], foreign)
        metadata = data[told.offset : told.offset + told.size] if told else b""
        yield _Sample(found.key, data[at : at + size], caption, metadata)


def _queries(metadata: bytes) -> list[str]:
    """Return what a pair was asked for by; none where it is not said, or was removed."""
    try:
        return msgspec.json.decode(metadata, type=_Told).queries
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


def _key(name: str) -> str:
    """Return what names are compared by: lower case, and single spaces."""
    return " ".join(name.lower().split())
