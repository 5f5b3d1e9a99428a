"""Peak memory of a worker by the size of its archive: WAT, WARC, and matching what they gave.

    python benchmarks/crawl_memory.py [--megabytes 100] [--data .data]

Archives of real pages (``web_corpus.py``) of 1, 4 and 16 times the size, unpacked. Every unit is
measured in a fresh process: candidates of a WAT, of a WARC, and the candidates of each matched with
the 339,000 queries of ``queries/recipes/packaged.toml``, whose table is in memory as well. The
floor is a process that has only imported what it needs.
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
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import web_corpus
from benchmarks.match import built_queries
from wit_builder.crawl import archives, wat
from wit_builder.crawl.archives import ArchiveJob
from wit_builder.crawl.candidates import Output
from wit_builder.crawl.wat import WatJob
from wit_builder.curate import matching
from wit_builder.curate.matching import MatchJob
from wit_builder.sections import CrawlSection, MatchSection
from wit_builder.units import Done


class Measured(NamedTuple):
    """What a unit counted, its seconds, and its process's peak memory in MiB."""

    counts: dict[str, int]
    seconds: float
    peak: int


def measured(function: Callable[[Any], Done], job: Any) -> Measured:
    """Do a unit and measure it."""
    started = time.perf_counter()
    done = function(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return Measured(done.counts, time.perf_counter() - started, peak)


def alone(function: Callable[[Any], Done], job: Any) -> Measured:
    """Do a unit in a fresh process and measure it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, function, job).result()


def nothing(_: object) -> Done:
    """Do nothing."""
    return Done([])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--queries", type=Path, help="parquet with a column query; default: build")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        queries = options.queries or Path(folder, "queries.parquet")
        if not options.queries:
            pq.write_table(pa.table({"query": built_queries(options.data)}), queries)
        print(f"floor: {alone(nothing, None).peak} MiB")
        print("kind  raw MB  pages  candidates  extract s  MiB  match s  MiB")
        for times in (1, 4, 16):
            for kind in ("wat", "warc"):
                measure(folder, kind, times * options.megabytes, options.data, queries)


def measure(folder: str, kind: str, megabytes: int, data: Path, queries: Path) -> None:
    """Print what it takes to extract and to match an archive."""
    place = Path(folder, f"corpus.{kind}.gz")
    made = web_corpus.write(place, data, megabytes, "wat" if kind == "wat" else "warc")
    output = Output.of(folder, kind)
    if kind == "wat":
        extracted = alone(wat.run, WatJob(str(place), output))
    else:
        limit = CrawlSection().max_html_bytes
        extracted = alone(archives.run, ArchiveJob(str(place), limit, output))
    match = MatchJob(
        candidates=output.candidates,
        queries=str(queries),
        queries_identity="",
        section=MatchSection(),
        buckets=16,
        matched=f"{folder}/{kind}-matched.arrow",
        uses=f"{folder}/{kind}-uses.arrow",
        rejections=f"{folder}/{kind}-rejected.parquet",
    )
    matched = alone(matching.run, match)
    print(
        f"{kind:4} {made.raw_bytes / 1e6:7.0f} {made.pages:6,} "
        f"{extracted.counts['candidates']:11,} {extracted.seconds:10.1f} {extracted.peak:4} "
        f"{matched.seconds:8.1f} {matched.peak:4}",
        flush=True,
    )
    place.unlink()


if __name__ == "__main__":
    main()
