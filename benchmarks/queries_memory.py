"""Peak memory of a worker that counts a dump, and of one that merges counts, by the dump's size.

    python benchmarks/queries_memory.py [--megabytes 100] [--data .data]

Dumps of 1, 4 and 16 times the size, real text repeated and perturbed (``wiki_corpus.py``), each one
bzip2 stream: so a single unit counts the whole of it, which is the hardest case. Then its counts
are merged, in as many buckets as ``wit queries build`` takes for a dump of that size. Every unit is
measured in a fresh process; of the merging ones the largest memory is told, and all seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import wiki_corpus
from wit_builder import exchange
from wit_builder.queries import build, count, merge
from wit_builder.queries.count import CountJob
from wit_builder.queries.merge import SumJob
from wit_builder.queries.streams import Part
from wit_builder.units import Done


def measured(function: Callable[[Any], Done], job: Any) -> tuple[Done, float, int]:
    """Return what a unit gave, its seconds, and its process's peak memory in MiB."""
    started = time.perf_counter()
    done = function(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return done, time.perf_counter() - started, peak


def alone(function: Callable[[Any], Done], job: Any) -> tuple[Done, float, int]:
    """Return what ``measured`` does, of a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, function, job).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    excerpt, words = options.data / "enwiki-excerpt.xml.bz2", options.data / "enwiki-words.parquet"
    print("XML MB  tokens M  count s  count MiB  rows M  distinct M  merge s  buckets  merge MiB")
    for times in (1, 4, 16):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "enwiki.xml.bz2")
            megabytes = times * options.megabytes
            made = wiki_corpus.write(place, excerpt, words, megabytes, 0, "plain")
            buckets = build.enough_buckets(made.file_bytes)
            job = CountJob(Part(str(place)), longest=2, buckets=buckets, out=f"{folder}/counts")
            counted, seconds, memory = alone(count.run_count, job)
            files = [o.url for o in counted.outputs if ".grams-" in o.url and o.url[-5:] == "arrow"]
            merged = [
                alone(merge.run_sum, SumJob(files, bucket, f"{folder}/{bucket}.parquet"))
                for bucket in range(buckets)
            ]
            rows = sum(exchange.gather(files, bucket).num_rows for bucket in range(buckets))
            distinct = sum(done.counts["grams"] for done, _, _ in merged)
            print(
                f"{made.xml_bytes / 1e6:6.0f}  {counted.counts['tokens'] / 1e6:8.1f}  "
                f"{seconds:7.1f}  {memory:9,}  {rows / 1e6:6.1f}  {distinct / 1e6:10.2f}  "
                f"{sum(took for _, took, _ in merged):7.1f}  {buckets:7}  "
                f"{max(peak for _, _, peak in merged):9,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
