"""Candidates from tar shards that have their pictures."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY
from tests.foreign_tar import sample, tar_of, write
from tests.range_server import RangeServer
from wit_builder import storage
from wit_builder.crawl import webdataset
from wit_builder.crawl.candidates import Collector, Output
from wit_builder.errors import ArchiveError
from wit_builder.hashing import pair_uid
from wit_builder.sections import WebDatasetSource
from wit_builder.shards.foreign import Fault
from wit_builder.shards.read import Dataset
from wit_builder.tables import CANDIDATES
from wit_builder.units import Done

SAMPLE = REPOSITORY / "shards" / "sample"
JPG = b"\xff\xd8\xff a picture"


def crawled(paths: list[str], out: Path, **settings: Any) -> list[tuple[pa.Table, Done]]:
    """Return the candidates and counts of every shard of a source."""
    found = []
    for number, piece in enumerate(webdataset.pieces(WebDatasetSource(paths=paths, **settings))):
        output = Output.of(str(out), f"{number}")
        done = webdataset.run(pickle.loads(pickle.dumps(piece.job(output))))
        tables = [pa.table(CANDIDATES.empty_table()), *storage.read_batches(output.candidates)]
        found.append((pa.concat_tables(tables), done))
    return found


def of_one(
    folder: Path, *samples: Iterable[tuple[str, bytes]], data: bytes | None = None, **settings: Any
) -> tuple[list[dict[str, Any]], dict[str, int], list[str]]:
    """Return candidates, counts, and details of rejections of a shard of such samples."""
    place = write(folder / "a" / "00000.tar", *samples)
    if data is not None:
        Path(place).write_bytes(data)
    [(table, done)] = crawled([place], folder / "out", **settings)
    rejections = next(o.url for o in done.outputs if o.url.endswith(".parquet"))
    return table.to_pylist(), done.counts, pq.read_table(rejections)["detail"].to_pylist()


def picture(row: dict[str, Any]) -> bytes:
    place, _, span = row["picture_at"].rpartition("@")
    offset, size = map(int, span.split("+"))
    return storage.read_bytes(place, offset, offset + size)


def test_a_sample(tmp_path):
    """A sample's row has its URL, text, page, licence, and where its picture's bytes are."""
    metadata = {
        "url": "HTTP://Example.com:80/a.jpg#x",
        "page_url": "https://example.com",
        "license": "https://creativecommons.org/licenses/by/4.0/",
    }
    [row], counts, details = of_one(tmp_path, sample("000", JPG, " a\n cat ", **metadata))
    assert picture(row) == JPG
    assert row["uid"] == pair_uid(row["url"], row["text"])
    assert (row["url"], row["text"]) == ("http://example.com/a.jpg", "a cat")
    assert (row["page_url"], row["license"]) == ("https://example.com/", metadata["license"])
    assert (row["text_from"], row["archive"], row["found_at"]) == ("given", "a/00000.tar", None)
    assert counts == {"pages": 1, "candidates": 1}
    assert details == []


@pytest.mark.parametrize(
    "url", [None, 7, "", "data:image/png;base64,AAAA", "ftp://a.test/b", "http://u:p@a.test/b"]
)
def test_without_a_url(tmp_path, url):
    """A picture without a URL that can be asked for is named after shard and sample."""
    [row], _, _ = of_one(tmp_path, sample("part one/000", JPG, "a cat", url=url))
    assert row["url"] == "wds:a/00000.tar/part%20one/000"
    assert picture(row) == JPG


def test_a_name_that_was_made_before_stays(tmp_path):
    """A data set made from another without URLs keeps the names of its pictures."""
    [row], _, _ = of_one(tmp_path, sample("0", JPG, "a cat", url="wds:first.tar/17"))
    assert row["url"] == "wds:first.tar/17"


def test_texts(tmp_path):
    """Every distinct text that is not empty makes a pair, whichever member or key it is from."""
    members = [
        *sample("0", JPG, "a cat", caption="a  cat", titles=["Tom", "", None, 3], alt=None),
        ("0.caption.txt", b"\xef\xbb\xbfa tabby"),
    ]
    rows, counts, _ = of_one(
        tmp_path,
        members,
        texts=["txt", "caption.txt", "other"],
        text_keys=["caption", "titles", "alt", "none"],
    )
    assert [row["text"] for row in rows] == ["a cat", "a tabby", "Tom"]
    assert len({row["url"] for row in rows}) == len({row["picture_at"] for row in rows}) == 1
    assert counts == {"pages": 1, "candidates": 3}


def test_endings(tmp_path):
    """A sample's picture is the first of the endings that it has, in whatever case."""
    members = [("0.PNG", b"png"), ("0.seg.jpg", b"mask"), ("0.txt", b"a"), ("0.jpeg", b"jpeg")]
    [row], _, _ = of_one(tmp_path, members)
    assert picture(row) == b"jpeg"
    [row], _, _ = of_one(tmp_path, members, pictures=["seg.jpg"])
    assert picture(row) == b"mask"


