"""Finished data sets, packed anew."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.pack.by_hand import SEED, kept_of, pack, row_of
from wit_builder import storage
from wit_builder.errors import RecipeError, ShardFormatError, UnitsFailedError
from wit_builder.pack import plan, shard
from wit_builder.resharding import reshard
from wit_builder.sections import PackSection
from wit_builder.shards import removal
from wit_builder.shards.layout import DatasetInfo
from wit_builder.shards.read import Dataset, Sample
from wit_builder.shards.verify import verify
from wit_builder.units import Run

_SAME = PackSection(samples_per_shard=8, max_block_bytes=4096)
_OTHER = PackSection(samples_per_shard=5, max_block_bytes=4096)
_ROWS = [row_of(number) for number in range(60)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data set of eight shards, of pairs that were kept; read only."""
    return pack(tmp_path_factory.mktemp("source"), [_ROWS], kept_of(_ROWS))


def made(source: str, out: Path | str, section: PackSection, seed: int = SEED) -> DatasetInfo:
    return reshard(source, str(out), section, seed, Run(str(out)))


def files(folder: Path | str) -> dict[str, bytes]:
    """Return the bytes of every file of a data set; there must be nothing else."""
    found = {p.name: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name != ".lock"}


def samples(folder: Path | str) -> Iterator[Sample]:
    data = Dataset.open(str(folder))
    return (sample for n in range(data.info.shards) for sample in data.samples(n))


def test_the_same_settings_give_the_same_bytes(source: str, tmp_path: Path) -> None:
    """Shards, tables and dataset.json are those of the source, and nothing is left beside them."""
    info = made(source, tmp_path / "out", _SAME)
    assert files(tmp_path / "out") == files(source)
    assert info == Dataset.open(source).info
    assert list((tmp_path / "out").rglob("*/")) == []


def test_other_settings_give_what_a_build_would(source: str, tmp_path: Path) -> None:
    """Shards of another size are the same as if the pairs had been packed so at first."""
    built = pack(tmp_path / "built", [_ROWS], kept_of(_ROWS), samples_per_shard=5)
    made(source, tmp_path / "out", _OTHER)
    assert files(tmp_path / "out") == files(built)


def test_another_seed_is_another_order_of_the_same(source: str, tmp_path: Path) -> None:
    """Every sample is there once, with its members as they were, under another key."""
    info = made(source, tmp_path / "out", _SAME, SEED + 1)
    before, after = list(samples(source)), list(samples(tmp_path / "out"))
    assert [s.key for s in after] == [s.key for s in before]
    assert [s.members for s in after] != [s.members for s in before]
    assert sorted(map(repr, (s.members for s in after))) == sorted(
        map(repr, (s.members for s in before))
    )
    assert info.recipe == Dataset.open(source).info.recipe
    assert verify(str(tmp_path / "out")).ok


def test_two_exchanges_give_the_bytes_of_one(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By coarse buckets, a map unit a shard, the result is the same."""
    monkeypatch.setattr(plan, "MAX_SLICES", 3)
    monkeypatch.setattr(plan, "UNIT_BYTES", 10_000)
    made(source, tmp_path / "out", _SAME)
    assert files(tmp_path / "out") == files(source)


def test_what_was_removed_stays_out(source: str, tmp_path: Path) -> None:
    """Keys close up where a sample was removed, and the result has no slot of it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in files(source).items():
        (copy / name).write_bytes(data)
    uids = kept_of(_ROWS)["uid"].combine_chunks()[10:13]
    removal.remove(str(copy), uids)
    left = [row for row in _ROWS if row["uid"] not in set(uids.to_pylist())]
    info = made(str(copy), tmp_path / "out", _SAME)
    assert (info.samples, Dataset.open(str(tmp_path / "out")).revision) == (57, 0)
    found = [msgspec.json.decode(s.members["json"]) for s in samples(tmp_path / "out")]
    assert {f["url"] for f in found} == {row["url"] for row in left}
    assert [s.key for s in samples(tmp_path / "out")] == [f"{n:09d}" for n in range(57)]
    assert verify(str(tmp_path / "out")).ok


def test_nothing_left_is_said(source: str, tmp_path: Path) -> None:
    """A data set of which all was removed is refused."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in files(source).items():
        (copy / name).write_bytes(data)
    removal.remove(str(copy), kept_of(_ROWS)["uid"].combine_chunks())
    with pytest.raises(ShardFormatError, match="no sample is left"):
        made(str(copy), tmp_path / "out", _SAME)


def test_a_damaged_block_is_named(source: str, tmp_path: Path) -> None:
    """A flipped byte stops it, naming shard and offset; nothing is finished."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, data in files(source).items():
        damaged = name == "000002.tar"
        (copy / name).write_bytes(data[:700] + b"?" + data[701:] if damaged else data)
    with pytest.raises(UnitsFailedError, match=r"a block is damaged.*000002\.tar byte 0"):
        made(str(copy), tmp_path / "out", _SAME)
    assert not (tmp_path / "out/dataset.json").exists()


def test_other_folders_are_refused(source: str, tmp_path: Path) -> None:
    """A data set is not packed over another, nor over a run; and its source must be one."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.toml").write_text("")
    for folder, why in ((source, "a data set here already"), (tmp_path / "run", "of a build")):
        with pytest.raises(RecipeError, match=why):
            made(source, folder, _OTHER)
    with pytest.raises(ShardFormatError, match="no data set of shards here"):
        made(str(tmp_path), tmp_path / "out", _OTHER)


def test_what_failed_is_taken_up_again(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure, and under other settings before, the result is the same."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(shard, "write_encoded", fail)
        with pytest.raises(UnitsFailedError):
            made(source, tmp_path / "out", _OTHER)
    made(source, tmp_path / "out", _SAME)
    assert files(tmp_path / "out") == files(source)


_KILLED = """
import os, signal, sys
from wit_builder import resharding, storage
from wit_builder.sections import PackSection
from wit_builder.units import Run
source, out, seed, at = sys.argv[1:]
remove, left = storage.remove, int(at)
def kill_at(url):
    global left
    left -= url.startswith(out + "/")
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    remove(url)
storage.remove = kill_at
section = PackSection(samples_per_shard=8, max_block_bytes=4096)
resharding.reshard(source, out, section, int(seed), Run(out))
"""


@pytest.mark.parametrize("at", [0, 1])
def test_killed_while_cleaning_up_it_is_finished(source: str, tmp_path: Path, at: int) -> None:
    """SIGKILL before the markers are gone, or the exchange files, leaves nothing in the end."""
    out = str(tmp_path / "out")
    command = [sys.executable, "-c", _KILLED, source, out, str(SEED), str(at)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert storage.list_folders(out)
    made(source, out, _SAME)
    assert files(out) == files(source)


@pytest.mark.s3
def test_from_a_bucket_to_a_bucket(source: str, s3_folder: str) -> None:
    """Source and result may both be remote; the bytes are the same, and nothing else is left."""
    for name, data in files(source).items():
        storage.publish_bytes(f"{s3_folder}/in/{name}", data)
    made(f"{s3_folder}/in", f"{s3_folder}/out", _SAME)
    for name, data in files(source).items():
        assert storage.read_bytes(f"{s3_folder}/out/{name}") == data
    assert set(storage.sizes(f"{s3_folder}/out")) == set(files(source))
    fs, path = storage.filesystem(f"{s3_folder}/out")
    assert len(fs.find(path)) == len(files(source))
    with pytest.raises(RecipeError, match="a data set here already"):
        made(f"{s3_folder}/in", f"{s3_folder}/out", _SAME)
