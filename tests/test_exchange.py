"""Rows regrouped by key through storage."""

from __future__ import annotations

import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
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


@settings(max_examples=50)  # each writes some ten files
@given(
    st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=6),
    st.integers(1, 5),
    st.sampled_from([0, 100, 500, 1 << 20]),
)
def test_spilling_leaves_no_trace_in_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    pieces: list[list[int]],
    buckets: int,
    held_bytes: int,
) -> None:
    """However few bytes are held, the file is that of all rows at once, to the byte."""
    folder = tmp_path_factory.mktemp("x")
    published: list[storage.Published] = []
    whole = list_of(list(chain.from_iterable(pieces)))
    bucket = whole["key"].to_numpy() % buckets
    expected = exchange.scatter(whole, bucket, buckets, str(folder / "whole.arrow"))
    with exchange.scattering(
        str(folder / "pieces.arrow"), whole.schema, buckets, published, held_bytes=held_bytes
    ) as scatterer:
        for piece in map(list_of, pieces):
            scatterer.add(piece, piece["key"].to_numpy() % buckets)
            assert scatterer._held <= held_bytes
    assert [o.xxh3 for o in published] == [o.xxh3 for o in expected]


def list_of(values: list[int]) -> pa.Table:
    """A table with nulls, strings, lists and fixed-size bytes, as matched pairs have them."""
    return pa.table(
        {
            "key": pa.array(values, pa.int64()),
            "text": pa.array([None if v % 7 == 0 else "é" * (v % 4) for v in values], pa.string()),
            "ids": pa.array([list(range(v % 3)) for v in values], pa.list_(pa.int32())),
            "uid": pa.array([bytes([v] * 16) for v in values], pa.binary(16)),
            "nothing": pa.nulls(len(values), pa.string()),
        }
    )


def test_nothing_is_left_when_scattering_ends_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error after some rows leaves neither file nor index, nor what was spilled."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    published: list[storage.Published] = []
    url = str(tmp_path / "f.arrow")
    table = table_of([1, 2])

    def fail() -> None:
        with exchange.scattering(url, table.schema, 2, published, held_bytes=0) as scatterer:
            scatterer.add(table, np.array([0, 1]))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert published == []
    assert list(tmp_path.iterdir()) == []


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


def even(table: pa.Table) -> pa.Table:
    is_even = [value % 2 == 0 for value in table["value"].to_pylist()]
    return table.filter(pa.array(is_even, pa.bool_()))


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(1, 7))
def test_rewriting_leaves_buckets_where_they_are(
    tmp_path_factory: pytest.TempPathFactory, values: list[int], buckets: int
) -> None:
    """Each bucket has what was left of its rows, in their order; again changes no byte."""
    [url] = scattered(tmp_path_factory.mktemp("x"), [values], buckets)
    before = [exchange.gather([url], bucket) for bucket in range(buckets)]
    exchange.rewrite(url, even, exchange.ROWS)
    assert [exchange.gather([url], bucket) for bucket in range(buckets)] == [*map(even, before)]
    data = storage.read_bytes(url)
    exchange.rewrite(url, even, exchange.ROWS)
    assert storage.read_bytes(url) == data


def test_an_index_of_the_file_before_is_mended(tmp_path: Path) -> None:
    """A kill between a rewritten file and its index loses nothing."""
    [url] = scattered(tmp_path, [[*range(30)]], 5)
    index = storage.read_bytes(f"{url}.index")
    exchange.rewrite(url, even, exchange.ROWS)
    rewritten = storage.read_bytes(f"{url}.index")
    assert rewritten != index
    storage.publish_bytes(f"{url}.index", index)
    exchange.reindex(url)
    assert storage.read_bytes(f"{url}.index") == rewritten


def test_an_index_of_another_file_is_refused(tmp_path: Path) -> None:
    """Which bucket is which cannot be told."""
    url = str(tmp_path / "f.arrow")
    exchange.scatter(table_of([1, 2, 3]), np.array([0, 1, 2]), 3, url)
    index = storage.read_bytes(f"{url}.index")
    exchange.scatter(table_of([1, 2, 3]), np.array([0, 0, 2]), 3, url)
    storage.publish_bytes(f"{url}.index", index)
    with pytest.raises(StorageError, match="not of one make"):
        exchange.reindex(url)