def test_keys(tmp_path):
    """A key ends at the first dot of the file name; dots of folders, and ``./``, are not of it."""
    rows, counts, _ = of_one(
        tmp_path,
        [("v1.0/a.jpg", JPG), ("./v1.0/a.txt", b"one"), ("README", b"hello"), (".hidden", b"")],
        [("v1.0/b.jpg", JPG), ("v1.0/b.note", b"?"), ("v1.0/b.txt", b"two")],
    )
    assert [row["url"] for row in rows] == ["wds:a/00000.tar/v1.0/a", "wds:a/00000.tar/v1.0/b"]
    assert counts["pages"] == 2


def test_what_gnu_tar_packs(tmp_path):
    """A folder packed with tar, names of any length, is a shard like any other."""
    folder = tmp_path / "in" / ("long" * 30)
    folder.mkdir(parents=True)
    for i in range(3):
        for name, data in sample(f"{i:03d}", JPG + b"%d" % i, f"text {i}"):
            (folder / name).write_bytes(data)
    tar = tmp_path / "a" / "00000.tar"
    tar.parent.mkdir()
    pack = ["tar", "--format=gnu", "--sort=name", "-cf", str(tar), "-C", str(tmp_path / "in"), "."]
    subprocess.run(pack, check=True)
    rows, _, details = of_one(tmp_path, data=tar.read_bytes())
    assert [picture(row) for row in rows] == [JPG + b"%d" % i for i in range(3)]
    assert details == []


def test_our_own_shards(tmp_path):
    """Every sample of our own format comes back, with its URL, caption and picture."""
    found = crawled([f"{SAMPLE}/{{000000..000002}}.tar"], tmp_path)
    rows = [row for table, _ in found for row in table.to_pylist()]
    data = Dataset.open(str(SAMPLE))
    samples = [s for shard in range(3) for s in data.samples(shard)]
    assert [picture(row) for row in rows] == [s.members["jpg"] for s in samples]
    metadata = [json.loads(s.members["json"]) for s in samples]
    names = ["url", "page_url", "license"]
    assert [[row[n] for n in names] for row in rows] == [[m[n] for n in names] for m in metadata]
    assert [row["text"] for row in rows] == [m["caption"] for m in metadata]


def test_a_removed_sample(tmp_path):
    """A sample whose bytes were zeroed is no candidate; it is told of."""
    removed = [("1.jpg", bytes(20)), ("1.txt", bytes(5)), ("1.json", bytes(30))]
    rows, counts, details = of_one(tmp_path, sample("0", JPG, "a"), removed, sample("2", JPG, "b"))
    assert [row["text"] for row in rows] == ["a", "b"]
    assert counts["rejected:picture_missing"] == 1
    assert details == ["a/00000.tar: 1 was removed"]


def test_incomplete_samples(tmp_path):
    """Samples without a picture, with an empty one, or without a text are counted, no more."""
    rows, counts, details = of_one(
        tmp_path,
        [("0.txt", b"no picture")],
        sample("1", b"", "an empty one"),
        sample("2", JPG, None, caption="not asked for"),
        sample("3", JPG, " \n"),
        sample("4", JPG, "whole"),
    )
    assert [row["text"] for row in rows] == ["whole"]
    assert counts == {
        "pages": 5, "candidates": 1, "rejected:picture_missing": 2, "rejected:no_text": 2,
    }  # fmt: skip
    assert details == []


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        (b'{"url": "http://a.test/', "Unterminated string"),
        (b"[1]", "not a JSON object"),
        (b'{"url": "\xff"}', "codec can't decode"),
        (b'{"caption": "\\ud800"}', "surrogates not allowed"),
        (b"[" * 100_000, "recursion"),
        (b"", "Expecting value"),
    ],
)
def test_broken_metadata(tmp_path, metadata, why):
    """Metadata that cannot be read are told of; the sample is kept without them."""
    [row], counts, [detail] = of_one(
        tmp_path, [("0.jpg", JPG), ("0.txt", b"a cat"), ("0.json", metadata)]
    )
    assert row["url"] == "wds:a/00000.tar/0"
    assert counts["rejected:bad_record"] == 1
    assert detail.startswith("a/00000.tar: 0.json: ")
    assert why in detail


def test_metadata_with_nan(tmp_path):
    """Metadata with Python's ``NaN``, as img2dataset writes them, are read."""
    data = b'{"similarity": NaN, "url": "http://a.test/a.jpg"}'
    [row], _, details = of_one(tmp_path, [("0.jpg", JPG), ("0.txt", b"a"), ("0.json", data)])
    assert (row["url"], details) == ("http://a.test/a.jpg", [])


