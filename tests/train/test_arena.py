"""Memory that processes share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import numpy as np
import pytest

from wit_train.arena import Area, BatchSlots, BlockSlots


@pytest.fixture
def area() -> Iterator[Area]:
    """Give an area of slots of a page."""
    made = Area.create("test", 1)
    yield made
    if made.fd >= 0:
        made.close()


def test_what_one_process_writes_another_reads(area: Area):
    """Whoever has the descriptor sees the same slots, those added later too."""
    area.grow(2)
    other = Area(os.dup(area.fd), area.slot_bytes)
    area.slot(1)[:5] = b"hello"
    assert bytes(other.slot(1)[:5]) == b"hello"
    area.grow(100)
    area.slot(99)[-3:] = b"end"
    assert bytes(other.slot(99)[-3:]) == b"end"
    assert bytes(other.slot(1)[:5]) == b"hello"
    other.close()


def test_a_slot_outlives_its_area_and_nothing_else_takes_its_place(area: Area):
    """Who writes late writes to what it was given, not to whatever has the descriptor by then."""
    area.grow(1)
    late = area.slot(0)
    area.close()
    other = Area.create("other", 1)
    other.grow(1)
    late[:4] = b"late"
    assert not any(other.slot(0))
    with pytest.raises(OSError, match="descriptor"):
        area.slot(0)
    other.close()


def test_a_block_s_index_stands_beside_its_bytes():
    """What is put is found, whatever the block's length; the bytes stay."""
    slots = BlockSlots(Area.create("test", BlockSlots.slot_bytes(1000, 7)), 1000)
    slots.area.grow(3)
    memory = slots.memory(2)
    memory[:1000] = b"x" * 1000
    index = np.arange(28).reshape(7, 4)
    slots.put_index(memory, index)
    assert np.array_equal(slots.index(slots.memory(2)), index)
    assert bytes(memory[:1000]) == b"x" * 1000
    slots.area.close()


def test_a_batch_s_slot_is_given_back_when_nothing_shows_it():
    """A view of a view keeps it; the last one to go gives it back."""
    slots = BatchSlots(Area.create("test", BatchSlots.slot_bytes(4, 8, 5)), 4, 8, 5)
    slots.area.grow(1)
    back: list[int] = []
    images, tokens = slots.leased(0, back.append)
    images[:] = 7
    tokens[:] = -1
    assert (images.shape, tokens.shape) == ((4, 8, 8, 3), (4, 5))
    part = images[1:3].transpose(0, 3, 1, 2)
    del images, tokens
    gc.collect()
    assert back == []
    slots.area.close()
    assert (part == 7).all()
    del part
    gc.collect()
    assert back == [0]
