"""Files and buckets: what is published appears whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from wit_builder import leftovers, storage
from wit_builder.errors import StorageError


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk, then one on a real S3 server."""
    if request.param == "local":
        return str(tmp_path)
    return str(request.getfixturevalue("s3_folder"))


def test_published_bytes_are_read_back_whole_and_by_range(folder: str) -> None:
    """What is published is there, with its size, digest and ranges."""
    url = storage.join(folder, "a", "b.bin")
    done = storage.publish_bytes(url, b"0123456789")
    assert (done.url, done.size_bytes) == (url, 10)
    assert storage.read_bytes(url) == b"0123456789"
    assert storage.read_bytes(url, 3, 5) == b"34"
    assert storage.size_of(url) == 10
    with storage.open_read(url) as stream:
        stream.seek(8)
        assert stream.read() == b"89"


def test_a_table_is_read_back_equal(folder: str) -> None:
    """A parquet table comes back as it was written, also in part."""
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    url = storage.join(folder, "t.parquet")
    storage.write_parquet(url, table)
    assert storage.read_parquet(url).equals(table)
    assert storage.read_parquet(url, ["b"]).equals(table.select(["b"]))


def test_listing_is_sorted_and_leaves_out_hidden_names(folder: str) -> None:
    """A listing has the files of a folder in order, and nothing unpublished."""
    for name in ("b.x", "a.x", ".hidden.part", "c.y"):
        storage.publish_bytes(storage.join(folder, name), b"1")
    assert [storage.name_of(u) for u in storage.list_files(folder, ".x")] == ["a.x", "b.x"]
    assert storage.list_files(storage.join(folder, "none")) == []
    assert storage.sizes(folder)["c.y"] == 1


def write_half(url: str) -> None:
    with storage.publish(url) as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError


def test_nothing_appears_when_writing_fails(folder: str) -> None:
    """An error while writing leaves the old file, and no trace of the new."""
    url = storage.join(folder, "f")
    storage.publish_bytes(url, b"old")
    with pytest.raises(ZeroDivisionError):
        write_half(url)
    assert storage.read_bytes(url) == b"old"
    assert list(storage.sizes(folder)) == ["f"]


def test_read_many_leaves_out_what_is_not_there(folder: str) -> None:
    """Only files that exist come back."""
    here, missing = storage.join(folder, "here"), storage.join(folder, "missing")
    storage.publish_bytes(here, b"1")
    assert storage.read_many([here, missing]) == {here: b"1"}


def test_brackets_in_a_place_are_no_pattern(folder: str) -> None:
    """A run's folder may be called anything."""
    url = storage.join(folder, "run[1]", "f")
    storage.publish_bytes(url, b"1")
    assert storage.read_many([url]) == {url: b"1"}


def test_places_are_joined_with_single_slashes() -> None:
    """Whatever the base is, and the slashes at the edges of its parts."""
    for base in ("/a", "a", "s3://b", "file:///a", "/"):
        bare = base.rstrip("/")
        assert storage.join(base, "x/", "/y") == storage.join(base + "/", "x", "y") == bare + "/x/y"


def test_a_missing_column_is_a_storage_error(tmp_path: Path) -> None:
    """A table of another kind is named, instead of a traceback later on."""
    url = str(tmp_path / "t.parquet")
    storage.write_parquet(url, pa.table({"a": [1]}))
    with pytest.raises(StorageError, match=r"no column b .*t\.parquet.*->"):
        storage.read_parquet(url, ["a", "b"])


def test_identity_changes_with_content(folder: str) -> None:
    """A source that is written anew has another identity."""
    url = storage.join(folder, "f")
    storage.publish_bytes(url, b"one")
    first = storage.identity(url)
    assert storage.identity(url) == first
    storage.publish_bytes(url, b"three")
    assert storage.identity(url) != first


def test_removing_a_folder_takes_all_in_it(folder: str) -> None:
    """After removal nothing is left; removing nothing is fine."""
    storage.publish_bytes(storage.join(folder, "d", "f"), b"1")
    storage.remove(storage.join(folder, "d"))
    storage.remove(storage.join(folder, "d"))
    assert not storage.exists(storage.join(folder, "d", "f"))


def test_a_missing_file_is_named_with_a_fix(folder: str) -> None:
    """The error says which file, and what to do."""
    with pytest.raises(StorageError, match=r"no such file.*nothing-here.*->"):
        storage.read_bytes(storage.join(folder, "nothing-here"))


@pytest.mark.s3
@pytest.mark.usefixtures("s3_endpoint")
def test_no_right_to_a_bucket_is_a_storage_error_without_the_secret() -> None:
    """Wrong keys give one line that names the bucket and shows no key."""
    script = (
        "from wit_builder import leftovers, storage\n"
        "try: storage.publish_bytes('s3://wit-tests/x', b'1')\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "hush-hush"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=True)
    said = done.stdout.decode()
    assert said.startswith("StorageError cannot write")
    assert "s3://wit-tests/x" in said
    assert "hush" not in said
    assert said.count("\n") == 1


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    """A URL with a password is refused; the message blanks it out."""
    with pytest.raises(StorageError) as caught:
        storage.read_bytes("s3://user:hush@bucket/key")
    assert "hush" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_full_disk_is_named() -> None:
    """/dev/full stands for a disk without space."""
    with pytest.raises(StorageError, match="the disk is full"), storage.translated("x", "write"):
        Path("/dev/full").write_bytes(b"x")


def test_an_unreadable_parquet_file_is_named(tmp_path: Path) -> None:
    """Garbage under a parquet name is a storage error, not a traceback."""
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(StorageError, match=r"not a readable Arrow or parquet file.*bad\.parquet"):
        storage.read_parquet(str(tmp_path / "bad.parquet"))


def test_sweep_removes_parts_of_dead_processes_only(tmp_path: Path) -> None:
    """What a killed process left goes; what a living one is writing stays."""
    script = (
        "import os, sys\nfrom wit_builder import leftovers, storage\n"
        "with storage.publish(sys.argv[1]) as p:\n"
        "    p.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "killed")], check=False)
    with storage.publish(str(tmp_path / "living")) as path:
        path.write_bytes(b"x")
        assert len(list(tmp_path.glob(".*.part"))) == 2
        assert leftovers.sweep(str(tmp_path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["living"]
