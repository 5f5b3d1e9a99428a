"""Which shards a source of pictures names, and what they are called."""

from __future__ import annotations

from typing import Any

import pytest

from tests.foreign_tar import sample, write
from wit_builder import storage
from wit_builder.crawl import webdataset
from wit_builder.crawl.candidates import Output
from wit_builder.errors import GoneError, ShardFormatError, StorageError
from wit_builder.sections import WebDatasetSource

JPG = b"\xff\xd8\xff a picture"


def places_of(*paths: str) -> list[str]:
    return [piece.key for piece in webdataset.pieces(WebDatasetSource(paths=list(paths)))]


def test_paths(tmp_path):
    """Shell patterns and braces name shards, each once, in order."""
    for name in ["0", "1", "2", "10"]:
        write(tmp_path / f"{name}.tar", sample("0", JPG, "a"))
    at = str(tmp_path)
    assert places_of(f"{at}/{{0..2}}.tar") == [f"{at}/{n}.tar" for n in "012"]
    assert places_of(f"{at}/1.tar", f"{at}/*.tar") == [
        f"{at}/{n}.tar" for n in ["1", "0", "10", "2"]
    ]
    assert places_of(f"{at}/{{0,1}}*.tar") == [f"{at}/{n}.tar" for n in ["0", "1", "10"]]


def test_a_name_with_braces(tmp_path):
    """A file that has braces in its name is that file."""
    place = write(tmp_path / "a{0..1}.tar", sample("0", JPG, "a"))
    assert places_of(place) == [place]


def test_missing_shards(tmp_path):
    """A shard that is not there, a pattern without one, and odd braces are errors that say so."""
    write(tmp_path / "0.tar", sample("0", JPG, "a"))
    with pytest.raises(GoneError, match=r"no such file.*1\.tar"):
        places_of(f"{tmp_path}/{{0..1}}.tar")
    with pytest.raises(StorageError, match="nothing matches"):
        places_of(f"{tmp_path}/*.tgz")
    with pytest.raises(ShardFormatError, match="unbalanced"):
        places_of(f"{tmp_path}/{{0..1.tar")


def names_of(*paths: str) -> list[str]:
    pieces = webdataset.pieces(WebDatasetSource(paths=list(paths)))
    return [piece.job(Output.of("out", "0")).shard for piece in pieces]


def test_a_shard_has_its_name_from_its_place(tmp_path):
    """Shards of one name differ by their folder, also in another source; the others matter not."""
    first, second = (
        write(tmp_path / name / "00000.tar", sample("0", JPG, "a")) for name in ("laion", "cc12m")
    )
    alone = names_of(first) + names_of(second)
    assert names_of(first, second) == alone == ["laion/00000.tar", "cc12m/00000.tar"]


def test_the_name_of_a_shard_in_no_folder(tmp_path, monkeypatch):
    """A shard that is named without a folder is called by its file's name."""
    write(tmp_path / "0.tar", sample("0", JPG, "a"))
    monkeypatch.chdir(tmp_path)
    assert names_of("0.tar") == names_of("./0.tar") == ["0.tar"]
    assert names_of("0.tar", "./0.tar") == ["0.tar", "0.tar"]


def test_the_name_of_a_shard_on_the_web(monkeypatch):
    """Password and signature of a URL stand in no name, unless nothing else tells shards apart."""
    monkeypatch.setattr(storage, "identity", str)
    monkeypatch.setattr(storage, "glob", lambda place: [place])
    assert names_of("https://me:secret@a.test/0.tar?sig=1/2") == ["a.test/0.tar"]
    assert names_of("https://a.test/x/0.tar?sig=1/2", "s3://bucket/0.tar") == [
        "x/0.tar", "bucket/0.tar",
    ]  # fmt: skip
    assert names_of("https://a.test/get?id=1", "https://a.test/get?id=2") == [
        "id=1/https:/a.test/get", "id=2/https:/a.test/get",
    ]  # fmt: skip


def test_shards_of_one_name_and_folder(tmp_path):
    """Shards of one source that share both are told apart by further folders."""
    for part in ["p0/x", "p1/x"]:
        write(tmp_path / part / "0.tar", sample("0", JPG, "a"))
    write(tmp_path / "p1" / "x" / "1.tar", sample("0", JPG, "a"))
    pieces = webdataset.pieces(WebDatasetSource(paths=[f"{tmp_path}/p*/x/*.tar"]))
    jobs = [piece.job(Output.of(str(tmp_path), f"{i}")) for i, piece in enumerate(pieces)]
    for job in jobs:
        webdataset.run(job)
    urls = [next(storage.read_batches(job.output.candidates))["url"][0].as_py() for job in jobs]
    assert urls == [
        "wds:p0/x/0.tar/0", "wds:p1/x/0.tar/0", "wds:x/1.tar/0",
    ]  # fmt: skip


def test_what_a_piece_depends_on(tmp_path):
    """A change of the shard or of how it is read makes the unit anew; other shards do not."""
    place = write(tmp_path / "0.tar", sample("0", JPG, "a"))

    def inputs(**settings: Any) -> list[str]:
        [first, *_] = webdataset.pieces(WebDatasetSource(**{"paths": [place], **settings}))
        return first.inputs

    before = inputs()
    other = write(tmp_path / "1.tar", sample("0", JPG, "a"))
    assert inputs(paths=[place, other]) == before
    assert inputs(text_keys=["caption"]) != before
    write(tmp_path / "0.tar", sample("0", JPG, "another"), sample("1", JPG, "b"))
    assert inputs() != before
