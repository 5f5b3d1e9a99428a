"""Blocks on local disk, shared by processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wit_builder.errors import StorageError
from wit_train.cache import Cache

SIZE = 1000


def content(number: int) -> bytes:
    """Return an entry's bytes, which tell its number."""
    return hashlib.shake_128(str(number).encode()).digest(SIZE)


def name(number: int) -> tuple[str, str]:
    return "data", f"{number:09d}"


def put(cache: Cache, *numbers: int) -> None:
    for number in numbers:
        cache.write(name(number), memoryview(content(number)))


def has(cache: Cache, number: int) -> bool:
    """Return whether there is an entry; what there is must be right."""
    into = bytearray(SIZE)
    found = cache.read(name(number), memoryview(into))
    assert not found or bytes(into) == content(number)
    return found


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("data/*")) if folder.exists() else []


def test_what_is_written_is_read_by_others(tmp_path: Path) -> None:
    """By any that open the folder; what was not written is not there."""
    put(Cache(str(tmp_path), 10 * SIZE), 1, 2)
    other = Cache(str(tmp_path), 10 * SIZE)
    assert [has(other, number) for number in (1, 2, 3)] == [True, True, False]
    assert not other.read(name(1), memoryview(bytearray(SIZE - 1)))


def test_the_entries_read_longest_ago_make_room(tmp_path: Path) -> None:
    """Reading an entry keeps it; more than the limit is never there."""
    cache = Cache(str(tmp_path), 10 * SIZE)
    put(cache, *range(10))
    for number in range(10):  # what a file system's clock is too coarse for
        os.utime(tmp_path.joinpath(*name(number)), (number, number))
    assert has(cache, 0)
    put(cache, 10, 11)
    assert [number for number in range(12) if has(cache, number)] == [0, *range(3, 12)]


def test_an_entry_above_the_limit_is_not_kept(tmp_path: Path) -> None:
    """Nor does it drive the others out."""
    cache = Cache(str(tmp_path), 2 * SIZE)
    put(cache, 1)
    cache.write(name(2), memoryview(bytes(3 * SIZE)))
    assert has(cache, 1)
    assert not has(cache, 2)


def test_a_smaller_limit_is_kept_from_the_start(tmp_path: Path) -> None:
    """Opening a cache with less room than it takes removes entries."""
    put(Cache(str(tmp_path), 10 * SIZE), *range(10))
    Cache(str(tmp_path), 5 * SIZE)
    assert len(files(tmp_path)) <= 5


def test_a_dropped_entry_is_not_there(tmp_path: Path) -> None:
    """Dropping it twice does no harm."""
    cache = Cache(str(tmp_path), 10 * SIZE)
    put(cache, 1)
    cache.drop(name(1))
    cache.drop(name(1))
    assert not has(cache, 1)


def test_a_full_disk_ends_the_keeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so; nothing half is left, and what is there can be read."""
    cache = Cache(str(tmp_path), 10 * SIZE)
    put(cache, 1)
    write = os.pwrite

    def full(descriptor: int, data: memoryview, at: int) -> int:
        if at >= SIZE // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: SIZE // 2], at)

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        put(cache, 2, 3, 4)
    assert [record.getMessage() for record in caplog.records] == [
        f"no more is cached in {tmp_path}: No space left on device"
    ]
    assert files(tmp_path) == [name(1)[1]]
    assert has(cache, 1)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """At the start, with what to do."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot keep a cache here"):
        Cache(str(tmp_path / "file" / "cache"), SIZE)


def test_threads_share_a_cache(tmp_path: Path) -> None:
    """Whatever they read is whole, and the limit holds."""
    cache = Cache(str(tmp_path), 20 * SIZE)

    def work(first: int) -> bool:
        for number in range(200):
            put(cache, (first + number) % 50)
            has(cache, (first * number) % 50)
        return len(files(tmp_path)) <= 20 + 8  # with those being written

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(files(tmp_path)) <= 20


CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tests.train.test_cache import *

cache, mode = Cache(sys.argv[2], 20 * SIZE), sys.argv[3]
if mode == "half":
    write = os.pwrite
    def half(descriptor, data, at):
        if len(data) != SIZE:
            return write(descriptor, data, at)
        write(descriptor, data[: SIZE // 2], at)
        print("half", flush=True)
        sys.stdin.read()
    os.pwrite = half
    put(cache, 7)
print("ready", flush=True)
for turn in range(int(mode)):
    put(cache, turn * 7 % 60)
    has(cache, turn * 11 % 60)
"""


def child(folder: Path, mode: str) -> subprocess.Popen[str]:
    """Start a process with the cache, and wait until it says that it is at work."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parents[2]), str(folder), mode]
    pipe = subprocess.PIPE
    started = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert started.stdout
    assert started.stdout.readline().strip() in {"half", "ready"}
    return started


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    """What it was writing is never read; the next to open the cache clears it away."""
    put(Cache(str(tmp_path), 20 * SIZE), 1)
    with child(tmp_path, "half") as writing:
        assert len(files(tmp_path)) == 2
        other = Cache(str(tmp_path), 20 * SIZE)
        assert len(files(tmp_path)) == 2  # it still writes
        assert not has(other, 7)
        writing.kill()
    assert not has(Cache(str(tmp_path), 20 * SIZE), 7)
    assert files(tmp_path) == [name(1)[1]]
    assert int.from_bytes((tmp_path / "used").read_bytes(), "little") == SIZE


def test_processes_share_a_cache(tmp_path: Path) -> None:
    """While three write and read, one of them killed, the limit holds and all read is whole."""
    Cache(str(tmp_path), 20 * SIZE)
    over, most = threading.Event(), 0

    def watch() -> None:
        nonlocal most
        with (tmp_path / "used").open("rb") as books:
            while not over.wait(0.001):
                fcntl.flock(books, fcntl.LOCK_EX)  # else one may be seen that goes, and its heir
                most = max(most, len({n.strip(".").split(".")[0] for n in files(tmp_path)}))
                fcntl.flock(books, fcntl.LOCK_UN)

    watching = threading.Thread(target=watch)
    watching.start()
    with child(tmp_path, "10000000") as endless:
        with child(tmp_path, "3000") as one, child(tmp_path, "3000") as two:
            codes = one.wait(), two.wait()
        endless.kill()
    over.set()
    watching.join()
    assert codes == (0, 0)
    assert 5 <= most <= 20
    cache = Cache(str(tmp_path), 20 * SIZE)
    assert any(has(cache, number) for number in range(60))
    assert not [left for left in files(tmp_path) if left.startswith(".")]
