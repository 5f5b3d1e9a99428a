"""A fetch unit against a web on loopback."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from webdataset import tariterators

from tests import mock_web
from tests.mock_web import jpeg, picture_reply
from wit_builder.errors import RecipeError, RejectionFloodError, StorageError
from wit_builder.fetch.run import FetchJob, run
from wit_builder.sections import ImageSection
from wit_builder.tables import IMAGES
from wit_builder.units import Done


def rows_of(done: Done) -> pa.Table:
    parquets = [o.url for o in done.outputs if o.url.endswith(".parquet")]
    return pa.concat_tables(pq.read_table(url) for url in parquets)


def tars_of(done: Done) -> list[str]:
    return [o.url for o in done.outputs if o.url.endswith(".tar")]


def numbered(web, count: int, hosts: int = 3) -> list[str]:
    """Let the web have so many pictures, and return their URLs."""
    urls = [f"http://h{i % hosts}.test/{i:04d}.jpg" for i in range(count)]
    for i in range(count):
        web.pages[f"/{i:04d}.jpg"] = picture_reply(jpeg(100 + i, 90, seed=i))
    return urls


def test_outcomes(web, job_of):
    """Every pair gets its row, in the selection's order, with outcome, reason and digests."""
    body = jpeg(200, 100)
    web.pages |= {
        "/good.jpg": picture_reply(body),
        "/html.jpg": picture_reply(b"<!DOCTYPE html><html>"),
        "/cut.jpg": picture_reply(body[:-300]),
        "/bomb.png": picture_reply(mock_web.png_header(50_000, 50_000)),
        "/noai.jpg": picture_reply(body, X_Robots_Tag="noai"),
        "/busy.jpg": (429, {"Retry-After": "600"}, b""),
        "/loop.jpg": mock_web.redirect("/loop.jpg"),
        "no.test/robots.txt": (200, {}, b"User-agent: *\nDisallow: /"),
    }
    names = ["good.jpg", "html.jpg", "cut.jpg", "bomb.png", "noai.jpg", "loop.jpg", "gone.jpg"]
    urls = [f"http://a.test/{n}" for n in names]
    urls += ["http://no.test/good.jpg", "http://b.test/busy.jpg", "ftp://a.test/good.jpg"]
    done = run(job_of(urls))
    table = rows_of(done)
    assert table.schema.names == IMAGES.names
    assert table["url"].to_pylist() == urls
    assert table["reason"].to_pylist() == [
        None, "not_an_image", "image_truncated", "image_too_large", "opt_out_image",
        "redirect_loop", "http_4xx", "robots_disallowed", "rate_limited", "scheme_refused",
    ]  # fmt: skip
    assert table["outcome"].to_pylist() == ["alive", *["dead"] * 7, "deferred", "dead"]
    assert done.counts["alive"] == 1
    assert done.counts["dead"] == 8
    assert done.counts["rate_limited"] == 1
    good = table.slice(0, 1).to_pylist()[0]
    assert (good["width"], good["height"]) == (128, 64)
    assert (good["original_width"], good["original_height"]) == (200, 100)
    assert good["sha256"] == hashlib.sha256(body).hexdigest()
    assert good["md5"] == hashlib.md5(body).hexdigest()
    assert (good["size_bytes"], good["mime"], good["http_status"]) == (len(body), "image/jpeg", 200)
    assert table["opt_outs"][4].as_py() == ["noai"]


def test_the_tar_is_a_webdataset(web, job_of):
    """Plain webdataset reads the pictures, texts and metadata of the alive pairs."""
    urls = [*numbered(web, 5), "http://a.test/gone.jpg"]
    done = run(job_of(urls))
    with Path(tars_of(done)[0]).open("rb") as stream:
        files = tariterators.tar_file_expander([{"url": "a part", "stream": stream}])
        samples = list(tariterators.group_by_keys(files))
    assert [s["__key__"] for s in samples] == [f"00000{i:07d}" for i in range(5)]
    for url, sample in zip(urls, samples, strict=False):
        meta = json.loads(sample["json"])
        assert meta["url"] == url
        assert meta["caption"] == sample["txt"].decode()
        assert Image.open(io.BytesIO(sample["jpg"])).size == (meta["width"], meta["height"])
    keys = rows_of(done)["key"].to_pylist()
    assert keys == [s["__key__"] for s in samples] + [""]


