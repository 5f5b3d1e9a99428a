"""The same stream, by processes of its own, under changing numbers of ranks and workers."""

from __future__ import annotations

import subprocess
import sys

import pytest

RANK = """
import sys
import xxhash
from wit_train.blocks import Layout
from wit_train.stream import Look, Pace, Stream

shards, world, rank, workers, start, end = sys.argv[1], *map(int, sys.argv[2:])
stream = Stream(
    shards, batch_size=8, world_size=world, rank=rank, start_step=start,
    layout=Layout(lanes=4, seed=9), look=Look(image_size=32), pace=Pace(workers=workers),
)
for batch in stream:
    for row in zip(batch.sample_ids.tolist(), batch.images, batch.tokens):
        print(batch.step, row[0], *map(xxhash.xxh3_64_hexdigest, row[1:]), flush=True)
    if batch.step == end - 1:
        break
"""


def started(shards: str, ranks: int, *numbers: int) -> list[subprocess.Popen[str]]:
    """Start the ranks of a world: workers, first step, and the one after the last."""
    workers, start, end = numbers
    return [
        subprocess.Popen(
            [sys.executable, "-c", RANK, shards, *map(str, (ranks, rank, workers, start, end))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def rows_of(world: list[subprocess.Popen[str]]) -> dict[int, list[str]]:
    """Return what each step's rows were, in the order of the ranks; all ranks end well."""
    steps: dict[int, list[str]] = {}
    for process in world:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        for line in output.splitlines():
            step, _, row = line.partition(" ")
            steps.setdefault(int(step), []).append(row)
    return steps


@pytest.fixture(scope="module")
def expected(shards: str) -> dict[int, list[str]]:
    """Return the rows of 24 steps by one process that decodes by itself."""
    return rows_of(started(shards, 1, 0, 0, 24))


@pytest.mark.slow
def test_worlds_and_workers_change_nothing(shards: str, expected: dict[int, list[str]]):
    """Two ranks with one worker each, then four with none, go on where one has stopped."""
    assert (
        rows_of(started(shards, 2, 1, 0, 10)) | rows_of(started(shards, 4, 0, 10, 24)) == expected
    )


@pytest.mark.slow
def test_a_killed_world_goes_on_as_another(shards: str, expected: dict[int, list[str]]):
    """All ranks are killed while they stream; the steps all had yielded stand, others follow."""
    world = started(shards, 2, 3, 0, 10_000)
    seen: list[list[str]] = []
    for process in world:
        assert process.stdout is not None
        seen.append([process.stdout.readline().strip() for _ in range(4 * 7)])  # four rows a step
    for process in world:
        process.kill()
        process.communicate()
    steps = {
        step: [line.partition(" ")[2] for rank in seen for line in rank[4 * step : 4 * step + 4]]
        for step in range(7)
    }
    assert steps | rows_of(started(shards, 1, 3, 7, 24)) == expected
