"""Lists of every kind are read; what is wrong with one is named with its place."""

from __future__ import annotations

import gzip
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.errors import QueryListError
from wit_builder.queries import compressed, lists

WEIGHTED = {"query": ["red panda", 'a "b",\nc', "C++"], "weight": [1.5, None, 2.0]}
CSV = 'query,weight,note\nred panda,1.5,x\n"a ""b"",\nc",,\n\n , 3 ,blank\nC++,2,é\n'


def written(tmp_path, name: str, data: bytes) -> str:
    """Write a list; return its place."""
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


def delimited(name: str) -> bytes:
    """Return ``WEIGHTED`` as the name's suffix says."""
    text = CSV if ".csv" in name else CSV.replace(",\nc", "\0").replace(",", "\t")
    data = text.replace("\0", ",\nc").encode()
    return gzip.compress(data) if name.endswith(".gz") else data


@pytest.mark.parametrize("name", ["own.csv", "own.csv.gz", "own.tsv", "own.tsv.gz"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte_order_mark"])
def test_delimited(tmp_path, name, mark):
    """Named columns are read, with quoted line breaks, without blank texts and other columns."""
    data = delimited(name)
    if mark:
        data = gzip.compress(mark + gzip.decompress(data)) if name.endswith(".gz") else mark + data
    table = lists.read(written(tmp_path, name, data), "query", "weight")
    assert table.to_pydict() == WEIGHTED
    assert table.schema.types == [pa.string(), pa.float64()]


@pytest.mark.parametrize("name", ["own.txt", "own.txt.gz"])
def test_text(tmp_path, name):
    """A text file has a text a line, trimmed, and no numbers."""
    data = "\ufeffred panda\n\n  C++  \r\n  \nlast".encode()
    place = written(tmp_path, name, gzip.compress(data) if name.endswith(".gz") else data)
    assert lists.read(place, "title", "views").to_pydict() == {
        "title": ["red panda", "C++", "last"],
        "views": [None] * 3,
    }


@pytest.mark.parametrize(
    ("column", "kind"),
    [([3, 2, 1], pa.int32()), ([3.0, 2.0, 1.0], pa.float64()), (["3", " 2", "1"], pa.string())],
)
def test_parquet(tmp_path, column, kind):
    """Parquet columns of other types are taken where nothing is lost; row groups can be chosen."""
    grams = pa.array(["a b", " c ", "a b"]).dictionary_encode()
    place = str(tmp_path / "own.parquet")
    table = pa.table({"count": pa.array(column, kind), "x": [1, 2, 3], "gram": grams})
    pq.write_table(table, place, row_group_size=2)
    whole = {"gram": ["a b", "c", "a b"], "count": [3, 2, 1]}
    assert lists.read(place, "gram", "count").to_pydict() == whole
    assert len(lists.group_rows(place, "count")) == 2
    assert lists.read(place, "gram", "count", range(1, 2)).to_pydict() == {
        "gram": ["a b"],
        "count": [1],
    }
    assert lists.read(place, "gram", "count", range(2, 2)).num_rows == 0


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.csv", b"title"), ("a.csv", b"title,views\n"), ("a.tsv", b"views\ttitle"), ("a.txt", b"")],
)
def test_no_rows(tmp_path, name, data):
    """A list without rows is one."""
    assert lists.read(written(tmp_path, name, data), "title", "views").num_rows == 0


FLAWS = {
    "negative.csv": (b"query,weight\na,1\nb,-2\n", "'-2' as weight, not a number.*row 3]"),
    "not_a_number.csv": (b"query,weight\na,x\nb,y\n", "'x' as weight, not a number.*row 2]"),
    "nan.csv": (b"query,weight\na,1\nb,2\nc,nan\n", "'nan' as weight.*row 4]"),
    "infinite.tsv": (b"query\tweight\na\tinf\n", "'inf' as weight.*row 2]"),
    "no_column.csv": (b"text,weight\na,1\n", "no column query; columns there: text, weight"),
    "empty.csv": (b"", "no column query; columns there: none"),
    "further_field.csv": (b"query,weight\na,1\nb,2,3\n", "Row #3: Expected 2 columns, got 3"),
    "open_quote.csv": (b'query,weight\n"a,1\n', "cannot be parsed"),
    "not_utf8.csv": (b"query,weight\na,1\nb\xff,1\n", "not UTF-8 .*line 3]"),
    "not_utf8.txt": (b"dog\ncaf\xe9\n", "not UTF-8 .*line 2]"),
    "cut_letter.txt": (b"dog\ncaf\xc3", "not UTF-8 .*line 2]"),
    "cut_short.csv.gz": (gzip.compress(b"query\na\n")[:-5], "cut short .*byte 23"),
    "not_parquet.parquet": (b"query,weight\na,1\n", "not a readable Arrow or parquet file"),
    "packed.parquet.gz": (b"", "unknown kind.*give a .txt, .csv"),
    "table.xlsx": (b"", "unknown kind"),
}


@pytest.mark.parametrize("name", FLAWS)
def test_flaw(tmp_path, name):
    """A list with a flaw is named with it, and with the line or row."""
    data, message = FLAWS[name]
    with pytest.raises(QueryListError, match=message) as caught:
        lists.read(written(tmp_path, name, data), "query", "weight")
    assert name in caught.value.where


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"gram,count\na,1\nb,\n", "nothing as count, not a whole number from 0 up .*row 3]"),
        (b"gram,count\na,1.5\n", "'1.5' as count, not a whole number.*row 2]"),
        (b"gram\na\n", "no column count; columns there: gram.*check queries.wikipedia.counts"),
    ],
)
def test_counts_are_required(tmp_path, data, message):
    """Every gram has a count, and that is a whole number."""
    with pytest.raises(QueryListError, match=message):
        lists.read(written(tmp_path, "c.csv", data), "gram", "count")


