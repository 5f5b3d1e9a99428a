"""Counts per query and rejections, held to counting in plain Python."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder import storage
from wit_builder.errors import StorageError
from wit_builder.report import count
from wit_builder.report.count import STATUSES, Counts, count_pairs, count_rejections, count_rounds
from wit_builder.report.folder import RunFolder

from .conftest import Web, make_web, write_run


def _plain_counts(web: Web) -> dict[str, Any]:
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
    plain: dict[str, Any] = {}
    plain |= {n: [tally[q] for q in range(len(web.queries))] for n, tally in tallies.items()}
    by_round = [Counter(q for by, _ in asked.values() for q in by) for asked in web.rounds]
    plain["drawn_per_round"] = [[r[q] for q in range(len(web.queries))] for r in by_round]
    return plain


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
    counts = Counts(matched, kept, kept, kept, kept, answered, kept[None])
    ended = ["empty", "full", "full", "exhausted", "exhausted", "short", "short"]
    assert counts.status(3).tolist() == ended
    assert set(ended) == set(STATUSES)


def test_rounds_count_answers(job, web):
    """A round's alive, dead and deferred pairs add up to what it asked for."""
    told = count_rounds(RunFolder(job.root), [9, 0])
    assert [(r.generation, r.number) for r in told] == [("g0", 1), ("g0", 2)]
    assert [r.unknown for r in told] == [9, 0]
    for said, asked in zip(told, web.rounds, strict=True):
        answers = Counter(answer for _, answer in asked.values())
        assert (said.alive, said.dead) == (answers["alive"], answers["dead"])
        assert said.asked == len(asked) == said.alive + said.dead + said.deferred


def test_rounds_are_numbered_within_their_generation(tmp_path):
    """A later generation's first round is its round 1; its draws come after those before it."""
    web = make_web(30, 5, 3, 2)
    write_run(tmp_path, web)
    (tmp_path / "g0").rename(tmp_path / "g1")
    write_run(tmp_path, web)
    run = RunFolder(str(tmp_path), "g1")
    named = [(r.generation, r.number) for r in count_rounds(run, [0] * 4)]
    assert named == [("g0", 1), ("g0", 2), ("g1", 1), ("g1", 2)]
    per_round = count_pairs(run, 5).drawn_per_round
    assert (per_round[:2] == per_round[2:]).all()
    assert per_round.sum() > 0


def test_a_pair_asked_for_twice_is_drawn_once(tmp_path):
    """A deferred pair counts in every round that asks for it, and once in all."""
    web = make_web(30, 3, 30, 1)
    pair, (by, _) = next(iter(web.rounds[0].items()))
    web.rounds[0][pair] = (by, "deferred")
    web.rounds.append({pair: (by, "alive")})
    web.outcome[pair] = "alive"
    web.kept_by = web.draw({"alive"})
    write_run(tmp_path, web)
    counts = count_pairs(RunFolder(str(tmp_path)), 3)
    assert counts.drawn_per_round[1, by].tolist() == [1] * len(by)
    assert (counts.drawn == counts.drawn_per_round[0]).all()


def test_queries_that_drew_a_pair_in_vain_count_it_once(tmp_path):
    """A pair that one query drew, another had fetched and a third keeps is drawn by all three."""
    web = Web(cap=3, queries=["a", "b", "c", "d"], query_ids=[[0, 1, 2, 3]])
    web.rounds = [{0: ([0, 1], "deferred")}, {0: ([1, 2], "alive")}]
    web.outcome, web.kept_by = {0: "alive"}, {0: [0, 2]}
    write_run(tmp_path, web)
    counts = count_pairs(RunFolder(str(tmp_path)), 4)
    assert counts.drawn.tolist() == [1, 1, 1, 0]
    assert counts.alive.tolist() == [1, 1, 1, 0]
    assert counts.kept.tolist() == [1, 0, 1, 0]
    assert {n: getattr(counts, n).tolist() for n in _plain_counts(web)} == _plain_counts(web)


def test_batches_and_buckets_do_not_show(job, monkeypatch):
    """Reading a few rows at a time gives the same counts."""
    run = RunFolder(job.root)
    whole = count_pairs(run, 60)
    monkeypatch.setattr(count, "_BATCH_ROWS", 7)
    parts = count_pairs(run, 60)
    assert all((a == b).all() for a, b in zip(astuple(whole), astuple(parts), strict=True))


def test_a_table_without_the_column_is_refused_by_name(tmp_path):
    """A table of another kind among the image tables is named, and so is what it lacks."""
    write_run(tmp_path, make_web(20, 5, 3, 1))
    storage.write_parquet(f"{tmp_path}/g0/images/r0/odd.parquet", pa.table({"x": [1]}))
    with pytest.raises(StorageError, match=r"no column drawn_by, outcome \[.*odd.parquet"):
        count_pairs(RunFolder(str(tmp_path)), 5)


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
