from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit_builder import storage
from wit_builder.errors import ShardFormatError, StorageError
from wit_builder.shards.manifest import finish, read_record
from wit_builder.shards.read import Dataset
from wit_builder.tables import BLOCKS, MANIFEST


def _finish(folder: Path, shards: int) -> list[storage.Published]:
    return finish(str(folder), shards, generation="g0", recipe="r", max_block_bytes=16384)


def test_dataset_json_comes_last(copy_of_set: Path) -> None:
    """The file that makes a folder a data set is published after all others."""
    names = [storage.name_of(o.url) for o in _finish(copy_of_set, 3)]
    assert names == ["manifest.parquet", "blocks.parquet", "sizes.json", "dataset.json"]


def test_tables_have_the_schemas_of_the_format(sample_set: Path) -> None:
    """Manifest and block table on disk have the schema of tables.py, documentation too."""
    for name, schema in (("manifest.parquet", MANIFEST), ("blocks.parquet", BLOCKS)):
        assert pq.read_schema(sample_set / name).equals(schema, check_metadata=True)


def test_digests_follow_the_documented_formulas(sample_set: Path) -> None:
    """`digest` and `base` can be computed from the tables as the format's README says."""
    manifest = pq.read_table(sample_set / "manifest.parquet").to_pylist()
    blocks = pq.read_table(sample_set / "blocks.parquet").to_pylist()
    info = json.loads((sample_set / "dataset.json").read_text())
    columns = ("shard", "samples", "bytes", "sha256", "revision")
    lines = [" ".join(str(row[c]) for c in columns) + "\n" for row in manifest]
    assert info["digest"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    base = "".join(f"{r['shard']} {r['samples']} {r['bytes']}\n" for r in manifest).encode()
    for block in blocks:
        places = (block[c] for c in ("shard", "first_sample", "samples", "offset", "length"))
        base += struct.pack("<5q", *places)
    assert info["base"] == hashlib.sha256(base).hexdigest()


def test_sizes_json_counts_samples_by_shard(sample_set: Path) -> None:
    """sizes.json maps every tar's file name to its number of samples."""
    sizes = json.loads((sample_set / "sizes.json").read_text())
    assert sizes == {"000000.tar": 8, "000001.tar": 8, "000002.tar": 8}


def test_a_revision_keeps_the_base(copy_of_set: Path) -> None:
    """Other bytes in the same places change `digest`, and leave `base` alone."""
    before = Dataset.open(str(copy_of_set)).info
    path = copy_of_set / "000001.parquet"
    table = pq.read_table(path)
    record = json.loads(table.schema.metadata[b"wit.shard"])
    record |= {"sha256": "0" * 64, "revision": 1}
    pq.write_table(table.replace_schema_metadata({"wit.shard": json.dumps(record)}), path)
    _finish(copy_of_set, 3)
    after = Dataset.open(str(copy_of_set)).info
    assert after.base == before.base
    assert after.digest != before.digest


def test_no_shard_is_an_error(tmp_path: Path) -> None:
    """A data set without any shard is refused."""
    with pytest.raises(ShardFormatError, match="no shard"):
        _finish(tmp_path, 0)


def test_a_missing_samples_table_is_named(copy_of_set: Path) -> None:
    """A shard whose samples table is missing is named."""
    with pytest.raises(StorageError, match=r"000003\.parquet"):
        _finish(copy_of_set, 4)


def test_a_table_without_record_is_named(tmp_path: Path) -> None:
    """A parquet file that no shard writer made is refused by name."""
    place = str(tmp_path / "000000.parquet")
    storage.write_parquet(place, pa.table({"key": ["000000000"]}))
    with pytest.raises(ShardFormatError, match=r"000000\.parquet"):
        read_record(place)
