"""Makes batches ahead of their reader: plans steps, has blocks read, has rows decoded.

One thread does all of that; it waits for reads, for decode processes, and for the reader of the
batches. A step is *planned* first: its blocks are in memory or being read, and stay there. When it
is *opened* it gets a batch's memory, and its *chunks*, runs of rows, are decoded as their blocks
come. When all are, it is *made*.
"""

from __future__ import annotations

import contextlib
import heapq
import socket
import threading
from collections import deque
from multiprocessing.connection import wait
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards.block_index import REMOVED
from wit_builder.shards.read import Dataset
from wit_train.arena import BatchSlots, Filled
from wit_train.blocks import Order, Slots
from wit_train.pool import Decoding
from wit_train.reading import Blocks, Name
from wit_train.seeds import I64
from wit_train.source import place_of
from wit_train.worker import SLOT, Result, Task

_PLANNED = 64
"""Steps planned at most, where all their blocks fit in memory."""

_BLOCK_BITS = 40
"""More than any data set has blocks: to sort pairs of data set and block as one number."""


class Rank(NamedTuple):
    """Which part of every step is made, and from which step on."""

    start_step: int
    rank: int
    world_size: int


class Ahead(NamedTuple):
    """How batches are made ahead: so many while the caller has one, in chunks of so many rows."""

    steps: int
    chunk_rows: int


class Made(NamedTuple):
    """A finished step."""

    step: int
    filled: Filled
    sample_ids: I64
    valid: npt.NDArray[np.bool_]
    substituted: int


class _Step:
    """A step that is planned or open."""

    def __init__(self, number: int, slots: Slots) -> None:
        self.number, self.slots = number, slots
        pairs = (slots.part << _BLOCK_BITS | slots.block)[slots.valid]
        unique, self.name_of_row = np.unique(pairs, return_inverse=True)
        blocks = (1 << _BLOCK_BITS) - 1
        self.names = [Name(pair >> _BLOCK_BITS, pair & blocks) for pair in unique.tolist()]
        self.batch_slot = -1
        self.chunks = 0
        self.substituted = 0


class _Chunk:
    """Rows of a step that are decoded by one task, from blocks that are pinned.

    Attributes:
        step: whose rows they are.
        rows: int64 [rows, 6], see ``worker``.
        names: of the blocks.
        lacking: how many of these are not there yet.
        passed: 0; or, where a row's own block has no usable sample, how many were tried before.
    """

    def __init__(self, step: _Step, rows: I64, names: list[Name], passed: int = 0) -> None:
        self.step, self.rows, self.names, self.passed = step, rows, names, passed
        self.lacking = 0


