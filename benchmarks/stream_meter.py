"""What a loader costs: images per second, and per CPU-second of its whole process tree.

Imports the standard library alone: the peers' Python has nothing of ours.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Span(NamedTuple):
    """What to measure: how long, after how many batches, and in what portions.

    ``portion`` is how many batches come together: where each worker makes batches of its own, as
    many as workers, so that as much is half done at the end as was at the beginning.
    """

    warm_batches: int = 12
    seconds: float = 10.0
    portion: int = 1


class Rate(NamedTuple):
    """What was measured. CPU time is user and system time of the process and all below it."""

    images: int
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        """Images per second."""
        return self.images / self.wall_s

    @property
    def per_cpu_second(self) -> float:
        """Images per CPU-second."""
        return self.images / self.cpu_s


def tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, its threads, and of all processes below it.

    Those that have ended are in what their parents have reaped.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = {c for task in tasks for c in (task / "children").read_text().split()}
    except FileNotFoundError:  # it has just ended
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(tree_cpu_s(int(child)) for child in children)


def measure(batches: Iterator[int], span: Span) -> Rate:
    """Return what it cost to go through batches, given as their numbers of images.

    The clocks run from one batch to another, so imports, the start of processes, and the first
    reads are not in it.
    """
    for _ in range(span.warm_batches):
        next(batches)
    cpu_s, began, images, taken = tree_cpu_s(os.getpid()), time.perf_counter(), 0, 0
    while time.perf_counter() - began < span.seconds or taken % span.portion:
        images += next(batches)
        taken += 1
    wall_s = time.perf_counter() - began
    return Rate(images, wall_s, tree_cpu_s(os.getpid()) - cpu_s)


def report(rate: Rate) -> None:
    """Print a rate for the process that reads it with ``read``; the last line of the output."""
    print(json.dumps(rate), flush=True)


def read(output: str) -> Rate:
    """Return the rate in what a contestant printed."""
    return Rate(*json.loads(output.splitlines()[-1]))
