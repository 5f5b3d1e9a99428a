from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.errors import ShardFormatError
from wit_builder.shards import tar

_NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=100)


def _tar_of(members: dict[str, bytes]) -> bytes:
    out = b""
    for name, body in members.items():
        out += tar.header(name, len(body)) + body + bytes(tar.padded(len(body)) - len(body))
    return out + tar.TRAILER


@given(_NAMES, st.integers(0, 8**11 - 1))
def test_header_is_what_tarfile_writes(name: str, size: int) -> None:
    """A header is byte for byte what Python's tarfile writes for ustar with mode 0444, no times."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    assert tar.header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@given(st.dictionaries(_NAMES, st.binary(max_size=1500), max_size=5))
def test_walk_and_members_find_what_was_written(members: dict[str, bytes]) -> None:
    """Walking a stream and parsing bytes both give every member's name and place."""
    data = _tar_of(members)
    walked = list(tar.walk(io.BytesIO(data)))
    assert walked == list(tar.members(data))
    assert {m.name: data[m.offset : m.offset + m.size] for m in walked} == members


def test_offsets_count_from_the_file() -> None:
    """Members of a part of a tar have offsets in the whole file when the part's offset is told."""
    data = _tar_of({"a.txt": b"one", "b.txt": b"two"})
    (found,) = tar.members(data[1024:2048], base=1024)
    assert (found.name, data[found.offset : found.offset + 3]) == ("b.txt", b"two")


def test_gnu_tar_reads_it(tmp_path: Path) -> None:
    """GNU tar lists the members without a warning."""
    path = tmp_path / "x.tar"
    path.write_bytes(_tar_of({"a.txt": b"one", "empty.txt": b""}))
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True)
    assert (listed.stdout, listed.stderr) == ("a.txt\nempty.txt\n", "")


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        (lambda d: d[:300], "within a header"),
        (lambda d: d[:700], "cut short"),
        (lambda d: b"x" * 512 + d, "not a tar header"),
        (lambda d: d[:156] + b"5" + d[157:], "not a regular file"),
        (lambda d: d[:124] + b"9" * 11 + d[135:], "unreadable name or size"),
    ],
    ids=["cut-in-header", "cut-in-member", "no-header", "directory", "size-not-octal"],
)
def test_flawed_tars_are_refused(flaw, words: str) -> None:
    """A tar that is cut short or is not made of regular files is refused with the byte offset."""
    with pytest.raises(ShardFormatError, match=words) as caught:
        list(tar.members(flaw(_tar_of({"a.txt": b"x" * 600}))))
    assert "byte" in caught.value.where
