"""Checkpoints that cannot be written, are killed on the way, or go to a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3fs

from benchmarks.s3_proxy import Proxy
from tests.small_disk import small_disk
from tests.train.saved_states import at, names_in, number_of, saved, state_of
from wit_builder import storage
from wit_builder.errors import StorageError
from wit_train import checkpoint
from wit_train.checkpoint import Checkpoints


@pytest.fixture
def newest() -> Callable[[str], checkpoint.Found | None]:
    """The last whole checkpoint of a folder, where nothing may be damaged."""
    return lambda folder: checkpoint.newest(folder, pytest.fail)


@pytest.fixture(name="small_disk")
def a_small_disk(tmp_path: Path) -> Iterator[str]:
    """A file system of one megabyte."""
    with small_disk(tmp_path / "disk", "1m") as place:
        yield str(place)


def test_a_full_disk_is_told_and_leaves_what_was_there(small_disk: str, newest):
    """By ``check``, ``save`` and ``finish``; no half file remains, and the one before is whole."""
    saved(small_disk, 1)
    checkpoints = Checkpoints(small_disk, 1)
    checkpoints.check()
    checkpoints.save(at(2), state_of(2, rows=5000))
    named = r"the disk is full \[.*step-00000002\.pt\] -> free space"
    with pytest.raises(StorageError, match=named):
        checkpoints.finish()
    for again in (checkpoints.check, lambda: checkpoints.save(at(3), state_of(3))):
        with pytest.raises(StorageError, match=named):
            again()
    assert names_in(small_disk) == ["step-00000001.json", "step-00000001.pt"]
    assert number_of(newest(small_disk).state) == 1


def test_what_fails_at_the_very_end_is_raised(tmp_path: Path):
    """Leaving the context waits, and raises; an error on its way out is told of it instead."""
    place = tmp_path / "file"
    place.write_bytes(b"")

    def run(fate: BaseException | None) -> None:
        with Checkpoints(f"{place}/checkpoints", 1) as checkpoints:
            checkpoints.save(at(1), state_of(1))
            if fate:
                raise fate

    with pytest.raises(StorageError, match="a file stands where"):
        run(None)
    with pytest.raises(KeyboardInterrupt) as raised:
        run(KeyboardInterrupt())
    assert "the last checkpoint failed: cannot write" in raised.value.__notes__[0]


_KILLED = """
import os, signal, sys
import torch
from tests.train.saved_states import saved
from wit_builder import storage
from wit_train import snapshot

torch.set_num_threads(1)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(self, data, write=snapshot._Hashed.write):
    write(self, data)
    if self.size_bytes > 10_000:
        self._file.flush()
        die()

points = [
    (snapshot._Hashed, "write", half),
    (storage, "publish_bytes", die),
    (storage, "remove", die),
]
for number, (owner, name, deadly) in enumerate(points):
    if not os.fork():
        folder = saved(f"{sys.argv[1]}/{number}", 1, keep=1)
        setattr(owner, name, deadly)
        saved(folder, 2, keep=1)
    assert os.wait()[1] == signal.SIGKILL
"""


def test_a_kill_while_saving_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, newest):
    """In the middle of the weights, before the manifest, before the old one is removed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "ignore", "-c", _KILLED, str(tmp_path)]
    subprocess.run(command, check=True, env=environment)
    steps = {n: newest(str(tmp_path / n)) for n in "012"}
    assert {n: number_of(found.state) for n, found in steps.items()} == {"0": 1, "1": 1, "2": 2}
    left = list(tmp_path.glob("0/.step-00000002.pt.*.part"))
    assert left
    saved(str(tmp_path / "0"), 2)
    assert not left[0].exists()


class Dying(Proxy):
    """In front of a server that goes away when it is sent the second part of a file."""

    gone = False

    def _fault(self, request: bytes) -> None:
        self.gone = self.gone or b"partNumber=2" in request
        if self.gone:
            raise ConnectionResetError


@pytest.mark.s3
def test_a_checkpoint_goes_to_a_bucket_and_comes_back(s3_folder: str, newest):
    """In parts, each way; damage there is noticed as on disk, and the old ones are removed."""
    with Checkpoints(s3_folder, 2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(at(step), state_of(step, rows=50_000))
    assert checkpoint.steps_in(s3_folder) == [2, 3]
    assert len(storage.sizes(s3_folder)) == 4
    assert number_of(newest(s3_folder).state) == 3
    storage.publish_bytes(f"{s3_folder}/step-00000003.pt", b"x")
    warnings: list[str] = []
    found = checkpoint.newest(s3_folder, warnings.append)
    assert found
    assert number_of(found.state) == 2
    assert len(warnings) == 1


@pytest.mark.s3
@pytest.mark.usefixtures("fresh_clients")
def test_a_server_that_goes_away_while_saving_is_told(
    s3_endpoint: str, s3_folder: str, newest, monkeypatch: pytest.MonkeyPatch
):
    """The bucket has the one before and nothing of the new one; it cannot be taken for empty."""
    saved(s3_folder, 1)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # else it asks for half a minute
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with Dying(s3_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        s3fs.S3FileSystem.clear_instance_cache()
        checkpoints = Checkpoints(s3_folder, 2)
        checkpoints.save(at(2), state_of(2, rows=50_000))
        with pytest.raises(StorageError, match=r"cannot write.*step-00000002\.pt.*check endpoint"):
            checkpoints.finish()
        assert proxy.gone
        with pytest.raises(StorageError, match="cannot list"):
            checkpoint.newest(s3_folder, pytest.fail)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    s3fs.S3FileSystem.clear_instance_cache()
    assert sorted(storage.sizes(s3_folder)) == ["step-00000001.json", "step-00000001.pt"]
    assert number_of(newest(s3_folder).state) == 1