def test_a_text_that_is_not_utf8(tmp_path):
    """A text in another encoding is told of, not guessed; the sample's others are kept."""
    members = [("0.jpg", JPG), ("0.txt", b"caf\xe9"), ("0.json", b'{"caption": "a cafe"}')]
    [row], counts, [detail] = of_one(tmp_path, members, text_keys=["caption"])
    assert row["text"] == "a cafe"
    assert counts["rejected:bad_record"] == 1
    assert "0.txt" in detail


def test_duplicate_members_and_samples(tmp_path):
    """Of a member that comes twice in a sample the first counts; a sample twice is one pair."""
    double = [("0.jpg", JPG), ("0.txt", b"first"), ("0.txt", b"second")]
    other = sample("1", JPG, "other")
    rows, counts, details = of_one(tmp_path, double, other, sample("0", JPG, "first"))
    assert [row["text"] for row in rows] == ["first", "other"]
    assert (counts["repeated"], counts["rejected:bad_record"]) == (1, 1)
    assert "0.txt again" in details[0]


def test_an_enormous_text(tmp_path, monkeypatch):
    """A text or metadata beyond all reason are not read into memory."""
    monkeypatch.setattr(webdataset, "_MAX_SMALL_BYTES", 100)
    rows, _, details = of_one(tmp_path, sample("0", JPG, "a" * 101), sample("1", JPG, "a" * 100))
    assert [row["text"] for row in rows] == ["a" * 100]
    assert "0.txt has 101 bytes" in details[0]


def test_many_texts(tmp_path):
    """Of a sample with very many texts the first make pairs, and it is told how many there are."""
    titles = [f"title {i}" for i in range(1001)]
    members = sample("0", JPG, None, titles=titles)
    rows, counts, [detail] = of_one(tmp_path, members, text_keys=["titles"])
    assert [row["text"] for row in rows] == titles[:1000]
    assert counts == {"pages": 1, "candidates": 1000, "rejected:bad_record": 1}
    assert detail == "a/00000.tar: 0: 1001 texts, of which 1000 are taken"


@pytest.mark.parametrize("key", ["url", "page_url", "license"])
def test_rows_held_of_one_sample(tmp_path, monkeypatch, key):
    """However many texts a sample has, and however long its URLs, few rows are held at once."""
    added: list[int] = []
    monkeypatch.setattr(Collector, "add", lambda _, found: added.append(found.num_rows))
    metadata = {key: "http://a.test/" + "x" * 4000, "titles": [f"{i}" for i in range(1000)]}
    monkeypatch.setattr(webdataset, "_BATCH_CHARS", 40_000)
    of_one(tmp_path, sample("0", JPG, None, **metadata), text_keys=["titles"])
    assert sum(added) == 1000
    assert max(added) <= 10


def test_an_endless_key(tmp_path):
    """A key that makes a name longer than a URL may be is told of."""
    members = sample("k" * 5000, JPG, "a")
    rows, _, details = of_one(tmp_path, data=tar_of(members, tarfile.GNU_FORMAT))
    assert rows == []
    assert "a key of 5000 characters" in details[0]


def whole(count: int) -> list[list[tuple[str, bytes]]]:
    return [sample(f"{i:03d}", JPG * 100, f"text {i}", n=i) for i in range(count)]


def test_a_bad_header(tmp_path):
    """A header with a wrong checksum costs its sample at most; the next ones are found."""
    data = bytearray(tar_of([m for s in whole(5) for m in s]))
    at = data.index(b"002.jpg")
    data[at] ^= 1
    rows, counts, [detail] = of_one(tmp_path, data=bytes(data))
    assert [row["text"] for row in rows] == ["text 0", "text 1", "text 3", "text 4"]
    assert all(picture(row) == JPG * 100 for row in rows)
    assert counts["rejected:bad_record"] == counts["rejected:picture_missing"] == 1
    assert detail == f"a/00000.tar: byte {at}: no sound header"


def test_cut_short(tmp_path):
    """A tar that is cut short gives its whole samples, and says where it ends."""
    data = tar_of([m for s in whole(5) for m in s])
    at = data.index(b"003.jpg")
    rows, counts, [detail] = of_one(tmp_path, data=data[: at + 700])
    assert [row["text"] for row in rows] == ["text 0", "text 1", "text 2"]
    assert detail == f"a/00000.tar: byte {at}: 003.jpg is cut short"
    assert counts["pages"] == 3


