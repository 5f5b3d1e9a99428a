"""A file is decompressed by its name; a broken one says where."""

from __future__ import annotations

import bz2
import gzip
import random
from collections.abc import Callable

import pytest

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.queries import compressed

PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
}


def whole(path) -> bytes:
    """Return all of a file's chunks."""
    return b"".join(compressed.chunks(str(path), "a list", "look"))


@pytest.mark.parametrize("kind", PACK)
def test_round_trip(tmp_path, kind):
    """What was packed comes back, several members of a file included."""
    data = random.Random(0).randbytes(5 << 20)
    path = tmp_path / f"f.{kind}"
    path.write_bytes(PACK[kind](data) + PACK[kind](b"end"))
    assert whole(path) == data + b"end"


@pytest.mark.parametrize("kind", ["gz", "bz2"])
def test_cut_short(tmp_path, kind):
    """A file that ends too early is named with the byte where it ends."""
    data = PACK[kind](random.Random(0).randbytes(9000))[:6000]
    (tmp_path / f"f.{kind}").write_bytes(data)
    with pytest.raises(QueryListError, match=rf"cut short \[.*f\.{kind}, byte 6000\]"):
        whole(tmp_path / f"f.{kind}")


@pytest.mark.parametrize("kind", ["gz", "bz2"])
def test_damaged(tmp_path, kind):
    """A file that does not decompress is named with how far it was read."""
    data = bytearray(PACK[kind](random.Random(0).randbytes(9000)))
    data[4000:4400] = bytes(400)
    (tmp_path / f"f.{kind}").write_bytes(data)
    with pytest.raises(QueryListError, match=rf"cannot be decompressed.*f\.{kind}, before byte"):
        whole(tmp_path / f"f.{kind}")


def test_missing(tmp_path):
    """A file that is not there is named as what it should be."""
    with pytest.raises(QueryListError, match=r"cannot read a list: .* -> look"):
        whole(tmp_path / "none.gz")


def test_failing_disk(tmp_path, monkeypatch):
    """What fails in reading is storage's, to be tried again, not the decompressor's."""

    class Failing:
        def read(self, size=-1):
            raise OSError(f"{size} bytes: the disk is gone")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(storage, "open_read", lambda _: Failing())
    with pytest.raises(StorageError, match="the disk is gone"):
        whole(tmp_path / "f.gz")
