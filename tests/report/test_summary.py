"""Figures for a terminal."""

from __future__ import annotations

import pytest

from wit_builder import storage
from wit_builder.errors import StorageError
from wit_builder.report import build
from wit_builder.report.count import Round
from wit_builder.report.summary import quantity, round_names, share, size, summary_rows, words

from .conftest import make_web, write_run


def test_rows_have_all_stages_and_reasons(job):
    """The funnel in order, then rounds, queries, rejections by reason, and what is on disk."""
    build.run(job)
    rows = dict(summary_rows(job.root))
    assert list(rows)[: len(job.found)] == [step.label for step in job.found]
    assert rows["pages read"] == "3,100 pages"
    assert rows["lost in match: no query"] == "900"
    assert "alive" in rows["round 1"]
    assert rows["on disk"].startswith("3 shards, ")


def test_rows_of_a_run_that_kept_nothing(tmp_path):
    """Nothing kept is nothing on disk, and is said to be so."""
    job = write_run(tmp_path, make_web(0, 5, 3, 1))
    storage.remove(f"{tmp_path}/g0/shards")
    build.run(job)
    rows = dict(summary_rows(str(tmp_path)))
    assert rows["kept"] == "0 pairs"
    assert rows["on disk"] == "nothing: no pair was kept"


def test_a_round_says_its_generation_where_there_are_several():
    """One generation needs no name; two do."""
    answers = {"asked": 3, "alive": 2, "dead": 1, "deferred": 0, "unknown": 0}
    rounds = [
        Round(generation=g, number=n, **answers) for g, n in (("g0", 1), ("g0", 2), ("g1", 1))
    ]
    assert round_names(rounds[:2]) == ["round 1", "round 2"]
    assert round_names(rounds) == ["g0 round 1", "g0 round 2", "g1 round 1"]


def test_no_report_yet_is_an_error_that_names_the_file(tmp_path):
    """Asking for figures before there is a report says which file is missing."""
    with pytest.raises(StorageError, match=r"summary\.json"):
        summary_rows(str(tmp_path))


@pytest.mark.parametrize("content", [b"{}", b"cut sho"])
def test_a_report_of_another_version_is_refused_by_name(tmp_path, content):
    """A summary that lacks what this version tells, or is torn, says how to write it anew."""
    storage.publish_bytes(f"{tmp_path}/report/summary.json", content)
    with pytest.raises(StorageError, match=r"not a summary.*summary\.json.*wit report"):
        summary_rows(str(tmp_path))


def test_figures_carry_their_units():
    """Counts agree with their unit, sizes are decimal, shares are exact at their ends."""
    assert [quantity(n, "queries") for n in (0, 1, 2000)] == [
        "0 queries",
        "1 query",
        "2,000 queries",
    ]
    units = ("matches", "pairs", "archives", "tar shards")
    assert [quantity(1, unit) for unit in units] == [
        "1 match",
        "1 pair",
        "1 archive",
        "1 tar shard",
    ]
    assert [size(n) for n in (0, 999, 1000, 2.5e9)] == ["0 bytes", "999 bytes", "1.0 kB", "2.5 GB"]
    parts = [(0, 5), (5, 5), (1, 10**6), (10**6 - 1, 10**6), (1, 3), (0, 0)]
    assert [share(a, b) for a, b in parts] == [
        "0 %",
        "100 %",
        "< 0.1 %",
        "> 99.9 %",
        "33.3 %",
        "n/a",
    ]
    assert [words(r) for r in ("opt_out_page", "http_4xx", "no_query")] == [
        "opt-out page",
        "HTTP 4xx",
        "no query",
    ]
