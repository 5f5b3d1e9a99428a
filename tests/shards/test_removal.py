"""Taking samples out of a data set."""

from __future__ import annotations

import gc
import hashlib
import json
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit_builder import storage
from wit_builder.errors import ShardFormatError
from wit_builder.shards import removal
from wit_builder.shards.read import Dataset, Sample
from wit_builder.shards.removal import Removal
from wit_builder.shards.verify import verify


def samples(folder: Path) -> list[Sample]:
    data = Dataset.open(str(folder))
    return [s for shard in range(data.info.shards) for s in data.samples(shard)]


def uids(folder: Path, *positions: int) -> pa.Array:
    tables = [pq.read_table(p) for p in sorted(folder.glob("0*.parquet"))]
    every = pa.concat_tables(tables)["uid"].to_pylist()
    return pa.array([every[position] for position in positions], pa.binary(16))


def digests(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.iterdir())
        if not p.name.startswith(".")
    }


def test_a_removed_sample_is_zeroed_and_keeps_its_slot(copy_of_set: Path) -> None:
    """All other samples are as they were; the data set verifies, and has a later revision."""
    before = samples(copy_of_set)
    info = Dataset.open(str(copy_of_set)).info
    assert removal.remove(str(copy_of_set), uids(copy_of_set, 3, 11, 12)) == Removal(3, 2)
    after = samples(copy_of_set)
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if number in {3, 11, 12}:
            assert new.removed
            assert {n: len(b) for n, b in new.members.items()} == {
                n: len(b) for n, b in old.members.items()
            }
            assert not any(map(any, new.members.values()))
        else:
            assert new == old
    data = Dataset.open(str(copy_of_set))
    assert data.info.base == info.base
    assert data.info.digest != info.digest
    assert data.manifest["revision"].to_pylist() == [1, 1, 0]
    assert (data.revision, verify(str(copy_of_set)).faults) == (2, [])


def test_removing_again_changes_nothing(copy_of_set: Path) -> None:
    """Pairs that are gone, or were never there, touch no file."""
    gone = uids(copy_of_set, 3)
    removal.remove(str(copy_of_set), gone)
    before = {p: p.stat().st_mtime_ns for p in copy_of_set.iterdir()}
    strangers = pa.array([b"x" * 16], pa.binary(16))
    assert removal.remove(str(copy_of_set), pa.concat_arrays([gone, strangers])) == Removal(0, 0)
    assert {p: p.stat().st_mtime_ns for p in copy_of_set.iterdir()} == before


def test_a_later_removal_adds_to_an_earlier_one(copy_of_set: Path) -> None:
    """Each raises the revision of the shards it changes."""
    removal.remove(str(copy_of_set), uids(copy_of_set, 0))
    removal.remove(str(copy_of_set), uids(copy_of_set, 1, 23))
    data = Dataset.open(str(copy_of_set))
    assert data.manifest["revision"].to_pylist() == [2, 0, 1]
    assert [n for n, s in enumerate(samples(copy_of_set)) if s.removed] == [0, 1, 23]
    assert verify(str(copy_of_set)).ok


def test_a_whole_data_set_can_be_removed(copy_of_set: Path) -> None:
    """Every slot stays; what is left verifies."""
    assert removal.remove(str(copy_of_set), uids(copy_of_set, *range(24))) == Removal(24, 3)
    assert all(sample.removed for sample in samples(copy_of_set))
    assert verify(str(copy_of_set)).ok


def test_what_a_removal_would_take_is_counted(copy_of_set: Path) -> None:
    """Samples that are gone already do not count, nor do pairs that are not there."""
    wanted = uids(copy_of_set, 3, 4, 20)
    assert removal.count(str(copy_of_set), wanted) == 3
    removal.remove(str(copy_of_set), uids(copy_of_set, 4))
    assert removal.count(str(copy_of_set), wanted) == 2


def test_samples_are_found_by_their_metadata(copy_of_set: Path) -> None:
    """A function of the metadata says which; removed samples have none."""
    urls = [json.loads(s.members["json"])["url"] for s in samples(copy_of_set)]
    wanted = {urls[2], urls[17]}

    def found() -> list[bytes]:
        told = removal.find(
            str(copy_of_set), lambda many: np.array([m.url in wanted for m in many], np.bool_)
        )
        return sorted(told.to_pylist())

    assert found() == sorted(uids(copy_of_set, 2, 17).to_pylist())
    removal.remove(str(copy_of_set), uids(copy_of_set, 2))
    assert found() == uids(copy_of_set, 17).to_pylist()


def test_damage_is_not_given_a_digest_of_its_own(copy_of_set: Path) -> None:
    """A shard with a flipped byte is refused, and stays as it is."""
    path = copy_of_set / "000001.tar"
    data = bytearray(path.read_bytes())
    data[-3000] ^= 1
    path.write_bytes(data)
    before = digests(copy_of_set)
    with pytest.raises(ShardFormatError, match=r"block is damaged \[.*000001\.tar byte"):
        removal.remove(str(copy_of_set), uids(copy_of_set, 9))
    assert digests(copy_of_set) == before


class _KilledError(Exception):
    """Stands for the end of the process."""


