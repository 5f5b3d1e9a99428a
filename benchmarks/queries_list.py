"""A list of 500,000 queries from ready counts of 100 million distinct bigrams: seconds and memory.

    python benchmarks/queries_list.py [--bigrams 100_000_000] [--data .data]

The counts are laid out as a build of a whole Wikipedia leaves them: merged tables, one for each
hash bucket. Words are those of the English Wikipedia with their real counts, and invented rare
ones: the list begins at 20 occurrences, and its tail implies 5.7 million words below. Bigrams pair
words drawn by their counts; how often a bigram occurs is drawn from a power law. So the figures
have the shape of real ones, and the pairs no meaning. What is timed is the last unit of
``wit queries build``, in a process of its own: with the floor of ``wit.toml``, and without any, as
MetaCLIP has it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.queries import build, merge
from wit_builder.queries.build import BuildJob
from wit_builder.queries.grams import GRAMS
from wit_builder.queries.sources import Counted
from wit_builder.sections import QueriesSection, WikipediaSource, WordNetSource

BUCKETS = 64
RARE_WORDS = 5_700_000
"""Words that occur fewer than 20 times (see ``wiki_corpus.RARE``)."""


class Table(NamedTuple):
    """One bucket to make."""

    words: str
    bucket: int
    bigrams: int
    out: str


def vocabulary(words: Path) -> pa.Table:
    """Return all words, real and invented, with their counts."""
    real = pq.read_table(words)
    real = real.filter(pc.match_substring_regex(real["gram"], r"^[\p{L}\p{M}\p{Nd}]+$"))
    rng = np.random.default_rng(0)
    counts = np.minimum(19, rng.pareto(0.687, RARE_WORDS) + 1).astype(np.int64)
    names = pc.binary_join_element_wise(
        "rare", pa.array(np.arange(RARE_WORDS)).cast(pa.string()), ""
    )
    columns = [
        pa.chunked_array([*real["gram"].chunks, names]),
        pa.chunked_array([*real["count"].chunks, counts]),
    ]
    return pa.table(columns, ["gram", "count"])


def make(table: Table) -> int:
    """Publish one bucket, rows in the order of merged tables; return how many bigrams it has."""
    words = pq.read_table(table.words)
    counts = words["count"].to_numpy()
    mine = np.arange(table.bucket, len(words), BUCKETS)  # so that no pair is in two buckets
    rng = np.random.default_rng(table.bucket + 1)
    pairs = np.empty(0, np.int64)
    while pairs.size < table.bigrams:
        first = mine[_drawn(counts[mine], table.bigrams, rng)]
        second = _drawn(counts, table.bigrams, rng)
        pairs = np.union1d(pairs, first * len(words) + second)
    pairs = rng.permutation(pairs)[: table.bigrams]
    first, second = np.divmod(pairs, len(words))
    least = np.minimum(counts[first], counts[second])
    together = np.minimum(rng.pareto(0.8, pairs.size) + 1, least).astype(np.int64)
    gram = words["gram"].combine_chunks()
    joined = pc.binary_join_element_wise(gram.take(first), gram.take(second), " ")
    singles = words.take(pa.array(mine))
    rows = pa.concat_tables(
        [_grams(singles["gram"], 1, singles["count"]), _grams(joined, 2, pa.array(together))]
    )
    order = [("n", "ascending"), ("count", "descending"), ("gram", "ascending")]
    storage.write_parquet(table.out, rows.sort_by(order), merge.GROUP_ROWS)
    return len(joined)


def _drawn(weights: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return indices drawn in proportion to the weights."""
    ends = np.cumsum(weights)
    return np.searchsorted(ends, rng.integers(0, ends[-1], size), side="right")


def _grams(gram: pa.Array, n: int, count: pa.Array) -> pa.Table:
    return pa.table([gram, pa.array(np.full(len(gram), n, np.int8)), count], schema=GRAMS)


def timed(job: BuildJob) -> tuple[float, int, dict[str, int]]:
    """Return seconds, peak memory in MiB, and the queries of each source."""
    started = time.perf_counter()
    done = build.run_build(job)
    took = time.perf_counter() - started
    return took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, done.counts


def alone(job: BuildJob) -> tuple[float, int, dict[str, int]]:
    """Return what ``timed`` does, of a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(timed, job).result()


def jobs(folder: Path, grams: list[str], tokens: int, data: Path) -> Iterator[tuple[str, BuildJob]]:
    """Yield the lists to make."""
    wikipedia = WikipediaSource(bigram_min_count=100, bigram_budget=200_000, titles=False)
    wordnet = WordNetSource(path=str((data / "wordnet").resolve()))
    section = QueriesSection(wordnet=wordnet, wikipedia=wikipedia)
    unlimited = replace(wikipedia, bigram_min_count=1)
    counted = Counted(grams=grams, tokens=tokens)
    for name, source in (("floor of 100", wikipedia), ("no floor", unlimited)):
        out = str(folder / name.replace(" ", "-"))
        yield name, BuildJob(replace(section, wikipedia=source), counted, {}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--bigrams", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="keep the counts there for another time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        words = folder / "words.parquet"
        outs = [str(folder / f"{bucket:05d}.parquet") for bucket in range(BUCKETS)]
        if not Path(outs[-1]).exists():
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(vocabulary(options.data / "enwiki-words.parquet"), words)
            tables = [
                Table(str(words), bucket, options.bigrams // BUCKETS, out)
                for bucket, out in enumerate(outs)
            ]
            with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
                print(f"{sum(pool.map(make, tables)):,} distinct bigrams made")
        tokens = int(pc.sum(pq.read_table(words)["count"]).as_py())
        size = sum(Path(out).stat().st_size for out in outs)
        print(f"counts of {tokens:,} tokens, {size / 1e9:.1f} GB of parquet")
        for name, job in jobs(folder, outs, tokens, options.data):
            seconds, memory, counts = alone(job)
            made = sum(counts.values())
            print(f"{name:<13} {seconds:6.1f} s, peak {memory:,} MiB, {made:,} queries")


if __name__ == "__main__":
    main()
