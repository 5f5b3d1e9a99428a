"""The order of training: fixed points and refusals; ``test_order_properties`` has the rest."""

from __future__ import annotations

import numpy as np
import pytest

from wit_builder.errors import TrainingError
from wit_train.blocks import Layout, Order, Part, Share
from wit_train.seeds import Purpose, extended, hashed, splitmix64


def ids(order: Order, step: int, rank: int = 0, world_size: int = 1) -> list[int]:
    return order.sample_ids(order.step(step, rank, world_size)).tolist()


def part(blocks: list[int], lanes: int = 0, window_blocks: int = 1) -> Part:
    return Part(np.array(blocks), lanes, window_blocks)


def one(blocks: list[int], batch: int, layout: Layout) -> Order:
    return Order([part(blocks)], batch, layout)


def test_one_lane_unshuffled_is_the_order_of_the_data():
    """For evaluation, samples come in their own order, and the last batch is padded."""
    order = one([3, 4, 2], 4, Layout(lanes=1, shuffle=False, epochs=1))
    assert order.steps == 3
    assert [ids(order, s) for s in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, -1, -1, -1]]


def test_padding_is_marked_in_every_column():
    """A row past the end is not valid, and has neither epoch nor block nor sample."""
    slots = one([3], 2, Layout(lanes=1, shuffle=False, epochs=1)).step(1)
    assert [column.tolist() for column in slots] == [[0, 0], [0, -1], [0, -1], [2, -1], [True, 0]]


def test_epochs_and_seeds_have_orders_of_their_own():
    """Another epoch or another seed shuffles anew."""
    first = one([10] * 10, 100, Layout(lanes=4, seed=0))
    other = one([10] * 10, 100, Layout(lanes=4, seed=1))
    assert ids(first, 0) != ids(first, 1)
    assert ids(first, 0) != ids(other, 0)


def test_the_order_is_what_it_always_was():
    """The order is part of the format: a change of it breaks every run under way."""
    order = one([3, 4, 2, 5], 6, Layout(lanes=3, window_blocks=2, seed=7))
    assert [ids(order, s) for s in (0, 1, 1000)] == [
        [0, 9, 13, 11, 4, 8],
        [2, 1, 12, 7, 6, 3],
        [8, 1, 5, 6, 13, 10],
    ]


def test_the_order_of_a_mixture_is_what_it_always_was():
    """Data set 0 goes as it would alone; the next has lanes, epochs and a seed of its own."""
    both = [part([3, 4, 2, 5], 3, 2), part([2, 2], 1)]
    order = Order(both, 8, Layout(seed=7))
    assert [ids(order, s) for s in (0, 1, 1000)] == [
        [0, 9, 13, 11, 4, 8, 14, 15],
        [2, 1, 12, 7, 6, 3, 16, 17],
        [8, 1, 5, 6, 13, 10, 17, 16],
    ]


def test_equal_data_sets_of_a_mixture_are_not_in_step():
    """Each data set of a mixture is shuffled in its own way."""
    order = Order([part([10] * 9, 2), part([10] * 9, 2)], 40, Layout(seed=3))
    slots = order.step(0)
    assert slots.block[:20].tolist() != slots.block[20:].tolist()


def test_the_layout_goes_before_the_window_of_the_data():
    """Windows are as long as the data set says, unless the layout says another number."""
    windows = [part([2] * 4, 1, window_blocks=8), part([2] * 4, 1)]
    assert [p.window_blocks for p in Order(windows, 2, Layout()).parts] == [8, 1]
    assert [p.window_blocks for p in Order(windows, 2, Layout(window_blocks=3)).parts] == [3, 3]


def test_a_rank_may_own_lanes_of_several_data_sets():
    """Lanes are numbered through the data sets, and cut where the ranks' shares end."""
    order = Order([part([9], 3), part([9], 1)], 4, Layout())
    assert order.shares(0, 1) == [Share(0, 0, 3), Share(1, 0, 1)]
    assert order.shares(0, 2) == [Share(0, 0, 2)]
    assert order.shares(1, 2) == [Share(0, 2, 3), Share(1, 0, 1)]