def cut_short(folder: Path, wanted: pa.Array, after: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Remove, and stop before the file after so many is renamed; return whether that happened."""
    left, replace = [after], Path.replace

    def rename(part: Path, target: Path) -> Path:
        if not left[0]:
            raise _KilledError
        left[0] -= 1
        return replace(part, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", rename)
        try:
            removal.remove(str(folder), wanted)
        except _KilledError:
            return True
    return False


@pytest.mark.parametrize("after", range(7))
def test_a_removal_that_is_cut_short_is_told_and_finished(
    sample_set: Path, copy_of_set: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each file: verify says what it is and what to do, and finishing gives the same bytes.

    Nobody needs to know what was asked for, if its shards were begun with.
    """
    wanted = uids(sample_set, 3, 11, 12)
    whole = Path(shutil.copytree(sample_set, tmp_path / "whole"))
    removal.remove(str(whole), wanted)
    assert cut_short(copy_of_set, wanted, after, monkeypatch)
    faults = verify(str(copy_of_set)).faults
    assert all("wit remove" in fault.fix and "removal" in fault.what for fault in faults)
    assert bool(faults) == (after > 0)
    again = wanted if after < 3 else wanted.slice(0, 0)
    removal.remove(str(copy_of_set), again)
    assert digests(copy_of_set) == digests(whole)
    assert verify(str(copy_of_set)).ok


def test_damage_beside_a_removal_that_is_cut_short_is_named(
    copy_of_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped byte of another sample is told as well, and stops the removal."""
    assert cut_short(copy_of_set, uids(copy_of_set, 3), 1, monkeypatch)
    path = copy_of_set / "000000.tar"
    place = pq.read_table(path.with_suffix(".parquet")).to_pylist()[5]["jpg"]
    data = bytearray(path.read_bytes())
    data[place["offset"] + 20] ^= 1
    path.write_bytes(data)
    unfinished, damaged = verify(str(copy_of_set)).faults
    assert "removal" in unfinished.what
    assert (damaged.member, damaged.offset) == ("000000005.jpg", place["offset"])
    with pytest.raises(ShardFormatError, match="block is damaged"):
        removal.remove(str(copy_of_set), uids(copy_of_set))


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_whoever_has_opened_the_data_set_reads_on(
    copy_of_set: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile, a block has the bytes of one revision or of the next, and is never refused."""
    data = Dataset.open(str(copy_of_set))
    wanted = uids(copy_of_set, 3, 11)
    assert cut_short(copy_of_set, wanted, after, monkeypatch)
    gone = [s.removed for shard in range(3) for s in data.samples(shard)]
    assert [n for n, removed in enumerate(gone) if removed] == [3, 11][: after // 2]
    removal.remove(str(copy_of_set), wanted)
    gone = [s.removed for shard in range(3) for s in data.samples(shard)]
    assert [n for n, removed in enumerate(gone) if removed] == [3, 11]


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from wit_builder.shards import removal
folder, left, uids = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
replace = Path.replace
def rename(part, target):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return replace(part, target)
Path.replace = rename
removal.remove(folder, pa.array([bytes.fromhex(uid) for uid in uids], pa.binary(16)))
"""


def test_killed_and_started_again(sample_set: Path, tmp_path: Path) -> None:
    """SIGKILL time and again gives the bytes of a removal that nothing disturbed."""
    wanted = uids(sample_set, 0, 9, 10, 22)
    whole, killed = (Path(shutil.copytree(sample_set, tmp_path / n)) for n in ("whole", "killed"))
    removal.remove(str(whole), wanted)
    moments = random.Random(3)
    command = [sys.executable, "-c", KILLED, str(killed)]
    named = [uid.hex() for uid in wanted.to_pylist()]
    ended = [
        subprocess.run([*command, str(moments.randint(0, 3)), *named], check=False).returncode
        for _ in range(4)
    ]
    assert -9 in ended
    removal.remove(str(killed), wanted)
    assert digests(killed) == digests(whole)


@pytest.mark.s3
def test_a_data_set_in_a_bucket(sample_set: Path, s3_folder: str, tmp_path: Path) -> None:
    """On a real S3 server the bytes are those of a removal on disk."""
    for path in sample_set.iterdir():
        storage.publish_bytes(f"{s3_folder}/{path.name}", path.read_bytes())
    wanted = uids(sample_set, 3, 11, 12)
    whole = Path(shutil.copytree(sample_set, tmp_path / "whole"))
    assert removal.remove(s3_folder, wanted) == removal.remove(str(whole), wanted)
    found = {
        storage.name_of(url): hashlib.sha256(storage.read_bytes(url)).hexdigest()
        for url in storage.list_files(s3_folder)
    }
    assert found == digests(whole)
    assert verify(s3_folder).ok


def read_with_webdataset(folder: Path, handler: str) -> tuple[list[str], str]:
    """Return the keys that came, and the name of the error that ended it, if one did."""
    ended, keys = "", list[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn, and it warns of what it leaves out
        import webdataset

        pattern = f"{folder}/{{000000..000002}}.tar"
        read = webdataset.WebDataset(pattern, shardshuffle=False)
        try:
            for sample in read.decode("pil", handler=getattr(webdataset, handler)):
                keys.append(sample["__key__"])
        except webdataset.autodecode.DecodingError as error:
            ended = type(error).__name__
        del read
        gc.collect()  # it leaves tars to the collector
    return keys, ended


def test_plain_webdataset_leaves_removed_samples_out_if_told_to(copy_of_set: Path) -> None:
    """With warn_and_continue all others come; without it, the first one ends the reading."""
    removal.remove(str(copy_of_set), uids(copy_of_set, 3, 11))
    others = [f"{n:09d}" for n in range(24) if n not in {3, 11}]
    assert read_with_webdataset(copy_of_set, "warn_and_continue") == (others, "")
    assert read_with_webdataset(copy_of_set, "reraise_exception") == (others[:3], "DecodingError")


def test_nothing_is_left_of_the_bytes(copy_of_set: Path) -> None:
    """No file of the folder has a removed sample's picture or metadata in it any more."""
    gone = samples(copy_of_set)[3]
    removal.remove(str(copy_of_set), uids(copy_of_set, 3))
    files = [path.read_bytes() for path in copy_of_set.iterdir()]
    assert not any(gone.members[name] in data for data in files for name in ("jpg", "json"))
