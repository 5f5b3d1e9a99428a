"""A shard from its exchange files to its tar and tables, beside bare ``tarfile`` writing that tar.

    python benchmarks/pack_reduce.py [--samples 10000] [--turns 5]

The peer gets its members' names and bytes in memory, in order, and writes them with ``tarfile`` (no
digests, no tables, no sync). We read the pairs from exchange files, put them in order, encode their
metadata, take xxh3 of every member, every block and the whole, SHA-256 of the whole, write and sync
the tar, and write its samples table: all that a unit does. Both write to the same disk; what they
write is removed at once. First each is held to one core, then both have all.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from benchmarks.web_turns import versions
from wit_builder import exchange, storage
from wit_builder.pack import plan, scatter, shard
from wit_builder.shards import tar

SEED = 0
PARTS = 8
"""Exchange files that the pairs come in."""


def pairs(first: int, count: int, picture_bytes: int) -> pa.Table:
    """Return pairs as a map unit sends them, with noise for pictures."""
    rng = np.random.default_rng(first)
    sizes = rng.integers(picture_bytes // 2, picture_bytes * 3 // 2, count).tolist()
    numbers = range(first, first + count)
    uids = [xxhash.xxh3_128_digest(str(n).encode()) for n in numbers]
    columns = {
        "uid": pa.array(uids, pa.binary(16)),
        "url": [f"https://pictures.example/{n % 977}/a-picture-{n}.jpg" for n in numbers],
        "page_url": [f"https://pages.example/{n % 977}/page-{n}.html" for n in numbers],
        "text": [f"a photograph of some thing or other, number {n}" for n in numbers],
        "text_from": ["alt"] * count,
        "license": [None] * count,
        "width": [256] * count,
        "height": [256] * count,
        "original_width": [1024] * count,
        "original_height": [1024] * count,
        "sha256": [f"{n:064x}" for n in numbers],
        "kept_by": [[n % 50, 50 + n % 50] for n in numbers],
        "place": plan.places(pa.array(uids, pa.binary(16)), SEED),
        "jpg": pa.array([b"\xff\xd8" + rng.bytes(size) for size in sizes], pa.large_binary()),
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in scatter.SENT], schema=scatter.SENT)


def prepared(folder: Path, samples: int, picture_bytes: int) -> shard.ShardJob:
    """Write exchange files and a query list; return the job of their one shard."""
    sources = []
    for part in range(PARTS):
        table = pairs(part * samples, samples // PARTS, picture_bytes)
        sources.append(str(folder / f"{part}.arrow"))
        nothing = np.zeros(table.num_rows, np.int64)
        exchange.scatter(table, nothing, 1, sources[-1], kind=exchange.PICTURES)
    queries = str(folder / "queries.parquet")
    storage.write_parquet(queries, pa.table({"query": [f"query {n}" for n in range(100)]}))
    return shard.ShardJob(
        sources=sources,
        bucket=0,
        shard=0,
        first_key=0,
        samples=samples // PARTS * PARTS,
        queries_url=queries,
        folder=str(folder / "shards"),
        max_block_bytes=4 << 20,
    )


def members(path: Path) -> list[tuple[str, bytes]]:
    """Return the members of a shard."""
    with path.open("rb") as stream:
        return [(m.name, (stream.seek(m.offset), stream.read(m.size))[1]) for m in tar.walk(stream)]


def bare(path: Path, content: list[tuple[str, bytes]]) -> None:
    """Write a tar as anybody would."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as sink:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            sink.addfile(info, io.BytesIO(data))


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of some work."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - busy


def compared(job: shard.ShardJob, content: list[tuple[str, bytes]], turns: int) -> None:
    """Do both in turns, and print medians and the ratio."""
    made, path = Path(job.place), Path(job.folder) / "bare.tar"
    size = sum(tar.BLOCK + tar.padded(len(data)) for _, data in content)
    ours, theirs = [], []
    for _ in range(turns):
        theirs.append(seconds(lambda: bare(path, content)))
        path.unlink()
        ours.append(seconds(lambda: shard.run(job)))
        made.unlink()
    for name, found in (("bare tarfile", theirs), ("wit", ours)):
        wall, busy = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"  {name:13}{wall:7.2f} s  {size / wall / 1e9:5.2f} GB/s  {busy:6.2f} CPU-s")
    ratio = statistics.median(t[0] / o[0] for t, o in zip(theirs, ours, strict=True))
    print(f"  ratio of speeds, wit to bare tarfile: {ratio:.2f} (median of {turns} turns)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--picture-bytes", type=int, default=25_000)
    options = parser.parse_args()
    print(versions("pyarrow", "xxhash"))
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        job = prepared(Path(folder), options.samples, options.picture_bytes)
        shard.run(job)
        content = members(Path(job.place))
        print(f"{len(content) // 3:,} samples of {options.picture_bytes:,} bytes and their texts")
        for name, some in (("one core", {min(cores)}), (f"{len(cores)} cores", cores)):
            os.sched_setaffinity(0, some)
            print(name)
            compared(job, content, options.turns)


if __name__ == "__main__":
    main()
