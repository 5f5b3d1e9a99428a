"""A small run folder made of tables only: a real draw, real rounds, invented answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, sync_playwright

from wit_builder import storage, tables
from wit_builder.report.build import ReportJob, balance_table
from wit_builder.report.count import Counts
from wit_builder.report.page import render, status_counts
from wit_builder.report.summary import Packed, Step, Summary
from wit_builder.shards import layout

from .browser import CHROMIUM, FLAGS

HOSTILE = '<script>document.title="owned"</script>'
_SOURCES = ("wordnet", "unigram", "bigram", "title")
_DEATHS = ("http_4xx", "deadline", "dns_failed", "robots_disallowed", "image_truncated")


@dataclass
class Web:
    """What the folder is made of, and what became of it.

    Attributes:
        query_ids: per pair, the queries that it contains.
        outcome: per pair, the last answer; empty if it was never asked for.
        rounds: per round, what was asked for: pair -> (queries that drew it, answer).
        kept_by: per kept pair, the queries that keep it.
    """

    cap: int
    queries: list[str]
    query_ids: list[list[int]]
    rounds: list[dict[int, tuple[list[int], str]]] = field(default_factory=list)
    outcome: dict[int, str] = field(default_factory=dict)
    kept_by: dict[int, list[int]] = field(default_factory=dict)

    def draw(self, usable: set[str]) -> dict[int, list[int]]:
        """Return the pairs of every query's draw; a pair's rank is its number."""
        drawn: dict[int, list[int]] = {}
        for query in range(len(self.queries)):
            fit = [p for p in self.containing(query) if self.outcome.get(p, "unknown") in usable]
            for pair in fit[: self.cap]:
                drawn.setdefault(pair, []).append(query)
        return dict(sorted(drawn.items()))

    def containing(self, query: int) -> list[int]:
        """Return the pairs that contain a query, lowest rank first."""
        return [p for p, ids in enumerate(self.query_ids) if query in ids]


def make_web(pairs: int, queries: int, cap: int, rounds: int, seed: int = 7) -> Web:
    """Return a web with Zipf-like queries, of which a third of the links are dead."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, queries + 1) ** 1.1
    weight[max(1, int(queries * 0.8)) :] = 0
    picks = [rng.choice(queries, 1 + i % 3, p=weight / weight.sum()) for i in range(pairs)]
    web = Web(
        cap, [f"query {i:04}" for i in range(queries)], [sorted({*p.tolist()}) for p in picks]
    )
    if queries > 1:
        web.queries[1] = HOSTILE
    for _ in range(rounds):
        asked = web.draw({"unknown", "alive", "deferred"})
        asked = {p: by for p, by in asked.items() if web.outcome.get(p, "deferred") == "deferred"}
        answers = rng.choice(
            ["alive", "dead", "deferred"], len(asked), p=[0.64, 0.33, 0.03]
        ).tolist()
        web.rounds.append({p: (by, a) for (p, by), a in zip(asked.items(), answers, strict=True)})
        web.outcome.update(dict(zip(asked, answers, strict=True)))
    web.kept_by = web.draw({"alive"})
    return web


def _uid(pair: int) -> bytes:
    return pair.to_bytes(16, "big")


def _text(web: Web, pair: int) -> str:
    return "a picture of " + " and ".join(web.queries[q] for q in web.query_ids[pair])


def _matched(web: Web, pair: int) -> dict[str, Any]:
    return {
        "uid": _uid(pair),
        "url": f"http://host{pair % 9}.example/{pair}.jpg",
        "text": _text(web, pair),
        "text_from": "alt",
        "page_url": f"http://host{pair % 9}.example/",
        "archive": "made.warc.gz",
        "query_ids": web.query_ids[pair],
    }


def _image(web: Web, pair: int, by: list[int], outcome: str) -> dict[str, Any]:
    alive = outcome == "alive"
    reason = (
        None if alive else "rate_limited" if outcome == "deferred" else _DEATHS[pair * 7 % 11 % 5]
    )
    answer: dict[str, Any] = {
        "key": f"{pair:09}" if alive else "",
        "outcome": outcome,
        "reason": reason,
        "opt_outs": [],
    }
    return _matched(web, pair) | {"drawn_by": by} | answer


