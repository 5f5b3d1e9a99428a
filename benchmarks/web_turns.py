"""What the benchmarks of crawling share: works in turns, and two workers beside one."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Any

from wit_builder.crawl.candidates import Output
from wit_builder.runners import LocalPool
from wit_builder.units import Done

Works = dict[str, Callable[[], object]]


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(works: Works, repeats: int) -> dict[str, float]:
    """Return the median seconds of each work; all run in turns, after one turn that is not counted.

    That one loads what is compiled, and brings the input into the system's cache.
    """
    for work in works.values():
        work()
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            took[name].append(timed(work))
    return {name: statistics.median(values) for name, values in took.items()}


def versions(*packages: str) -> str:
    """Return the versions of Python and of some packages, in a line."""
    known = [f"{name} {metadata.version(name)}" for name in packages]
    return ", ".join([f"Python {platform.python_version()}", *known])


def two_beside_one(
    run: Callable[[Any], Done], job: Callable[[Output], Any], files: int, repeats: int
) -> None:
    """Print how much faster two worker processes do several files than one.

    The pools are those of ``wit`` (``LocalPool``). They are started, and have loaded all that they
    need, before the clock is: each has done the file before. Every unit reads the same file and
    writes to a place of its own.
    """
    pools = {workers: LocalPool(workers) for workers in (1, 2)}
    with tempfile.TemporaryDirectory() as folder:
        jobs = [job(Output.of(folder, f"unit-{number}")) for number in range(files)]
        works: Works = {
            str(workers): partial(_all_files, pool, run, jobs) for workers, pool in pools.items()
        }
        one, two = medians(works, repeats).values()
    for pool in pools.values():
        pool.close()
    print(f"{files} files: one worker {one:.1f} s, two workers {two:.1f} s, ratio {one / two:.2f}")


def _all_files(pool: LocalPool, run: Callable[[Any], Done], jobs: Sequence[Any]) -> None:
    for _, done in pool.each(run, jobs):
        assert isinstance(done, Done), done
