"""Memory that processes share: slots of one size, each mapped by whoever uses it.

It is a memfd (Linux), not a file in /dev/shm: containers have 64 MB of that. Pages take memory once
they are written to, and go when the last process that maps them has ended, however it ended.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wit_train.seeds import I64

_WORD = 8


class Area:
    """Slots of shared memory, numbered from 0."""

    def __init__(self, fd: int, slot_bytes: int) -> None:
        """Use what ``create`` made, here or in another process.

        Args:
            fd: of the memfd.
            slot_bytes: size of a slot, a multiple of the page size.
        """
        self.fd, self.slot_bytes = fd, slot_bytes
        self._mapped: list[memoryview] = []

    @staticmethod
    def create(name: str, slot_bytes: int) -> Area:
        """Return an area without slots yet, whose slots have at least so many bytes."""
        whole_pages = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        return Area(os.memfd_create(name, os.MFD_CLOEXEC), whole_pages)

    def grow(self, slots: int) -> None:
        """Have at least so many slots. What is not written to costs nothing, so it doubles."""
        if slots > self._slots_there():
            os.ftruncate(self.fd, (1 << (slots - 1).bit_length()) * self.slot_bytes)

    def slot(self, number: int) -> memoryview:
        """Return a slot's memory; it must exist. What was returned stays, even once closed."""
        if number >= len(self._mapped):
            self._map()
        return self._mapped[number]

    def close(self) -> None:
        """Let go of the memory, but for what is shown elsewhere."""
        fd, self.fd = self.fd, -1
        self._mapped = []
        os.close(fd)

    def _slots_there(self) -> int:
        return os.fstat(self.fd).st_size // self.slot_bytes

    def _map(self) -> None:
        """Map all slots that are there and not mapped yet, at once: each map costs a descriptor."""
        first, size = len(self._mapped), self.slot_bytes
        count = self._slots_there() - first
        whole = memoryview(mmap.mmap(self.fd, count * size, offset=first * size))
        self._mapped += [whole[i * size : (i + 1) * size] for i in range(count)]


class BlockSlots:
    """Slots that hold a block each: its bytes, how many samples it has, and where they are."""

    def __init__(self, area: Area, max_block_bytes: int) -> None:
        """Lay blocks of at most so many bytes out in the slots of an area."""
        self.area = area
        self._index_at = _aligned(max_block_bytes)

    @staticmethod
    def slot_bytes(max_block_bytes: int, max_samples: int) -> int:
        """Return how large slots must be for blocks of at most so many bytes and samples."""
        return _aligned(max_block_bytes) + _WORD * (1 + 4 * max_samples)

    def memory(self, slot: int) -> memoryview:
        """Return a slot: a block's bytes, and what is behind them."""
        return self.area.slot(slot)

    def put_index(self, memory: memoryview, index: I64) -> None:
        """Keep in a slot where the samples are: see ``wit_builder.shards.block_index``."""
        words = self._words(memory, 1 + index.size)
        words[0] = len(index)
        words[1:] = index.ravel()

    def index(self, memory: memoryview) -> I64:
        """Return what ``put_index`` was given, int64 [samples, 4]."""
        count = int(self._words(memory, 1)[0])
        return self._words(memory, 1 + 4 * count)[1:].reshape(count, 4)

    def _words(self, memory: memoryview, count: int) -> I64:
        return np.frombuffer(memory, np.int64, count, self._index_at)


class Filled(NamedTuple):
    """What a batch's slot holds: uint8 [b, S, S, 3] and int32 [b, T]."""

    images: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int32]


class BatchSlots:
    """Slots that hold a batch each: its pictures, then its tokens."""

    def __init__(self, area: Area, rows: int, image_size: int, context_length: int) -> None:
        """Lay batches of so many rows out in the slots of an area."""
        self.area = area
        self._images = (rows, image_size, image_size, 3)
        self._tokens = (rows, context_length)

    @staticmethod
    def slot_bytes(rows: int, image_size: int, context_length: int) -> int:
        """Return how large slots must be."""
        return _aligned(rows * image_size**2 * 3) + 4 * rows * context_length

    def here(self, slot: int) -> Filled:
        """Return a slot as arrays, to be written to."""
        return self._laid_out(np.frombuffer(self.area.slot(slot), np.uint8))

    def leased(self, slot: int, given_back: Callable[[int], object]) -> Filled:
        """Return a slot as arrays; ``given_back`` gets its number once no array shows it."""
        lease = _Lease(self.area.slot(slot))
        weakref.finalize(lease, given_back, slot).atexit = False
        return self._laid_out(np.asarray(lease))

    def _laid_out(self, memory: npt.NDArray[np.uint8]) -> Filled:
        size = math.prod(self._images)
        at = _aligned(size)
        tokens = memory[at : at + 4 * math.prod(self._tokens)].view(np.int32)
        return Filled(memory[:size].reshape(self._images), tokens.reshape(self._tokens))


class _Lease:
    """A slot's memory as numpy takes it: what is made of it keeps this object, as do views."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.__array_interface__ = np.frombuffer(memory, np.uint8).__array_interface__


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
