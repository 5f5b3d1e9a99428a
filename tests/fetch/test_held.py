"""Pictures that shards hold already: read from there, and nobody asked."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import range_server
from tests.fetch.conftest import selection
from tests.foreign_tar import sample, write
from tests.mock_web import jpeg, picture_reply
from tests.offline import unplug
from tests.range_server import RangeServer
from wit_builder import remote, storage
from wit_builder.errors import RejectionFloodError, StorageError
from wit_builder.exchange import gather, scatter
from wit_builder.fetch import held, route
from wit_builder.fetch.held import Picture
from wit_builder.fetch.run import FetchJob, run
from wit_builder.sections import FetchSection, ImageSection
from wit_builder.shards import tar
from wit_builder.units import Done


def shard_of(path: Path, bodies: list[bytes]) -> list[str]:
    """Write a shard of such pictures; return where each lies."""
    place = write(path, *(sample(f"{i:04d}", body, "a") for i, body in enumerate(bodies)))
    with path.open("rb") as stream:
        found = [m for m in tar.walk(stream) if m.name.endswith(".jpg")]
    return [f"{place}@{m.offset}+{m.size}" for m in found]


def selected(places: list[str | None], urls: list[str] | None = None) -> pa.Table:
    rows = selection(urls or [f"wds:0.tar/{i:04d}" for i in range(len(places))])
    at = rows.schema.get_field_index("picture_at")
    return rows.set_column(at, rows.schema.field(at), pa.array(places, pa.string()))


def job_of(rows: pa.Table, folder: Path, **limits: Any) -> FetchJob:
    source = str(folder / "selected.arrow")
    scatter(rows, np.zeros(rows.num_rows, np.int64), 1, source)
    image = ImageSection(size_px=64)
    return FetchJob([source], 0, 0, str(folder / "images"), FetchSection(**limits), image)


def rows_of(done: Done) -> list[dict[str, Any]]:
    urls = [o.url for o in done.outputs if o.url.endswith(".parquet")]
    rows = [row for url in urls for row in pq.read_table(url).to_pylist()]
    return sorted(rows, key=lambda row: row["url"])


def pictures_of(done: Done) -> dict[str, bytes]:
    found = {}
    for output in done.outputs:
        if output.url.endswith(".tar"):
            with Path(output.url).open("rb") as stream:
                for member in tar.walk(stream):
                    if member.name.endswith(".jpg"):
                        found[member.name.removesuffix(".jpg")] = stream.read(member.size)
    return found


def test_pictures_are_read_from_their_shard(tmp_path, monkeypatch):
    """Held pictures need no contact and no network; one that needs no change is bit-identical."""
    unplug(monkeypatch)
    bodies = [jpeg(64, 48 + i, seed=i) for i in range(20)]
    done = run(job_of(selected(list(shard_of(tmp_path / "0.tar", bodies))), tmp_path))
    assert done.counts == {"alive": 20}
    rows, pictures = rows_of(done), pictures_of(done)
    assert [pictures[row["key"]] for row in rows] == bodies
    first = rows[0]
    assert first["sha256"] == hashlib.sha256(bodies[0]).hexdigest()
    assert first["md5"] == hashlib.md5(bodies[0]).hexdigest()
    assert (first["size_bytes"], first["mime"]) == (len(bodies[0]), "image/jpeg")
    assert (first["width"], first["height"]) == (64, 48)
    assert first["opt_outs"] == []
    assert first["phash"] == str(imagehash.phash(Image.open(io.BytesIO(bodies[0]))))
    assert len({row["phash"] for row in rows}) == len(rows)
    unknown = ["http_status", "final_url", "fetched_at", "reason", "detail"]
    assert [first[name] for name in unknown] == [None] * 5


def test_held_and_asked_side_by_side(web, tmp_path):
    """In one unit, what a shard holds is read, and only the rest is asked for."""
    web.pages["/new.jpg"] = picture_reply(jpeg(80, 80))
    [place] = shard_of(tmp_path / "0.tar", [jpeg(90, 90)])
    rows = selected([place, None], ["http://a.test/old.jpg", "http://a.test/new.jpg"])
    job = job_of(rows, tmp_path)
    done = run(FetchJob(job.sources, 0, 0, job.out, job.fetch, job.image, loopback=web.loopback))
    assert done.counts == {"alive": 2}
    assert [row["http_status"] for row in rows_of(done)] == [200, None]
    assert {path for _, path in web.log if path != "/robots.txt"} == {"/new.jpg"}


def test_what_is_no_picture(tmp_path):
    """Bytes of a shard that give no picture are dead for the reason a download would be."""
    bodies = [jpeg(80, 80)[:-300], b"<!DOCTYPE html><html>", bytes(500), jpeg(4, 4), jpeg(70, 70)]
    done = run(job_of(selected(list(shard_of(tmp_path / "0.tar", bodies))), tmp_path))
    assert [row["phash"] is None for row in rows_of(done)] == [True] * 4 + [False]
    assert [row["reason"] for row in rows_of(done)] == [
        "image_truncated", "not_an_image", "not_an_image", "image_too_small", None,
    ]  # fmt: skip


def test_a_shard_that_is_gone(tmp_path):
    """Pictures of a shard that is no longer there are dead; those of others are not touched."""
    gone = shard_of(tmp_path / "gone.tar", [jpeg(70, 70)] * 2)
    kept = shard_of(tmp_path / "kept.tar", [jpeg(70, 70)])
    (tmp_path / "gone.tar").unlink()
    done = run(job_of(selected([*gone, *kept]), tmp_path))
    assert done.counts == {"alive": 1, "dead": 2, "picture_missing": 2}
    assert rows_of(done)[0]["detail"] == "the shard is gone: gone.tar"


def test_a_shard_that_became_shorter(tmp_path):
    """Pictures past the end of a shard are dead; those before it are read."""
    places = shard_of(tmp_path / "0.tar", [jpeg(70, 70, seed=i) for i in range(6)])
    with (tmp_path / "0.tar").open("r+b") as stream:
        stream.truncate(Picture.at(0, places[3]).end - 1)
    done = run(job_of(selected(list(places)), tmp_path))
    assert [row["reason"] for row in rows_of(done)] == [None] * 3 + ["picture_missing"] * 3
    assert rows_of(done)[5]["detail"] == "the shard is shorter than it was: 0.tar"


def test_a_larger_picture_than_is_allowed(tmp_path):
    """The limit of a download's size holds here, too; other pictures near it are read."""
    bodies = [jpeg(64, 64), jpeg(400, 400), jpeg(64, 64, seed=1)]
    limit = len(bodies[1]) - 1
    done = run(
        job_of(selected(list(shard_of(tmp_path / "0.tar", bodies))), tmp_path, max_body_bytes=limit)
    )
    assert [row["reason"] for row in rows_of(done)] == [None, "body_too_large", None]


