"""Indexing shards of others: which ones, what is published, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.foreign_tar import jpeg, shard, tar_of
from tests.range_server import OPENING, RangeServer, status
from wit_builder import storage
from wit_builder.errors import GoneError, ShardFormatError, StorageError, UnitsFailedError
from wit_builder.progress import Silent
from wit_builder.runners import InProcess, LocalPool, Runner
from wit_builder.shards import index as indexing
from wit_builder.shards.index import Asked, Indexed, index, members, places_of, root_of
from wit_builder.shards.layout import Foreign
from wit_builder.shards.read import Dataset
from wit_builder.shards.removal import remove
from wit_builder.shards.survey import Survey, survey

PUBLISHED = ["blocks.parquet", "dataset.json", "manifest.parquet", "sizes.json"]


@pytest.fixture
def cc(tmp_path: Path) -> Path:
    """A download of three shards."""
    for n in range(3):
        shard(tmp_path / "cc" / f"{n:05d}.tar", range(n * 10, n * 10 + 7 + n))
    return tmp_path / "cc"


def indexed(
    patterns: list[str],
    out: Path | str,
    runner: Runner | None = None,
    *,
    image: str = "jpg",
    caption: str = "txt",
    skip_missing: bool = False,
) -> Indexed:
    asked = Asked(patterns, members(image, caption), skip_missing)
    return index(asked, str(out), runner or InProcess(), Silent())


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in PUBLISHED}


def test_shards_of_others_become_a_data_set(cc: Path, tmp_path: Path) -> None:
    """It opens, and has their samples in their order, block by block."""
    found = indexed([f"{cc}/{{00000..00002}}.tar"], tmp_path / "out")
    assert (found.shards, found.samples, found.counts, found.faults) == (3, 24, {}, [])
    data = Dataset.open(str(tmp_path / "out"))
    samples = [s for n in range(3) for s in data.samples(n)]
    numbers = [*range(7), *range(10, 18), *range(20, 29)]
    assert [s.key for s in samples] == [f"{n:09d}" for n in numbers]
    assert [s.members["jpg"] for s in samples] == [jpeg(n) for n in numbers]
    assert data.info.bytes == sum(p.stat().st_size for p in cc.iterdir()) == found.bytes
    sizes = json.loads((tmp_path / "out" / "sizes.json").read_bytes())
    assert sizes == {"00000.tar": 7, "00001.tar": 8, "00002.tar": 9}


def test_beside_the_shards_nothing_tells_where_they_are(cc: Path, tmp_path: Path) -> None:
    """Indexed in their own folder, shards and tables can be moved together."""
    indexed([str(cc)], cc)
    moved = Path(shutil.move(cc, tmp_path / "moved"))
    assert str(tmp_path) not in (moved / "dataset.json").read_text()
    assert len(list(Dataset.open(str(moved)).samples(2))) == 9


def test_the_same_shards_give_the_same_bytes(cc: Path, tmp_path: Path) -> None:
    """Wherever it is done, with one worker or two."""
    pool = LocalPool(2)
    try:
        indexed([str(cc)], cc, pool)
    finally:
        pool.close()
    copied = Path(shutil.copytree(cc, tmp_path / "copy", ignore=shutil.ignore_patterns(*PUBLISHED)))
    indexed([f"{copied}/*.tar"], copied)
    assert tables(copied) == tables(cc)


def test_starting_again_reads_only_what_changed(
    cc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that was replaced or is new is read; the others are not."""
    indexed([str(cc)], tmp_path / "out")
    read: list[str] = []

    def noted(place: str, name: str, foreign: Foreign) -> Survey:
        read.append(name)
        return survey(place, name, foreign)

    monkeypatch.setattr(indexing, "survey", noted)
    indexed([str(cc)], tmp_path / "out")
    assert read == []
    shard(cc / "00001.tar", range(50, 53))
    shard(cc / "00003.tar", range(60, 61))
    assert indexed([str(cc)], tmp_path / "out").samples == 7 + 3 + 9 + 1
    assert read == ["00001.tar", "00003.tar"]
    indexed([str(cc)], tmp_path / "out", caption="json:caption")
    assert len(read) == 6


def test_captions_under_a_key_of_json(cc: Path, tmp_path: Path) -> None:
    """What the members are called and where the caption stands is part of the data set."""
    indexed([str(cc)], tmp_path / "out", image=".PNG,jpg", caption="json:caption")
    foreign = Dataset.open(str(tmp_path / "out")).info.foreign
    assert (foreign.image, foreign.caption, foreign.caption_key) == (  # type: ignore[union-attr]
        ("png", "jpg"),
        ("json",),
        "caption",
    )


