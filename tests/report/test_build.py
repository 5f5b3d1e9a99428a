"""The files of a report."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from wit_builder import storage, tables
from wit_builder.errors import ShardFormatError, StorageError
from wit_builder.report import build
from wit_builder.report.summary import read_summary

from .conftest import make_web, write_run

FILES = ["balance.parquet", "datasheet.md", "index.html", "rejections.parquet", "summary.json"]


def _read(root: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(Path(root, "report").iterdir())}


def test_a_report_is_four_files(job):
    """Two tables, the figures for machines, and the page; each is among what was published."""
    done = build.run(job)
    assert sorted(storage.name_of(o.url) for o in done.outputs) == FILES == list(_read(job.root))
    assert done.counts["queries"] == 60 == sum(n for k, n in done.counts.items() if k != "queries")


def test_the_same_run_gives_the_same_bytes_anywhere(job, web, tmp_path):
    """A second report, from the same tables in another folder, is byte-identical."""
    build.run(job)
    build.run(write_run(tmp_path / "elsewhere", web))
    assert _read(job.root) == _read(str(tmp_path / "elsewhere"))


def test_every_query_has_a_row(job, web):
    """The balance table has all queries in list order, those without a match too."""
    build.run(job)
    balance = storage.read_parquet(f"{job.root}/report/balance.parquet")
    assert balance.schema.equals(tables.BALANCE, check_metadata=False)
    assert balance["query"].to_pylist() == web.queries
    rows = balance.to_pylist()
    assert all((r["matched"] == 0) == (r["status"] == "empty") for r in rows)
    assert all((r["kept"] == web.cap) == (r["status"] == "full") for r in rows)
    assert all(len(r["drawn_per_round"]) == len(web.rounds) for r in rows)
    by_first = [q for by, _ in web.rounds[0].values() for q in by]
    assert rows[0]["drawn_per_round"][0] == by_first.count(0) > 0


def test_a_missing_round_is_refused_by_name(job):
    """A report on three rounds of which two are there says so, and where."""
    with pytest.raises(StorageError, match=r"2 of 3 rounds have selected tables \[.*g0/selected\]"):
        build.run(msgspec.structs.replace(job, rounds=3))


def test_rounds_without_the_first_are_refused(tmp_path):
    """A later round does not pass for the first."""
    job = write_run(tmp_path, make_web(20, 5, 3, 2))
    storage.remove(f"{job.root}/g0/selected/r0")
    with pytest.raises(StorageError, match="0 of 1 rounds have selected tables"):
        build.run(msgspec.structs.replace(job, rounds=1))


def test_a_missing_table_of_kept_pairs_is_refused_by_name(tmp_path):
    """Every bucket of matched pairs has its table of kept ones, or nothing is written."""
    job = write_run(tmp_path, make_web(20, 5, 3, 1))
    storage.remove(f"{tmp_path}/g0/kept/1.parquet")
    with pytest.raises(StorageError, match=r"what was kept of bucket 1 \[.*g0/kept\]"):
        build.run(job)
    assert not Path(job.root, "report").exists()


def test_a_generation_that_took_all_over_has_all_kept_tables(tmp_path):
    """Where a later generation draws all anew, what it keeps counts, and nothing kept before."""
    job = write_run(tmp_path, make_web(40, 5, 3, 2))
    before = build.run(job)
    for name in ("kept", "shards"):
        Path(tmp_path, "g1").mkdir(exist_ok=True)
        Path(tmp_path, "g0", name).rename(tmp_path / "g1" / name)
    with pytest.raises(StorageError, match=r"kept of bucket 0 \[.*g0/kept\]"):
        build.run(msgspec.structs.replace(job, generation="g1"))
    after = build.run(msgspec.structs.replace(job, generation="g1", since="g1"))
    assert before.counts == after.counts


def test_unknown_pairs_are_told_round_by_round(tmp_path):
    """What was unknown after each round reaches the figures and the page."""
    job = write_run(tmp_path, make_web(20, 5, 3, 2))
    build.run(msgspec.structs.replace(job, unknown_after=[4, 0]))
    assert [r.unknown for r in read_summary(job.root).rounds] == [4, 0]
    html = (tmp_path / "report" / "index.html").read_text()
    assert "Unknown after" in html
    assert '<td class="n">4</td>' in html


def test_a_run_without_shards_is_refused(tmp_path):
    """Nothing packed, nothing to report on."""
    job = write_run(tmp_path, make_web(20, 5, 3, 1))
    storage.remove(f"{tmp_path}/g0/shards")
    with pytest.raises(ShardFormatError, match="no data set"):
        build.run(job)
    assert not Path(job.root, "report").exists()


def test_a_query_list_without_a_match_gives_a_report_that_says_so(tmp_path):
    """No match at all is told in words, without plots."""
    web = make_web(0, 5, 3, 1)
    done = build.run(write_run(tmp_path, web))
    assert done.counts == {"queries": 5, "full": 0, "short": 0, "exhausted": 0, "empty": 5}
    page = (tmp_path / "report" / "index.html").read_text()
    assert "No text contains any of the queries" in page
    assert 'class="plot"' not in page
