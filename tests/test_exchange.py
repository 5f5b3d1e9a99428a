"""Rows regrouped by key through storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import exchange, storage
from wit_builder.errors import StorageError


def table_of(values: list[int]) -> pa.Table:
    return pa.table({"key": pa.array([f"k{v}" for v in values], pa.string()), "value": values})


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=30), min_size=1, max_size=4), st.integers(1, 7)
)
def test_every_row_comes_back_once_in_its_bucket(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], buckets: int
) -> None:
    """Scatter then gather is a regrouping: nothing lost, nothing twice, order of files kept."""
    folder = tmp_path_factory.mktemp("x")
    urls = scattered(folder, files, buckets)
    everything = []
    for bucket in range(buckets):
        rows = exchange.gather(urls, bucket)
        expected = [v for f in files for v in f if in_bucket(v, buckets) == bucket]
        assert rows["value"].to_pylist() == expected
        everything += expected
    assert sorted(everything) == sorted(v for f in files for v in f)


def in_bucket(value: int, buckets: int) -> int:
    return int(exchange.bucket_of(pa.array([f"k{value}"]), buckets)[0])


def test_an_empty_bucket_keeps_the_schema(tmp_path: Path) -> None:
    """A bucket without rows is an empty table with the columns of the others."""
    url = str(tmp_path / "f.arrow")
    exchange.scatter(table_of([1, 2]), np.array([0, 0]), 3, url)
    assert exchange.gather([url], 2).schema == table_of([1]).schema
    assert exchange.gather([url], 2).num_rows == 0


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    """Writing the same rows again gives the same bytes."""
    done = [
        exchange.scatter(table_of([3, 1, 2]), np.array([1, 0, 1]), 2, str(tmp_path / name))
        for name in ("a", "b")
    ]
    assert [o.xxh3 for o in done[0]] == [o.xxh3 for o in done[1]]


def test_damage_is_named_with_file_and_byte(tmp_path: Path) -> None:
    """A broken slice is one error that says where."""
    url = str(tmp_path / "f.arrow")
    exchange.scatter(table_of(list(range(100))), np.zeros(100, int), 1, url)
    start = int(np.frombuffer(Path(url + ".index").read_bytes(), "<i8")[0])
    data = bytearray(Path(url).read_bytes())
    data[start : start + 64] = bytes(64)
    Path(url).write_bytes(data)
    with pytest.raises(StorageError, match=rf"bucket 0 .*damaged.*{url} byte {start}"):
        exchange.gather([url], 0)


def test_a_bucket_outside_the_file_is_refused(tmp_path: Path) -> None:
    """Asking for a bucket that was never written is an error, not an empty answer."""
    url = str(tmp_path / "f.arrow")
    exchange.scatter(table_of([1]), np.array([0]), 1, url)
    with pytest.raises(StorageError, match="has 1 buckets"):
        exchange.gather([url], 5)


@given(st.lists(st.lists(st.integers(0, 30), max_size=30), min_size=1, max_size=4))
def test_merged_files_hold_the_same_rows_in_the_same_buckets(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]]
) -> None:
    """Reading one merged file is reading all that went into it."""
    folder = tmp_path_factory.mktemp("x")
    urls = scattered(folder, files, 5)
    merged = str(folder / "merged.arrow")
    exchange.run_merge(exchange.MergeJob(urls, merged))
    for bucket in range(5):
        assert exchange.gather([merged], bucket).equals(exchange.gather(urls, bucket))


def scattered(folder: Path, files: list[list[int]], buckets: int) -> list[str]:
    urls = []
    for number, values in enumerate(files):
        table = table_of(values).cast(pa.schema([("key", pa.string()), ("value", pa.int64())]))
        urls.append(str(folder / f"{number}.arrow"))
        exchange.scatter(table, exchange.bucket_of(table["key"], buckets), buckets, urls[-1])
    return urls


@pytest.mark.s3
def test_remote_files_are_merged(s3_folder: str, tmp_path: Path) -> None:
    """Sources in a bucket come by way of local disk."""
    local = scattered(tmp_path, [[1, 2, 3], [4, 5]], 3)
    remote = [f"{s3_folder}/{Path(url).name}" for url in local]
    for url, copy in zip(local, remote, strict=True):
        for suffix in ("", ".index"):
            storage.publish_bytes(copy + suffix, Path(url + suffix).read_bytes())
    exchange.run_merge(exchange.MergeJob(remote, f"{s3_folder}/merged.arrow"))
    for bucket in range(3):
        merged = exchange.gather([f"{s3_folder}/merged.arrow"], bucket)
        assert merged.equals(exchange.gather(local, bucket))
