"""Seconds from ``Stream(...)`` to the first batch, at step 1 and at step 1,000,000.

    python benchmarks/stream_first_batch.py [--repeats 7] [--data .data]

A batch of 256 from 8 lanes, blocks of 4 MiB, shards on local disk in the page cache. Every start
is a fresh process that has imported the stream before the clock begins, the two steps in turns.
The decode processes are started inside, and import what they need there: what that takes by itself
is told beside, and the same is measured without them (``workers=0``).

Asked: under 2 s, the one within 20 % of the other.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.stream_shards import SAMPLES, shards
from benchmarks.web_turns import timed, versions

STEPS = (1, 1_000_000)

_START = """
import sys, time
import numpy, cv2
from wit_train.blocks import Layout
from wit_train.stream import Pace, Stream
folder, step, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
began = time.perf_counter()
stream = Stream(
    folder,
    batch_size=256,
    start_step=step,
    layout=Layout(lanes=8),
    pace=Pace(workers=workers),
)
batches = iter(stream)
assert next(batches).step == step
print(time.perf_counter() - began)
batches.close()
"""
_IMPORTS = "import wit_train.worker"


def start_s(folder: str, step: int, workers: int) -> float:
    """Return how long a fresh process takes to its first batch."""
    command = [sys.executable, "-c", _START, folder, str(step), str(workers)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(versions("numpy", "numba", "opencv-python-headless"))
    folder = shards(options.data, options.samples)
    imports = [sys.executable, "-c", _IMPORTS]
    alone = [timed(lambda: subprocess.run(imports, check=True)) for _ in range(options.repeats)]
    print(f"a decode process's start and imports, alone: {statistics.median(alone):.2f} s")
    for workers in (options.workers, 0):
        took: dict[int, list[float]] = {step: [] for step in STEPS}
        for _ in range(options.repeats):
            for step, times in took.items():
                times.append(start_s(folder, step, workers))
        early, late = (statistics.median(times) for times in took.values())
        print(
            f"{workers} decode processes: step {STEPS[0]} {early:.2f} s, step {STEPS[1]:,} "
            f"{late:.2f} s, ratio {late / early:.2f}"
        )


if __name__ == "__main__":
    main()
