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
from wit_train.source import Source, place_of

_PATIENCE_S = 2.0
"""For a thread to end; it may be waiting for a server, and nothing hangs on it."""


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
    """

    def __init__(self, slot: int) -> None:
        self.slot, self.pins, self.ready = slot, 0, False


class Reading(NamedTuple):
    """A read that has ended; ``error`` tells how."""

    name: Name
    error: Exception | None


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
        self._asked: SimpleQueue[tuple[Name, int] | None] = SimpleQueue()
        self._ended: SimpleQueue[Reading] = SimpleQueue()
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
            self._held[name].pins -= 1

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

    def ended(self) -> list[Reading]:
        """Return the reads that have ended since the last call; their blocks are ready."""
        found = list[Reading]()
        while not self._ended.empty():
            reading = self._ended.get()
            self._held[reading.name].ready = reading.error is None
            found.append(reading)
        return found

    def close(self) -> None:
        """Stop reading."""
        for source in self._sources:
            source.close()
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    def _evictable(self) -> int:
        return sum(held.ready and not held.pins for held in self._held.values())

    def _begin(self, name: Name) -> None:
        if not self._free:
            oldest = next(n for n, held in self._held.items() if held.ready and not held.pins)
            self._free.append(self._held.pop(oldest).slot)
        held = self._held[name] = Held(self._free.pop())
        held.pins = 1
        self._asked.put((name, held.slot))

    def _read_all(self, changed: Callable[[], object]) -> None:
        while (asked := self._asked.get()) is not None:
            name, slot = asked
            began = time.perf_counter()
            error: Exception | None = None
            try:
                self._read(name, slot)
            except Exception as raised:  # noqa: BLE001 - it is raised where the block is needed
                error = raised
            with self._lock:
                self.read_s += time.perf_counter() - began
            self._ended.put(Reading(name, error))
            changed()

    def _read(self, name: Name, slot: int) -> None:
        dataset = self._sources[name.part].dataset
        length, samples = (dataset.blocks[c][name.block].as_py() for c in ("length", "samples"))
        into = self.slots.data(slot)[:length]
        self._sources[name.part].read(name.block, into)
        foreign = dataset.info.foreign
        where = index(into, None if foreign is msgspec.UNSET else foreign)
        if len(where) != samples:
            raise ShardFormatError(
                f"block {name.block} has {len(where)} samples where the block table says {samples}",
                where=place_of(dataset, name.block),
                fix="run `wit verify` on the shards",
            )
        self.slots.put_index(slot, where)