@pytest.mark.parametrize(("batch", "lanes"), [(256, 256), (96, 32), (7, 1), (32768, 256)])
def test_lanes_follow_from_the_batch(batch: int, lanes: int):
    """Where nobody says how many lanes, they are what the batch and 256 have in common."""
    assert one([batch], batch, Layout()).lanes == lanes


def test_blocks_with_equal_hashes_keep_their_order(monkeypatch: pytest.MonkeyPatch):
    """Ties of the order of blocks are broken by block, whatever the sort."""
    equal = np.array([5, 5, 1] * 20, np.uint64)
    monkeypatch.setattr("wit_train.blocks.hashed", lambda *_: equal)
    order = one([1] * 60, 60, Layout(lanes=1))
    assert order.step(0).block.tolist() == np.argsort(equal, kind="stable").tolist()


def test_hash_is_splitmix64():
    """The first outputs of the published generator for seed 1234567."""
    states = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(states).tolist() == expected


def test_a_hash_can_be_taken_word_by_word():
    """A row's hash, extended by a word, is the hash of the longer row."""
    words = np.arange(-3, 3)
    whole = hashed(Purpose.STEP, 1 << 63, words, 9)
    assert extended(hashed(Purpose.STEP, 1 << 63, words), 9).tolist() == whole.tolist()


REFUSED = {
    "lanes that do not divide the batch": ([part([4, 4])], 6, Layout(lanes=4), "divide the batch"),
    "a batch beyond the data": ([part([4, 4])], 12, Layout(lanes=4), "8 samples.*batch of 12"),
    "more lanes than samples": ([part([4, 4])], 16, Layout(lanes=16), "8 samples"),
    "a data set below its share": (
        [part([99], 1), part([2], 1)],
        6,
        Layout(),
        "data set 1 .* 2 samples, fewer than its 3 rows",
    ),
    "no samples": ([part([])], 4, Layout(epochs=1), "no samples"),
    "a data set of a mixture without samples": (
        [part([4], 1), part([0], 1)],
        2,
        Layout(epochs=1),
        "data set 1 of the mixture has no samples",
    ),
    "no data": ([], 4, Layout(), "no data set"),
    "no batch": ([part([4])], 0, Layout(), "batch of 0"),
    "negative lanes": ([part([4])], 4, Layout(lanes=-2), "-2 lanes"),
    "a mixture without shares": ([part([4], 1), part([4])], 2, Layout(), "has no lanes"),
    "shares beyond the lanes": (
        [part([4], 1), part([4], 2)],
        4,
        Layout(lanes=4),
        r"1 \+ 2 lanes are not 4",
    ),
    "shares that do not divide the batch": (
        [part([4], 1), part([4], 2)],
        4,
        Layout(),
        "3 lanes do not divide",
    ),
    "no window": ([part([4], 0, 0)], 4, Layout(), "windows of 0"),
    "no epochs": ([part([4])], 4, Layout(epochs=0), "stream of 0 epochs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_numbers_that_do_not_fit_are_refused(name: str):
    """What is wrong with the numbers of a stream is said before it begins."""
    parts, batch, layout, message = REFUSED[name]
    with pytest.raises(TrainingError, match=message):
        Order(parts, batch, layout)


@pytest.mark.parametrize(
    ("step", "rank", "world", "message"),
    [(-1, 0, 1, "step -1"), (0, 0, 3, "3 ranks"), (0, 2, 2, "rank 2 of 2"), (0, 0, 0, "0 ranks")],
)
def test_steps_and_ranks_that_are_none_are_refused(step: int, rank: int, world: int, message: str):
    """A step counts from 0, a rank from 0, and the ranks divide the lanes."""
    with pytest.raises(TrainingError, match=message):
        one([4, 4], 4, Layout()).step(step, rank, world)
