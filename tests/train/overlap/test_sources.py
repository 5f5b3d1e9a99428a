"""Where the hashes of training pictures come from."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import pyarrow as pa
import pytest

from benchmarks.overlap_recall import encoded, write
from tests.train.overlap.drawn import picture
from wit_builder import storage
from wit_builder.progress import Silent
from wit_builder.runners import InProcess
from wit_builder.shards.index import Asked, index, members
from wit_builder.shards.read import Dataset
from wit_train.decode import pixels
from wit_train.overlap.hashed import Hashing, State
from wit_train.overlap.sources import Cached, Tables, training
from wit_train.overlap.variants import hash_of

COUNT = 6


@pytest.fixture
def bodies() -> list[bytes]:
    """Pictures, of which one has one brightness and one does not decode."""
    sound = [encoded(picture(i), 90) for i in range(COUNT)]
    return [*sound, encoded(picture(0) * 0, 90)]


@pytest.fixture
def run(tmp_path: Path, bodies: list[bytes]) -> str:
    """A run's shards, and the tables of its pictures, one of which was not packed."""
    shards = str(tmp_path / "g0" / "shards")
    write(shards, [(str(i), body) for i, body in enumerate(bodies)])
    uids = storage.read_parquet(storage.join(shards, "000000.parquet"), ["uid"])["uid"].to_pylist()
    hashes = [_phash(body) for body in bodies]
    rows = {
        "uid": pa.array([*uids, b"?" * 16, uids[0]], pa.binary(16)),
        "phash": pa.array([*hashes, hashes[0], None]),
        "outcome": pa.array(["alive"] * (len(bodies) + 1) + ["deferred"]),
    }
    storage.write_parquet(str(tmp_path / "g0/images/r0/00000-00000.parquet"), pa.table(rows))
    return shards


def _phash(body: bytes) -> str | None:
    decoded = pixels(body)
    assert decoded is not None
    found = hash_of(decoded)
    return None if found is None else f"{found:016x}"


def test_a_run_s_tables_have_what_hashing_would_give(run: str, tmp_path: Path):
    """Both ways give the same hashes and the same places of the pictures that are in shards."""
    tables, cached = training(Dataset.open(run), Hashing(str(tmp_path / "cache")))
    assert isinstance(tables, Tables)
    assert isinstance(cached, Cached)
    parts = [source.part(0) for source in (tables, cached)]
    assert set(parts[0].hash_N.tolist()) == set(parts[1].hash_N.tolist())
    assert [part.counts["one brightness"] for part in parts] == [1, 1]
    places = [
        source.places([(0, int(row)) for row in part.row_N])
        for source, part in zip((tables, cached), parts, strict=True)
    ]
    assert parts[0].counts["hashed"] == len(places[0]) == COUNT  # the seventh was not packed
    keys = [{(p.shard, p.key, p.picture, p.told) for p in found.values()} for found in places]
    assert keys[0] == keys[1]
    assert tables.is_whole()


def test_tables_that_lack_pictures_are_not_whole(run: str, tmp_path: Path):
    """Where a sample's picture is in no table, the tables do not stand for the shards."""
    url = str(tmp_path / "g0/images/r0/00000-00000.parquet")
    storage.write_parquet(url, storage.read_parquet(url).slice(1))
    tables, _ = training(Dataset.open(run), Hashing(str(tmp_path / "cache")))
    tables.part(0)
    assert not tables.is_whole()


def test_shards_of_others_are_hashed(run: str, tmp_path: Path):
    """Indexed shards have hashes and places, too; what does not decode is counted."""
    tar = Path(run, "000000.tar").read_bytes()
    at = tar.index(b"\xff\xd8")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "00000.tar").write_bytes(tar[:at] + b"broken" + tar[at + 6 :])
    out = str(tmp_path / "index")
    asked = Asked([str(foreign / "00000.tar")], members("jpg", "txt"))
    index(asked, out, InProcess(), Silent())
    (source,) = training(Dataset.open(out), Hashing(str(tmp_path / "cache")))
    part = source.part(0)
    assert part.counts == {
        "hashed": COUNT - 1,
        State.FLAT.words: 1,
        "do not decode": 1,
        "removed": 0,
    }
    place = source.places([(0, int(part.row_N[0]))])[0, int(part.row_N[0])]
    offset, size = place.picture
    assert tar[offset : offset + 2] == b"\xff\xd8"
    assert hash_of_bytes(tar[offset : offset + size]) == int(part.hash_N[0])
    assert Dataset.open(out).info.root


def test_the_cache_tells_shards_apart_that_are_alike_but_for_their_bytes(tmp_path: Path):
    """Two tars of the same names and sizes; and one in which another member is the picture."""
    hashes = []
    for number, extension in ((0, "bmp"), (1, "bmp"), (1, "png")):
        tar = tmp_path / f"{number}/00000.tar"
        tar.parent.mkdir(exist_ok=True)
        drawn = ((kind, picture(n)) for kind, n in (("bmp", number), ("png", number + 7)))
        bodies = {kind: cv2.imencode(".bmp", pixels)[1].tobytes() for kind, pixels in drawn}
        with tarfile.open(tar, "w") as archive:
            for kind, body in (bodies | {"txt": b"a word"}).items():
                member = tarfile.TarInfo(f"0.{kind}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
        out = str(tmp_path / f"index {number} {extension}")
        index(Asked([str(tar)], members(extension, "txt")), out, InProcess(), Silent())
        (source,) = training(Dataset.open(out), Hashing(str(tmp_path / "cache")))
        hashes.append(source.part(0).hash_N.tolist())
    assert len({tuple(found) for found in hashes}) == 3


def hash_of_bytes(body: bytes) -> int | None:
    """Return the hash of an encoded picture."""
    decoded = pixels(body)
    return None if decoded is None else hash_of(decoded)
