"""Candidates from lists of picture URLs: parquet, csv, tsv, jsonl and txt."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import pickle
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder import storage
from wit_builder.crawl import list_bytes, list_fields, lists
from wit_builder.crawl.candidates import Output
from wit_builder.errors import ArchiveError
from wit_builder.sections import TablesSource

URL = "https://example.org/"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}


class Found(NamedTuple):
    """What a list gave: candidates, (reason, detail) of rejections, and counts."""

    rows: list[dict[str, Any]]
    rejections: list[tuple[str, str]]
    counts: dict[str, int]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(row["url"].removeprefix(URL), row["text"]) for row in self.rows]


def found_in(place: str | Path, **keys: Any) -> Found:
    """Return what the pieces of a list give, together."""
    rows, rejections = [], []
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for piece in lists.pieces(TablesSource(paths=[str(place)], **keys)):
            output = Output.of(folder, "u")
            done = lists.run(pickle.loads(pickle.dumps(piece.job(output))))
            for table in storage.read_batches(output.candidates):
                rows += table.to_pylist()
            rejected = pq.read_table(output.rejections)
            rejections += list(
                zip(*(rejected[n].to_pylist() for n in ("reason", "detail")), strict=True)
            )
            counts = {
                key: counts.get(key, 0) + done.counts.get(key, 0) for key in {*counts, *done.counts}
            }
    return Found(rows, rejections, counts)


def written(folder: Path, name: str, data: bytes | str) -> Path:
    place = folder / name
    place.write_bytes(data.encode() if isinstance(data, str) else data)
    return place


def table_at(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    place = folder / "list.parquet"
    pq.write_table(pa.table(columns), place, **options)
    return place


# --- every format -----------------------------------------------------------

ROWS = [(f"{i}.jpg", f'No. {i}, "an owl"') for i in range(5)]


def as_csv(rows: list[tuple[str, str]], **options: Any) -> str:
    text = io.StringIO()
    csv.writer(text, **options).writerows([("url", "text"), *((URL + u, t) for u, t in rows)])
    return text.getvalue()


def as_tsv(rows: list[tuple[str, str]]) -> str:
    return "".join(f"{url}\t{text}\n" for url, text in rows)


def as_jsonl(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"n": [{}], "url": URL + u, "text": t}) + "\n" for u, t in rows)


def as_parquet(rows: list[tuple[str, str]]) -> bytes:
    sink = pa.BufferOutputStream()
    urls, texts = [URL + u for u, _ in rows], [t for _, t in rows]
    pq.write_table(pa.table({"url": urls, "other": list(range(len(rows))), "text": texts}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("csv", as_csv(ROWS)),
        ("tsv", "url\ttext\n" + as_tsv([(URL + u, t) for u, t in ROWS])),
        ("txt", as_tsv([(URL + u, t) for u, t in ROWS])),
        ("jsonl", as_jsonl(ROWS)),
    ],
    ids=["csv", "tsv", "txt", "jsonl"],
)
def test_format_is_told_by_the_name(tmp_path, kind, data, packed):
    """A list is read as its name ends, packed or not, and its rows are candidates."""
    place = written(tmp_path, f"list.{kind}{packed}", PACKERS[packed](data.encode()))
    found = found_in(place)
    assert found.pairs == ROWS
    assert found.counts == {"pages": 5, "candidates": 5}
    assert found.rows[0] | {"uid": b""} == {
        "uid": b"",
        "url": URL + "0.jpg",
        "text": 'No. 0, "an owl"',
        "text_from": "given",
        "page_url": None,
        "license": None,
        "archive": place.name,
        "found_at": None,
        "picture_at": None,
    }


def test_all_rows_of_several_files(tmp_path):
    """A pattern names files, each a piece of its own; a file named twice is read once."""
    for name in ("b.txt", "a.txt"):
        written(tmp_path, name, as_tsv([(URL + name, "an owl")]))
    source = TablesSource(paths=[str(tmp_path / "*.txt"), str(tmp_path / "a.txt")])
    pieces = lists.pieces(source)
    assert [piece.key for piece in pieces] == [str(tmp_path / n) for n in ("a.txt", "b.txt")]
    assert {piece.kind for piece in pieces} == {"tables"}
    assert pieces[0].inputs != pieces[1].inputs


def test_settings_make_a_piece_anew(tmp_path):
    """A piece's inputs change with the column map, and with the file, not with other paths."""
    place, other = str(written(tmp_path, "a.tsv", "")), str(written(tmp_path, "b.tsv", ""))
    first = lists.pieces(TablesSource(paths=[place]))[0].inputs
    assert lists.pieces(TablesSource(paths=[place, other]))[0].inputs == first
    assert lists.pieces(TablesSource(paths=[place], url="URL"))[0].inputs != first
    written(tmp_path, "a.tsv", "more")
    assert lists.pieces(TablesSource(paths=[place]))[0].inputs != first


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=30)  # each writes and reads nine files
@given(st.lists(TEXTS, max_size=20), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_formats_agree_on_any_text(texts, quoting):
    """A text is the same from csv, jsonl and parquet, whatever stands in it."""
    rows = [(f"{i}", text) for i, text in enumerate(texts)]
    expected = [(url, " ".join(text.split())) for url, text in rows if text.split()]
    for name, data in {
        "a.csv": as_csv(rows, quoting=quoting).encode(),
        "a.jsonl": as_jsonl(rows).encode(),
        "a.parquet": as_parquet(rows),
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            found = found_in(written(Path(folder), name, data))
        # what only Unicode takes for a line end, and a lone \r, is in a field as any character
        assert found.pairs == expected, name
        assert found.counts["pages"] == len(rows), name


@pytest.mark.parametrize("chunk_bytes", [16, 61, 200])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt.gz"])
def test_chunks_leave_no_trace(tmp_path, monkeypatch, name, chunk_bytes):
    """Where a file is cut while it is read makes no difference."""
    rows = [(f"{i}", f'"a\r\n{i}"" é" ' * (i % 4)) for i in range(40)]
    data = {
        "a.csv": as_csv(rows, lineterminator="\r\n") + 'broken,"row" x\nlast,one',
        "a.jsonl": as_jsonl(rows) + "broken\n",
        "a.txt.gz": as_tsv([(URL + u, " ".join(t.split())) for u, t in rows]) + "broken\n\r\n\n",
    }[name]
    packed = gzip.compress(data.encode()) if name.endswith(".gz") else data
    place = written(tmp_path, name, packed)
    whole = found_in(place)
    monkeypatch.setattr(list_bytes, "CHUNK_BYTES", chunk_bytes)
    cut = found_in(place)
    assert sorted(cut.rejections) == sorted(whole.rejections)
    assert cut._replace(rejections=[]) == whole._replace(rejections=[])


# --- columns ----------------------------------------------------------------


def test_named_columns_are_taken(tmp_path):
    """Columns are the recipe's; a page's URL and a licence are normalised; null if none."""
    place = written(
        tmp_path,
        "a.csv",
        "who,URL,TEXT,from,licence\n"
        f"x,{URL}1,one,HTTPS://Example.org,http://creativecommons.org/licenses/by/2.0/\n"
        f"x,{URL}2,two,,?\n",
    )
    found = found_in(place, url="URL", texts=["TEXT"], page_url="from", license="licence")
    assert [(r["text"], r["page_url"], r["license"]) for r in found.rows] == [
        ("one", URL, "http://creativecommons.org/licenses/by/2.0/"),
        ("two", None, None),
    ]
    assert not found.rejections


def test_every_distinct_text_makes_a_pair(tmp_path):
    """Each text column that is not empty makes a pair, the same text only once."""
    place = written(
        tmp_path, "a.tsv", f"{URL}1\towl\tan  owl\n{URL}2\towl\towl \n{URL}3\t\tcat\n{URL}4\t\t\n"
    )
    found = found_in(place, columns=["url", "a", "b"], texts=["a", "b"])
    assert sorted(found.pairs) == [("1", "an owl"), ("1", "owl"), ("2", "owl"), ("3", "cat")]
    assert found.counts == {"pages": 4, "candidates": 4, "rejected:no_text": 1}


def test_the_same_pair_again_is_counted(tmp_path):
    """A pair that a list has twice is one candidate."""
    place = written(tmp_path, "a.txt", f"{URL}1\towl\n" * 3)
    assert found_in(place).counts == {"pages": 3, "candidates": 1, "repeated": 2}


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet"])
def test_only_some_rows(tmp_path, kind):
    """Rows with another value than asked for are left out; a number compares as it is written."""
    columns = {"url": [URL + "1", URL + "2"], "text": ["owl", "film"], "n": [0, 1]}
    if kind == "parquet":
        place = table_at(tmp_path, columns)
    elif kind == "tsv":
        place = written(tmp_path, "a.tsv", f"url\ttext\tn\n{URL}1\towl\t0\n{URL}2\tfilm\t1\n")
    else:
        rows = pa.table(columns).to_pylist()
        place = written(tmp_path, "a.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    found = found_in(place, only={"n": "0"})
    assert found.pairs == [("1", "owl")]
    assert found.counts == {"pages": 2, "filtered": 1, "candidates": 1}


def test_percent_encoding_is_undone(tmp_path):
    """Encoded texts are decoded; what is no escape stays, and broken UTF-8 becomes U+FFFD."""
    texts = ["Größe+1%2B1", "100%25%0Awool", "5% off, %zz %4", "%FF%C3", "%e2%82%ac%00x"]
    place = written(tmp_path, "a.txt", as_tsv([(f"{URL}{i}", t) for i, t in enumerate(texts)]))
    found = found_in(place, percent_encoded=True)
    assert [text for _, text in found.pairs] == [
        "Größe 1+1", "100% wool", "5% off, %zz %4", "\ufffd\ufffd", "€\0x",
    ]  # fmt: skip


@given(st.lists(TEXTS.filter(str.split), max_size=10))
def test_percent_decoding_is_the_inverse(texts):
    """What ``quote_plus`` encodes is decoded to what it was."""
    column = pa.array([quote_plus(text).encode() for text in texts], pa.binary())
    decoded = lists._percent_decoded(column.slice(1) if texts else column)
    assert [value.decode() for value in decoded.to_pylist()] == texts[1:]


STRINGS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}


@pytest.mark.parametrize("kind", STRINGS.values(), ids=STRINGS)
def test_parquet_text_of_any_type(tmp_path, kind):
    """A parquet list's columns may be of any type of text."""
    urls, texts = ([URL + "1", URL + "2"], ["an owl", None])
    columns = {"url": pa.array(urls).cast(kind), "text": pa.array(texts).cast(kind)}
    found = found_in(table_at(tmp_path, columns, row_group_size=1))
    assert found.pairs == [("1", "an owl")]
    assert found.counts["rejected:no_text"] == 1


def test_large_parquet_file_is_several_pieces(tmp_path, monkeypatch):
    """The pieces of a large file are runs of row groups, and together they are the whole of it."""
    rows = [(f"{i}.jpg", f"owl number {i}") for i in range(40)]
    table = pq.read_table(pa.BufferReader(as_parquet(rows)))
    place = tmp_path / "a.parquet"
    pq.write_table(table, place, row_group_size=4)
    whole = found_in(place)
    monkeypatch.setattr(lists, "_LARGE_BYTES", 1)
    monkeypatch.setattr(lists, "_PIECE_BYTES", 1000)
    keys = [p.key.partition("#")[2] for p in lists.pieces(TablesSource(paths=[str(place)]))]
    spans = [tuple(map(int, key.split("-"))) for key in keys]
    assert len(spans) > 2
    assert [i for first, last in spans for i in range(first, last + 1)] == list(range(10))
    assert found_in(place) == whole


# --- what is broken ---------------------------------------------------------


def bad_rows(found: Found) -> list[str]:
    return [detail for reason, detail in found.rejections if reason == "bad_row"]


def test_csv_with_broken_rows(tmp_path):
    """A broken row of a csv costs its line alone, and is told with its number."""
    place = written(
        tmp_path,
        "a.csv",
        "\ufeffurl,text\r\n"
        f'{URL}1,"two\nlines, ""quoted"""\r\n'
        f"{URL}2\n"
        f"{URL}3,a,b\n"
        f'{URL}4,"closed" within\n'
        "\n"
        f'{URL}5,5" pipe\n'
        ",no url\n"
        f'{URL}6,"never closed\n'
        f"{URL}7,last",
    )
    found = found_in(place)
    assert found.pairs == [("1", 'two lines, "quoted"'), ("5", '5" pipe'), ("7", "last")]
    quote = "a quote is not closed, or closes within the field"
    assert sorted(bad_rows(found)) == [
        f"line 10: {quote}", "line 4: 1 fields, not 2", "line 5: 3 fields, not 2",
        f"line 6: {quote}", "line 9: no URL",
    ]  # fmt: skip
    assert found.counts == {"pages": 8, "candidates": 3, "rejected:bad_row": 5}


def test_tsv_has_no_quotes(tmp_path):
    """In a tsv a quote is a character as any other."""
    place = written(tmp_path, "a.tsv", f'url\ttext\n{URL}1\t"owl\n{URL}2\t"a" b\nx\ty\tz\n')
    found = found_in(place)
    assert found.pairs == [("1", '"owl'), ("2", '"a" b')]
    assert bad_rows(found) == ["line 4: 3 fields, not 2"]


def test_txt_text_takes_further_tabs(tmp_path):
    """In a txt the text is the rest of the line; a line without a tab is broken."""
    found = found_in(written(tmp_path, "a.txt", f"{URL}1\ta\tb\n{URL}2\n"))
    assert found.pairs == [("1", "a b")]
    assert bad_rows(found) == ["line 2: 1 fields, not 2"]


def test_jsonl_with_broken_rows(tmp_path):
    """A line that is no object, or has no text where one must be, is told with its number."""
    lines = [
        f'{{"url": "{URL}1", "text": "owl", "score": NaN}}'.encode(),
        b"{",
        b'["url"]',
        b'{"url": 5, "text": "owl"}',
        b'{"url": null, "text": "owl"}',
        b'{"text": "owl"}',
        f'{{"url": "{URL}2", "text": {{}}}}'.encode(),
        f'{{"url": "{URL}3", "text": "cut \\ud83d"}}'.encode(),
        f'{{"url": "{URL}4", "text": "caf'.encode() + b'\xe9"}',
        f'{{"url": "{URL}'.encode() + b'\xe9", "text": "owl"}',
        b"[" * 100_000,
        f'{{"url": "{URL}5", "text": null}}'.encode(),
        f'{{"url": "{URL}6"}}'.encode(),
        b'{"url": "\0"}',
        f'{{"url": "{URL}7", "text": true}}'.encode(),
    ]
    found = found_in(written(tmp_path, "a.jsonl", b"\n".join(lines)))
    assert found.pairs == [("1", "owl"), ("3", "cut \ufffd"), ("4", "caf\ufffd")]
    told = {int(d.split()[1][:-1]): d.partition(": ")[2].split(":")[0] for d in bad_rows(found)}
    assert told == {
        2: "no JSON", 3: "no JSON object", 4: "url is no text", 5: "no URL", 6: "no URL",
        7: "text is no text", 10: "url is not UTF-8", 11: "no JSON", 14: "no JSON",
        15: "text is no text",
    }  # fmt: skip
    assert found.counts["rejected:no_text"] == 2
    assert found.counts["pages"] == len(lines)


def test_one_broken_line_changes_no_other(tmp_path):
    """The lines around a broken one are read as they would be without it."""
    rows = [
        {"url": f"{URL}{i}", "text": "owl €", "page": 3, "n": n}
        for i, n in enumerate([1, 1.0, "1", True, None, [1]])
    ]
    good = "".join(json.dumps(row) + "\n" for row in rows)
    keys = {"only": {"n": "1"}, "page_url": "page"}
    alone = found_in(written(tmp_path, "a.jsonl", good), **keys)
    assert [url for url, _ in alone.pairs] == ["0", "2"]
    assert found_in(written(tmp_path, "a.jsonl", good + "{"), **keys).rows == alone.rows


def test_invalid_utf8(tmp_path):
    """Broken UTF-8 in a text becomes U+FFFD; in a URL it breaks the row."""
    data = b"https://example.org/1\tcaf\xe9 \xff\nhttps://example.org/\xe9\towl\n"
    found = found_in(written(tmp_path, "a.txt", data))
    assert found.pairs == [("1", "caf\ufffd \ufffd")]
    assert bad_rows(found) == ["line 2: the URL is not UTF-8"]
    urls, texts = zip(*(line.split(b"\t") for line in data.splitlines()), strict=True)
    columns = {"url": pa.array(urls, pa.binary()), "text": pa.array(texts, pa.binary())}
    assert found_in(table_at(tmp_path, columns)).pairs == found.pairs


def test_nul_bytes_end_nothing(tmp_path):
    """A NUL is a byte as any other."""
    found = found_in(written(tmp_path, "a.tsv", f"url\ttext\n{URL}1\tan\0owl\n{URL}2\tcat\n"))
    assert found.pairs == [("1", "an\0owl"), ("2", "cat")]


def test_refused_urls_are_rejections(tmp_path):
    """A URL that is refused is told with its line and the reason."""
    urls = [
        "data:image/png;base64,x",
        "https://user:pw@example.org/",
        "ftp://example.org/",
        "x.jpg",
    ]
    data = as_tsv([(url, "owl") for url in [*urls, f" {URL}5 "]])
    found = found_in(written(tmp_path, "a.txt", data))
    assert found.pairs == [("5", "owl")]
    assert found.counts["rejected:bad_url"] == 4
    assert found.rejections[:2] == [
        ("bad_url", "line 1: data: URI"),
        ("bad_url", "line 2: credentials"),
    ]


@pytest.mark.parametrize("end", ["\n", ""])
def test_enormous_line(tmp_path, end):
    """A line of many MiB is rejected, and the lines around it are kept."""
    huge = "x" * (3 * list_fields.MAX_ROW_BYTES)
    data = f"{URL}1\towl\n{URL}2\t{huge}{end}" + (f"{URL}3\tcat\n" if end else "")
    found = found_in(written(tmp_path, "a.txt", data))
    assert found.pairs == [("1", "owl"), ("3", "cat")][: 2 if end else 1]
    assert bad_rows(found) == ["line 2: more than 4 MiB"]


def test_open_quote_before_many_rows(tmp_path):
    """A quote that is never closed costs its line, not the megabytes behind it."""
    rows = "".join(f"{URL}{i},owl number {i}\n" for i in range(2 * list_fields.MAX_ROW_BYTES // 40))
    found = found_in(written(tmp_path, "a.csv", f'url,text\n{URL}x,"open\n{rows}'))
    assert found.counts["candidates"] == rows.count("\n")
    assert [detail.split(":")[0] for detail in bad_rows(found)] == ["line 2"]


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
def test_truncated_file_keeps_what_came_before(tmp_path, packed):
    """Of a compressed file cut short the rows before the cut are kept, and the fault is told."""
    rows = [(f"{URL}{i}", f"owl number {i * i * 7919 % 100_003}") for i in range(100_000)]
    data = PACKERS[packed](as_tsv(rows).encode())
    place = written(tmp_path, f"a.txt{packed}", data[: len(data) * 3 // 4])
    found = found_in(place)
    assert len(found.pairs) > 40_000
    assert found.pairs == [(u.removeprefix(URL), t) for u, t in rows[: len(found.pairs)]]
    assert [reason for reason, _ in found.rejections] == ["bad_record"]


def test_truncated_csv_with_an_open_quote(tmp_path):
    """Whole lines between a quote that is never closed and the cut are rows."""
    data = gzip.compress(f'url,text\n{URL}1,"open\n{URL}2,cat\n{URL}3,do'.encode())
    found = found_in(written(tmp_path, "a.csv.gz", data[:-8]))
    assert found.pairs == [("2", "cat")]
    assert [reason for reason, _ in found.rejections] == ["bad_row", "bad_record"]


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
def test_several_streams_behind_each_other(tmp_path, packed):
    """Compressed streams behind each other are one list; garbage after them is a fault."""
    data = b"".join(PACKERS[packed](f"{URL}{i}\towl\n".encode()) for i in range(3))
    assert len(found_in(written(tmp_path, f"a.txt{packed}", data)).pairs) == 3
    found = found_in(written(tmp_path, f"a.txt{packed}", data + b"garbage, and more of it"))
    assert len(found.pairs) == 3
    assert [reason for reason, _ in found.rejections] == ["bad_record"]


def test_damaged_row_group_costs_itself(tmp_path):
    """A row group that cannot be decoded is told; the others are read."""
    rows = [(f"{i}.jpg", f"owl number {i}") for i in range(30)]
    table = pq.read_table(pa.BufferReader(as_parquet(rows)))
    place = tmp_path / "a.parquet"
    pq.write_table(table, place, row_group_size=10, use_dictionary=False)
    chunk = pq.ParquetFile(place).metadata.row_group(1).column(0)
    data = bytearray(place.read_bytes())
    start = chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    place.write_bytes(data)
    found = found_in(place)
    assert found.pairs == rows[:10] + rows[20:]
    [(reason, detail)] = found.rejections
    assert reason == "bad_record"
    assert detail.startswith("row group 1, from row 11 on: ")


# --- what cannot be read ----------------------------------------------------


def refusal(place: str | Path, **keys: Any) -> str:
    with pytest.raises(ArchiveError) as refused:
        found_in(place, **keys)
    return str(refused.value)


def test_missing_file_is_refused_at_once(tmp_path):
    """A file that is not there, and a pattern that matches nothing, are errors before any work."""
    for name in ("a.tsv", "*.tsv"):
        with pytest.raises(ArchiveError, match="check the paths of this source"):
            lists.pieces(TablesSource(paths=[str(tmp_path / name)]))


@pytest.mark.parametrize("name", ["list", "list.bz2", "list.parquet.gz", "list.xml"])
def test_unknown_ending_is_refused(tmp_path, name):
    """A file whose name does not tell its format needs one in the recipe."""
    with pytest.raises(ArchiveError, match="does not tell what kind"):
        lists.pieces(TablesSource(paths=[str(written(tmp_path, name, b""))]))
    if name == "list.bz2":
        place = written(tmp_path, name, bz2.compress(as_tsv([(URL + "1", "owl")]).encode()))
        assert found_in(place, format="txt").pairs == [("1", "owl")]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.txt"])
def test_columns_of_a_format_with_names(tmp_path, name):
    """Naming the columns of a file that names them itself is an error."""
    with pytest.raises(ArchiveError, match="leave columns out"):
        lists.pieces(
            TablesSource(paths=[str(written(tmp_path, name, b""))], columns=["url", "text"])
        )


def test_missing_column_names_those_there(tmp_path):
    """A column that is not there is an error that names those that are."""
    data = "URL\tTEXT\nx\ty\n"
    assert "columns there: URL, TEXT" in refusal(written(tmp_path, "a.tsv", data))
    assert "columns there: URL, n" in refusal(table_at(tmp_path, {"URL": ["x"], "n": [1]}))
    assert "columns there: a, b" in refusal(written(tmp_path, "b.tsv", ""), columns=["a", "b"])
    assert "columns there: url, text" in refusal(written(tmp_path, "a.txt", ""), license="by")
    assert "columns there: ," in refusal(written(tmp_path, "c.tsv", "\t\n"))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.tsv.bz2", "a.csv.zst"])
def test_empty_list(tmp_path, name):
    """A list with nothing in it, not even names of columns, is an error that says so."""
    pack = PACKERS["".join(Path(name).suffixes[1:])]
    assert "the list is empty" in refusal(written(tmp_path, name, pack(b"")))


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_list_damaged_from_the_start(tmp_path, kind, packed):
    """A packed list whose line of names cannot be unpacked is called damaged, not misnamed."""
    data = PACKERS[packed](as_csv(ROWS).encode())
    for bad in (b"<html>not found</html>", data[:9], b"\xff" * len(data)):
        said = refusal(written(tmp_path, f"a.{kind}{packed}", bad))
        assert "the list is damaged, and nothing of it can be read" in said


def test_list_damaged_in_its_line_of_names(tmp_path):
    """A line of names that is cut by damage is none."""
    packer = zlib.compressobj(wbits=31)
    begun = packer.compress(b"ur") + packer.flush(zlib.Z_SYNC_FLUSH)
    assert "the list is damaged" in refusal(written(tmp_path, "a.csv.gz", begun))


def test_column_of_numbers_is_no_text(tmp_path):
    """A parquet column of a type that is no text is an error that names the type."""
    place = table_at(tmp_path, {"url": ["x"], "text": [1]})
    assert "column 'text' is no text but int64" in refusal(place)


def test_no_parquet_file(tmp_path):
    """A parquet file that is cut short, or none at all, is an error."""
    data = as_parquet(ROWS)
    assert "not a readable parquet file" in refusal(written(tmp_path, "a.parquet", data[:-10]))
    assert "not a readable parquet file" in refusal(written(tmp_path, "a.parquet", b"url\ttext\n"))


def test_wrong_columns_stop_the_unit(tmp_path):
    """A long file of which no row can be read is an error, not a million rejections."""
    data = as_tsv([(URL + "1", "owl")]) * 20_000
    said = refusal(written(tmp_path, "a.tsv", data), columns=["url", "text", "other"])
    assert "none of the first rows can be read: 2 fields, not 3" in said
    said = refusal(written(tmp_path, "a.jsonl", '{"URL": "x"}\n' * 20_000))
    assert "none of the first rows can be read: no URL" in said


# --- remote -----------------------------------------------------------------


@pytest.mark.s3
def test_remote_lists_are_as_local_ones(tmp_path, s3_folder):
    """From a bucket, every format gives what it gives from a disk."""
    for name, data in {
        "a.parquet": as_parquet(ROWS),
        "a.csv.gz": gzip.compress(as_csv(ROWS).encode()),
        "a.txt.zst": PACKERS[".zst"](as_tsv([(URL + u, t) for u, t in ROWS]).encode()),
    }.items():
        local = written(tmp_path, name, data)
        storage.publish_bytes(f"{s3_folder}/{name}", data)
        assert found_in(f"{s3_folder}/{name}") == found_in(local)
    shutil.rmtree(tmp_path)
