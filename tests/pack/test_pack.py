"""From fetched parts to a data set, through the exchange."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pack.by_hand import SEED, jpg, kept_of, map_units, pack, row_of, write_part
from wit_builder import exchange, storage
from wit_builder.errors import ShardFormatError
from wit_builder.pack import scatter
from wit_builder.pack.plan import Ways, places, shard_of
from wit_builder.shards.read import Dataset, Sample
from wit_builder.shards.verify import verify
from wit_builder.tables import IMAGES


def _samples(url: str) -> list[Sample]:
    data = Dataset.open(url)
    return [s for number in range(data.info.shards) for s in data.samples(number)]


def test_kept_pairs_arrive_in_the_order_of_their_places(tmp_path: Path) -> None:
    """Every kept pair stands once, in the order of its place, with dense keys and its own bytes."""
    rows = [row_of(i) for i in range(30)]
    kept = kept_of(rows)
    url = pack(tmp_path, [rows[:11], rows[11:]], kept)
    samples = _samples(url)
    order = places(kept["uid"], SEED).argsort().tolist()
    assert [s.key for s in samples] == [f"{i:09d}" for i in range(30)]
    for sample, number in zip(samples, order, strict=True):
        row = rows[number]
        assert sample.members["jpg"] == jpg(number)
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
    rows = [row_of(i, alive=i != 3) for i in range(12)]
    kept = kept_of([r for r in rows if r["uid"] not in {rows[3]["uid"], rows[5]["uid"]}])
    urls = {
        msgspec.json.decode(s.members["json"])["url"]
        for s in _samples(pack(tmp_path, [rows], kept))
    }
    assert urls == {r["url"] for i, r in enumerate(rows) if i not in {3, 5}}


def test_how_pairs_were_fetched_does_not_change_the_bytes(tmp_path: Path) -> None:
    """Other parts, in another order, give byte-identical files."""
    rows = [row_of(i) for i in range(25)]
    kept = kept_of(rows)
    one = Path(pack(tmp_path / "a", [rows], kept))
    parts = [rows[20:], rows[7:20][::-1], rows[:7]]
    assert _bytes(one) == _bytes(Path(pack(tmp_path / "b", parts, kept)))
    assert _bytes(one) == _bytes(Path(pack(tmp_path / "c", parts, kept, together=True)))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_how_many_pictures_are_read_at_once_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures passed on one by one, and spilled one by one, make the same exchange file."""
    rows = [row_of(i) for i in range(25)]
    write_part(tmp_path, "0", rows)
    [whole] = [Path(url) for url in map_units(tmp_path, [[0]], kept_of(rows), Ways(4))]
    before = whole.read_bytes()
    monkeypatch.setattr(scatter, "_BATCH_BYTES", 0)
    spilling = partial(exchange.scattering, held_bytes=0)
    monkeypatch.setattr(exchange, "scattering", spilling)
    map_units(tmp_path, [[0]], kept_of(rows), Ways(4))
    assert whole.read_bytes() == before


@given(st.integers(1, 400), st.integers(1, 40))
def test_two_ways_lead_to_the_shard_of_one(shards: int, span: int) -> None:
    """A coarse bucket and the place in it are the shard, and no bucket is beyond the last."""
    ways = Ways(shards, span)
    place = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64, endpoint=False)
    assert (ways.first(place) * span + ways.second(place) == shard_of(place, shards)).all()
    assert ways.first(place).max() < ways.buckets


@pytest.mark.parametrize(("units", "shards"), [(4000, 40_000), (1, 4), (7, 1)])
def test_slices_beyond_a_limit_are_avoided(
    units: int, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many slices make two ways, each of about the square root of the shards."""
    monkeypatch.setattr("wit_builder.pack.plan.MAX_SLICES", units * shards)
    assert Ways.of(units, shards).is_one
    monkeypatch.setattr("wit_builder.pack.plan.MAX_SLICES", units * shards - 1)
    assert Ways.of(units, shards) == Ways(shards, math.isqrt(shards))


def test_coarse_buckets_hold_the_pairs_of_their_shards(tmp_path: Path) -> None:
    """What is sent on from a coarse bucket arrives as it does by one exchange."""
    rows = [row_of(i) for i in range(40)]
    for number in range(2):
        write_part(tmp_path, str(number), rows[number::2])
    direct = map_units(tmp_path, [[0], [1]], kept_of(rows), Ways(7))
    shards = [exchange.gather(direct, number) for number in range(7)]
    ways = Ways(7, 3)
    coarse = map_units(tmp_path, [[0], [1]], kept_of(rows), ways)
    for bucket in range(ways.buckets):
        out = str(tmp_path / f"refined-{bucket}.arrow")
        scatter.run_refine(scatter.RefineJob(coarse, bucket, ways, out))
        for number, wanted_rows in enumerate(shards[bucket * 3 : bucket * 3 + 3]):
            assert exchange.gather([out], number).equals(wanted_rows)


def test_a_picture_missing_from_its_part_is_named(tmp_path: Path) -> None:
    """A part whose tar lacks a picture of its table is refused, naming picture and tar."""
    rows = [row_of(i) for i in range(4)]
    write_part(tmp_path, "0", rows[:3])
    storage.write_parquet(str(tmp_path / "0.parquet"), pa.Table.from_pylist(rows, schema=IMAGES))
    with pytest.raises(ShardFormatError, match=r"000000003\.jpg.*0\.tar"):
        map_units(tmp_path, [[0]], kept_of(rows), Ways(1))


def test_a_pair_in_two_parts_is_refused(tmp_path: Path) -> None:
    """A kept pair that was fetched twice, by one unit or two, is in no shard twice."""
    rows = [row_of(i) for i in range(4)]
    for together in (True, False):
        with pytest.raises(ShardFormatError, match=r"5 pairs \(4 different ones\)"):
            pack(tmp_path, [rows, rows[:1]], kept_of(rows), together=together)


def test_a_missing_part_is_noticed(tmp_path: Path) -> None:
    """A kept pair that no part brings stops the shard instead of leaving a hole in the keys."""
    rows = [row_of(i) for i in range(4)]
    with pytest.raises(ShardFormatError, match="arrived, 4 were planned"):
        pack(tmp_path, [rows[:3]], kept_of(rows))
