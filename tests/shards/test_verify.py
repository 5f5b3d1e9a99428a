from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit_builder.errors import ShardFormatError
from wit_builder.shards.layout import Metadata
from wit_builder.shards.manifest import finish
from wit_builder.shards.verify import Fault, verify
from wit_builder.shards.write import Pair, write_shard


def _rows(folder: Path, shard: str = "000001") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{shard}.parquet").to_pylist()


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def _faults(folder: Path) -> list[Fault]:
    return verify(str(folder)).faults


def _change(path: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rewrite a table with changed rows; schema and metadata stay."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_a_whole_set_has_no_faults(sample_set: Path) -> None:
    """What was packed verifies; the report counts shards, samples and bytes."""
    report = verify(str(sample_set))
    size = sum(p.stat().st_size for p in sample_set.glob("*.tar"))
    assert (report.ok, report.shards, report.samples, report.bytes) == (True, 3, 24, size)


@pytest.mark.parametrize("extension", ["jpg", "txt", "json"])
def test_a_flipped_byte_in_a_member_is_named(copy_of_set: Path, extension: str) -> None:
    """A flipped data byte gives one fault: file, member, and the offset of the member's bytes."""
    place = _rows(copy_of_set)[3][extension]
    _flip(copy_of_set / "000001.tar", place["offset"] + place["size"] // 2)
    (fault,) = _faults(copy_of_set)
    assert fault.file == "000001.tar"
    assert fault.member == f"000000011.{extension}"
    assert fault.offset == place["offset"]
    line = str(fault.error())
    assert f"[000001.tar: 000000011.{extension} at byte {place['offset']}]" in line


@pytest.mark.parametrize("at", [0, 100, 124, 136, 148, 156, 257, 300, 511])
def test_a_flipped_byte_in_a_header_is_named(copy_of_set: Path, at: int) -> None:
    """A flip anywhere in a tar header gives one fault, with the header's offset."""
    header = _rows(copy_of_set)[5]["txt"]["offset"] - 512
    _flip(copy_of_set / "000001.tar", header + at)
    (fault,) = _faults(copy_of_set)
    assert (fault.file, fault.member, fault.offset) == ("000001.tar", "000000013.txt", header)


def test_a_flipped_byte_in_padding_is_named(copy_of_set: Path) -> None:
    """A flip in the zeros after a member gives one fault, with that very byte."""
    place = _rows(copy_of_set)[0]["txt"]
    wrong = place["offset"] + place["size"] + 7
    _flip(copy_of_set / "000001.tar", wrong)
    (fault,) = _faults(copy_of_set)
    assert (fault.file, fault.member, fault.offset) == ("000001.tar", "000000008.txt", wrong)


def test_a_flipped_byte_at_the_end_of_the_archive_is_named(copy_of_set: Path) -> None:
    """A flip in the two zero blocks that end a tar is named by its offset."""
    path = copy_of_set / "000001.tar"
    wrong = path.stat().st_size - 100
    _flip(path, wrong)
    (fault,) = _faults(copy_of_set)
    assert (fault.file, fault.member, fault.offset) == ("000001.tar", "end of archive", wrong)


def test_every_flipped_byte_of_a_tar_is_found(copy_of_set: Path) -> None:
    """Wherever a byte is flipped, the shard is named with a member and an offset near it."""
    path = copy_of_set / "000002.tar"
    whole = path.read_bytes()
    for offset in range(0, len(whole), 1201):
        _flip(path, offset)
        (fault,) = _faults(copy_of_set)
        assert fault.file == "000002.tar"
        assert fault.member
        assert -512 <= offset - fault.offset < 8192
        path.write_bytes(whole)


def test_all_faults_are_listed(copy_of_set: Path) -> None:
    """Several faults in several shards are all listed, with one worker or two."""
    for shard, row in (("000000", 1), ("000000", 6), ("000002", 4)):
        _flip(copy_of_set / f"{shard}.tar", _rows(copy_of_set, shard)[row]["jpg"]["offset"] + 9)
    (copy_of_set / "000001.tar").unlink()
    report = verify(str(copy_of_set))
    assert [(f.file, f.member) for f in report.faults] == [
        ("000000.tar", "000000001.jpg"),
        ("000000.tar", "000000006.jpg"),
        ("000001.tar", ""),
        ("000002.tar", "000000020.jpg"),
    ]
    assert verify(str(copy_of_set), workers=2) == report


@pytest.mark.parametrize("cut_in", ["jpg", "txt", "header"])
def test_a_truncated_shard_is_named(copy_of_set: Path, cut_in: str) -> None:
    """A shard cut short names the member that the file ends in, and where the file ends."""
    row = _rows(copy_of_set)[6]
    place = row["txt" if cut_in == "header" else cut_in]
    end = place["offset"] - 200 if cut_in == "header" else place["offset"] + 5
    path = copy_of_set / "000001.tar"
    path.write_bytes(path.read_bytes()[:end])
    (fault,) = _faults(copy_of_set)
    assert fault.file == "000001.tar"
    assert fault.member == f"000000014.{'txt' if cut_in == 'header' else cut_in}"
    assert fault.offset == place["offset"]
    assert f"cut short at byte {end}" in fault.what


def test_a_shard_without_its_end_is_named(copy_of_set: Path) -> None:
    """A tar that lacks its last zero block is named."""
    path = copy_of_set / "000001.tar"
    path.write_bytes(path.read_bytes()[:-512])
    (fault,) = _faults(copy_of_set)
    assert (fault.file, fault.member) == ("000001.tar", "end of archive")


def test_samples_after_the_last_are_named(copy_of_set: Path) -> None:
    """A tar with more in it than the samples table lists is named, with the first foreign byte."""
    path = copy_of_set / "000001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1024] + whole)
    (fault,) = _faults(copy_of_set)
    assert (fault.file, fault.offset) == ("000001.tar", len(whole) - 1024)


@pytest.mark.parametrize("name", ["000001.tar", "000001.parquet"])
def test_a_missing_file_is_named(copy_of_set: Path, name: str) -> None:
    """A missing shard or samples table is named."""
    (copy_of_set / name).unlink()
    (fault,) = _faults(copy_of_set)
    assert fault.file == name
    assert "no such file" in fault.what


def test_files_that_the_manifest_does_not_list_are_named(copy_of_set: Path) -> None:
    """A shard or samples table beyond the manifest is named."""
    for kind in ("tar", "parquet"):
        (copy_of_set / f"000003.{kind}").write_bytes((copy_of_set / f"000001.{kind}").read_bytes())
    assert [f.file for f in _faults(copy_of_set)] == ["000003.parquet", "000003.tar"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("samples", 9), ("bytes", 1), ("sha256", "0" * 64), ("revision", 7), ("shard", "000007.tar")],
)
def test_a_wrong_manifest_row_is_named(copy_of_set: Path, column: str, value: object) -> None:
    """A wrong value in the manifest is blamed on the manifest (or, a name, on the missing file)."""
    path = copy_of_set / "manifest.parquet"
    _change(path, lambda rows: rows[1].update({column: value}))
    faults = _faults(copy_of_set)
    assert any("manifest.parquet" in str(f.error()) for f in faults)
    wanted = ("000007.tar", "") if column == "shard" else ("manifest.parquet", "000001.tar")
    assert wanted in [(f.file, f.member) for f in faults]


@pytest.mark.parametrize("column", ["first_sample", "samples", "offset", "length", "xxh3", "shard"])
def test_a_wrong_block_row_is_named(copy_of_set: Path, column: str) -> None:
    """A wrong value in the block table is blamed on the block table, and on no shard."""
    path = copy_of_set / "blocks.parquet"
    _change(path, lambda rows: rows[4].update({column: rows[4][column] ^ 1}))
    faults = _faults(copy_of_set)
    assert any(f.file == "blocks.parquet" for f in faults)
    assert all("tar" not in f.file for f in faults)


@pytest.mark.parametrize(
    ("column", "edit"),
    [
        ("key", lambda row: row.update(key="000000099")),
        ("uid", lambda row: row.update(uid=b"x" * 16)),
        ("offset", lambda row: row["jpg"].update(offset=512)),
        ("size", lambda row: row["txt"].update(size=3)),
        ("xxh3", lambda row: row["json"].update(xxh3=1)),
        ("removed", lambda row: row.update(removed=True)),
    ],
)
def test_a_wrong_samples_row_is_named(copy_of_set: Path, column: str, edit) -> None:
    """A wrong value in a samples table is blamed on that table and row, not on the tar."""
    _change(copy_of_set / "000001.parquet", lambda rows: edit(rows[2]))
    faults = _faults(copy_of_set)
    assert {f.file for f in faults} == {"000001.parquet"}, column
    assert any("row 2" in f.member for f in faults)


def test_a_zeroed_sample_that_nobody_removed_is_named(copy_of_set: Path) -> None:
    """Zeroed members that the samples table does not list as removed are faults."""
    row = _rows(copy_of_set)[1]
    path = copy_of_set / "000001.tar"
    data = bytearray(path.read_bytes())
    for place in (row[e] for e in ("jpg", "txt", "json")):
        data[place["offset"] : place["offset"] + place["size"]] = bytes(place["size"])
    path.write_bytes(data)
    named = {f.member for f in _faults(copy_of_set) if f.file == "000001.tar"}
    assert named == {f"000000009.{e}" for e in ("jpg", "txt", "json")}


def test_damaged_parquet_is_found_wherever_it_changes_a_value(copy_of_set: Path) -> None:
    """A flip in a table either gives a fault in that file or leaves every value as it was."""
    for name in ("000001.parquet", "manifest.parquet", "blocks.parquet"):
        path = copy_of_set / name
        whole, before = path.read_bytes(), pq.read_table(path)
        for offset in range(3, len(whole), 211):
            _flip(path, offset)
            faults = _faults(copy_of_set)
            if not faults:
                assert pq.read_table(path).equals(before), (name, offset)
            path.write_bytes(whole)


def test_without_its_samples_table_a_shard_is_checked_by_blocks(copy_of_set: Path) -> None:
    """Where the samples table cannot be read, the damaged block's samples are named."""
    _flip(copy_of_set / "000001.tar", 700)
    (copy_of_set / "000001.parquet").write_bytes(b"PAR1")
    table, tar = _faults(copy_of_set)
    assert table.file == "000001.parquet"
    assert (tar.file, tar.offset) == ("000001.tar", 0)
    assert tar.member.startswith("samples 0 to ")


def test_without_a_manifest_the_shards_are_checked_all_the_same(copy_of_set: Path) -> None:
    """A missing manifest is a fault, and damage in a shard is still found."""
    (copy_of_set / "manifest.parquet").unlink()
    _flip(copy_of_set / "000002.tar", 700)
    assert [f.file for f in _faults(copy_of_set)] == ["manifest.parquet", "000002.tar"]


@pytest.mark.parametrize("content", [b"{", b'{"000000.tar": 8}\n'], ids=["cut", "short"])
def test_wrong_sizes_json_is_named(copy_of_set: Path, content: bytes) -> None:
    """A sizes.json that is damaged or disagrees with the manifest is named."""
    (copy_of_set / "sizes.json").write_bytes(content)
    assert [f.file for f in _faults(copy_of_set)] == ["sizes.json"]


def test_dataset_json_of_another_revision_is_named(copy_of_set: Path) -> None:
    """A dataset.json whose digest is not the manifest's is named."""
    path = copy_of_set / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "0" * 64}))
    assert [f.file for f in _faults(copy_of_set)] == ["dataset.json"]