def test_a_shard_that_shrinks():
    """A text that is cut off by the end of a shard that was longer is a fault, no caption."""
    data = tar_of([m for s in whole(3) for m in s])
    at = data.index(b"text 1")
    found = list(webdataset.samples(io.BytesIO(data[: at + 3]), len(data), ["jpg"], ["txt"]))
    texts = [s.small for s in found if isinstance(s, webdataset.Sample)]
    assert texts == [{"txt": b"text 0"}, {}]
    assert Fault("001.txt is cut short", at) in found


@pytest.mark.parametrize("data", [b"", b"<html>" * 500, b"\x1f\x8b\x08\x00" * 500])
def test_no_tar(tmp_path, data):
    """What is no tar at all is an error that says so."""
    with pytest.raises(ArchiveError, match=r"no sample.*00000\.tar"):
        of_one(tmp_path, data=data)
    assert not list((tmp_path / "out").rglob("*.arrow"))


def test_an_empty_tar(tmp_path):
    """A tar with nothing in it has no candidates."""
    assert of_one(tmp_path, data=tar_of([])) == ([], {"pages": 0, "candidates": 0}, [])


def test_many_batches(tmp_path, monkeypatch):
    """Rows handed on in small batches are the same rows."""
    rows, counts, _ = of_one(tmp_path, *whole(20))
    monkeypatch.setattr(webdataset, "_BATCH_ROWS", 3)
    assert of_one(tmp_path, *whole(20)) == (rows, counts, [])


def test_the_same_bytes_twice(tmp_path):
    """Crawled again, a shard's candidates have the same bytes."""
    place = write(tmp_path / "0.tar", *whole(20))
    first, again = crawled([place], tmp_path / "b")[0][1], crawled([place], tmp_path / "c")[0][1]
    assert [o.xxh3 for o in first.outputs] == [o.xxh3 for o in again.outputs]


def test_a_shard_that_vanishes(tmp_path):
    """A shard that is gone once it is to be read is counted as missing; its unit is done."""
    place = write(tmp_path / "0.tar", sample("0", JPG, "a"))
    [piece] = webdataset.pieces(WebDatasetSource(paths=[place]))
    Path(place).unlink()
    done = webdataset.run(piece.job(Output.of(str(tmp_path / "out"), "0")))
    assert done.counts == {"pages": 0, "candidates": 0, "rejected:archive_missing": 1}


def test_over_http(tmp_path):
    """A shard on a web server is read like one on disk, from its beginning to its end."""
    data = tar_of([m for s in whole(20) for m in s])
    [(local, _)] = crawled([write(tmp_path / "archive.gz", *whole(20))], tmp_path / "local")
    with RangeServer(data) as server:
        [(remote, _)] = crawled([server.url], tmp_path / "out")
        assert server.asked == [(0, 1), (0, len(data))]
    by_place = ["uid", "url", "archive", "picture_at"]
    assert remote.drop(by_place).equals(local.drop(by_place))
    places = (place.rpartition("@") for place in remote["picture_at"].to_pylist())
    assert {place for place, _, _ in places} == {server.url}


@pytest.mark.s3
def test_in_a_bucket(tmp_path, s3_folder):
    """Shards on a real S3 server are found by pattern, read, and their pictures lie there."""
    for path in sorted(SAMPLE.glob("*.tar")):
        storage.publish_bytes(storage.join(s3_folder, path.name), path.read_bytes())
    found = crawled([f"{s3_folder}/*.tar"], tmp_path / "remote")
    shutil.copytree(SAMPLE, tmp_path / "local")
    here = crawled([f"{tmp_path}/local/*.tar"], tmp_path / "out")
    for (remote, counts), (local, expected) in zip(found, here, strict=True):
        by_place = ["archive", "picture_at"]
        assert remote.drop(by_place).equals(local.drop(by_place))
        assert counts.counts == expected.counts
        assert [picture(r) for r in remote.to_pylist()] == [picture(r) for r in local.to_pylist()]


def test_samples_are_webdatasets(tmp_path):
    """Keys and members are those that webdataset itself makes of a shard."""
    from webdataset import tariterators

    place = write(
        tmp_path / "0.tar",
        *whole(4),
        [("x/a.b.jpg", b"1"), ("x/a.b.txt", b"2"), ("x.y/c.Txt", b"3"), ("plain", b"4")],
    )
    with Path(place).open("rb") as stream:
        files = tariterators.tar_file_expander([{"url": "a", "stream": stream}])
        theirs = [
            (s["__key__"], {k for k in s if not k.startswith("__")})
            for s in tariterators.group_by_keys(files)
        ]
    data = Path(place).read_bytes()
    wanted = ["jpg", "b.jpg"], ["txt", "json", "b.txt"]
    found = webdataset.samples(io.BytesIO(data), len(data), *wanted)
    ours = [s for s in found if isinstance(s, webdataset.Sample)]
    assert [(s.key, {*s.pictures, *s.small}) for s in ours] == theirs
