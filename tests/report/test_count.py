"""Counts per query and rejections, held to counting in plain Python."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder import storage
from wit_builder.errors import StorageError
from wit_builder.report.count import STATUSES, Counts, count_pairs, count_rejections, count_rounds
from wit_builder.report.folder import RunFolder

from .conftest import Web, make_web, write_run


def _plain_counts(web: Web) -> dict[str, list[int]]:
    drawn, alive, answered = (set[tuple[int, int]]() for _ in range(3))
    for pair, queries in web.kept_by.items():
        drawn |= {(pair, q) for q in queries}
        alive |= {(pair, q) for q in queries}
    for asked in web.rounds:
        for pair, (queries, answer) in asked.items():
            drawn |= {(pair, q) for q in queries}
            alive |= {(pair, q) for q in queries if answer == "alive"}
            answered |= {(pair, q) for q in web.query_ids[pair] if answer != "deferred"}
    matched = {(p, q) for p, ids in enumerate(web.query_ids) for q in ids}
    kept = {(p, q) for p, queries in web.kept_by.items() for q in queries}
    contained = {(p, q) for p in web.kept_by for q in web.query_ids[p]}
    sets = {"matched": matched, "drawn": drawn, "alive": alive, "kept": kept}
    sets |= {"contained": contained, "answered": answered}
    tallies = {name: Counter(q for _, q in found) for name, found in sets.items()}
    return {n: [tally[q] for q in range(len(web.queries))] for n, tally in tallies.items()}


@settings(max_examples=12, deadline=None)
@given(
    pairs=st.integers(1, 60),
    queries=st.integers(1, 12),
    cap=st.integers(1, 9),
    rounds=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_counts_are_those_of_plain_python(pairs, queries, cap, rounds, seed):
    """Every figure of every query is what sets of (pair, query) in plain Python give."""
    web = make_web(pairs, queries, cap, rounds, seed)
    with TemporaryDirectory() as root:
        write_run(Path(root), web)
        counts = count_pairs(RunFolder(root), queries)
    assert {n: getattr(counts, n).tolist() for n in _plain_counts(web)} == _plain_counts(web)
    assert (counts.kept <= cap).all()
    assert (counts.kept <= counts.alive).all()
    assert (counts.alive <= counts.drawn).all()
    assert (counts.drawn <= counts.matched).all()


def test_each_status_means_what_it_says():
    """Empty has no match, full has the cap, exhausted has tried everything, short has not."""
    figures = np.array(
        [
            # matched, answered, kept
            [0, 0, 0],
            [9, 3, 3],
            [3, 3, 3],
            [9, 9, 2],
            [2, 2, 0],
            [9, 8, 2],
            [2, 1, 1],
        ]
    ).T
    matched, answered, kept = figures
    counts = Counts(matched, kept, kept, kept, kept, answered)
    ended = ["empty", "full", "full", "exhausted", "exhausted", "short", "short"]
    assert counts.status(3).tolist() == ended
    assert set(ended) == set(STATUSES)


def test_rounds_count_answers(job, web):
    """A round's alive, dead and deferred pairs add up to what it asked for."""
    told = count_rounds(RunFolder(job.root))
    assert [r.number for r in told] == [1, 2]
    for said, asked in zip(told, web.rounds, strict=True):
        answers = Counter(answer for _, answer in asked.values())
        assert (said.alive, said.dead) == (answers["alive"], answers["dead"])
        assert said.asked == len(asked) == said.alive + said.dead + said.deferred


def test_rejections_count_each_loss_once(job, web):
    """Dead pairs count once, deferred ones only if the last round left them, all by stage."""
    table = count_rejections(RunFolder(job.root))
    stages = table["stage"].to_pylist()
    assert list(dict.fromkeys(stages)) == ["extract", "filter", "match", "dedup", "fetch", "keep"]
    fetch = sum(r["count"] for r in table.to_pylist() if r["stage"] == "fetch")
    assert fetch == sum(outcome != "alive" for outcome in web.outcome.values())
    lost = [r["count"] for r in table.to_pylist() if r["stage"] == "extract"]
    assert lost == sorted(lost, reverse=True) == [41, 12]


def test_a_query_outside_the_list_is_refused_by_name(tmp_path):
    """A table that names a query beyond the list is of another run; the error says which."""
    write_run(tmp_path, make_web(20, 5, 3, 1))
    with pytest.raises(StorageError, match=r"names query \d.*list ends at 0.*parquet"):
        count_pairs(RunFolder(str(tmp_path)), 1)


def test_a_negative_query_id_is_refused(tmp_path):
    """A query id below zero cannot count from the end of the list."""
    write_run(tmp_path, make_web(20, 5, 3, 1))
    bad = pa.table({"query_ids": pa.array([[-1]], pa.list_(pa.int32()))})
    storage.write_parquet(f"{tmp_path}/g0/matched/bad.parquet", bad)
    with pytest.raises(StorageError, match="names query -1"):
        count_pairs(RunFolder(str(tmp_path)), 5)
