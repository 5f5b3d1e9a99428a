"""A verify that was cut short goes on, and vouches for nothing that has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wit_builder import storage
from wit_builder.progress import Silent
from wit_builder.shards import verify as checking
from wit_builder.shards.examine import Examined, Expected, examine
from wit_builder.shards.verify import Report, verify


class Interrupting(Silent):
    """Presses Ctrl-C when so many shards are done."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, stage: str, counts: dict[str, int]) -> None:
        del stage, counts
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are examined, as they are."""
    seen: list[str] = []

    def noted(expected: Expected) -> Examined:
        seen.append(expected.shard)
        return examine(expected)

    monkeypatch.setattr(checking, "examine", noted)
    return seen


def interrupted(folder: Path, notes: str, after: int = 2) -> None:
    with pytest.raises(KeyboardInterrupt):
        verify(str(folder), resume=notes, observer=Interrupting(after))


def resumed(folder: Path, notes: str) -> Report:
    return verify(str(folder), resume=notes)


def test_what_was_checked_is_not_read_again(
    copy_of_set: Path, tmp_path: Path, examined: list[str]
) -> None:
    """After an interruption only the rest is read, and the report is of all."""
    notes = str(tmp_path / "notes")
    interrupted(copy_of_set, notes)
    assert resumed(copy_of_set, notes) == verify(str(copy_of_set))
    assert examined[:3] == ["000000.tar", "000001.tar", "000002.tar"]


def test_a_finished_verify_leaves_no_notes(
    copy_of_set: Path, tmp_path: Path, examined: list[str]
) -> None:
    """The next one reads everything: notes vouch for one pass only. Other files stay."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    for _ in range(2):
        assert resumed(copy_of_set, str(tmp_path / "notes")).ok
    assert len(examined) == 6
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_a_shard_that_changed_since_is_read_again(copy_of_set: Path, tmp_path: Path) -> None:
    """Even if its size is the same; so its damage is found."""
    notes = str(tmp_path / "notes")
    interrupted(copy_of_set, notes)
    path = copy_of_set / "000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    (fault,) = resumed(copy_of_set, notes).faults
    assert fault.file == "000000.tar"


@pytest.mark.parametrize("name", ["000001.parquet", "000000.tar"])
def test_a_file_that_is_gone_since_is_told(copy_of_set: Path, tmp_path: Path, name: str) -> None:
    """Notes do not stand for what is not there any more."""
    notes = str(tmp_path / "notes")
    interrupted(copy_of_set, notes)
    (copy_of_set / name).unlink()
    assert name in {fault.file for fault in resumed(copy_of_set, notes).faults}


def test_another_manifest_makes_notes_void(
    copy_of_set: Path, tmp_path: Path, examined: list[str]
) -> None:
    """What a shard was compared with counts as well as what it is."""
    notes = str(tmp_path / "notes")
    interrupted(copy_of_set, notes)
    table = storage.read_parquet(str(copy_of_set / "manifest.parquet"))
    rows = table.to_pylist()
    rows[0]["sha256"] = "0" * 64
    path = str(copy_of_set / "manifest.parquet")
    storage.write_parquet(path, table.from_pylist(rows, schema=table.schema))
    assert not resumed(copy_of_set, notes).ok
    assert examined.count("000000.tar") == 2


def test_a_shard_that_was_out_of_reach_is_tried_again(copy_of_set: Path, tmp_path: Path) -> None:
    """A fault that was noted is looked for again: it may have been the network's."""
    notes = str(tmp_path / "notes")
    path = copy_of_set / "000000.tar"
    stamp = path.stat()
    path.rename(tmp_path / "away")
    path.mkdir()
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    interrupted(copy_of_set, notes)
    path.rmdir()
    (tmp_path / "away").rename(path)
    assert resumed(copy_of_set, notes).ok


def test_decoding_is_not_taken_for_done(
    copy_of_set: Path, tmp_path: Path, examined: list[str]
) -> None:
    """Notes of a verify that decoded nothing do not stand for one that decodes."""
    notes = str(tmp_path / "notes")
    interrupted(copy_of_set, notes)
    assert verify(str(copy_of_set), resume=notes, decode=True).ok
    assert examined.count("000000.tar") == 2


@pytest.mark.s3
def test_notes_can_be_in_a_bucket(sample_set: Path, s3_folder: str, examined: list[str]) -> None:
    """For machines that have no disk of their own."""
    interrupted(sample_set, s3_folder)
    assert resumed(sample_set, s3_folder).ok
    assert len(examined) == 3
    bucket, path = storage.filesystem(s3_folder)
    assert not [found for found in bucket.find(path) if found.endswith(".json")]
