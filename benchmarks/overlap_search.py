"""Seconds of looking for 5,000 test pictures among 1,000,000 hashes, all variants included.

    python benchmarks/overlap_search.py [--tests 5000] [--hashes 1000000] [--turns 3]

What is timed is what ``wit eval --overlap`` does until it has candidates: test pictures (JPEGs in
memory) are decoded and hashed in all variants; hashes in parquet tables, as a run keeps them, are
read and compared. The training hashes are random, so the pairs are those of chance; half of the
test pictures have a near one planted, all of which must be found. Then the rate of making hashes of
shards; that of the kernel alone in one thread, with the processor's vectors and as on a machine
without AVX-512, each in a process of its own; and what these mean for 400 million pictures.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.overlap_recall import Planted, write
from benchmarks.stream_decode import jpegs
from benchmarks.web_turns import timed, versions
from wit_builder import storage
from wit_builder.shards.read import Dataset
from wit_train.decode import pixels
from wit_train.overlap import candidates
from wit_train.overlap.candidates import Found
from wit_train.overlap.hashed import Hashing, hash_shards
from wit_train.overlap.nearest import near
from wit_train.overlap.sources import Tables
from wit_train.overlap.variants import hash_of

Hashes = npt.NDArray[np.uint64]

WHOLE = 400_000_000
DRAWN = 1000
PER_TABLE = 20_000
DISTANCE, MOST = 10, 64
KERNEL = "from benchmarks.overlap_search import kernel; print(kernel())"
NO_AVX512 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+popcnt,+bmi,+bmi2,+fma"}


def kernel(hashes: int = 1 << 17, queries: int = 1 << 16) -> float:
    """Return how many comparisons a second one thread makes, the best of three."""
    drawn = np.random.default_rng(0)
    known, asked = (drawn.integers(0, 1 << 64, n, np.uint64) for n in (hashes, queries))
    sure, most = np.full(queries, (1 << 64) - 1, np.uint64), np.full(queries, DISTANCE, np.uint8)
    near(known[:9], asked[:9], sure[:9], most[:9], MOST)
    best = min(timed(partial(near, known, asked, sure, most, MOST)) for _ in range(3))
    return hashes * queries / best


def write_tables(folder: Path, known: Hashes, dataset: Dataset) -> list[str]:
    """Write hashes as the tables of a run's pictures, all of which are in the first shard."""
    drawn = np.random.default_rng(2).bytes(16 * len(known))
    uids = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(known), [None, pa.py_buffer(drawn)]
    )
    packed = pa.table({"uid": uids, "removed": pa.array(np.zeros(len(known), np.bool_))})
    storage.write_parquet(dataset.samples_url(0), packed)
    urls = []
    for start in range(0, len(known), PER_TABLE):
        part = known[start : start + PER_TABLE]
        columns = {
            "uid": uids[start : start + len(part)],
            "phash": pa.array([f"{h:016x}" for h in part.tolist()]),
            "outcome": pa.array(["alive"] * len(part)),
        }
        urls.append(str(folder / f"{start:09d}.parquet"))
        storage.write_parquet(urls[-1], pa.table(columns))
    return urls


def planted(bodies: Sequence[bytes], hashes: int) -> Hashes:
    """Return random hashes, but at the end, of every other picture, one that is a bit off."""
    drawn = np.random.default_rng(1)
    known = drawn.integers(0, 1 << 64, hashes, np.uint64)
    for i, body in enumerate(bodies[::2]):
        picture = pixels(body)
        assert picture is not None
        own = hash_of(picture)
        assert own is not None
        known[-1 - i] = own ^ 1
    return known


def analysis(bodies: Sequence[bytes], dataset: Dataset, urls: list[str]) -> tuple[float, Found]:
    """Return the seconds of hashing test pictures, and what the search found."""
    begun = time.perf_counter()
    asked = candidates.questions(Planted(bodies).items(), "test")
    took = time.perf_counter() - begun
    tables = Tables(dataset, urls)
    return took, candidates.search(asked, tables, distance=DISTANCE, most=MOST, told=lambda _: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tests", type=int, default=5000)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    print(versions("numba", "pyarrow", "opencv-python-headless"), f"{os.cpu_count()} cores")
    drawn = jpegs(DRAWN)
    bodies = [drawn[i % DRAWN] for i in range(options.tests)]
    with tempfile.TemporaryDirectory() as folder:
        _turns(bodies, options, Path(folder))
        rate = _hashing(bodies[:1000], Path(folder))
    print(f"making hashes of shards: {rate:,.0f} pictures a second, one process")
    print(f"  400 million: {WHOLE / rate / 3600:,.0f} core-hours, once")
    for name, environ in (("as it is", {}), ("without AVX-512", NO_AVX512)):
        with tempfile.TemporaryDirectory() as cache:
            told = os.environ | environ | {"NUMBA_CACHE_DIR": cache}
            done = subprocess.run(
                [sys.executable, "-c", KERNEL], env=told, capture_output=True, check=True
            )
        print(f"kernel, one thread, {name}: {float(done.stdout) / 1e9:.1f}e9 comparisons a second")


def _turns(bodies: Sequence[bytes], options: argparse.Namespace, folder: Path) -> None:
    shards = str(folder / "shards")
    write(shards, [(str(i), body) for i, body in enumerate(bodies[:1000])])
    dataset = Dataset.open(shards)
    urls = write_tables(folder, planted(bodies, options.hashes), dataset)
    analysis(bodies[:9], dataset, urls[:1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole, hashing = list[float](), list[float]()
    for _ in range(options.turns):
        begun = time.perf_counter()
        took, found = analysis(bodies, dataset, urls)
        whole.append(time.perf_counter() - begun)
        hashing.append(took)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, own = statistics.median(whole), statistics.median(hashing)
    tests = set(found.pairs.index_M[found.pairs.bits_M <= 1].tolist())
    assert tests >= set(range(0, options.tests, 2))
    print(
        f"{options.tests:,} test pictures among {options.hashes:,} hashes, {DISTANCE} bits: "
        f"{seconds:.1f} s (asked 60), of which {own:.1f} s for hashing test pictures in all "
        f"variants; turns {', '.join(f'{s:.1f}' for s in whole)}"
    )
    rate = options.hashes / (seconds - own)
    print(f"peak memory {after / 1024:,.0f} MiB, {before / 1024:,.0f} before the first whole turn")
    print(f"hashes searched: {rate:,.0f} a second; 400 million: {WHOLE / rate / 3600:.1f} hours")
    pairs = np.count_nonzero(found.pairs.bits_M > 1)  # those of fewer bits are planted
    print(
        f"pairs by chance: {pairs / options.tests / options.hashes * WHOLE:,.0f} a test picture "
        f"in 400 million, of which the nearest {MOST} are looked at"
    )


def _hashing(bodies: Sequence[bytes], folder: Path) -> float:
    """Return how many pictures of shards one process hashes in a second, best of three."""
    dataset = Dataset.open(str(folder / "shards"))
    caches = [Hashing(str(folder / f"cache-{turn}")) for turn in range(3)]
    return len(bodies) / min(timed(partial(hash_shards, dataset, cache)) for cache in caches)


if __name__ == "__main__":
    main()
