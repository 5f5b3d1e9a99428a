"""What it costs to say which samples a step takes: cold, warm, at step 1 and at step 10^6.

    python benchmarks/stream_order.py [--samples 400000000]

A block table of 400 million samples in blocks of about 185 (4 MiB of 256-pixel JPEG), so 2.2
million blocks. "Cold" is a new order asked for one step: it orders an epoch's blocks and opens the
windows of all lanes of a rank. "Warm" are the steps after it. Each figure is the median of
several turns, steps 1 and 10^6 alternating. A peer is not run: none has an order to ask for.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Iterator

import numpy as np

from wit_train.blocks import Layout, Order, Part

STEPS = (1, 10**6)
BLOCK_SAMPLES = (150, 220)
GPU_IMAGES_PER_S = 8900

CASES = [
    ("batch 256, 8 lanes, 1 rank", 256, 8, 1, 1),
    ("batch 256, 256 lanes, 1 rank", 256, 256, 1, 1),
    ("batch 32,768, 256 lanes, 1 rank", 32768, 256, 1, 1),
    ("batch 32,768, 256 lanes, 32 ranks", 32768, 256, 32, 1),
    ("batch 32,768, 256 lanes, 32 ranks, windows of 8", 32768, 256, 32, 8),
]


def seconds(order: Order, steps: Iterator[int], world: int) -> float:
    """Return the seconds it took rank 0 to ask for the steps."""
    began = time.perf_counter()
    for step in steps:
        order.step(step, 0, world)
    return time.perf_counter() - began


def compare(table: Part, case: tuple[str, int, int, int, int], turns: int, warm: int) -> None:
    """Print what a new order costs at each step, and the steps after it."""
    name, batch, lanes, world, windows = case
    layout = Layout(lanes=lanes, window_blocks=windows, seed=1)
    cold, after = {s: list[float]() for s in STEPS}, {s: list[float]() for s in STEPS}
    for _ in range(turns):
        for step in STEPS:
            began = time.perf_counter()
            order = Order([table], batch, layout)
            seconds(order, iter([step]), world)
            cold[step].append(time.perf_counter() - began)
            following = iter(range(step + 1, step + 1 + warm))
            after[step].append(seconds(order, following, world) / warm)
    first, far = (statistics.median(cold[step]) for step in STEPS)
    print(f"{name}\n  cold {first:.3f} s at step 1, {far:.3f} s at step 10^6: {far / first:.2f}")
    for step in STEPS:
        took, rows = statistics.median(after[step]), batch // world
        share = took / rows * GPU_IMAGES_PER_S
        print(
            f"  warm from step {step:<8} {took * 1e6:8.0f} us a step, {took / rows * 1e6:5.2f} us"
            f" a row: {share:.2%} of a core at {GPU_IMAGES_PER_S:,} images/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=400_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm", type=int, default=50, help="steps timed after the cold one")
    options = parser.parse_args()
    low, high = BLOCK_SAMPLES
    blocks = options.samples * 2 // (low + high)
    sizes = np.random.default_rng(0).integers(low, high + 1, blocks, np.int32)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{blocks:,} blocks, {int(sizes.sum()):,} samples")
    for case in CASES:
        compare(Part(sizes), case, options.turns, options.warm)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held
    print(f"peak memory beyond the block table: {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
