"""Fetched parts, packed by hand: what the pipeline does, job by job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from wit_builder import storage
from wit_builder.pack import scatter, shard, wanted
from wit_builder.pack.plan import Ways, plan
from wit_builder.shards import tar
from wit_builder.tables import IMAGES, KEPT

QUERIES = ["dog", "cat", "red dog"]
SEED = 7


def row_of(number: int, *, alive: bool = True) -> dict[str, Any]:
    row: dict[str, Any] = {field.name: None for field in IMAGES}
    return row | {
        "uid": xxhash.xxh3_128_digest(str(number).encode()),
        "url": f"http://a.example/{number}.png",
        "page_url": "http://a.example/" if number % 2 else None,
        "text": f"a red dog, number {number} \u2603",
        "text_from": "alt",
        "archive": "here",
        "query_ids": [0, 2],
        "drawn_by": [0, 2],
        "key": f"{number:09d}" if alive else "",
        "outcome": "alive" if alive else "dead",
        "width": 8,
        "height": 9,
        "original_width": 80,
        "original_height": 90,
        "sha256": f"{number:064x}",
        "opt_outs": [],
    }


def jpg(number: int) -> bytes:
    return b"\xff\xd8" + bytes([number]) * (1000 + number)


def write_part(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.tar").open("wb") as sink:
        for key in sorted(row["key"] for row in rows if row["key"]):
            body = jpg(int(key))
            padding = bytes(tar.padded(len(body)) - len(body))
            sink.write(tar.header(f"{key}.jpg", len(body)) + body + padding)
        sink.write(tar.TRAILER)
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    storage.write_parquet(str(folder / f"{name}.parquet"), table)


def kept_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Return which pairs are kept, and by which queries: not always all that drew them."""
    kept = [{"uid": r["uid"], "kept_by": [2] if i % 3 else [0, 2]} for i, r in enumerate(rows)]
    return pa.Table.from_pylist(kept, KEPT.empty_table().select(["uid", "kept_by"]).schema)


def pack(
    folder: Path,
    parts: list[list[dict[str, Any]]],
    kept: pa.Table,
    *,
    together: bool = False,
    samples_per_shard: int = 8,
) -> str:
    """Do by hand what the pipeline does: plan, find, map, reduce, finish.

    A map unit has one part, or all of them together.
    """
    made, out = plan([kept["uid"]], len(kept), SEED, samples_per_shard), str(folder / "shards")
    for number, rows in enumerate(parts):
        write_part(folder, str(number), rows)
    units = [[*range(len(parts))]] if together else [[number] for number in range(len(parts))]
    sources = map_units(folder, units, kept, Ways(made.shards))
    storage.write_parquet(str(folder / "queries.parquet"), pa.table({"query": QUERIES}))
    for s, (first, samples) in enumerate(zip(made.first_keys, made.samples, strict=True)):
        job = shard.ShardJob(
            sources=sources,
            bucket=s,
            shard=s,
            first_key=first,
            samples=samples,
            queries_url=str(folder / "queries.parquet"),
            folder=out,
            max_block_bytes=4096,
        )
        shard.run(job)
    shard.finish(shard.FinishJob(out, made.shards, "g0", "recipe", 4096))
    return out


def map_units(folder: Path, units: list[list[int]], kept: pa.Table, ways: Ways) -> list[str]:
    """Return the exchange files of map units, each of some parts in the folder."""
    storage.write_parquet(str(folder / "kept.parquet"), kept)
    located, sources, wanting = [], [], str(folder / "wanted.arrow")
    for unit, parts in enumerate(units):
        located.append(str(folder / f"located-{unit}.arrow"))
        tables = [str(folder / f"{number}.parquet") for number in parts]
        wanted.run_locate(wanted.LocateJob(tables, unit, 1, located[-1]))
    kept_at = str(folder / "kept.parquet")
    wanted.run_want(wanted.WantJob(located, 0, kept_at, len(units), wanting))
    for unit, parts in enumerate(units):
        files = [
            scatter.PartFiles(*(str(folder / f"{number}.{kind}") for kind in ("parquet", "tar")))
            for number in parts
        ]
        sources.append(str(folder / f"{unit}.arrow"))
        scatter.run(scatter.MapJob(files, [wanting], unit, ways, SEED, sources[-1]))
    return sources
