"""One query through all stages: how many pairs it had at each, and what became of some of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.errors import QueryListError
from wit_builder.report.count import FIGURES
from wit_builder.report.folder import RunFolder, rows_with
from wit_builder.report.page import STATUS_WORDS
from wit_builder.report.summary import quantity, read_summary, words
from wit_builder.tables import Outcome
from wit_builder.text import normalise

_MEANING = {
    "matched": "text contains it",
    "drawn": "chosen for it",
    "alive": "of these, came alive",
    "kept": "it keeps",
    "contained": "kept pairs that contain it",
}
_PAIR = ["uid", "text", "url", "page_url"]


class Sample(msgspec.Struct, frozen=True):
    """A pair that contains the query, and what became of it.

    Attributes:
        fate: ``kept``, ``spare``, ``dead``, ``deferred``, ``dropped`` or ``never asked for``.
        why: the shard key of a kept pair; the reason why another was lost.
    """

    text: str
    url: str
    page_url: str
    fate: str
    why: str = ""


class Story(msgspec.Struct, frozen=True):
    """What happened to a query: numbers of pairs by stage, its status, and sample pairs."""

    query: str
    source: str
    status: str
    counts: dict[str, int]
    samples: list[Sample]


def explain(root: str, query: str, samples_per_fate: int = 3) -> list[tuple[str, str]]:
    """Return a query's story as rows of label and text, safe to print: no control characters.

    Raises:
        QueryListError: the list has no such query.
        StorageError: there is no report yet, or a table is missing.
    """
    story = tell(root, query, samples_per_fate)
    rows = [("query", story.query), ("source", story.source)]
    rows.append(("status", f"{story.status}: {STATUS_WORDS[story.status]}"))
    rows += [(f"{k} ({_MEANING[k]})", quantity(n, "pairs")) for k, n in story.counts.items()]
    for sample in story.samples:
        fate = f"{sample.fate}, {sample.why}" if sample.why else sample.fate
        rows += [(fate, sample.text), ("", sample.url)]
        rows += [("", f"on {sample.page_url}")] if sample.page_url else []
    return [(printable(label), printable(text)) for label, text in rows]


def printable(text: str) -> str:
    """Return text from the web without what could drive a terminal (escapes, controls, bidi)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def tell(root: str, query: str, samples_per_fate: int = 3) -> Story:
    """Return what happened to a query, as of the last report.

    Args:
        root: the run's folder.
        query: the query in any spelling that normalises to it.
        samples_per_fate: at most so many pairs of each fate, lowest uid first.

    Raises:
        QueryListError: the list has no such query.
        StorageError: there is no report yet, or a table is missing.
    """
    run = RunFolder(root, read_summary(root).generation)
    balance = storage.read_parquet(run.report("balance.parquet"))
    row = _find(balance, query, run.queries)
    samples = _samples(run, row["query_id"], samples_per_fate)
    counts = {name: row[name] for name in FIGURES}
    return Story(row["query"], row["source"], row["status"], counts, samples)


def _find(balance: pa.Table, query: str, where: str) -> dict[str, Any]:
    wanted = normalise(query)
    found = balance.filter(pc.is_in(balance["query"], pa.array([query, wanted])))
    if not len(found):
        raise QueryListError(
            f"no such query: {wanted or query!r}",
            where=where,
            fix=_advice(balance["query"], wanted),
        )
    return dict(found.slice(0, 1).to_pylist()[0])


def _advice(queries: pa.ChunkedArray, wanted: str) -> str:
    near = queries.filter(pc.match_substring(queries, wanted)) if wanted else queries
    names = ", ".join(repr(q) for q in near.slice(0, 3).to_pylist())
    return f"did you mean {names}?" if names else "see what the list has: wit queries show ROOT"


def _samples(run: RunFolder, query_id: int, per_fate: int) -> list[Sample]:
    """Return sample pairs, kept ones first; every table is read a file at a time."""
    fates, order = _fates(run, query_id), ["kept", "spare", "dead", "deferred", "dropped"]
    taken: dict[str, list[tuple[bytes, Sample]]] = {f: [] for f in [*order, "never asked for"]}
    for url in run.tables("matched"):
        table = storage.read_parquet(url, [*_PAIR, "query_ids"])
        mine = table.filter(rows_with(table, "query_ids", query_id)).sort_by("uid")
        # a Python loop over one query's pairs: 20,000 take some 50 ms
        for pair in mine.drop_columns(["query_ids"]).to_pylist():
            fate, why = fates.get(pair["uid"], ("never asked for", ""))
            sample = Sample(pair["text"], pair["url"], pair["page_url"] or "", fate, why)
            taken[fate].append((pair["uid"], sample))
            if len(taken[fate]) > 2 * per_fate:
                taken[fate] = _lowest(taken[fate], per_fate)
    return [sample for pairs in taken.values() for _, sample in _lowest(pairs, per_fate)]


def _lowest(pairs: list[tuple[bytes, Sample]], count: int) -> list[tuple[bytes, Sample]]:
    return sorted(pairs, key=lambda pair: pair[0])[:count]


def _fates(run: RunFolder, query_id: int) -> dict[bytes, tuple[str, str]]:
    """Return fate and reason by uid of the query's pairs that were asked for, as last answered."""
    fates: dict[bytes, tuple[str, str]] = {}
    for files in run.rounds("images"):
        for url in files:
            table = storage.read_parquet(url, ["uid", "outcome", "reason", "detail", "query_ids"])
            mine = table.filter(rows_with(table, "query_ids", query_id))
            fates.update({row["uid"]: _fate(row) for row in mine.to_pylist()})
    alive = {uid for uid, (fate, _) in fates.items() if fate == "spare"}
    fates.update(_dropped_later(run, alive))
    fates.update(_kept(run, query_id))
    return fates


def _fate(row: dict[str, str | None]) -> tuple[str, str]:
    if row["outcome"] == Outcome.ALIVE:
        return "spare", "alive, but every query that it serves has its pairs"
    reason = words(row["reason"] or "no reason given")
    return row["outcome"] or "", f"{reason} ({row['detail']})" if row["detail"] else reason


def _dropped_later(run: RunFolder, alive: set[bytes]) -> dict[bytes, tuple[str, str]]:
    """Return those of the alive pairs that a stage after fetching dropped, say as duplicates."""
    found = {}
    for url in run.tables("rejected"):
        table = storage.read_parquet(url, ["uid", "stage", "reason"])
        mine = table.filter(pc.is_in(table["uid"], pa.array(sorted(alive), pa.binary(16))))
        found.update({r["uid"]: ("dropped", words(r["reason"])) for r in mine.to_pylist()})
    return found


def _kept(run: RunFolder, query_id: int) -> dict[bytes, tuple[str, str]]:
    kept = pa.concat_tables([storage.read_parquet(url, ["uid", "query_ids"]) for url in run.kept])
    uids = kept.filter(rows_with(kept, "query_ids", query_id))["uid"].combine_chunks()
    fates = dict.fromkeys(uids.to_pylist(), ("kept", ""))
    for url in run.tables("shards"):
        if storage.name_of(url).removesuffix(".parquet").isdigit():
            table = storage.read_parquet(url, ["key", "uid"])
            mine = table.filter(pc.is_in(table["uid"], uids))
            fates.update({r["uid"]: ("kept", f"shard key {r['key']}") for r in mine.to_pylist()})
    return fates
