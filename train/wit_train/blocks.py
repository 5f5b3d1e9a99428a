"""Which sample when: the order of training, as a pure function of a few numbers.

A *slot* is the place of one sample in a data set. The order is a function of (seed, block table,
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

In a mixture data set ``d`` has ``V_d`` of the V lanes, those after data set d-1's, and so
``B_d = B V_d / V`` rows of every batch. All of the above holds for it by itself, with its own N, V,
B and epochs, lanes counted from its own first; its seed is ``hashed(DATA_SET, seed, d)``, but for
data set 0, whose seed is the run's.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from wit_builder.errors import TrainingError
from wit_train.seeds import I64, U64, Purpose, extended, hashed

_LANES = 256


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What the order depends on, beside the block tables and the global batch.

    Attributes:
        seed: of the run.
        lanes: V; 0 stands for what the data sets' shares add up to, and where they have none, for
            the greatest common divisor of B and 256.
        window_blocks: blocks whose slots are permuted together; 0: as each data set says.
        shuffle: false keeps the blocks' and the samples' own order.
        epochs: the stream ends after so many of each data set; None: never.
    """

    lanes: int = 0
    window_blocks: int = 0
    seed: int = 0
    shuffle: bool = True
    epochs: int | None = None


class Part(NamedTuple):
    """A data set's part in the order."""

    samples_per_block: npt.NDArray[np.signedinteger]
    """Of its block table, in its order."""
    lanes: int = 0
    """V_d, its share of the lanes; 0, of a data set by itself: all of them."""
    window_blocks: int = 1
    """Blocks whose slots are permuted together, where the layout says nothing else."""


class Slots(NamedTuple):
    """Slots in the order of training; arrays of one length, int64 but for ``valid``.

    A row past the end of a finite lane is padding: ``valid`` is false, and epoch, block and sample
    are -1.
    """

    part: I64
    """Which data set's."""
    epoch: I64
    """Of that data set."""
    block: I64
    """Which one of the data set's."""
    sample: I64
    """Which one of the block's."""
    valid: npt.NDArray[np.bool_]


class Share(NamedTuple):
    """What a rank owns of a data set: its lanes ``first`` up to ``end``, counted from its own."""

    part: int
    first: int
    end: int