def test_a_damaged_dataset_json_does_not_hide_other_faults(copy_of_set: Path) -> None:
    """A dataset.json that is not JSON is a fault, and damage in a shard is still found."""
    (copy_of_set / "dataset.json").write_bytes(b"{")
    _flip(copy_of_set / "000002.tar", 700)
    assert [f.file for f in _faults(copy_of_set)] == ["dataset.json", "000002.tar"]


def test_a_newer_format_is_refused(copy_of_set: Path) -> None:
    """A data set of a newer format version is not checked by rules that are not its own."""
    path = copy_of_set / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    with pytest.raises(ShardFormatError, match="update wit-builder"):
        verify(str(copy_of_set))


@pytest.mark.parametrize("size", [-1, 2**62])
def test_an_impossible_size_is_blamed_on_the_table(copy_of_set: Path, size: int) -> None:
    """A size that no tar header can say is a fault of the samples table, not of the tar."""
    _change(copy_of_set / "000001.parquet", lambda rows: rows[2]["txt"].update(size=size))
    (fault,) = _faults(copy_of_set)
    assert (fault.file, fault.member) == ("000001.parquet", "row 2 (000000010)")


def test_keys_that_do_not_follow_the_shard_before_are_named(tmp_path: Path) -> None:
    """Two shards with the same keys are told."""
    metadata = Metadata("u", None, "c", "alt", 1, 1, 1, 1, "", [], None, "00" * 16)
    for shard in range(2):
        write_shard(str(tmp_path), shard, [Pair("000000000", b"\xff\xd8", metadata)], 4096)
    finish(str(tmp_path), 2, generation="g0", recipe="r", max_block_bytes=4096)
    (fault,) = _faults(tmp_path)
    assert (fault.file, fault.member) == ("000001.tar", "000000000")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    """A folder without dataset.json cannot be verified, and the error says what to name."""
    with pytest.raises(ShardFormatError, match="no data set"):
        verify(str(tmp_path))