def test_a_place_that_cannot_be_read(tmp_path, monkeypatch):
    """Another failure than a missing file fails the unit, so that it is done again."""
    places = shard_of(tmp_path / "0.tar", [jpeg(70, 70)])

    def fail(*_: object) -> bytes:
        raise StorageError("cannot read: the bucket is asleep", where=places[0])

    monkeypatch.setattr(storage, "read_bytes", fail)
    with pytest.raises(StorageError, match="asleep"):
        run(job_of(selected(list(places)), tmp_path))


def job_over_http(server: RangeServer, places: list[str], folder: Path) -> FetchJob:
    """Return a job for pictures of a local shard, which the server serves."""
    at = [f"{server.url}@{place.rpartition('@')[2]}" for place in places]
    return job_of(selected(list(at)), folder)


def test_over_http(tmp_path, monkeypatch):
    """From a web server, neighbours are one request; what breaks off is asked for again."""
    monkeypatch.setattr(remote, "FIRST_DELAY_S", 0)
    bodies = [jpeg(70, 70, seed=i) for i in range(5)]
    places = shard_of(tmp_path / "0.tar", bodies)
    with RangeServer((tmp_path / "0.tar").read_bytes()) as server:
        first = Picture.at(0, places[0])
        server.faults[first.offset] = [range_server.reset_mid_body, range_server.shorter_range]
        last = Picture.at(0, places[-1])
        done = run(job_over_http(server, [*places, f"{last.place}@{last.end + 9999}+9"], tmp_path))
        assert server.asked == [(0, 1), *[(first.offset, len(server.data))] * 3]
    assert done.counts == {"alive": 5, "dead": 1, "picture_missing": 1}
    assert [row["size_bytes"] for row in rows_of(done)[:5]] == [len(body) for body in bodies]


def test_a_server_without_ranges(tmp_path):
    """A server that answers with the whole file is refused; no other bytes pass for a picture."""
    places = shard_of(tmp_path / "0.tar", [jpeg(70, 70, seed=i) for i in range(3)])
    with RangeServer((tmp_path / "0.tar").read_bytes()) as server:
        server.faults[range_server.OPENING] = [range_server.whole_file]
        with pytest.raises(StorageError, match="does not serve ranges"):
            run(job_over_http(server, places[2:], tmp_path))


