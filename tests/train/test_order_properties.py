"""The order of training against a slow reference, on thousands of small random cases.

The reference is written from the text of the design, one slot after the other, in plain Python
integers; it shares nothing with ``wit_train.blocks``.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_train.blocks import Layout, Order, Part

Slot = tuple[int, int, int]
"""Epoch, block, sample in the block."""
NO_SLOT: Slot = (-1, -1, -1)
WORD = 1 << 64
BLOCK_ORDER, WINDOW_ORDER, DATA_SET = 1, 2, 5


def splitmix64(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) % WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB % WORD
    return z ^ z >> 31


def row_hash(*words: int) -> int:
    h = 0
    for word in words:
        h = splitmix64(h ^ word % WORD)
    return h


class ReferenceLanes:
    """The lanes of one data set, epoch by epoch, each as the list of its slots."""

    def __init__(self, part: Part, lanes: int, layout: Layout, seed: int) -> None:
        self.blocks = part.samples_per_block.tolist()
        self.window = layout.window_blocks or part.window_blocks
        self.lanes, self.layout, self.seed = lanes, layout, seed
        self.slots_of_an_epoch = lru_cache(8)(self._slots_of_an_epoch)

    def size(self, lane: int, epoch: int) -> int:
        """L(l, e): the slots that a lane takes in all epochs before one."""
        return (epoch * sum(self.blocks) + lane) // self.lanes

    def _slots_of_an_epoch(self, epoch: int) -> list[list[Slot]]:
        numbers = list(range(len(self.blocks)))
        if self.layout.shuffle:
            numbers.sort(key=lambda block: (row_hash(BLOCK_ORDER, self.seed, epoch, block), block))
        row = [
            (place, (epoch, block, sample))
            for place, block in enumerate(numbers)
            for sample in range(self.blocks[block])
        ]
        lanes, cut = [], 0
        for lane in range(self.lanes):
            size = self.size(lane, epoch + 1) - self.size(lane, epoch)
            lanes.append(self._permuted(row[cut : cut + size], epoch, lane))
            cut += size
        assert cut == len(row), "the lanes' shares are not the epoch"
        return lanes

    def _permuted(self, slots: list[tuple[int, Slot]], epoch: int, lane: int) -> list[Slot]:
        windows: dict[int, list[Slot]] = {}
        for place, slot in slots:
            windows.setdefault((place - slots[0][0]) // self.window, []).append(slot)
        if not self.layout.shuffle:
            return [slot for _, slot in slots]
        out = []
        for number, window in windows.items():
            words = (WINDOW_ORDER, self.seed, epoch, lane, number)
            keys = [row_hash(*words, place) for place in range(len(window))]
            out += [window[place] for place in sorted(range(len(window)), key=keys.__getitem__)]
        return out

    def lane_from(self, lane: int, taken: int) -> Iterator[Slot]:
        """Yield a lane's slots from one on, then padding if it ends."""
        epoch = taken * self.lanes // sum(self.blocks)
        while self.size(lane, epoch) > taken:
            epoch -= 1
        while self.size(lane, epoch + 1) <= taken:
            epoch += 1
        skip = taken - self.size(lane, epoch)
        while self.layout.epochs is None or epoch < self.layout.epochs:
            yield from self.slots_of_an_epoch(epoch)[lane][skip:]
            epoch, skip = epoch + 1, 0
        while True:
            yield NO_SLOT


class Case(NamedTuple):
    """A data set or a mixture, how it is streamed, and the ranks that may share it."""

    parts: list[Part]
    batch: int
    layout: Layout

    @property
    def lanes(self) -> int:
        return sum(part.lanes for part in self.parts)

    @property
    def worlds(self) -> list[int]:
        return [w for w in range(1, self.lanes + 1) if self.lanes % w == 0]

    @property
    def samples(self) -> list[int]:
        return [int(part.samples_per_block.sum()) for part in self.parts]

    def order(self) -> Order:
        return Order(self.parts, self.batch, self.layout)

    def reference(self) -> list[ReferenceLanes]:
        seed = self.layout.seed
        seeds = [seed] + [row_hash(DATA_SET, seed, d) for d in range(1, len(self.parts))]
        return [
            ReferenceLanes(part, part.lanes, self.layout, of_part)
            for part, of_part in zip(self.parts, seeds, strict=True)
        ]


def expected(case: Case, reference: list[ReferenceLanes], step: int) -> list[tuple[int, Slot]]:
    """Return the part and slot of every row of a global batch."""
    share = case.batch // case.lanes
    return [
        (number, slot)
        for number, lanes in enumerate(reference)
        for lane in range(lanes.lanes)
        for slot in islice(lanes.lane_from(lane, step * share), share)
    ]


def rows(order: Order, step: int, rank: int = 0, world: int = 1) -> list[tuple[int, Slot]]:
    """Return the same of a rank, as the order has it."""
    slots = order.step(step, rank, world)
    assert len(slots.part) == order.batch_size // world
    assert slots.valid.tolist() == (slots.block >= 0).tolist()
    columns = (slots.epoch.tolist(), slots.block.tolist(), slots.sample.tolist())
    return list(zip(slots.part.tolist(), zip(*columns, strict=True), strict=True))


