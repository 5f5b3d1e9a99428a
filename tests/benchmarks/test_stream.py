"""The meter of the streaming benchmarks counts what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.stream import table
from benchmarks.stream_meter import Rate, Span, measure, read, tree_cpu_s
from benchmarks.stream_ours import _crop
from benchmarks.stream_shards import shards
from wit_builder.shards.read import Dataset


def test_batches_of_the_warm_up_are_not_counted():
    """What is measured begins after them, and comes in whole portions."""
    sizes = iter(range(1000))
    rate = measure(sizes, Span(warm_batches=10, seconds=0, portion=4))
    assert rate.images == 0
    assert next(sizes) == 10


def test_time_of_children_counts_alive_and_ended():
    """A child's CPU time is its parent's before and after it ends."""
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    before = tree_cpu_s(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1)
    assert child.stdout is not None
    child.stdout.readline()
    alive = tree_cpu_s(os.getpid()) - before
    child.communicate(b"\n")
    assert alive > 0.25
    assert tree_cpu_s(os.getpid()) - before > 0.25


def test_a_process_that_is_gone_has_used_nothing():
    """It may end between the listing and the look."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert tree_cpu_s(child.pid) == 0


def test_a_rate_is_read_from_the_last_line():
    """Whatever a contestant prints before."""
    assert read(f"hello\n{json.dumps(Rate(6, 2.0, 3.0))}\n") == Rate(6, 2.0, 3.0)
    assert (Rate(6, 2.0, 3.0).per_second, Rate(6, 2.0, 3.0).per_cpu_second) == (3, 2)


def test_the_table_compares_turn_by_turn():
    """The ratio is the median of the turns' ratios."""
    ours = [Rate(100, 1, 1), Rate(100, 1, 2), Rate(100, 1, 4)]
    peer = [Rate(10, 1, 1), Rate(10, 1, 2), Rate(10, 1, 1)]
    head, first, second = table({"ours": ours, "peer": peer})
    assert "per CPU-s" in head
    assert first.split() == ["ours", "100", "50", "2.00", "1.00"]
    assert second.split() == ["peer", "10", "10", "1.00", "10.00"]


def test_the_shards_are_a_data_set(tmp_path):
    """They open, and pictures are as small and as large as told."""
    dataset = Dataset.open(shards(tmp_path, 20))
    sizes = [len(sample.members["jpg"]) for sample in dataset.samples(0)]
    assert dataset.info.samples == len(sizes) == 20
    assert 15_000 < np.mean(sizes) < 30_000


@pytest.mark.parametrize("shape", [(256, 341, 3), (256, 1000, 3), (1000, 256, 3), (1, 1, 3)])
def test_a_bare_crop_lies_in_the_picture(shape):
    """Whatever its shape."""
    import random

    rng = random.Random(0)
    for _ in range(50):
        height, width, _ = _crop(np.zeros(shape, np.uint8), rng).shape
        assert 0 < height <= shape[0]
        assert 0 < width <= shape[1]