def test_a_hole_in_a_pattern_is_refused_or_skipped(cc: Path, tmp_path: Path) -> None:
    """Missing shards are counted, and the first is named; they can be left out."""
    (cc / "00001.tar").unlink()
    pattern = [f"{cc}/{{00000..00004}}.tar"]
    with pytest.raises(GoneError, match=r"missing: 3 of 5.*00001\.tar.*--missing skip"):
        indexed(pattern, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    found = indexed(pattern, tmp_path / "out", skip_missing=True)
    assert (found.shards, found.samples) == (2, 16)
    assert [storage.name_of(m) for m in found.missing] == ["00001.tar", "00003.tar", "00004.tar"]
    with pytest.raises(GoneError, match="missing: 2 of 2"):
        indexed([f"{cc}/x{{0,1}}.tar"], tmp_path / "out", skip_missing=True)


def test_folders_and_patterns_are_taken_in_their_order(cc: Path, tmp_path: Path) -> None:
    """Each shard once, those of a folder by name; names start from the folder they share."""
    shard(tmp_path / "more" / "00000.tar", range(3))
    patterns = [f"{cc}/00002.tar", f"{tmp_path}/{{cc,more}}"]
    places = places_of(patterns)
    assert [p.removeprefix(str(tmp_path)) for p in places] == [
        "/cc/00002.tar", "/cc/00000.tar", "/cc/00001.tar", "/more/00000.tar",
    ]  # fmt: skip
    assert root_of(places) == str(tmp_path)
    indexed(patterns, tmp_path / "out")
    data = Dataset.open(str(tmp_path / "out"))
    assert data.manifest["shard"].to_pylist()[-1] == "more/00000.tar"
    assert len(list(data.samples(3))) == 3


def test_a_relative_place_is_kept_as_an_absolute_one(
    cc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set opens from any folder."""
    monkeypatch.chdir(tmp_path)
    indexed(["cc"], "out")
    monkeypatch.chdir("/")
    assert Dataset.open(str(tmp_path / "out")).info.root == str(cc)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{cc}/00000.tar.gz", r"compressed as a whole.*-> decompress"),
        ("{cc}/gone", r"no tar here.*-> name tars"),
        ("{cc}/*.txt", r"nothing matches"),
        ("{cc}/{{0..9.tar", r"unbalanced braces"),
        ("pipe:aws s3 cp x -", r"a pipe has no places.*-> name files"),
    ],
)
def test_what_names_no_tars_is_refused(cc: Path, tmp_path: Path, pattern: str, words: str) -> None:
    """Each in a line with a fix; nothing is left behind."""
    with pytest.raises((ShardFormatError, StorageError)) as caught:
        indexed([pattern.format(cc=cc)], tmp_path / "out")
    assert re.search(words, str(caught.value)), caught.value
    assert not (tmp_path / "out").exists()


def test_a_folder_of_compressed_tars_is_told(tmp_path: Path) -> None:
    """The first of them is named."""
    (tmp_path / "x.tgz").touch()
    with pytest.raises(ShardFormatError, match=r"compressed.*x\.tgz"):
        places_of([str(tmp_path)])


def test_places_without_a_common_folder_are_refused() -> None:
    """Two buckets are two data sets."""
    with pytest.raises(StorageError, match=r"no folder in common.*mixture"):
        root_of(["s3://a/0.tar", "s3://b/0.tar"])
    with pytest.raises(StorageError, match="no folder in common"):
        root_of(["s3://a/0.tar", "/a/0.tar"])
    assert root_of(["s3://a/x/0.tar", "s3://a/y/0.tar"]) == "s3://a"


def test_no_pair_at_all_is_told_with_what_is_there(cc: Path, tmp_path: Path) -> None:
    """Wrong endings are named beside those that the members have."""
    with pytest.raises(ShardFormatError, match=r"\(png\).*\(cls\).*end in jpg, json, txt.*--image"):
        indexed([str(cc)], tmp_path / "out", image="png", caption="cls")
    with pytest.raises(ShardFormatError, match=r"no sample has a string under 'title'"):
        indexed([str(cc)], tmp_path / "out", caption="json:title")
    (tmp_path / "empty.tar").write_bytes(tar_of([]))
    with pytest.raises(ShardFormatError, match="they are empty"):
        indexed([str(tmp_path / "empty.tar")], tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_an_empty_shard_among_others_stays(cc: Path, tmp_path: Path) -> None:
    """It is listed with no samples, and the data set opens."""
    (cc / "00001.tar").write_bytes(tar_of([]))
    indexed([str(cc)], tmp_path / "out")
    assert Dataset.open(str(tmp_path / "out")).manifest["samples"].to_pylist() == [7, 0, 9]


@pytest.mark.parametrize(("image", "caption"), [("", "txt"), ("jpg", ","), ("jpg", "json:")])
def test_endings_that_name_nothing_are_refused(image: str, caption: str) -> None:
    """An empty list is a mistake."""
    with pytest.raises(ShardFormatError, match="nothing is named"):
        members(image, caption)


def test_faults_are_named_and_the_rest_is_kept(cc: Path, tmp_path: Path) -> None:
    """A shard cut short gives what it has, and is told."""
    data = (cc / "00001.tar").read_bytes()
    (cc / "00001.tar").write_bytes(data[:20_000])
    found = indexed([str(cc)], tmp_path / "out")
    assert found.samples < 24
    assert [f.file for f in found.faults] == ["00001.tar"]
    assert found.counts["faults"] == 1
    Dataset.open(str(tmp_path / "out"))


def test_a_shard_that_is_no_tar_fails_and_the_others_are_done(cc: Path, tmp_path: Path) -> None:
    """It is named; once it is mended, only it is read."""
    (cc / "00001.tar").write_bytes(b"<html>" * 1000)
    with pytest.raises(UnitsFailedError, match=r"1 of 3 units failed.*no tar.*00001\.tar"):
        indexed([str(cc)], tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert len(list((tmp_path / "out" / ".index" / "surveys").iterdir())) == 2


def test_a_packed_data_set_is_not_written_over(sample_set: Path) -> None:
    """Its own index stays; another folder can have one of others' making."""
    before = tables(sample_set)
    with pytest.raises(ShardFormatError, match=r"a data set here already.*--out"):
        indexed([str(sample_set)], sample_set)
    assert tables(sample_set) == before


def test_our_own_shards_can_be_indexed_elsewhere(sample_set: Path, tmp_path: Path) -> None:
    """They are plain WebDataset: the blocks hold the same samples."""
    indexed([str(sample_set)], tmp_path / "out")
    ours, theirs = Dataset.open(str(sample_set)), Dataset.open(str(tmp_path / "out"))
    for n in range(3):
        assert list(theirs.samples(n)) == list(ours.samples(n))


def test_nothing_is_removed_from_shards_of_others(cc: Path, tmp_path: Path) -> None:
    """They are never written to."""
    indexed([str(cc)], tmp_path / "out")
    with pytest.raises(ShardFormatError, match="shards of others"):
        remove(str(tmp_path / "out"), [])


@pytest.fixture
def server(cc: Path) -> Iterator[RangeServer]:
    with RangeServer((cc / "00000.tar").read_bytes()) as serving:
        yield serving


def test_shards_on_the_web_are_indexed_where_they_are(
    server: RangeServer, cc: Path, tmp_path: Path
) -> None:
    """Read by ranges, and known again by what the server says of them."""
    indexed([f"{server.endpoint}/a/00000.tar"], tmp_path / "web")
    indexed([str(cc / "00000.tar")], tmp_path / "disk")
    web, disk = (Dataset.open(str(tmp_path / name)) for name in ("web", "disk"))
    assert web.info.root == f"{server.endpoint}/a"
    assert web.blocks.equals(disk.blocks)
    assert list(web.samples(0)) == list(disk.samples(0))


def test_a_forbidden_shard_is_not_called_missing(server: RangeServer, tmp_path: Path) -> None:
    """403 is told as such, with the URL; 404 is missing."""
    url = f"{server.endpoint}/00000.tar"
    server.faults[OPENING] = [status(403)]
    with pytest.raises(StorageError, match=r"permission denied.*00000\.tar"):
        indexed([url], tmp_path / "out", skip_missing=True)
    server.faults[OPENING] = [status(404)]
    with pytest.raises(GoneError, match="missing: 1 of 1"):
        indexed([url], tmp_path / "out")


@pytest.mark.s3
def test_shards_in_a_bucket_are_indexed_beside_themselves(cc: Path, s3_folder: str) -> None:
    """The tables are those of the same shards on disk."""
    for path in cc.iterdir():
        storage.publish_bytes(storage.join(s3_folder, path.name), path.read_bytes())
    indexed([f"{s3_folder}/{{00000..00002}}.tar"], s3_folder)
    indexed([str(cc)], cc)
    found = {n: storage.read_bytes(storage.join(s3_folder, n)) for n in PUBLISHED}
    assert found == tables(cc)
    assert len(list(Dataset.open(s3_folder).samples(1))) == 8
