"""Which sample when: the order of training, as a pure function of a few numbers.

A *slot* is the place of one sample in the data set. The order is a function of (seed, block table,
V lanes, window_blocks, global batch B) and of nothing else:

* epoch ``e`` orders the blocks by ``hashed(BLOCK_ORDER, seed, e, block)``, ties by block;
* lanes 0 to V-1 cut the samples of that order in turn; lane ``l`` takes L(l, e+1) - L(l, e) of
  them, where L(l, e) = floor((e * N + l) / V);
* in a lane, what it has of ``window_blocks`` consecutive blocks is a window, whose slots are
  ordered by ``hashed(WINDOW_ORDER, seed, e, lane, window, position in window)``;
* step ``s`` takes the next B / V slots of every lane, in lane order; rank ``r`` of ``W`` owns the
  lanes from r V / W to (r + 1) V / W.

L sums to e * N over the lanes, because floor((a + l) / V) over l = 0 ... V-1 sums to a (Hermite's
identity). So after any S steps every slot was seen k or k + 1 times, k = floor(S * B / N), and the
position in the data is one integer, the step.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from wit_builder.errors import TrainingError
from wit_train.seeds import I64, Purpose, hashed

_LANES = 256


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What the order depends on, beside the block table and the global batch.

    Attributes:
        seed: of the run.
        lanes: V; 0 stands for the greatest common divisor of B and 256.
        window_blocks: blocks whose slots are permuted together.
        batch_size: B, of all ranks together.
        shuffle: false keeps the blocks' and the samples' own order.
        epochs: the stream ends after so many; None: never.
    """

    lanes: int = 0
    window_blocks: int = 1
    seed: int = 0
    shuffle: bool = True
    epochs: int | None = None


class Slots(NamedTuple):
    """Slots in the order of training; three int64 arrays of one length."""

    epoch: I64
    block: I64
    sample: I64
    """Which one of the block's."""


class _Epoch(NamedTuple):
    """An epoch's blocks in their order, and where each ends in the epoch's row of samples."""

    blocks: I64
    ends: I64


class _Window(NamedTuple):
    """The slots of a lane's window; ``first`` and ``end`` count the lane's slots of the epoch."""

    epoch: int
    first: int
    end: int
    block: I64
    sample: I64


