"""Memory and open files of one worker over 50,000 pictures, sampled every second.

    python benchmarks/fetch_memory.py [--images 50000] [--requests 64] [--data .data]

The pictures are those of ``fetch.py``, the delays short (5 to 50 ms), so that pictures come as fast
as the worker can take them. The growth is that of the median from the second quarter of the samples
to the last: in the first, compiled code and libraries are still being loaded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.fetch import Work, ours, pictures
from benchmarks.fetch_server import Mix, pool, serving
from benchmarks.web_turns import versions

EVERY_S = 1.0


class Sample(NamedTuple):
    """Resident memory in MiB and open files of a process, at one moment."""

    memory: int
    files: int

    @staticmethod
    def of(pid: int) -> Sample:
        """Return those of a running process."""
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
        open_files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return Sample(pages * os.sysconf("SC_PAGE_SIZE") >> 20, open_files)


def sampled(work: Work) -> list[Sample]:
    """Do the work in a fresh process; return samples of it.

    Raises:
        RuntimeError: it failed.
    """
    process = multiprocessing.get_context("spawn").Process(target=ours, args=(work,))
    process.start()
    samples = []
    while process.is_alive():
        assert process.pid is not None
        samples.append(Sample.of(process.pid))
        process.join(EVERY_S)
    if process.exitcode:
        raise RuntimeError(f"the worker ended with {process.exitcode}")
    return samples


def growth(values: Sequence[int]) -> float:
    """Return by how much the median of the last quarter is above that of the second."""
    quarter = len(values) // 4
    late, early = values[-quarter:], values[quarter : 2 * quarter]
    return statistics.median(late) - statistics.median(early)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=64, help="under way at once")
    options = parser.parse_args()
    print(versions("aiohttp", "opencv-python-headless", "pillow"))
    made = pool(options.data, Mix())
    with serving(made, (5, 50)) as server, tempfile.TemporaryDirectory() as folder:
        paths, started = made.paths(options.images), time.perf_counter()
        samples = sampled(Work(paths, server.address, 0, options.requests, folder))
        wall_s = time.perf_counter() - started
        alive = sum(1 for _ in pictures(Path(folder)))
    memory, files = ([sample[field] for sample in samples] for field in (0, 1))
    print(f"{alive:,} of {options.images:,} pictures in {wall_s:.0f} s, {len(samples)} samples")
    print(f"memory: {max(memory)} MiB at most, growth {growth(memory):+.0f} MiB")
    print(f"open files: {max(files)} at most, growth {growth(files):+.0f}")


if __name__ == "__main__":
    main()