def test_the_same_outcomes_give_the_same_bytes(web, job_of, tmp_path):
    """Fetched twice, a unit's tar has the same bytes: neither time nor order of arrival show."""
    job = job_of(numbered(web, 30))
    first = tars_of(run(job))
    again = tars_of(run(msgspec.structs.replace(job, out=str(tmp_path / "again"))))
    assert [Path(t).read_bytes() for t in first] == [Path(t).read_bytes() for t in again]
    with tarfile.open(first[0]) as tar:
        assert {(m.mtime, m.uid, m.uname) for m in tar} == {(0, 0, "")}


def in_parts(job: FetchJob, monkeypatch: pytest.MonkeyPatch) -> Done:
    """Run a job so that nearly every picture makes a part of its own."""
    monkeypatch.setattr("wit_builder.fetch.run._PART_BYTES", 1)
    return run(job)


def test_many_parts(web, job_of, monkeypatch):
    """Parts are published as they fill up, and together hold every pair once."""
    urls = numbered(web, 12)
    done = in_parts(job_of(urls), monkeypatch)
    assert len(done.outputs) == 24
    assert sorted(rows_of(done)["url"].to_pylist()) == sorted(urls)


def test_a_part_is_published_in_time(web, job_of):
    """A slow picture does not keep the others from being published."""
    urls = [*numbered(web, 3), "http://slow.test/slow.jpg"]
    web.pages["/slow.jpg"] = mock_web.silence
    done = run(job_of(urls, deadline_s=4.0, part_s=0.1))
    assert done.counts == {"alive": 3, "dead": 1, "deadline": 1}
    assert len(tars_of(done)) >= 2


@pytest.mark.parametrize("killed_before", ["tar", "parquet"])
def test_resume(web, job_of, monkeypatch, killed_before):
    """After a kill only the pairs of the unpublished part are asked for again; none is lost."""
    urls = numbered(web, 12)
    job = job_of(urls)
    first = in_parts(job, monkeypatch)
    lost = rows_of(Done(first.outputs[-4:]))["url"].to_pylist()
    for output in first.outputs[-4:]:
        if killed_before == "tar" or output.url.endswith(".parquet"):
            Path(output.url).unlink()
    web.log.clear()
    second = run(job)
    assert sorted(f"http://{h}{p}" for h, p in web.asked()) == sorted(lost)
    assert sorted(rows_of(second)["url"].to_pylist()) == sorted(urls)
    assert second.counts == first.counts
    assert second.outputs[:-4] != []
    assert {p.name for p in Path(job.out).iterdir()} == {Path(o.url).name for o in second.outputs}


def test_starting_again_asks_nothing(web, job_of):
    """A finished unit that is run again asks for nothing and returns the same."""
    job = job_of(numbered(web, 6))
    first = run(job)
    web.log.clear()
    assert run(job) == first
    assert web.log == []


def test_parts_of_other_pictures_are_dropped(web, job_of):
    """Pictures of another size are not mixed in."""
    urls = numbered(web, 6)
    run(job_of(urls))
    done = run(job_of(urls, image=ImageSection(size_px=32)))
    assert set(rows_of(done)["height"].to_pylist()) == {32}
    assert len(tars_of(done)) == 1


