"""Where the bytes of blocks come from, and what goes wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tests.range_server import RangeServer, status
from tests.train.far_shards import Far, Opened, is_whole, read
from wit_builder.errors import GoneError, ShardFormatError, StorageError
from wit_builder.shards import removal
from wit_builder.shards.read import Dataset, samples_in
from wit_train import places
from wit_train.cache import Cache
from wit_train.source import place_of

MakeShards = Callable[..., str]


def open_files() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def folder(make_shards: MakeShards) -> Path:
    """A data set of three shards, of this test's own."""
    return Path(make_shards(50))


# --- local files


def test_blocks_are_read_from_files(opened: Opened, shards: str) -> None:
    """What comes is what the plain reader reads; every byte is counted."""
    dataset = Dataset.open(shards)
    source = opened(dataset)
    assert is_whole(source)
    assert source.bytes_read == sum(dataset.blocks["length"].to_pylist())
    assert source.retries == 0


def test_few_files_stay_open(opened: Opened, shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads read more shards than may stay open; in the end none is open."""
    monkeypatch.setattr(places, "_OPEN_FILES", 2)
    source = opened(Dataset.open(shards))
    before = open_files()
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: is_whole(source), range(32)))
    assert open_files() <= before + 2
    source.close()
    assert open_files() <= before


def test_a_removal_is_noticed_at_the_next_read(opened: Opened, folder: Path) -> None:
    """The files that were open are not: the removed sample does not come again."""
    source = opened(Dataset.open(str(folder)))
    first = next(samples_in(read(source, 0)))
    removal.remove(str(folder), pa.array([hashlib.md5(b"0").digest()], pa.binary(16)))
    assert next(samples_in(read(source, 0))).removed
    assert not first.removed
    assert source.retries == 1
    read(source, 0)
    assert source.retries == 1


def test_a_flipped_byte_is_told_by_shard_and_offset(opened: Opened, folder: Path) -> None:
    """After a second read that is no better."""
    dataset = Dataset.open(str(folder))
    block = dataset.blocks.num_rows - 1
    row = dataset.blocks.slice(block, 1).to_pylist()[0]
    tar = Path(dataset.shard_url(row["shard"]))
    data = bytearray(tar.read_bytes())
    data[row["offset"] + 700] ^= 1
    tar.write_bytes(data)
    source = opened(dataset)
    with pytest.raises(ShardFormatError, match=f"{tar.name} byte {row['offset']}") as caught:
        read(source, block)
    assert place_of(dataset, block) in str(caught.value)
    assert source.retries == 1


def test_another_shard_under_its_name_is_refused(
    opened: Opened, folder: Path, make_shards: MakeShards
) -> None:
    """A shard that was replaced after the tables were written is no revision of it."""
    source = opened(Dataset.open(str(folder)))
    other = Path(make_shards(90, per_shard=30))
    (other / "000001.tar").rename(folder / "000001.tar")
    (other / "000001.parquet").rename(folder / "000001.parquet")
    block = source.dataset.blocks["shard"].to_pylist().index(1)
    with pytest.raises(ShardFormatError, match=r"000001\.tar byte 0.*replaced"):
        read(source, block)


def test_a_shard_cut_short_is_told(opened: Opened, folder: Path) -> None:
    """Its last block is beyond the end."""
    dataset = Dataset.open(str(folder))
    block = dataset.blocks.num_rows - 1
    with Path(dataset.shard_url(dataset.info.shards - 1)).open("r+b") as tar:
        tar.truncate(dataset.blocks["offset"][block].as_py() + 100)
    with pytest.raises(ShardFormatError, match="cut short"):
        read(opened(dataset), block)


def test_a_missing_shard_is_told(opened: Opened, folder: Path) -> None:
    """At once, by its name."""
    (folder / "000000.tar").unlink()
    with pytest.raises(GoneError, match=r"no such shard .*000000\.tar"):
        read(opened(Dataset.open(str(folder))), 0)


def test_a_file_server_that_is_away_is_waited_for(
    opened: Opened, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale handle is given up for a new one."""
    good, answers = os.preadv, [OSError(errno.ESTALE, "stale"), OSError(errno.EIO, "broken disk")]

    def failing(*given: object) -> int:
        if answers:
            raise answers.pop(0)
        return good(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "preadv", failing)
    source = opened(Dataset.open(shards))
    with pytest.raises(StorageError, match="broken disk"):
        read(source, 0)
    assert source.retries == 1
    assert is_whole(source, 1)


# --- the web


def test_a_web_server_is_asked_for_ranges(opened: Opened, make_shards: MakeShards) -> None:
    """A passing refusal is waited for; a file that is not there is not."""
    local = Dataset.open(make_shards(20))
    with RangeServer(Path(local.shard_url(0)).read_bytes()) as server:
        source = opened(replace(local, url=server.endpoint))
        server.faults[0] = [status(503)]
        assert read(source, 0) == local.block_bytes(0)
        assert source.retries == 1
        server.faults[0] = [status(404)]
        with pytest.raises(GoneError):
            read(source, 0)


# --- the cache


def test_blocks_are_kept_on_local_disk(opened: Opened, far: Far, tmp_path: Path) -> None:
    """Another process's cache has them; an entry that was damaged is read anew."""
    cache = Cache(str(tmp_path / "cache"), 10 << 20)
    assert far.is_whole(opened(far.dataset, cache=cache))
    asked = far.proxy.requests
    again = opened(far.dataset, cache=Cache(str(tmp_path / "cache"), 10 << 20))
    assert far.is_whole(again)
    assert (far.proxy.requests, again.bytes_read) == (asked, 0)
    entry = min((tmp_path / "cache").glob("*/0*"))
    entry.write_bytes(bytes(entry.stat().st_size))
    assert far.is_whole(again)
    assert far.proxy.requests == asked + 1
    assert far.is_whole(again)
    assert far.proxy.requests == asked + 1
