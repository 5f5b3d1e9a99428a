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


def test_shards_of_one_name(tmp_path):
    """Shards of one name in several folders give different names to pictures without a URL."""
    for part in ["p0/x", "p1/x"]:
        write(tmp_path / part / "0.tar", sample("0", JPG, "a"))
    write(tmp_path / "p1" / "x" / "1.tar", sample("0", JPG, "a"))
    pieces = webdataset.pieces(WebDatasetSource(paths=[f"{tmp_path}/p*/x/*.tar"]))
    jobs = [piece.job(Output.of(str(tmp_path), f"{i}")) for i, piece in enumerate(pieces)]
    for job in jobs:
        webdataset.run(job)
    urls = [next(storage.read_batches(job.output.candidates))["url"][0].as_py() for job in jobs]
    assert urls == [
        "wds:p0/x/0.tar/0", "wds:p1/x/0.tar/0", "wds:1.tar/0",
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
