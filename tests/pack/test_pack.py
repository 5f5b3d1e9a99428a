"""From fetched parts to a data set, through the exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import xxhash

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.pack import scatter, shard
from wit_builder.pack.plan import places, plan
from wit_builder.shards import tar
from wit_builder.shards.read import Dataset, Sample
from wit_builder.shards.verify import verify
from wit_builder.tables import IMAGES, KEPT

_QUERIES = ["dog", "cat", "red dog"]
_SEED = 7


def _row(number: int, *, alive: bool = True) -> dict[str, Any]:
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


def _jpg(number: int) -> bytes:
    return b"\xff\xd8" + bytes([number]) * (1000 + number)


def _part(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.tar").open("wb") as sink:
        for key in sorted(row["key"] for row in rows if row["key"]):
            jpg = _jpg(int(key))
            padding = bytes(tar.padded(len(jpg)) - len(jpg))
            sink.write(tar.header(f"{key}.jpg", len(jpg)) + jpg + padding)
        sink.write(tar.TRAILER)
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    storage.write_parquet(str(folder / f"{name}.parquet"), table)


def _kept(rows: list[dict[str, Any]]) -> pa.Table:
    """Return which pairs are kept, and by which queries: not always all that drew them."""
    kept = [{"uid": r["uid"], "kept_by": [2] if i % 3 else [0, 2]} for i, r in enumerate(rows)]
    return pa.Table.from_pylist(kept, KEPT.empty_table().select(["uid", "kept_by"]).schema)


def _pack(folder: Path, parts: list[list[dict[str, Any]]], kept: pa.Table) -> str:
    """Do by hand what the pipeline does: plan, map, reduce, finish."""
    storage.write_parquet(str(folder / "kept.parquet"), kept)
    storage.write_parquet(str(folder / "queries.parquet"), pa.table({"query": _QUERIES}))
    made, sources, out = plan([kept["uid"]], len(kept), _SEED, 8), [], str(folder / "shards")
    for number, rows in enumerate(parts):
        _part(folder, str(number), rows)
        place = [str(folder / f"{number}.{kind}") for kind in ("tar", "parquet", "arrow")]
        job = scatter.MapJob(
            place[0], place[1], [str(folder / "kept.parquet")], made.shards, _SEED, place[2]
        )
        scatter.run(job)
        sources.append(place[2])
    for s, (first, samples) in enumerate(zip(made.first_keys, made.samples, strict=True)):
        queries = str(folder / "queries.parquet")
        shard.run(shard.ShardJob(sources, s, first, samples, queries, out, 4096))
    shard.finish(shard.FinishJob(out, made.shards, "g0", "recipe", 4096))
    return out


def _samples(url: str) -> list[Sample]:
    data = Dataset.open(url)
    return [s for number in range(data.info.shards) for s in data.samples(number)]


def test_kept_pairs_arrive_in_the_order_of_their_places(tmp_path: Path) -> None:
    """Every kept pair stands once, in the order of its place, with dense keys and its own bytes."""
    rows = [_row(i) for i in range(30)]
    kept = _kept(rows)
    url = _pack(tmp_path, [rows[:11], rows[11:]], kept)
    samples = _samples(url)
    order = places(kept["uid"], _SEED).argsort().tolist()
    assert [s.key for s in samples] == [f"{i:09d}" for i in range(30)]
    for sample, number in zip(samples, order, strict=True):
        row = rows[number]
        assert sample.members["jpg"] == _jpg(number)
        assert sample.members["txt"].decode() == row["text"]
        told = msgspec.json.decode(sample.members["json"])
        assert told["queries"] == (["red dog"] if number % 3 else ["dog", "red dog"])
        for name in (
            "url",
            "page_url",
            "text_from",
            "width",
            "original_height",
            "sha256",
            "license",
        ):
            assert told[name] == row[name]
        assert (told["uid"], told["caption"]) == (row["uid"].hex(), row["text"])
    assert verify(url).ok


def test_dead_and_spare_pairs_are_left_out(tmp_path: Path) -> None:
    """Pairs that are dead, or alive but not kept, do not reach a shard."""
    rows = [_row(i, alive=i != 3) for i in range(12)]
    kept = _kept([r for r in rows if r["uid"] not in {rows[3]["uid"], rows[5]["uid"]}])
    urls = {
        msgspec.json.decode(s.members["json"])["url"]
        for s in _samples(_pack(tmp_path, [rows], kept))
    }
    assert urls == {r["url"] for i, r in enumerate(rows) if i not in {3, 5}}


def test_how_pairs_were_fetched_does_not_change_the_bytes(tmp_path: Path) -> None:
    """Other parts, in another order, give byte-identical files."""
    rows = [_row(i) for i in range(25)]
    kept = _kept(rows)
    one = Path(_pack(tmp_path / "a", [rows], kept))
    three = Path(_pack(tmp_path / "b", [rows[20:], rows[7:20][::-1], rows[:7]], kept))
    names = sorted(p.name for p in one.iterdir())
    assert names == sorted(p.name for p in three.iterdir())
    assert all((one / n).read_bytes() == (three / n).read_bytes() for n in names)


def test_a_picture_missing_from_its_part_is_named(tmp_path: Path) -> None:
    """A part whose tar lacks a picture of its table is refused, naming picture and tar."""
    rows = [_row(i) for i in range(4)]
    _part(tmp_path, "0", rows[:3])
    storage.write_parquet(str(tmp_path / "0.parquet"), pa.Table.from_pylist(rows, schema=IMAGES))
    storage.write_parquet(str(tmp_path / "kept.parquet"), _kept(rows))
    place = [str(tmp_path / n) for n in ("0.tar", "0.parquet", "kept.parquet", "0.arrow")]
    with pytest.raises(ShardFormatError, match=r"000000003\.jpg.*0\.tar"):
        scatter.run(scatter.MapJob(place[0], place[1], [place[2]], 1, _SEED, place[3]))


def test_a_pair_in_two_parts_is_refused(tmp_path: Path) -> None:
    """A kept pair that was fetched twice does not end up in a shard twice."""
    rows = [_row(i) for i in range(4)]
    with pytest.raises(ShardFormatError, match=r"5 pairs \(4 different ones\)"):
        _pack(tmp_path, [rows, rows[:1]], _kept(rows))


def test_a_missing_part_is_noticed(tmp_path: Path) -> None:
    """A kept pair that no part brings stops the shard instead of leaving a hole in the keys."""
    rows = [_row(i) for i in range(4)]
    with pytest.raises(ShardFormatError, match="arrived, 4 were planned"):
        _pack(tmp_path, [rows[:3]], _kept(rows))
