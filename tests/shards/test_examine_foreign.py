"""Verifying shards of others against what was indexed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.foreign_tar import jpeg, sample, shard, tar_of
from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.progress import Silent
from wit_builder.runners import InProcess
from wit_builder.shards.faults import Fault
from wit_builder.shards.index import Asked, index, members
from wit_builder.shards.read import Dataset
from wit_builder.shards.verify import verify


def make(folder: Path, caption: str = "txt") -> Path:
    asked = Asked([str(folder)], members("jpg", caption))
    index(asked, str(folder), InProcess(), Silent())
    return folder


@pytest.fixture
def indexed(tmp_path: Path) -> Path:
    """Three shards of two blocks and more each, indexed where they are."""
    for n in range(3):
        parts = [m for i in range(4) for m in sample(f"{n}{i}", bytes([n + 1]) * 1_600_000, "text")]
        path = tmp_path / "cc" / f"{n}.tar"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tar_of([*parts, ("README", b"r" * 600)]))
    return make(tmp_path / "cc")


def faults(folder: Path, *, decode: bool = False) -> list[Fault]:
    return verify(str(folder), decode=decode).faults


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_was_indexed_verifies(indexed: Path) -> None:
    """With one worker or two; shards, samples and bytes are counted."""
    report = verify(str(indexed))
    size = sum(p.stat().st_size for p in indexed.glob("*.tar"))
    assert (report.ok, report.shards, report.samples, report.bytes) == (True, 3, 12, size)
    assert verify(str(indexed), workers=2) == report


def test_a_flipped_byte_is_named_by_its_block(indexed: Path) -> None:
    """The shard, which samples, and where they begin."""
    flip(indexed / "1.tar", 4_000_000)
    (fault,) = faults(indexed)
    assert (fault.file, fault.member) == ("1.tar", "samples 2 to 3")
    assert fault.offset == Dataset.open(str(indexed)).blocks["offset"][3].as_py()


def test_a_flipped_byte_outside_of_blocks_is_told(indexed: Path) -> None:
    """All samples are right; the SHA-256 is not."""
    path = indexed / "2.tar"
    flip(path, path.stat().st_size - 1)
    (fault,) = faults(indexed)
    assert (fault.file, fault.offset) == ("2.tar", -1)
    assert "SHA-256" in fault.what


def test_a_shard_cut_short_is_named_where(indexed: Path) -> None:
    """The block that the file ends in."""
    path = indexed / "0.tar"
    path.write_bytes(path.read_bytes()[:5_000_000])
    (fault,) = faults(indexed)
    assert (fault.file, fault.member) == ("0.tar", "samples 2 to 3")
    assert "cut short" in fault.what


def test_a_shard_that_grew_is_told(indexed: Path) -> None:
    """Its samples are right, and there is more."""
    with (indexed / "0.tar").open("ab") as stream:
        stream.write(bytes(512))
    (fault,) = faults(indexed)
    assert "bytes, the manifest says" in fault.what


def test_a_replaced_shard_is_one_fault(indexed: Path) -> None:
    """Not one for each of its blocks; and its fix is to index again."""
    shutil.copy(indexed / "1.tar", indexed / "2.tar")
    (fault,) = faults(indexed)
    assert "not the shard that was indexed" in fault.what
    assert "wit index" in fault.fix
    with pytest.raises(ShardFormatError, match="damaged"):
        list(Dataset.open(str(indexed)).samples(2))


def test_a_missing_shard_is_named(indexed: Path) -> None:
    """The others are checked all the same."""
    (indexed / "1.tar").unlink()
    (fault,) = faults(indexed)
    assert fault.file == "1.tar"
    assert "no such file" in fault.what


def test_tables_of_another_data_set_are_told(indexed: Path, tmp_path: Path) -> None:
    """A manifest that is not this data set's is refused by readers, and told by verify."""
    shard(tmp_path / "other" / "0.tar", range(3))
    make(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "manifest.parquet", indexed)
    assert any("not of one revision" in fault.what for fault in faults(indexed))
    with pytest.raises(ShardFormatError, match="not of one revision"):
        Dataset.open(str(indexed))


def test_blocks_that_overlap_are_told(indexed: Path) -> None:
    """A block table in which one block reaches into the next is refused."""
    path = str(indexed / "blocks.parquet")
    table = storage.read_parquet(path)
    rows = table.to_pylist()
    rows[0]["length"] += 1_000_000
    storage.write_parquet(path, table.from_pylist(rows, schema=table.schema))
    assert any("one after the other" in fault.what for fault in faults(indexed))


def test_other_endings_than_were_indexed_are_told(indexed: Path) -> None:
    """Where dataset.json was edited, the counts of samples show it."""
    path = indexed / "dataset.json"
    info = json.loads(path.read_text())
    info["foreign"]["caption"] = ["cls"]
    path.write_text(json.dumps(info))
    assert {fault.what for fault in faults(indexed)} == {"there are 0 in it: index it again"}


def test_decoding_names_the_sample(tmp_path: Path) -> None:
    """A picture that is cut short and a caption that is not there are told by key, on request."""
    parts = sample("00", jpeg(0), None, caption="a") + sample(
        "01", jpeg(1)[:-200], None, caption="b"
    )
    parts += sample("02", jpeg(2), None, caption=None)
    (tmp_path / "x.tar").write_bytes(tar_of(parts))
    make(tmp_path, caption="json:caption")
    assert faults(tmp_path) == []
    found = faults(tmp_path, decode=True)
    assert [(f.file, f.member) for f in found] == [
        ("x.tar", "the picture of 01"),
        ("x.tar", "02"),
    ]
    assert "does not decode" in found[0].what