def test_flood(tmp_path):
    """When nearly all shards are gone the unit stops, says so, and keeps nothing."""
    places = shard_of(tmp_path / "0.tar", [jpeg(70, 70)] * 30)
    (tmp_path / "0.tar").unlink()
    job = job_of(selected(list(places)), tmp_path, flood_min=20)
    with pytest.raises(RejectionFloodError, match=r"30 of 30.*picture_missing.*moved"):
        run(job)
    assert list(Path(job.out).iterdir()) == []


def test_resume(tmp_path, monkeypatch):
    """After a kill only the pictures of the unpublished part are read again."""
    monkeypatch.setattr("wit_builder.fetch.run._PART_BYTES", 1)
    places = shard_of(tmp_path / "0.tar", [jpeg(70, 70, seed=i) for i in range(12)])
    job = job_of(selected(list(places)), tmp_path)
    first = run(job)
    for output in first.outputs[-2:]:
        Path(output.url).unlink()
    read: list[int] = []
    take = held.Shards.take

    async def counted(shards: held.Shards, pictures: list[Picture]) -> list[held.Taken]:
        read.append(len(pictures))
        return await take(shards, pictures)

    monkeypatch.setattr(held.Shards, "take", counted)
    again = run(job)
    assert sum(read) == 1
    assert again.counts == {"alive": 12}
    assert rows_of(again) == rows_of(first)


spans = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1 << 24), st.integers(1, 6 << 20)))


@given(spans)
def test_what_is_read_at_once(chosen):
    """Every picture is read once, with neighbours of its shard only, within the limits."""
    pictures = [Picture(place, at, size, i) for i, (place, at, size) in enumerate(chosen)]
    groups = list(held.reads(pictures))
    assert sorted(p.position for group in groups for p in group) == list(range(len(pictures)))
    for group in groups:
        assert len({p.place for p in group}) == 1
        assert group == sorted(group)
        assert len(group) == 1 or group[-1].end - group[0].offset <= held._READ_BYTES


def test_neighbours_are_read_at_once(tmp_path):
    """Small pictures that follow each other make one read."""
    places = shard_of(tmp_path / "0.tar", [jpeg(70, 70)] * 10)
    pictures = [Picture.at(i, place) for i, place in enumerate(places)]
    assert list(held.reads(reversed(pictures))) == [pictures]


def test_a_place_with_odd_characters():
    """A place may have any character; offset and size are what stands behind the last ``@``."""
    picture = Picture.at(7, "s3://me@home/a+b@1+2.tar@512+99")
    assert picture == Picture("s3://me@home/a+b@1+2.tar", 512, 99, 7)


@pytest.mark.s3
def test_in_a_bucket(tmp_path, s3_folder):
    """On a real S3 server, pictures are read; past the end, or in no file, they are missing."""
    bodies = [jpeg(70, 70, seed=i) for i in range(3)]
    places = shard_of(tmp_path / "0.tar", bodies)
    remote = storage.join(s3_folder, "0.tar")
    storage.publish_bytes(remote, (tmp_path / "0.tar").read_bytes())
    at = [place.replace(str(tmp_path / "0.tar"), remote) for place in places]
    size = storage.size_of(remote)
    at += [f"{remote}@{size - 10}+20", f"{remote}@{size + 512}+20", f"{remote[:-5]}gone.tar@0+9"]
    done = run(job_of(selected(list(at)), tmp_path))
    rows, pictures = rows_of(done), pictures_of(done)
    assert [row["reason"] for row in rows] == [None] * 3 + ["picture_missing"] * 3
    assert [row["size_bytes"] for row in rows[:3]] == [len(body) for body in bodies]
    assert len(pictures) == 3


def test_route(tmp_path):
    """Pairs that a shard holds go together by its name, the others by domain."""
    places = ["/x/0.tar@0+9", "s3://b/0.tar@512+9", "/x/1.tar@0+9", None, None]
    urls = ["http://a.test/1", "wds:0.tar/2", "http://a.test/3"]
    urls += ["http://b.a.test/4", "http://c.test/5"]
    rows = selected(places, urls)
    assert route.owners(rows).to_pylist() == ["0.tar", "0.tar", "1.tar", "a.test", "c.test"]
    for chosen in (rows.slice(0, 3), rows.slice(3), rows.slice(0, 0)):
        assert len(route.owners(chosen)) == chosen.num_rows
    table = str(tmp_path / "selected.parquet")
    storage.write_parquet(table, rows)
    out = str(tmp_path / "routed.arrow")
    assert route.run(route.RouteJob(table, 5, out)).counts == {"pairs": 5}
    found = [gather([out], bucket)["url"].to_pylist() for bucket in range(5)]
    assert sorted(url for urls_ in found for url in urls_) == sorted(urls)