class Order:
    """The order of training over a block table; ``step`` gives any step's slots at once."""

    def __init__(self, samples_per_block: I64, batch_size: int, layout: Layout) -> None:
        """Check the numbers against each other.

        Args:
            samples_per_block: of the block table, in its order.
            batch_size: B, of all ranks together.
            layout: the rest of what decides the order.

        Raises:
            TrainingError: V does not divide B; or in an endless stream N < B or N < V.
        """
        self.layout, self.batch_size = layout, batch_size
        self.lanes = layout.lanes or math.gcd(batch_size, _LANES)
        self._samples = np.asarray(samples_per_block, np.int64)
        self.samples = int(self._samples.sum())
        self._first_id = np.cumsum(self._samples) - self._samples
        self._check()
        self._windows: dict[int, _Window] = {}
        self._epoch = lru_cache(maxsize=3)(self._order_epoch)

    @property
    def steps(self) -> int | None:
        """How many steps a finite stream has; None for an endless one. The last may be short."""
        if self.layout.epochs is None:
            return None
        longest = self.taken_before(self.lanes - 1, self.layout.epochs)
        return -(-longest // (self.batch_size // self.lanes))

    def step(self, step: int, rank: int = 0, world_size: int = 1) -> Slots:
        """Return the slots that a rank takes in a step, in lane order.

        Args:
            step: from 0.
            rank: from 0.
            world_size: W; must divide V.

        Raises:
            TrainingError: W does not divide V.
        """
        per_rank = lanes_of_a_rank(self.lanes, world_size)
        parts = [
            part
            for lane in range(rank * per_rank, (rank + 1) * per_rank)
            for part in self._take(lane, step)  # 7 us a lane, some 50 more for a window it opens
        ]
        epochs = [np.full(len(block), epoch, np.int64) for epoch, block, _ in parts]
        if not parts:
            return Slots(*(np.empty(0, np.int64) for _ in range(3)))
        return Slots(
            np.concatenate(epochs),
            np.concatenate([block for _, block, _ in parts]),
            np.concatenate([sample for _, _, sample in parts]),
        )

    def sample_ids(self, slots: Slots) -> I64:
        """Return the slots' positions in the data set, counted from its first sample."""
        return self._first_id[slots.block] + slots.sample

    def taken_before(self, lane: int, epoch: int) -> int:
        """Return L(lane, epoch): how many slots the lane takes in all epochs before this one."""
        return (epoch * self.samples + lane) // self.lanes

    def _take(self, lane: int, step: int) -> list[tuple[int, I64, I64]]:
        """Return the lane's slots of a step as runs of (epoch, blocks, samples)."""
        share = self.batch_size // self.lanes
        at, end = step * share, (step + 1) * share
        if self.layout.epochs is not None:
            end = min(end, self.taken_before(lane, self.layout.epochs))
        runs = []
        while at < end:
            window = self._window_at(lane, at)
            before = self.taken_before(lane, window.epoch)
            start, stop = at - before - window.first, min(end - before, window.end) - window.first
            runs.append((window.epoch, window.block[start:stop], window.sample[start:stop]))
            at += stop - start
        return runs

    def _window_at(self, lane: int, taken: int) -> _Window:
        """Return the window that holds the lane's slot number ``taken``, kept for the next call."""
        # the largest epoch with L(lane, epoch) <= taken
        epoch = ((taken + 1) * self.lanes - lane - 1) // self.samples
        offset = taken - self.taken_before(lane, epoch)
        kept = self._windows.get(lane)
        if kept is None or kept.epoch != epoch or not kept.first <= offset < kept.end:
            kept = self._windows[lane] = self._cut_window(lane, epoch, offset)
        return kept

    def _cut_window(self, lane: int, epoch: int, offset: int) -> _Window:
        blocks, ends = self._epoch(epoch)
        start, stop = self._lane_bounds(lane, epoch)
        first_block = int(np.searchsorted(ends, start, "right"))
        here = int(np.searchsorted(ends, start + offset, "right"))
        number = (here - first_block) // self.layout.window_blocks
        low = first_block + number * self.layout.window_blocks
        high = min(low + self.layout.window_blocks, len(ends)) - 1
        first = start if number == 0 else int(ends[low - 1])
        end = min(stop, int(ends[high]))
        row = np.arange(first, end)
        if self.layout.shuffle:
            words = (self.layout.seed, epoch, lane, number, row - first)
            row = row[np.argsort(hashed(Purpose.WINDOW_ORDER, *words), kind="stable")]
        place = np.searchsorted(ends, row, "right")
        block = blocks[place]
        sample = row - (ends[place] - self._samples[block])
        return _Window(epoch, first - start, end - start, block, sample)

    def _lane_bounds(self, lane: int, epoch: int) -> tuple[int, int]:
        """Return where the lane's share of an epoch's row of samples starts and stops."""
        start = self._taken_by_lower(lane, epoch + 1) - self._taken_by_lower(lane, epoch)
        share = self.taken_before(lane, epoch + 1) - self.taken_before(lane, epoch)
        return start, start + share

    def _taken_by_lower(self, lane: int, epoch: int) -> int:
        """Return the sum of L(i, epoch) over the lanes i below this one, in closed form."""
        whole, rest = divmod(epoch * self.samples, self.lanes)
        return lane * whole + max(0, lane - (self.lanes - rest))

    def _order_epoch(self, epoch: int) -> _Epoch:
        blocks = np.arange(len(self._samples))
        if self.layout.shuffle:
            keys = hashed(Purpose.BLOCK_ORDER, self.layout.seed, epoch, blocks)
            blocks = np.argsort(keys, kind="stable")
        return _Epoch(blocks, np.cumsum(self._samples[blocks]))

    def _check(self) -> None:
        batch, lanes, samples = self.batch_size, self.lanes, self.samples
        if batch % lanes:
            fix = f"set data.lanes to a divisor of {batch}"
            raise TrainingError(
                f"{lanes} lanes do not divide the batch", where="data.lanes", fix=fix
            )
        if self.layout.epochs is None and samples < batch:  # V <= B, so this tells N < V as well
            raise TrainingError(
                f"the data set has {samples} samples, fewer than a batch of {batch}",
                where="data.batch_size",
                fix="set data.batch_size to at most that many (data.lanes must divide it)",
            )
        if samples < 1:
            raise TrainingError("the data set has no samples", where="data.shards")


def lanes_of_a_rank(lanes: int, world_size: int) -> int:
    """Return V / W.

    Raises:
        TrainingError: W does not divide V.
    """
    if lanes % world_size:
        raise TrainingError(
            f"{world_size} ranks cannot share {lanes} lanes",
            where="data.lanes",
            fix=f"choose a number of ranks that divides {lanes}",
        )
    return lanes // world_size