def ids(order: Order, step: int, rank: int = 0, world: int = 1) -> list[int]:
    return order.sample_ids(order.step(step, rank, world)).tolist()


def random_case(rng: random.Random, *, finite: bool) -> Case:
    """Return a case: blocks of even or wildly uneven sizes, few or many samples to a batch."""
    share = rng.choice([1, 1, 2, 3, 7])
    parts = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        largest = rng.choice([1, 3, 9, 40])
        blocks = [rng.randint(1, largest) for _ in range(rng.randint(1, 12))]
        most = 8 if finite else max(1, min(8, sum(blocks) // share))
        lanes = rng.choice([1, most, rng.randint(1, most)])
        if not finite:  # now and then exactly as many samples as rows of a batch
            blocks[-1] += max(0, lanes * share - sum(blocks))
        parts.append(Part(np.array(blocks, rng.choice([np.int32, np.int64])), lanes))
    layout = Layout(
        seed=rng.getrandbits(64),
        window_blocks=rng.randint(1, 8),
        shuffle=rng.random() < 0.9,
        epochs=rng.randint(1, 3) if finite else None,
    )
    return Case(parts, sum(part.lanes for part in parts) * share, layout)


@pytest.mark.parametrize("finite", [False, True])
def test_every_batch_is_the_references(*, finite: bool):
    """Any step of any case, asked for in any order by any rank, is what the design says."""
    rng = random.Random(7)
    for _ in range(1500):
        case = random_case(rng, finite=finite)
        order, reference = case.order(), case.reference()
        far = (order.steps or 10) + 1
        for step in (rng.randrange(far) for _ in range(3)):
            whole, world = expected(case, reference, step), rng.choice(case.worlds)
            assert rows(order, step) == whole
            assert whole == [row for r in range(world) for row in rows(order, step, r, world)]


def test_far_steps_are_the_references():
    """So is a step after weeks of training."""
    rng = random.Random(8)
    for _ in range(500):
        case = random_case(rng, finite=False)
        step = rng.randrange(10**6, 10**12)
        assert rows(case.order(), step) == expected(case, case.reference(), step)


def test_any_two_samples_of_a_data_set_were_seen_equally_often_but_for_one():
    """After any S steps every sample was seen k or k + 1 times, k = floor(S B_d / N_d)."""
    rng = random.Random(9)
    for _ in range(1000):
        case = random_case(rng, finite=False)
        order, firsts = case.order(), np.cumsum([0, *case.samples])
        seen = np.zeros(order.samples, np.int64)
        share = case.batch // case.lanes
        for step in range(3 * max(case.samples) // case.batch + 3):
            seen += np.bincount(ids(order, step), minlength=order.samples)
            for number, part in enumerate(case.parts):
                k = (step + 1) * share * part.lanes // case.samples[number]
                counts = seen[firsts[number] : firsts[number + 1]]
                assert k <= counts.min() <= counts.max() <= k + 1


def test_a_finite_stream_has_every_sample_once_an_epoch():
    """All valid rows of a finite stream are every sample, as often as there are epochs."""
    rng = random.Random(10)
    for _ in range(1000):
        case = random_case(rng, finite=True)
        order = case.order()
        assert order.steps is not None
        seen = Counter(i for step in range(order.steps) for i in ids(order, step))
        padding = seen.pop(-1, 0)
        assert seen == dict.fromkeys(range(order.samples), case.layout.epochs)
        assert padding == order.steps * case.batch - seen.total()
        assert any(i >= 0 for i in ids(order, order.steps - 1))
        assert set(ids(order, order.steps)) == {-1}


def test_ids_count_through_the_data_sets():
    """A sample's id is its place in its data set, after all samples of those before it."""
    rng = random.Random(11)
    for _ in range(300):
        case = random_case(rng, finite=False)
        order, step = case.order(), rng.randrange(20)
        places = [0, *np.cumsum(case.samples)]
        slots = order.step(step)
        for i, number, block, sample in zip(
            order.sample_ids(slots), slots.part, slots.block, slots.sample, strict=True
        ):
            assert i == places[number] + case.parts[number].samples_per_block[:block].sum() + sample


@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    finite=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_the_order_remembers_nothing(*, seed: int, steps: list[int], finite: bool):
    """An order that was asked for other steps and by other ranks gives what a new one gives."""
    rng = random.Random(seed)
    case = random_case(rng, finite=finite)
    used = case.order()
    for step in steps:
        world = rng.choice(case.worlds)
        rank = rng.randrange(world)
        assert rows(used, step, rank, world) == rows(case.order(), step, rank, world)


def test_a_data_set_goes_in_a_mixture_as_it_goes_alone():
    """The first data set of a mixture has the rows that it has by itself at its own batch size."""
    rng = random.Random(12)
    for _ in range(300):
        case = random_case(rng, finite=False)
        own = case.parts[0].lanes * (case.batch // case.lanes)
        alone = Order(case.parts[:1], own, case.layout)
        for step in (0, rng.randrange(50)):
            assert rows(case.order(), step)[:own] == rows(alone, step)
