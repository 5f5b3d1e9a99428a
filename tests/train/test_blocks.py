"""The order of training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder.errors import TrainingError
from wit_train.blocks import Layout, Order
from wit_train.seeds import splitmix64

Case = tuple[np.ndarray, int, Layout]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    blocks = np.array(draw(st.lists(st.integers(1, 9), min_size=1, max_size=12)))
    lanes = draw(st.integers(1, min(8, int(blocks.sum()))))
    share = draw(st.integers(1, max(1, int(blocks.sum()) // lanes)))
    layout = Layout(
        lanes=lanes, window_blocks=draw(st.integers(1, 4)), seed=draw(st.integers(0, 2**64 - 1))
    )
    return blocks, share * lanes, layout


def ids(order: Order, step: int, rank: int = 0, world_size: int = 1) -> list[int]:
    return order.sample_ids(order.step(step, rank, world_size)).tolist()


@given(cases())
@settings(max_examples=300, deadline=None)
def test_after_every_step_any_two_samples_were_seen_equally_often_but_for_one(case: Case):
    """After any S steps every sample was seen k or k + 1 times, k = floor(S B / N)."""
    blocks, batch, layout = case
    order, seen = Order(blocks, batch, layout), Counter(range(int(blocks.sum())))
    for step in range(3 * int(blocks.sum()) // batch + 2):
        seen.update(ids(order, step))
        k = (step + 1) * batch // order.samples
        assert {count - 1 - k for count in seen.values()} <= {0, 1}


@given(cases(), st.integers(0, 50))
@settings(max_examples=200, deadline=None)
def test_lane_shares_of_an_epoch_are_its_samples(case: Case, epoch: int):
    """L(l, e) sums to e N over the lanes, in closed form as one by one."""
    blocks, batch, layout = case
    order = Order(blocks, batch, layout)
    shares = [order.taken_before(lane, epoch) for lane in range(order.lanes)]
    assert sum(shares) == epoch * order.samples
    for lane in range(order.lanes):
        assert order._taken_by_lower(lane, epoch) == sum(shares[:lane])


@given(cases(), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_any_number_of_ranks_shares_the_same_global_batches(case: Case, step: int):
    """Ranks' parts, one after the other, are the batch of a single rank."""
    blocks, batch, layout = case
    whole = ids(Order(blocks, batch, layout), step)
    for world in (w for w in range(1, layout.lanes + 1) if layout.lanes % w == 0):
        orders = [Order(blocks, batch, layout) for _ in range(world)]
        assert whole == [i for r, o in enumerate(orders) for i in ids(o, step, r, world)]


@given(cases(), st.integers(0, 10**12))
@settings(max_examples=200, deadline=None)
def test_beginning_at_a_step_is_going_on_from_the_one_before(case: Case, start: int):
    """A new order asked for steps s, s + 1, ... gives what one that came from s - 3 gives."""
    blocks, batch, layout = case
    going, begun = Order(blocks, batch, layout), Order(blocks, batch, layout)
    for step in range(max(0, start - 3), start):
        going.step(step)
    for step in range(start, start + 4):
        assert ids(going, step) == ids(begun, step)


@given(cases(), st.integers(1, 3), st.sampled_from([True, False]))
@settings(max_examples=200, deadline=None)
def test_a_finite_stream_has_every_sample_once_an_epoch(case: Case, epochs: int, shuffle):
    """All steps of a finite stream together are every sample, as often as there are epochs."""
    blocks, batch, layout = case
    finite = Layout(lanes=layout.lanes, seed=layout.seed, shuffle=shuffle, epochs=epochs)
    order = Order(blocks, batch, finite)
    assert order.steps is not None
    seen = Counter(i for step in range(order.steps) for i in ids(order, step))
    assert seen == dict.fromkeys(range(order.samples), epochs)
    assert ids(order, order.steps) == []


def test_one_lane_unshuffled_is_the_order_of_the_data():
    """For evaluation, samples come in their own order."""
    order = Order(np.array([3, 4, 2]), 4, Layout(lanes=1, shuffle=False, epochs=1))
    assert [ids(order, s) for s in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_epochs_and_seeds_have_orders_of_their_own():
    """Another epoch or another seed shuffles anew."""
    blocks = np.full(10, 10)
    first = Order(blocks, 100, Layout(lanes=4, seed=0))
    other = Order(blocks, 100, Layout(lanes=4, seed=1))
    assert ids(first, 0) != ids(first, 1)
    assert ids(first, 0) != ids(other, 0)


def test_the_order_is_what_it_always_was():
    """The order is part of the format: a change of it breaks every run under way."""
    order = Order(np.array([3, 4, 2, 5]), 6, Layout(lanes=3, window_blocks=2, seed=7))
    assert [ids(order, s) for s in (0, 1, 1000)] == [
        [0, 9, 13, 11, 4, 8],
        [2, 1, 12, 7, 6, 3],
        [8, 1, 5, 6, 13, 10],
    ]


def test_hash_is_splitmix64():
    """The first outputs of the published generator for seed 1234567."""
    states = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(states).tolist() == expected


@pytest.mark.parametrize(
    ("blocks", "batch", "lanes", "world", "names"),
    [
        ([4, 4], 6, 4, 1, "divide the batch"),
        ([4, 4], 12, 4, 1, "8 samples"),
        ([4, 4], 8, 4, 3, "3 ranks"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    blocks: list[int], batch: int, lanes: int, world: int, names: str
):
    """Batch beyond the data, lanes that do not divide it, ranks that do not divide those."""
    with pytest.raises(TrainingError, match=names):
        Order(np.array(blocks), batch, Layout(lanes=lanes)).step(0, 0, world)