def _write(url: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    whole = [dict.fromkeys(schema.names) | row for row in rows]
    storage.write_parquet(url, pa.Table.from_pylist(whole, schema=schema))


def write_run(root: Path, web: Web) -> ReportJob:
    """Write the tables of a web's run, two buckets each, and return the job that reports on it."""
    base = f"{root}/g0"
    queries = [
        {"query_id": i, "query": q, "surface": q, "source": _SOURCES[i % 4], "also_in": []}
        for i, q in enumerate(web.queries)
    ]
    _write(f"{root}/queries/queries.parquet", queries, tables.QUERIES)
    for b in range(2):
        mine = range(b, len(web.query_ids), 2)
        _write(f"{base}/matched/{b}.parquet", [_matched(web, p) for p in mine], tables.MATCHED)
    for n, asked in enumerate(web.rounds):
        for b in range(2):
            rows = [_image(web, p, *a) for p, a in asked.items() if p % 2 == b]
            drawn = [{k: r[k] for k in r if k in tables.SELECTED.names} for r in rows]
            _write(f"{base}/selected/r{n}/{b}.parquet", drawn, tables.SELECTED)
            _write(f"{base}/images/r{n}/{b}-0.parquet", rows, tables.IMAGES)
    _write_kept(base, web)
    return ReportJob(
        root=str(root),
        rounds=len(web.rounds),
        unknown_after=[0] * len(web.rounds),
        cap_per_query=web.cap,
        title="animals & <b>things</b>",
        recipe_digest="0123456789abcdef0123456789abcdef",
        found=_found(web),
    )


def _write_kept(base: str, web: Web) -> None:
    rows = [
        {"uid": _uid(p), "query_ids": web.query_ids[p], "kept_by": k}
        for p, k in web.kept_by.items()
    ]
    for b in range(2):
        mine = [row for row, p in zip(rows, web.kept_by, strict=True) if p % 2 == b]
        _write(f"{base}/kept/{b}.parquet", mine, tables.KEPT)
    lost = [("extract", "no_text", 41), ("match", "no_query", 900), ("dedup", "duplicate_url", 130)]
    lost += [
        ("extract", "opt_out_page", 12),
        ("keep", "duplicate_image", 25),
        ("filter", "text_too_short", 77),
    ]
    dropped = [
        {"stage": s, "reason": r, "uid": _uid(10**9 + i)} for s, r, n in lost for i in range(n)
    ]
    _write(f"{base}/rejected/all.parquet", dropped, tables.REJECTIONS)
    info = layout.DatasetInfo(
        generation="g0",
        recipe="0123456789abcdef0123456789abcdef",
        max_block_bytes=4 << 20,
        samples=len(rows),
        shards=3,
        blocks=3,
        bytes=len(rows) * 21_700,
        base="",
        digest="",
    )
    storage.publish_bytes(f"{base}/shards/dataset.json", msgspec.json.encode(info))
    packed = pa.table(
        {"key": [f"{i:09}" for i in range(len(rows))], "uid": [r["uid"] for r in rows]}
    )
    storage.write_parquet(f"{base}/shards/000000.parquet", packed)
    storage.publish_bytes(f"{base}/shards/manifest.parquet", b"not a table of samples")


def _found(web: Web) -> list[Step]:
    matched = len(web.query_ids)
    return [
        Step("pages read", 3100, "pages"),
        Step("candidates", matched * 2 + 1030),
        Step("with a query in the text", matched + 130),
        Step("one per URL", matched),
    ]


def rendered(
    matched: list[int],
    kept: list[int],
    *,
    cap: int = 20_000,
    names: list[str] | None = None,
    **told: Any,
) -> str:
    """Return a page of queries with such numbers of pairs; other figures are made up or as told."""
    before, after = np.array(matched, np.int64), np.array(kept, np.int64)
    ids = pa.array(range(len(matched)), pa.int32())
    queries = names or [f"query {i}" for i in range(len(matched))]
    listed = pa.table({"query_id": ids, "query": queries, "source": ["custom"] * len(queries)})
    counts = Counts(before, before, after, after, after, before, before[None])
    balance = balance_table(listed, counts, cap)
    total = int(after.sum())
    figures: dict[str, Any] = {
        "title": "made",
        "recipe_digest": "0123456789abcdef",
        "generation": "g0",
        "cap_per_query": cap,
        "queries": len(queries),
        "statuses": status_counts(balance["status"]),
        "funnel": [Step("matched", int(before.sum())), Step("kept", total)],
        "rounds": [],
        "dataset": Packed(total, 1, 1000 * total) if total else Packed(0, 0, 0),
        "pairs_kept": total,
    }
    lost = pa.table({"stage": ["fetch"], "reason": ["deadline"], "count": [2_206_073_194]})
    return render(Summary(**figures | told), balance, lost)


@pytest.fixture(scope="session")
def web() -> Web:
    """A web of 900 pairs and 60 queries, cap 25, after two rounds."""
    return make_web(pairs=900, queries=60, cap=25, rounds=2)


@pytest.fixture(scope="session")
def job(web: Web, tmp_path_factory: pytest.TempPathFactory) -> ReportJob:
    """The job for that web's run folder; nothing is reported yet."""
    return write_run(tmp_path_factory.mktemp("run"), web)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless; closed before tests of others, which run event loops."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
