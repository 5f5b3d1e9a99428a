"""All of packing, from fetched parts to a data set: GB/s, and each stage's peak memory, by size.

    python benchmarks/pack_whole.py [--gigabytes 0.5] [--times 1 4 16] [--coarse]

Parts are what fetching leaves: tars of JPEG (here noise), captions and metadata, with their tables;
nine of ten pairs are kept. Each size is packed in a process of its own, unit after unit, so that
memory is that of one worker; its high-water mark is set back between stages. Gigabytes are of the
shards' tars. Everything is on one local disk, which has to hold four times the data, or five.
``TMPDIR`` says which: a disk is often slower than the packing. ``--coarse`` has pairs go by two
exchanges, as beyond a million slices, to shards of a tenth of the usual size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from benchmarks.web_turns import versions
from wit_builder import exchange, storage
from wit_builder.pack import plan
from wit_builder.packing import Packing, Part
from wit_builder.progress import Silent
from wit_builder.runners import InProcess
from wit_builder.sections import PackSection
from wit_builder.shards import tar
from wit_builder.stages import Stages
from wit_builder.tables import IMAGES, KEPT
from wit_builder.units import Run

PICTURE_BYTES = 25_000
PART_PAIRS = 2_000
"""Pairs of a part: what one worker fetches in a minute, or less."""
BUCKETS = 16


class Work(NamedTuple):
    """How much is to be packed, where, and by which way."""

    folder: str
    parts: int
    coarse: bool


def images(part: int) -> pa.Table:
    """Return the table of a part (``tables.IMAGES``), all of it alive."""
    columns: dict[str, Any] = {field.name: [None] * PART_PAIRS for field in IMAGES}
    numbers = range(part * PART_PAIRS, (part + 1) * PART_PAIRS)
    columns |= {
        "uid": [xxhash.xxh3_128_digest(str(n).encode()) for n in numbers],
        "url": [f"https://pictures.example/{n % 977}/a-picture-{n}.jpg" for n in numbers],
        "page_url": [f"https://pages.example/{n % 977}/page-{n}.html" for n in numbers],
        "text": [f"a photograph of some thing or other, number {n}" for n in numbers],
        "text_from": ["alt"] * PART_PAIRS,
        "archive": ["here"] * PART_PAIRS,
        "key": [f"{part:05d}{n % PART_PAIRS:07d}" for n in numbers],
        "outcome": ["alive"] * PART_PAIRS,
        "sha256": [f"{n:064x}" for n in numbers],
    }
    for name in ("width", "height", "original_width", "original_height"):
        columns[name] = [256] * PART_PAIRS
    for name in ("query_ids", "drawn_by"):
        columns[name] = [[n % 50, 50 + n % 50] for n in numbers]
    columns["opt_outs"] = [[]] * PART_PAIRS
    return pa.table([pa.array(columns[f.name], f.type) for f in IMAGES], schema=IMAGES)


def write_part(stem: str, part: int) -> tuple[Part, pa.Table]:
    """Write a part's two files; return it, and its pairs to keep."""
    table, rng = images(part), np.random.default_rng(part)
    storage.write_parquet(stem + ".parquet", table)
    with storage.publish(stem + ".tar") as path, path.open("wb") as sink:
        for key, text in zip(table["key"].to_pylist(), table["text"].to_pylist(), strict=True):
            picture = rng.bytes(int(rng.integers(PICTURE_BYTES // 2, PICTURE_BYTES * 3 // 2)))
            for kind, body in (("jpg", picture), ("txt", text.encode()), ("json", b"{}" * 300)):
                sink.write(tar.header(f"{key}.{kind}", len(body)) + body)
                sink.write(bytes(tar.padded(len(body)) - len(body)))
        sink.write(tar.TRAILER)
    size = storage.size_of(stem + ".tar")
    kept = table.select(["uid", "url", "query_ids", "drawn_by"]).slice(0, PART_PAIRS * 9 // 10)
    return Part(f"{part:05d}", f"{part}", stem + ".parquet", stem + ".tar", size), kept


def packing(work: Work, run: Run) -> Packing:
    """Write what fetching and balancing would have, and return what packs it."""
    stages = Stages(run, "g0")
    made = [write_part(stages.place("images", f"{n:05d}"), n) for n in range(work.parts)]
    kept = pa.concat_tables(table for _, table in made).rename_columns(
        ["uid", "url", "query_ids", "kept_by"]
    )
    bucket = exchange.bucket_of(kept["url"], BUCKETS)
    tables = []
    for number in range(BUCKETS):
        rows = kept.filter(pa.array(bucket == number)).select(KEPT.names).cast(KEPT)
        url = stages.place("kept", f"{number:05d}.parquet")
        storage.write_parquet(url, rows)
        tables.append((url, str(number)))
    queries = storage.join(run.root, "queries.parquet")
    storage.write_parquet(queries, pa.table({"query": [f"query {n}" for n in range(100)]}))
    return Packing(
        stages=stages,
        queries=queries,
        kept=tables,
        samples=kept.num_rows,
        inputs=[],
        parts=[part for part, _ in made],
        section=PackSection(samples_per_shard=1_000 if work.coarse else 10_000),
        seed=0,
        first=0,
        lineage="benchmark",
    )


class Watch(Silent):
    """Notes wall and processor seconds, and the high-water mark, of every stage."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float, int]] = {}
        self._started = (0.0, 0.0)

    def begin(self, stage: str, shown: str, units: int, done: int) -> None:
        """Set the mark back."""
        del stage, shown, units, done
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is there now
        self._started = (time.perf_counter(), time.process_time())

    def end(self, stage: str, counts: Mapping[str, int]) -> None:
        """Look how high it is."""
        del counts
        wall, busy = self._started
        took = (time.perf_counter() - wall, time.process_time() - busy)
        self.found[stage] = (*took, high_water_mib())


def high_water_mib() -> int:
    """Return the most memory that this process has held since the mark was set back."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def worker(work: Work, found: Any) -> None:
    """Pack, and tell how it went."""
    if work.coarse:
        plan.MAX_SLICES = 1
    watch = Watch()
    run = Run(work.folder, InProcess(), watch)
    pack = packing(work, run)
    started = time.perf_counter()
    pack()
    wall_s = time.perf_counter() - started
    shards = storage.join(work.folder, "g0", "shards")
    size = sum(n for name, n in storage.sizes(shards).items() if name.endswith(".tar"))
    found.put((size, wall_s, watch.found))


@contextmanager
def packed(parts: int, *, coarse: bool) -> Iterator[tuple[int, float, dict[str, Any]]]:
    """Give what a fresh process found out about packing so many parts."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        found = context.Queue()
        process = context.Process(target=worker, args=(Work(folder, parts, coarse), found))
        process.start()
        yield found.get(timeout=3600)
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--coarse", action="store_true")
    options = parser.parse_args()
    print(versions("pyarrow", "xxhash"))
    part_bytes = PART_PAIRS * PICTURE_BYTES
    for times in options.times:
        parts = max(1, round(options.gigabytes * times * 1e9 / part_bytes))
        with packed(parts, coarse=options.coarse) as (size, wall_s, stages):
            print(
                f"{size / 1e9:.2f} GB of shards in {wall_s:.1f} s: {size / wall_s / 1e9:.3f} GB/s"
            )
            for stage, (wall, busy, memory) in stages.items():
                print(f"  {stage:14}{wall:8.1f} s {busy:8.1f} CPU-s {memory:6} MiB at most")


if __name__ == "__main__":
    main()