def test_counts_as_text(tmp_path):
    """A text file cannot hold counts."""
    with pytest.raises(QueryListError, match="needs the column count"):
        lists.read(written(tmp_path, "c.txt", b"a\n"), "gram", "count")


PARQUET_FLAWS = {
    "negative": ({"gram": ["a", "b", "c"], "count": [1, 2, -3]}, "-3 as count.*row 3]"),
    "fraction": ({"gram": ["a", "b", "c"], "count": [1.0, 2.5, 3.0]}, "2.5 as count.*row 2]"),
    "null": ({"gram": ["a", "b", "c"], "count": [1, 2, None]}, "nothing as count.*row 3]"),
    "lists": ({"gram": [["a"]], "count": [1]}, "no text in its column gram: list"),
}


@pytest.mark.parametrize("flaw", PARQUET_FLAWS)
def test_parquet_flaw(tmp_path, flaw):
    """A flaw in parquet is named with its row, which the row groups do not change."""
    columns, message = PARQUET_FLAWS[flaw]
    place = str(tmp_path / "c.parquet")
    pq.write_table(pa.table(columns), place, row_group_size=2)
    last = len(lists.group_rows(place, "count"))
    for groups in (None, range(last)):
        with pytest.raises(QueryListError, match=message):
            lists.read(place, "gram", "count", groups)
    if flaw == "negative":
        with pytest.raises(QueryListError, match=message):
            lists.read(place, "gram", "count", range(1, 2))


@pytest.mark.parametrize("name", ["none.txt", "none.csv", "none.parquet"])
def test_missing(tmp_path, name):
    """A list that is not there is named with the key of the recipe."""
    message = rf"cannot read a custom list: .*{re.escape(name)}\] -> check queries\.custom"
    with pytest.raises(QueryListError, match=message):
        lists.read(str(tmp_path / name), "query", "weight")


TEXTS = st.text(st.sampled_from('ab ,"\n\r\té')).map(str.strip).filter(bool)


@given(st.lists(st.tuples(TEXTS, st.integers(0, 2**62))), st.integers(1, 40))
def test_round_trip(tmp_path_factory, rows, chunk):
    """What was written comes back, wherever the file is cut into chunks and blocks."""
    quoted = ('"' + text.replace('"', '""') + f'",{views}\n' for text, views in rows)
    data = "title,views\n" + "".join(quoted)
    place = written(tmp_path_factory.mktemp("l"), "l.csv", data.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compressed, "CHUNK_BYTES", max(chunk, len("title,views\n")))
        table = lists.read(place, "title", "views")
    expected = [(text, views) for text, views in rows]
    assert list(zip(*table.to_pydict().values(), strict=True)) == expected


def test_batches(tmp_path, monkeypatch):
    """A large list comes in several tables; rows are numbered through."""
    monkeypatch.setattr(lists, "_BLOCK_BYTES", 4000)
    lines = [f"g{i},{i}" for i in range(3000)]
    place = written(tmp_path, "c.csv", "\n".join(["gram,count", *lines]).encode())
    tables = list(lists.batches(place, "gram", "count"))
    assert len(tables) > 5
    assert pa.concat_tables(tables)["count"].to_pylist() == list(range(3000))
    lines[2000] = "g,x"
    place = written(tmp_path, "c.csv", "\n".join(["gram,count", *lines]).encode())
    with pytest.raises(QueryListError, match=r"'x' as count.*row 2002\]"):
        list(lists.batches(place, "gram", "count"))