class Order:
    """The order of training; ``step`` gives any step's slots at once."""

    def __init__(self, parts: Sequence[Part], batch_size: int, layout: Layout) -> None:
        """Check the numbers against each other.

        Args:
            parts: one data set, or the data sets of a mixture.
            batch_size: B, of all ranks together.
            layout: the rest of what decides the order.

        Raises:
            TrainingError: V does not divide B; the data sets' lanes are not V in all; a data set
                has no samples, or in an endless stream fewer than its rows of a batch.
        """
        self.layout, self.batch_size = layout, batch_size
        self.lanes = _count_lanes(parts, batch_size, layout)
        self.share = batch_size // self.lanes
        self.parts = tuple(
            Part(
                part.samples_per_block,
                part.lanes or self.lanes,
                layout.window_blocks or part.window_blocks,
            )
            for part in parts
        )
        for number, part in enumerate(self.parts):
            _check_part(part, number if len(parts) > 1 else None, self.share, layout)
        self._lanes = [
            _Lanes(part, layout, _seed_of(layout.seed, number))
            for number, part in enumerate(self.parts)
        ]
        self._lock = threading.Lock()
        sizes = [lanes.samples for lanes in self._lanes]
        self.samples = sum(sizes)
        self._first_ids = np.cumsum(sizes) - sizes

    @property
    def steps(self) -> int | None:
        """How many steps a finite stream has; None for an endless one. The last may be padded."""
        if self.layout.epochs is None:
            return None
        return max(-(-lanes.longest // self.share) for lanes in self._lanes)

    def step(self, step: int, rank: int = 0, world_size: int = 1) -> Slots:
        """Return the B / W slots that a rank takes in a step, in lane order.

        Args:
            step: from 0.
            rank: from 0.
            world_size: W; must divide V.

        Raises:
            TrainingError: W does not divide V; no such rank or step.
        """
        if step < 0:
            raise TrainingError(f"step {step} is before the first", fix="steps count from 0")
        with self._lock:  # lanes keep the windows that they have opened
            taken = [
                (number, self._lanes[number].take(range(first, end), step * self.share, self.share))
                for number, first, end in self.shares(rank, world_size)
            ]
        part = np.repeat([number for number, _ in taken], [rows.shape[1] for _, rows in taken])
        epoch, block, sample = np.concatenate([rows for _, rows in taken], axis=1)
        return Slots(part, epoch, block, sample, block >= 0)

    def shares(self, rank: int, world_size: int) -> list[Share]:
        """Return which lanes of which data sets a rank owns, in their order.

        Raises:
            TrainingError: W does not divide V; no such rank.
        """
        per_rank = lanes_of_a_rank(self.lanes, world_size)
        if not 0 <= rank < world_size:
            raise TrainingError(f"rank {rank} of {world_size}", fix="ranks count from 0")
        shares, before = [], 0
        for number, part in enumerate(self.parts):
            first = max(0, rank * per_rank - before)
            end = min(part.lanes, (rank + 1) * per_rank - before)
            if first < end:
                shares.append(Share(number, first, end))
            before += part.lanes
        return shares

    def sample_ids(self, slots: Slots) -> I64:
        """Return the slots' positions among the samples of all data sets in turn; -1 of padding."""
        ids = np.full(len(slots.part), -1)
        for number, lanes in enumerate(self._lanes):
            own = slots.valid & (slots.part == number)
            first = lanes.first_samples[slots.block[own]]
            ids[own] = self._first_ids[number] + first + slots.sample[own]
        return ids


class _Epoch(NamedTuple):
    """An epoch's blocks in their order, and where each ends in the epoch's row of samples."""

    blocks: npt.NDArray[np.int32]
    ends: I64


class _Lanes:
    """The lanes of one data set, each with the window that was last opened in it.

    Opening a window costs a sort; so it is kept until the lane has left it. All that a step does is
    done for all its lanes together: a lane by itself would cost 7 us, and 50 more for a window.
    """

    def __init__(self, part: Part, layout: Layout, seed: int) -> None:
        self._part, self._layout, self._seed = part, layout, seed
        self._samples, self._count = part.samples_per_block, part.lanes
        self.first_samples = np.cumsum(self._samples, dtype=np.int64) - self._samples
        self.samples = int(self._samples.sum())
        # of each lane's window: its epoch, which of the lane's slots it holds, and what they are
        self._epochs, self._firsts, self._ends = (np.zeros(part.lanes, np.int64) for _ in range(3))
        self._slots = np.empty((2, part.lanes, 0), np.int64)
        self._ordered: dict[int, _Epoch] = {}

    @property
    def longest(self) -> int:
        """How many slots the longest lane of a finite stream has."""
        return ((self._layout.epochs or 0) * self.samples + self._count - 1) // self._count

    def taken_before(self, lane: I64, epoch: int) -> I64:
        """Return L(lane, epoch): how many slots the lane takes in all epochs before this one."""
        return (epoch * self.samples + lane) // self._count

    def take(self, lanes: range, first: int, count: int) -> I64:
        """Return slots ``first`` up to ``first + count`` of the lanes: epoch, block and sample.

        Returns:
            int64 [3, len(lanes) * count], lane by lane; -1 past the end of a finite lane.
        """
        lane = np.arange(lanes.start, lanes.stop)
        rows = np.full((3, len(lane), count), -1)
        at, stop = np.full(len(lane), first), self._stops(lane, first + count)
        while len(left := np.flatnonzero(at < stop)):
            now, slot = lane[left], at[left]
            self._turn_to(now, slot)
            end = np.minimum(stop[left], self._ends[now])
            which, offset = _ragged(end - slot)
            here, taken = now[which], slot[which] + offset
            place = taken - self._firsts[here]
            rows[0, left[which], taken - first] = self._epochs[here]
            rows[1:, left[which], taken - first] = self._slots[:, here, place]
            at[left] = end
        return rows.reshape(3, -1)

    def _stops(self, lane: I64, end: int) -> I64:
        """Return where each lane's slots up to ``end`` stop, in a finite stream earlier."""
        if self._layout.epochs is None:
            return np.full(len(lane), end)
        return np.minimum(end, self.taken_before(lane, self._layout.epochs))

    def _turn_to(self, lane: I64, slot: I64) -> None:
        """Open the windows that hold a slot of each lane, where they are not open."""
        closed = (slot < self._firsts[lane]) | (slot >= self._ends[lane])
        lane, slot = lane[closed], slot[closed]
        # the largest epoch with L(lane, epoch) <= slot
        epochs = ((slot + 1) * self._count - lane - 1) // self.samples
        for epoch in np.unique(epochs).tolist():
            self._open(lane[epochs == epoch], slot[epochs == epoch], epoch)

    def _open(self, lane: I64, slot: I64, epoch: int) -> None:
        blocks, ends = self._epoch(epoch)
        before, (start, stop) = self.taken_before(lane, epoch), self._bounds(lane, epoch)
        first_block = np.searchsorted(ends, start, "right")
        here = np.searchsorted(ends, start + slot - before, "right")
        window = self._part.window_blocks
        number = (here - first_block) // window
        low = first_block + number * window
        high = np.minimum(low + window, len(ends)) - 1
        first = np.maximum(start, ends[low] - self._samples[blocks[low]])
        size = np.minimum(stop, ends[high]) - first
        which, place = _ragged(size)
        row = first[which] + place
        if self._layout.shuffle:
            prefix = hashed(Purpose.WINDOW_ORDER, self._seed, epoch, lane, number)
            row = row[np.lexsort((extended(prefix[which], place), which))]
        at = np.searchsorted(ends, row, "right")
        block = blocks[at]
        self._make_room(int(size.max()))
        self._slots[:, lane[which], place] = block, row - (ends[at] - self._samples[block])
        self._epochs[lane], self._firsts[lane] = epoch, before + first - start
        self._ends[lane] = self._firsts[lane] + size

    def _make_room(self, width: int) -> None:
        """Make the windows' table wide enough; it is as wide as the largest so far."""
        held = self._slots.shape[2]
        if width > held:
            wider = np.empty((2, self._count, width), np.int64)
            wider[:, :, :held] = self._slots
            self._slots = wider

    def _bounds(self, lane: I64, epoch: int) -> tuple[I64, I64]:
        """Return where the lanes' shares of an epoch's row of samples start and stop."""
        start = self._taken_by_lower(lane, epoch + 1) - self._taken_by_lower(lane, epoch)
        return start, start + self.taken_before(lane, epoch + 1) - self.taken_before(lane, epoch)

    def _taken_by_lower(self, lane: I64, epoch: int) -> I64:
        """Return the sum of L(i, epoch) over the lanes i below each, in closed form."""
        whole, rest = divmod(epoch * self.samples, self._count)
        return lane * whole + np.maximum(0, lane - (self._count - rest))

    def _epoch(self, epoch: int) -> _Epoch:
        """Return an epoch's order, kept with that of the one asked for before it."""
        if epoch not in self._ordered:
            for old in list(self._ordered)[:-1]:
                del self._ordered[old]
            self._ordered[epoch] = self._order_epoch(epoch)
        return self._ordered[epoch]

    def _order_epoch(self, epoch: int) -> _Epoch:
        blocks = np.arange(len(self._samples))
        if self._layout.shuffle:
            blocks = _sorted_by(hashed(Purpose.BLOCK_ORDER, self._seed, epoch, blocks))
        ends = np.cumsum(self._samples[blocks], dtype=np.int64)
        return _Epoch(blocks.astype(np.int32), ends)  # at 400 million samples 26 MB


def _sorted_by(keys: U64) -> I64:
    """Return the places of keys in their order, ties by place."""
    order = np.argsort(keys)
    ranked = keys[order]
    if (ranked[1:] == ranked[:-1]).any():  # once in a million epochs: a stable sort takes 3 times
        order = np.argsort(keys, kind="stable")
    return order


def _ragged(sizes: I64) -> tuple[I64, I64]:
    """Return, for runs of some lengths laid end to end, each element's run and place in it."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    starts = np.cumsum(sizes) - sizes
    return which, np.arange(len(which)) - starts[which]


def _seed_of(seed: int, part: int) -> int:
    """Return a data set's own seed, so that equal ones in a mixture do not go in step."""
    return int(hashed(Purpose.DATA_SET, seed, part)[0]) if part else seed


def _count_lanes(parts: Sequence[Part], batch: int, layout: Layout) -> int:
    """Return V.

    Raises:
        TrainingError: it does not divide B, or is not what the data sets' lanes add up to.
    """
    if not parts:
        raise TrainingError("no data set", where="data.shards")
    if batch < 1:
        raise TrainingError(f"a batch of {batch} samples", where="data.batch_size")
    given = [part.lanes for part in parts]
    total = sum(given)
    lanes = layout.lanes or total or math.gcd(batch, _LANES)
    if len(parts) > 1 and min(given) < 1:
        fix = "give every data set of a mixture its number of lanes"
        raise TrainingError("a data set has no lanes", where="data.lanes", fix=fix)
    if lanes < 1 or batch % lanes:
        fix = f"set data.lanes to a divisor of {batch}"
        raise TrainingError(f"{lanes} lanes do not divide the batch", where="data.lanes", fix=fix)
    if total not in (0, lanes):
        shares = " + ".join(map(str, given))
        fix = f"leave data.lanes out, or make the data sets' lanes add up to {lanes}"
        raise TrainingError(f"{shares} lanes are not {lanes}", where="data.lanes", fix=fix)
    return lanes


def _check_part(part: Part, number: int | None, share: int, layout: Layout) -> None:
    """Refuse a data set that is too small, or numbers below one."""
    name = "the data set" if number is None else f"data set {number} of the mixture"
    samples, rows = int(part.samples_per_block.sum()), part.lanes * share
    if samples < 1:
        raise TrainingError(f"{name} has no samples", where="data.shards")
    if layout.epochs is None and samples < rows:  # V_d <= B_d, so this tells N_d < V_d as well
        what = f"a batch of {rows}" if number is None else f"its {rows} rows of a batch"
        raise TrainingError(
            f"{name} has {samples} samples, fewer than {what}",
            where="data.batch_size",
            fix="set data.batch_size to a smaller number (data.lanes must divide it)"
            + ("" if number is None else ", or give the data set fewer of the lanes"),
        )
    if part.window_blocks < 1:
        raise TrainingError(f"windows of {part.window_blocks} blocks", where="data.window_blocks")
    if layout.epochs is not None and layout.epochs < 1:
        raise TrainingError(f"a stream of {layout.epochs} epochs", where="epochs")


def lanes_of_a_rank(lanes: int, world_size: int) -> int:
    """Return V / W.

    Raises:
        TrainingError: W does not divide V.
    """
    if world_size < 1 or lanes % world_size:
        raise TrainingError(
            f"{world_size} ranks cannot share {lanes} lanes",
            where="data.lanes",
            fix=f"choose a number of ranks that divides {lanes}",
        )
    return lanes // world_size
