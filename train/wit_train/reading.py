"""Blocks that are in memory or on their way, read by threads into shared memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from queue import SimpleQueue
from typing import NamedTuple

import msgspec

from wit_builder.errors import ShardFormatError
from wit_builder.shards.block_index import index
from wit_builder.shards.read import Dataset
from wit_train.arena import BlockSlots
from wit_train.seeds import I64
from wit_train.source import Source, place_of

_PATIENCE_S = 2.0
"""For threads to end, all together."""


class Name(NamedTuple):
    """Which block: the data set's number, and its row of the block table."""

    part: int
    block: int


class Held:
    """A block that has a slot.

    Attributes:
        slot: where it is, or will be.
        pins: steps that need it still.
        ready: whether it is there.
        error: why it could not be read.
    """

    def __init__(self, slot: int) -> None:
        self.slot, self.pins, self.ready = slot, 0, False
        self.error: Exception | None = None


class Blocks:
    """Gives blocks a slot and has them read; those used longest ago make room for others.

    For one thread, but for what its own threads do.
    """

    def __init__(self, sources: list[Source], slots: BlockSlots, count: int) -> None:
        """Have so many slots; no thread is started yet."""
        self.slots, self.count = slots, count
        self._sources = sources
        self._held: OrderedDict[Name, Held] = OrderedDict()
        self._free = list(range(count))
        slots.area.grow(count)
        self._asked: SimpleQueue[tuple[Name, memoryview] | None] = SimpleQueue()
        self._ended: SimpleQueue[tuple[Name, Exception | None]] = SimpleQueue()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self.read_s = 0.0
        self._lock = threading.Lock()

    def start(self, readers: int, changed: Callable[[], object]) -> None:
        """Start the threads that read; ``changed`` is called by them when a read has ended."""
        for number in range(readers):
            thread = threading.Thread(
                target=self._read_all, args=(changed,), name=f"wit-read-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def pin(self, names: Collection[Name], *, grow: bool) -> bool:
        """Keep blocks in memory, or have them read, until they are unpinned as often.

        Args:
            names: of the blocks, none twice.
            grow: make slots where there are too few; else nothing is done then.

        Returns:
            Whether there was room for all.
        """
        known = [self._held[name] for name in names if name in self._held]
        for held in known:
            held.pins += 1
        lacking = len(names) - len(known) - len(self._free) - self._evictable()
        if lacking > 0 and not grow:
            for held in known:
                held.pins -= 1
            return False
        if lacking > 0:
            self._free += range(self.count, self.count + lacking)
            self.count += lacking
            self.slots.area.grow(self.count)
        for name in names:
            if name not in self._held:
                self._begin(name)
            self._held.move_to_end(name)
        return True

    def unpin(self, names: Collection[Name]) -> None:
        """Let blocks go that were pinned; they stay until their room is needed."""
        for name in names:
            held = self._held[name]
            held.pins -= 1
            if held.error is not None and not held.pins:  # whoever needs it next may have more luck
                self._free.append(self._held.pop(name).slot)

    def __getitem__(self, name: Name) -> Held:
        """Return a pinned block."""
        return self._held[name]

    def dataset(self, name: Name) -> Dataset:
        """Return the data set of a block."""
        return self._sources[name.part].dataset

    @property
    def bytes_read(self) -> int:
        """Bytes of blocks that were read."""
        return sum(source.bytes_read for source in self._sources)

    @property
    def retries(self) -> int:
        """How many ranges were asked for again."""
        return sum(source.retries for source in self._sources)

    def ended(self) -> list[Name]:
        """Return which blocks are ready, or have failed, since the last call."""
        found = list[Name]()
        while not self._ended.empty():
            name, error = self._ended.get()
            held = self._held[name]
            held.ready, held.error = error is None, error
            found.append(name)
        return found

    def close(self) -> None:
        """Stop reading. A thread that waits for a server is left to itself: it does no harm."""
        self._closed = True
        for source in self._sources:
            source.close()
        for _ in self._threads:
            self._asked.put(None)
        until = time.monotonic() + _PATIENCE_S
        for thread in self._threads:
            if thread is not threading.current_thread():  # as where a collector runs in one
                thread.join(max(0.0, until - time.monotonic()))

    def _evictable(self) -> int:
        return sum(held.ready and not held.pins for held in self._held.values())

    def _begin(self, name: Name) -> None:
        if not self._free:
            oldest = next(n for n, held in self._held.items() if held.ready and not held.pins)
            self._free.append(self._held.pop(oldest).slot)
        held = self._held[name] = Held(self._free.pop())
        held.pins = 1
        self._asked.put((name, self.slots.memory(held.slot)))

    def _read_all(self, changed: Callable[[], object]) -> None:
        while (asked := self._asked.get()) is not None and not self._closed:
            name, memory = asked
            began = time.perf_counter()
            error: Exception | None = None
            try:
                self._read(name, memory)
            except Exception as raised:  # noqa: BLE001 - it is raised where the block is needed
                error = raised
            with self._lock:
                self.read_s += time.perf_counter() - began
            self._ended.put((name, error))
            changed()

    def _read(self, name: Name, memory: memoryview) -> None:
        dataset = self.dataset(name)
        length, samples = (dataset.blocks[c][name.block].as_py() for c in ("length", "samples"))
        self._sources[name.part].read(name.block, memory[:length])
        places = _index(dataset, name.block, memory[:length])
        if len(places) != samples:
            raise _mistaken(dataset, name.block, f"{len(places)} samples, not {samples}")
        self.slots.put_index(memory, places)


def _index(dataset: Dataset, block: int, data: memoryview) -> I64:
    foreign = dataset.info.foreign
    try:
        return index(data, None if foreign is msgspec.UNSET else foreign)
    except ShardFormatError as error:
        raise _mistaken(dataset, block, f"{error.what} at {error.where}") from error


def _mistaken(dataset: Dataset, block: int, what: str) -> ShardFormatError:
    return ShardFormatError(
        f"block {block} is not what the block table says: {what}",
        where=place_of(dataset, block),
        fix="run `wit verify` on the shards",
    )
