"""How fast a dump is counted, beside decompressing it and doing nothing with it.

    python benchmarks/queries_count.py [--megabytes 400] [--data .data]

The dump is real text of Wikipedia, repeated and perturbed (``wiki_corpus.py``), as a multistream
bzip2 file. Alternating, several times: the file is decompressed by Python's ``bz2`` in one process;
then counted by one worker process, then by two: decompressed, parsed, stripped of markup, cut into
sentences, normalised, all words and bigrams counted, and the partial counts published.
"""

from __future__ import annotations

import argparse
import bz2
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import wiki_corpus
from wit_builder.queries import count, streams
from wit_builder.queries.count import CountJob
from wit_builder.runners import LocalPool
from wit_builder.units import Done


def decompress(place: str) -> int:
    """Return the size of the text."""
    size = 0
    with bz2.open(place) as stream:
        while piece := stream.read(1 << 20):
            size += len(piece)
    return size


def count_all(place: str, pool: LocalPool, folder: str) -> None:
    """Count all parts of a dump."""
    jobs = [
        CountJob(part, longest=2, buckets=16, out=f"{folder}/{number}")
        for number, part in enumerate(streams.parts(place))
    ]
    for _, done in pool.each(count.run_count, jobs):
        assert isinstance(done, Done), done


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "enwiki-multistream.xml.bz2")
        excerpt = options.data / "enwiki-excerpt.xml.bz2"
        words = options.data / "enwiki-words.parquet"
        wiki_corpus.write(place, excerpt, words, options.megabytes, 0, "multistream")
        pools = {workers: LocalPool(workers) for workers in (1, 2)}
        for workers, pool in pools.items():  # start the processes, and load what is compiled
            part = streams.Part(str(excerpt))
            small = [CountJob(part, 2, 1, f"{folder}/{number}") for number in range(workers)]
            list(pool.each(count.run_count, small))
        took: dict[str, list[float]] = {"bz2 alone": [], "1 worker": [], "2 workers": []}
        for _ in range(options.repeats):
            took["bz2 alone"].append(seconds(partial(decompress, str(place))))
            took["1 worker"].append(seconds(partial(count_all, str(place), pools[1], folder)))
            took["2 workers"].append(seconds(partial(count_all, str(place), pools[2], folder)))
        for pool in pools.values():
            pool.close()
        report(decompress(str(place)) / 1e6, place.stat().st_size / 1e6, took)


def report(megabytes: float, packed: float, took: dict[str, list[float]]) -> None:
    """Print speeds and ratios."""
    print(f"{megabytes:.0f} MB of XML, {packed:.0f} MB packed, medians of {len(took['bz2 alone'])}")
    best = {name: statistics.median(values) for name, values in took.items()}
    for name, median in best.items():
        print(f"{name:<10} {median:6.1f} s {megabytes / median:6.1f} MB/s of XML")
    print(f"1 worker beside bz2 alone: {best['bz2 alone'] / best['1 worker']:.2f}")
    print(f"2 workers beside 1: {best['1 worker'] / best['2 workers']:.2f}")


if __name__ == "__main__":
    main()