class Driver:
    """Makes the batches of a stream from one step on; ``next`` returns them in order."""

    def __init__(
        self, order: Order, rank: Rank, blocks: Blocks, batches: BatchSlots, ahead: Ahead
    ) -> None:
        """Prepare; ``start`` begins.

        Args:
            order: which sample when.
            rank: which part of it.
            blocks: where blocks are.
            batches: where batches go.
            ahead: how.
        """
        self.decode_s = 0.0
        self._order, self._rank, self._ahead = order, rank, ahead
        self._blocks, self._batches = blocks, batches
        self._stopping = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._made: dict[int, Made] = {}
        self._next = self._to_plan = rank.start_step
        self._candidate: _Step | None = None
        self._has_room = True
        self._planned: deque[_Step] = deque()
        self._open: dict[int, _Step] = {}
        self._free: deque[int] = deque()
        self._waiting: dict[Name, list[_Chunk]] = {}
        self._ready: list[tuple[int, int, _Chunk]] = []
        self._begun: dict[int, _Chunk] = {}
        self._number = 0
        self._batch_slots = 0
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="wit-stream", daemon=True)

    def start(self, decoding: Decoding) -> None:
        """Begin to make batches."""
        self._decoding = decoding
        self._thread.start()

    def wake(self) -> None:
        """Have the thread look at what has changed; from any thread."""
        with contextlib.suppress(OSError):  # rung already, or stopped
            self._rope.send(b"!")

    def next(self) -> Made | None:
        """Return the next step, None after the last.

        Raises:
            WitError: what kept it from being made.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._next in self._made or self._error or self._ended)
            made = self._made.pop(self._next, None)
            if made is None:
                if self._error:
                    raise self._error
                return None
            self._next += 1
        self.wake()
        return made

    def close(self) -> None:
        """Stop; return when nothing is under way any more."""
        self._stopping = True
        self.wake()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._bell.close()
        self._rope.close()

    @property
    def _ended(self) -> bool:
        return self._order.steps is not None and self._next >= self._order.steps

    def _run(self) -> None:
        try:
            while not self._stopping:
                planned = self._plan()
                self._open_steps()
                self._begin_tasks()
                connections = self._decoding.connections
                busy = planned or (self._begun and not connections)
                wait([self._bell, *connections], 0 if busy else None)
                with contextlib.suppress(BlockingIOError):
                    self._bell.recv(4096)
                self._take_blocks()
                for result in self._decoding.results():
                    self._take(result)
        except BaseException as error:  # noqa: BLE001 - raised again where batches are asked for
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _plan(self) -> bool:
        """Have blocks read for another step, if there is room for them; return whether it is so."""
        end = self._order.steps
        if len(self._planned) >= _PLANNED or (end is not None and self._to_plan >= end):
            return False
        must = not self._planned and not self._open  # or nothing would ever be made
        if not self._has_room and not must:
            return False
        if self._candidate is None:
            slots = self._order.step(self._to_plan, self._rank.rank, self._rank.world_size)
            self._candidate = _Step(self._to_plan, slots)
        self._has_room = self._blocks.pin(self._candidate.names, grow=must)
        if self._has_room:
            self._planned.append(self._candidate)
            self._candidate = None
            self._to_plan += 1
        return self._has_room

    def _open_steps(self) -> None:
        while self._planned and len(self._open) + len(self._made) <= self._ahead.steps:
            step = self._planned.popleft()
            step.batch_slot = self._batch_slot()
            self._open[step.number] = step
            self._blank(step)
            for chunk in self._cut(step):
                self._await_blocks(chunk)
            if not step.chunks:
                self._finish(step)

    def _batch_slot(self) -> int:
        """Return a slot that no array shows; a caller who keeps batches makes more of them."""
        if self._free:
            return self._free.pop()
        self._batch_slots += 1
        self._batches.area.grow(self._batch_slots)
        return self._batch_slots - 1

    def _blank(self, step: _Step) -> None:
        padding = ~step.slots.valid
        if padding.any():
            for array in self._batches.here(step.batch_slot):
                array[padding] = 0

    def _cut(self, step: _Step) -> list[_Chunk]:
        """Return the step's rows in chunks."""
        slots, valid = step.slots, step.slots.valid
        held = np.array([self._blocks[name].slot for name in step.names], np.int64)
        columns = (
            np.flatnonzero(valid),
            slots.part[valid],
            held[step.name_of_row] if len(held) else held,
            slots.sample[valid],
            slots.epoch[valid],
            self._order.sample_ids(slots)[valid],
        )
        rows = np.column_stack(columns).astype(np.int64)
        chunks = []
        for start in range(0, len(rows), self._ahead.chunk_rows):
            cut = slice(start, start + self._ahead.chunk_rows)
            names = [step.names[n] for n in np.unique(step.name_of_row[cut])]
            chunks.append(_Chunk(step, rows[cut], names))
        step.chunks = len(chunks)
        return chunks

    def _await_blocks(self, chunk: _Chunk) -> None:
        for name in chunk.names:
            held = self._blocks[name]
            if held.error is not None:
                raise held.error
            if not held.ready:
                chunk.lacking += 1
                self._waiting.setdefault(name, []).append(chunk)
        if not chunk.lacking:
            self._make_ready(chunk)

    def _make_ready(self, chunk: _Chunk) -> None:
        self._number += 1
        heapq.heappush(self._ready, (chunk.step.number, self._number, chunk))

    def _take_blocks(self) -> None:
        for name in self._blocks.ended():
            waiting = self._waiting.pop(name, [])
            error = self._blocks[name].error
            if error is not None and waiting:
                raise error
            for chunk in waiting:
                chunk.lacking -= 1
                if not chunk.lacking:
                    self._make_ready(chunk)

    def _begin_tasks(self) -> None:
        while self._ready and self._decoding.room > 0:
            _, number, chunk = heapq.heappop(self._ready)
            self._begun[number] = chunk
            self._decoding.begin(Task(number, chunk.step.batch_slot, chunk.rows.tobytes()))

    def _take(self, result: Result) -> None:
        chunk = self._begun.pop(result.number)
        step = chunk.step
        self.decode_s += result.seconds
        for row in result.unfilled:
            self._try_next_block(chunk, row)
        if chunk.passed:
            step.substituted += len(chunk.rows) - len(result.unfilled)
            self._unpin(chunk.names)
        else:
            step.substituted += result.substituted
        step.chunks -= 1
        if not step.chunks:
            self._finish(step)

    def _try_next_block(self, chunk: _Chunk, number: int) -> None:
        """Fill a row from the block after, in the order of the data, the first after the last.

        Raises:
            ShardFormatError: the row's block is damaged, not emptied by a removal; or there is
                nothing left in the whole data set.
        """
        row = chunk.rows[number : number + 1].copy()
        slot = int(row[0, SLOT])
        name = next(name for name in chunk.names if self._blocks[name].slot == slot)
        slots = self._blocks.slots
        index = slots.index(slots.memory(slot))
        passed = chunk.passed + len(index)
        dataset = self._blocks.dataset(name)
        if not (index[:, 1] == REMOVED).any():
            raise _nothing_decodes(dataset, name)
        if passed >= dataset.info.samples:
            raise _nothing_left(dataset)
        after = Name(name.part, (name.block + 1) % dataset.info.blocks)
        self._blocks.pin([after], grow=True)
        row[0, SLOT] = self._blocks[after].slot
        chunk.step.chunks += 1
        self._await_blocks(_Chunk(chunk.step, row, [after], passed))

    def _unpin(self, names: list[Name]) -> None:
        self._blocks.unpin(names)
        self._has_room = True

    def _finish(self, step: _Step) -> None:
        self._unpin(step.names)
        made = Made(
            step.number,
            self._batches.leased(step.batch_slot, self._free.append),
            self._order.sample_ids(step.slots),
            step.slots.valid,
            step.substituted,
        )
        with self._changed:
            del self._open[step.number]
            self._made[step.number] = made
            self._changed.notify_all()


def _nothing_decodes(dataset: Dataset, name: Name) -> ShardFormatError:
    return ShardFormatError(
        "no sample of the block decodes",
        where=place_of(dataset, name.block),
        fix="run `wit verify` on the shards; pack them again",
    )


def _nothing_left(dataset: Dataset) -> ShardFormatError:
    return ShardFormatError(
        "no sample of the data set is usable: they were removed, or do not decode",
        where=storage.redact(dataset.url),
        fix="pack it again",
    )
