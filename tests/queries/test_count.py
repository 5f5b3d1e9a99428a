"""Parts of sources, and what is published of each: as many files as memory asks for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wit_builder import exchange
from wit_builder.errors import QueryListError
from wit_builder.queries import count, merge
from wit_builder.queries.count import CountJob, Ready, Rows
from wit_builder.queries.streams import Part
from wit_builder.queries.titles import PAGES


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A parquet dump of nine articles, in row groups of two."""
    rows = {"title": [f"Page {k}" for k in range(9)], "text": [f"a b{k}. a b{k}" for k in range(9)]}
    place = str(tmp_path / "dump.parquet")
    pq.write_table(pa.table(rows), place, row_group_size=2)
    return place


def gathered(job: CountJob, kind: str) -> pa.Table:
    """Return all rows of a kind that a job published."""
    done = count.run_count(job)
    urls = [o.url for o in done.outputs if f".{kind}-" in o.url and o.url.endswith(".arrow")]
    assert urls
    return pa.concat_tables(exchange.gather(urls, b) for b in range(job.buckets))


def as_dict(grams: pa.Table) -> dict[str, int]:
    """Return the sums of counts."""
    return {row["gram"]: row["count"] for row in merge.sums([grams]).to_pylist()}


def test_parts_of_a_table(table, monkeypatch):
    """Row groups are dealt out in runs of some size, each once."""
    assert count.table_parts(table) == [Rows(table, 0, 5)]
    monkeypatch.setattr(count, "_GROUP_BYTES", 1)
    assert count.table_parts(table) == [Rows(table, k, k + 1) for k in range(5)]


def test_parts_of_ready_counts(tmp_path, monkeypatch):
    """A parquet list of counts is cut by rows; any other list is one part."""
    place = str(tmp_path / "counts.parquet")
    rows = {"gram": [f"w{k}" for k in range(6)], "count": range(6)}
    pq.write_table(pa.table(rows), place, row_group_size=2)
    monkeypatch.setattr(count, "_GROUP_ROWS", 4)
    assert count.ready_parts(place) == [Ready(place, 0, 2), Ready(place, 2, 3)]
    assert count.ready_parts("counts.csv") == [Ready("counts.csv")]
    taken = [
        as_dict(gathered(CountJob(p, 2, 2, str(tmp_path / "o")), "grams"))
        for p in count.ready_parts(place)
    ]
    assert taken == [{"w0": 0, "w1": 1, "w2": 2, "w3": 3}, {"w4": 4, "w5": 5}]


def test_many_files_for_one_part(table, tmp_path, monkeypatch):
    """However little memory there is, the files of a part together have every page and gram."""
    job = CountJob(Rows(table, 0, 5), 2, 3, str(tmp_path / "out"))
    grams, pages = as_dict(gathered(job, "grams")), gathered(job, "pages")
    monkeypatch.setattr(count, "_FILE_ROWS", 2)
    again = gathered(job, "pages")
    assert len(list(tmp_path.glob("out.pages-*.arrow"))) > 1
    assert sorted(again["title"].to_pylist()) == sorted(pages["title"].to_pylist())
    assert pages.schema.equals(PAGES)
    assert len(pages) == 9
    assert as_dict(gathered(job, "grams")) == grams
    assert grams["a"] == 18
    assert grams["a b3"] == 2


def test_batches_of_a_dump(data_dir, tmp_path, monkeypatch):
    """How many articles are counted at a time changes no count."""
    part = Part(str(data_dir / "bgwiki-excerpt.xml.bz2"))
    job = CountJob(part, 2, 2, str(tmp_path / "out"))
    whole = as_dict(gathered(job, "grams"))
    monkeypatch.setattr(count, "_BATCH_PAGES", 1)
    assert as_dict(gathered(job, "grams")) == whole
    assert len(whole) > 500


def test_a_damaged_table(table, tmp_path):
    """A parquet dump that is damaged inside is named, not passed for an empty one."""
    data = bytearray(Path(table).read_bytes())
    data[4:200] = b"\0" * 196
    Path(table).write_bytes(data)
    with pytest.raises(QueryListError, match=r"cannot read the dump.*dump\.parquet"):
        count.run_count(CountJob(Rows(table, 0, 5), 2, 1, str(tmp_path / "out")))