def test_a_smaller_selection_asks_for_nothing_again(web, job_of, monkeypatch):
    """Parts are cut to the pairs that are still selected: rows, and members of the tar."""
    urls = numbered(web, 12)
    in_parts(job_of(urls), monkeypatch)
    web.log.clear()
    done = run(job_of([*urls[3:7], "http://h0.test/gone.jpg"]))
    assert web.asked() == [("h0.test", "/gone.jpg")]
    table = rows_of(done)
    assert sorted(table["url"].to_pylist()) == sorted([*urls[3:7], "http://h0.test/gone.jpg"])
    names = []
    for tar in tars_of(done):
        with tarfile.open(tar) as members:
            names += [name for name in members.getnames() if name.endswith(".jpg")]
    assert sorted(names) == sorted(f"{key}.jpg" for key in table["key"].to_pylist() if key)
    web.log.clear()
    assert run(job_of([*urls[3:7], "http://h0.test/gone.jpg"])) == done
    assert web.log == []


def test_a_damaged_part_is_named(web, job_of):
    """A part that cannot be read is an error that says which, not a guess."""
    job = job_of(numbered(web, 2))
    [_, table] = run(job).outputs
    Path(table.url).write_bytes(b"PAR1 and then nothing")
    with pytest.raises(
        StorageError, match=r"not a readable Arrow or parquet file.*00000-00000\.parquet"
    ):
        run(job)


def test_an_empty_bucket(job_of):
    """A bucket without rows is done at once, with nothing."""
    assert run(job_of([])) == Done([], {})


def test_flood(job_of):
    """When nearly all fail alike the unit stops and keeps nothing, so that a rerun asks anew."""
    urls = [f"http://h{i}.test/gone.jpg" for i in range(30)]
    job = job_of(urls, flood_min=20, flood_share=0.9)
    with pytest.raises(RejectionFloodError, match=r"30 of 30 pairs were rejected as http_4xx"):
        run(job)
    assert list(Path(job.out).iterdir()) == []


def test_no_flood_in_a_small_unit(job_of):
    """A unit too small to tell is no flood."""
    assert run(job_of(["http://a.test/gone.jpg"])).counts == {"dead": 1, "http_4xx": 1}


def test_contact_is_required(web, job_of):
    """Without a contact and without a loopback map nothing is asked."""
    job = msgspec.structs.replace(job_of(numbered(web, 2)), loopback={})
    with pytest.raises(RecipeError, match="contact"):
        run(job)
    assert web.log == []


def test_no_host_over_its_limit(web, job_of):
    """Requests of one registrable domain under way never exceed its concurrency."""
    under_way, most = [0], [0]
    body = jpeg()

    async def counted(writer):
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        await writer.drain()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        under_way[0] -= 1

    urls = [f"http://h{i % 7}.same.test/{i}.jpg" for i in range(40)]
    web.pages |= {f"/{i}.jpg": counted for i in range(40)}
    done = run(job_of(urls, per_domain_concurrency=2))
    assert done.counts == {"alive": 40}
    assert most[0] <= 2


def test_running_out_of_sockets_is_no_rejection(web, job_of, monkeypatch):
    """When this machine has no sockets left, the unit fails; no pair is blamed for it."""

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("wit_builder.web.addresses.Resolver.make_socket", none_left)
    job = job_of(numbered(web, 5))
    with pytest.raises(StorageError, match=r"fetch\.concurrency.*ulimit"):
        run(job)
    assert not Path(job.out).exists()


def test_what_is_ordinary_is_no_flood(web, job_of):
    """Neither a domain's budget nor redirects to other domains stop a unit."""
    urls = [f"http://h.test/{i}.jpg" for i in range(30)]
    web.pages |= {f"/{i}.jpg": mock_web.redirect("http://elsewhere.test/") for i in range(30)}
    counts = run(job_of(urls, flood_min=5, max_per_domain_per_round=20)).counts
    assert counts == {"deferred": 10, "domain_budget": 10, "moved": 20}


def test_a_retry_keeps_its_pause(web, job_of):
    """A URL that is asked again waits its own time, though other turns of its domain are free."""
    web.pages["/a.jpg"] = (500, {}, b"")
    run(job_of(["http://h.test/a.jpg"], retries=2))
    times = [at for at, (_, path) in zip(web.at, web.log, strict=True) if path == "/a.jpg"]
    assert len(times) == 3
    assert times[1] - times[0] > 0.2
    assert times[2] - times[1] > 0.45
