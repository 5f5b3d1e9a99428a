"""Views are summed per title, in bounded memory."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import exchange
from wit_builder.queries import views
from wit_builder.queries.views import VIEWS, publish, summed

ROWS = st.lists(st.tuples(st.sampled_from(["", "a", "b", "ab", "é", "title"]), st.integers(0, 9)))


def table(rows: list[tuple[str, int]]) -> pa.Table:
    """Return rows as ``VIEWS``."""
    return pa.table([[t for t, _ in rows], [v for _, v in rows]], schema=VIEWS)


@given(st.lists(ROWS))
def test_sums(parts):
    """Every title comes once, with the sum of its views, in the order of first appearance."""
    expected: Counter[str] = Counter()
    for title, count in (row for part in parts for row in part):
        expected[title] += count
    found = summed([table(part) for part in parts])
    assert found.schema == VIEWS
    assert list(zip(*found.to_pydict().values(), strict=True)) == list(expected.items())


def test_many_sums():
    """Very many titles are told apart."""
    names = [f"t{i}" for i in range(50_000)]
    found = summed([table([(n, 1) for n in names]), table([(n, 2) for n in names])])
    assert found["title"].to_pylist() == names
    assert set(found["views"].to_pylist()) == {3}


def test_waves(tmp_path, monkeypatch):
    """Rows beyond what memory should hold are published as well, each in its bucket."""
    monkeypatch.setattr(views, "WAVE_ROWS", 10)
    parts = [table([(f"t{i % 35}", 1) for i in range(at, at + 7)]) for at in range(0, 70, 7)]
    out = str(tmp_path / "v.arrow")
    outputs = publish(iter(parts), 3, out)
    assert [o.url for o in outputs] == [out, out + ".index"]
    buckets = [exchange.gather([out], bucket) for bucket in range(3)]
    for bucket, rows in enumerate(buckets):
        assert set(exchange.bucket_of(rows["title"], 3)) == {bucket}
    expected = {f"t{i}": 2 for i in range(35)}
    assert dict(zip(*summed(buckets).to_pydict().values(), strict=True)) == expected


def test_waves_are_let_go(tmp_path, monkeypatch):
    """Rows that wait on disk are not in memory any more."""
    monkeypatch.setattr(views, "WAVE_ROWS", 1000)
    before, held = pa.total_allocated_bytes(), []

    def parts():
        for at in range(0, 100_000, 500):
            held.append(pa.total_allocated_bytes() - before)
            yield table([(f"a title, number {i}", 1) for i in range(at, at + 500)])

    publish(parts(), 2, str(tmp_path / "v.arrow"))
    whole = table([(f"a title, number {i}", 1) for i in range(100_000)]).nbytes
    assert max(held) < whole / 5


def test_nothing(tmp_path):
    """No rows give a file of empty buckets."""
    publish([], 2, str(tmp_path / "v.arrow"))
    assert exchange.gather([str(tmp_path / "v.arrow")], 1).equals(VIEWS.empty_table())
