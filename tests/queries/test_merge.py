"""Sums of partial counts: independent of order, and read back by their counts."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import exchange, storage
from wit_builder.queries import merge
from wit_builder.queries.grams import GRAMS

ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", "a b", "b a", "c c c"]), st.integers(1, 9)))


def table(rows: list[tuple[str, int]]) -> pa.Table:
    """Return rows of (gram, count) as counts."""
    columns = [[g for g, _ in rows], [g.count(" ") + 1 for g, _ in rows], [c for _, c in rows]]
    return pa.table(columns, schema=GRAMS)


@given(st.lists(ROWS, max_size=6), st.randoms(use_true_random=False))
def test_merged_counts(tmp_path_factory, parts, random):
    """All rows of a gram, in whatever files, are summed; the order of the files changes no byte."""
    folder = tmp_path_factory.mktemp("merge")
    sources = [str(folder / f"{k}.arrow") for k in range(len(parts))]
    for url, rows in zip(sources, parts, strict=True):
        partial = table(rows)
        exchange.scatter(partial, exchange.bucket_of(partial["gram"], 2), 2, url)
    merged: dict[str, int] = {}
    for bucket in range(2):
        out = str(folder / f"{bucket}.parquet")
        done = merge.run_sum(merge.SumJob(sources, bucket, out))
        shuffled = random.sample(sources, len(sources))
        again = merge.run_sum(merge.SumJob(shuffled, bucket, str(folder / "again")))
        assert done.outputs[0].xxh3 == again.outputs[0].xxh3
        rows = storage.read_parquet(out).to_pylist()
        assert rows == sorted(rows, key=lambda r: (r["n"], -r["count"], r["gram"]))
        merged |= {r["gram"]: r["count"] for r in rows}
        assert done.counts["tokens"] == sum(r["count"] for r in rows if r["n"] == 1)
    expected: dict[str, int] = {}
    for gram, count in (row for rows in parts for row in rows):
        expected[gram] = expected.get(gram, 0) + count
    assert merged == expected


def test_summed_as_it_goes(monkeypatch):
    """Summing whenever there is much changes no sum."""
    monkeypatch.setattr(merge, "_LEAST_ROWS", 3)
    parts = [table([("a", 1), ("b", 2)]) for _ in range(10)]
    rows = merge.sums(iter(parts)).to_pylist()
    assert sorted((r["gram"], r["count"]) for r in rows) == [("a", 10), ("b", 20)]


@pytest.mark.parametrize(("n", "count", "expected"), [(1, 5, 5), (1, 1, 9), (2, 8, 1), (3, 1, 0)])
def test_at_least(tmp_path, monkeypatch, n, count, expected):
    """Of a length, exactly what occurs often enough is read, from as few row groups as can be."""
    monkeypatch.setattr(merge, "GROUP_ROWS", 2)
    rows = [(f"w{i}", i) for i in range(1, 10)] + [("a b", 7), ("c d", 8)]
    partial = table(rows)
    exchange.scatter(partial, exchange.bucket_of(partial["gram"], 1), 1, str(tmp_path / "x"))
    merge.run_sum(merge.SumJob([str(tmp_path / "x")], 0, str(tmp_path / "m")))
    found = pa.concat_tables([GRAMS.empty_table(), *merge.at_least(str(tmp_path / "m"), n, count)])
    assert found.num_rows == expected
    assert all(r["n"] == n and r["count"] >= count for r in found.to_pylist())
