"""One query through all stages: how many pairs it had at each, and what became of some of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.report import fates
from wit_builder.report.count import FIGURES
from wit_builder.report.fates import Fates, Query
from wit_builder.report.folder import I64, RunFolder
from wit_builder.report.page import STATUS_WORDS
from wit_builder.report.summary import quantity, read_summary, words
from wit_builder.tables import Outcome, Reason
from wit_builder.text import normalise

_MEANING = {
    "matched": "text contains it",
    "drawn": "chosen for it",
    "alive": "of these, came alive",
    "kept": "it keeps",
    "contained": "kept, text contains it",
}
_PAIR = ["text", "url", "page_url"]
_ORDER = (
    fates.KEPT,
    fates.SPARE,
    fates.DEAD,
    fates.DEFERRED,
    fates.DROPPED,
    fates.WAITING,
    fates.NEVER,
)
_SUGGESTED = 3
_MISSPELT = 2
"""Letters by which a misspelt query may be longer or shorter than the one that was meant."""


class Sample(msgspec.Struct, frozen=True):
    """A pair that contains the query, and what became of it.

    Attributes:
        fate: one of ``fates.FATES``.
        why: the shard key of a kept pair, once there are shards; the reason why another was lost.
    """

    text: str
    url: str
    page_url: str
    fate: str
    why: str = ""


class Story(msgspec.Struct, frozen=True):
    """What happened to a query.

    Attributes:
        status: one of ``count.STATUSES``; empty as long as there is no report.
        counts: numbers of pairs by stage (``count.FIGURES``), of the stages that were done.
        drawn_per_round: pairs that each round asked for on its behalf.
        samples: pairs of every fate, kept ones first, lowest uid first.
        newer: the last generation, where the report was written before it; else empty.
    """

    query: str
    source: str
    status: str
    counts: dict[str, int]
    drawn_per_round: list[int]
    samples: list[Sample]
    newer: str = ""


def explain(root: str, query: str, samples_per_fate: int = 3) -> list[tuple[str, str]]:
    """Return a query's story as rows of label and text, safe to print: no control characters.

    A label has fewer than 40 characters; what belongs to the row above it has none.

    Raises:
        QueryListError: there is no list, or it has no such query.
        StorageError: nothing was matched yet, or a table is missing or of another query list.
    """
    story = tell(root, query, samples_per_fate)
    rows = [("query", story.query), ("source", story.source), ("status", _status(story))]
    if story.newer:
        again = f"wit report {storage.redact(root)} writes it anew"
        rows.append(("note", f"the report is older than generation {story.newer}: {again}"))
    rows += [(f"{k} ({_MEANING[k]})", quantity(n, "pairs")) for k, n in story.counts.items()]
    if len(story.drawn_per_round) > 1:
        rows.append(("asked for, by round", ", ".join(f"{n:,}" for n in story.drawn_per_round)))
    for sample in story.samples:
        rows += [(sample.fate, sample.text), ("", sample.url)]
        rows += [("", f"on {sample.page_url}")] if sample.page_url else []
        rows += [("", sample.why)] if sample.why else []
    return [(printable(label), printable(text)) for label, text in rows]


def _status(story: Story) -> str:
    if story.status:
        return f"{story.status}: {STATUS_WORDS[story.status]}"
    return "not known before the report; figures are those of the stages done so far"


def printable(text: str) -> str:
    """Return text from the web without what could drive a terminal (escapes, controls, bidi)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def tell(root: str, query: str, samples_per_fate: int = 3) -> Story:
    """Return what happened to a query: as of the last report, or, without one, so far.

    Args:
        root: the run's folder.
        query: the query in any spelling that normalises to it.
        samples_per_fate: at most so many pairs of each fate, lowest uid first.

    Raises:
        QueryListError: there is no list, or it has no such query.
        StorageError: nothing was matched yet, or a table is missing or of another query list.
    """
    reported = storage.exists(RunFolder(root).report("summary.json"))
    run = _as_reported(root) if reported else RunFolder(root, _last_generation(root))
    queries = _list(run)
    row = _find(queries, query, run)
    _refuse_unmatched(run)
    asked = Query(row["query_id"], len(queries))
    balance = _balance(run, asked) if reported else {}
    pairs, matched = fates.matched(run, asked, counting=not reported)
    counts = {name: balance[name] for name in FIGURES} if reported else {"matched": matched}
    rounds = balance["drawn_per_round"] if reported else _count(run, asked, counts)
    fates.look_up(run, pairs)
    samples = _samples(run, asked, pairs, samples_per_fate)
    _refuse_other_texts(row["query"], samples, run.queries)
    status = balance.get("status", "")
    newer = _newer(run) if reported else ""
    return Story(row["query"], row["source"], status, counts, rounds, samples, newer)


def _as_reported(root: str) -> RunFolder:
    told = read_summary(root)
    return RunFolder(root, told.generation, told.since)


def _last_generation(root: str) -> str:
    number = 0
    while storage.list_files(storage.join(root, f"g{number + 1}", "matched"), ".parquet"):
        number += 1
    return f"g{number}"


def _newer(run: RunFolder) -> str:
    """Return the last generation if it is after the run's, else nothing.

    One that draws or packs all pairs anew has no matched pairs of its own.
    """
    last = int(run.generation.removeprefix("g"))
    while any(_has(run.root, f"g{last + 1}", kind) for kind in ("matched", "kept")):
        last += 1
    return f"g{last}" if f"g{last}" != run.generation else ""


def _has(root: str, generation: str, kind: str) -> bool:
    return bool(storage.list_files(storage.join(root, generation, kind), ".parquet"))


def _list(run: RunFolder) -> pa.Table:
    if not storage.exists(run.queries):
        root = storage.redact(run.root)
        fix = f"wit queries build RECIPE --out {root}"
        raise QueryListError("there is no query list yet", where=root, fix=fix)
    return storage.read_parquet(run.queries, ["query_id", "query", "source"])


def _find(queries: pa.Table, query: str, run: RunFolder) -> dict[str, Any]:
    wanted = normalise(query)
    found = queries.filter(pc.is_in(queries["query"], pa.array([query, wanted])))
    if not len(found):
        where, see = storage.redact(run.queries), f"wit queries show {storage.redact(run.root)}"
        if not wanted:
            said = f"nothing to look for: {query!r} has no letter or digit"
            raise QueryListError(said, where=where, fix=f"name a query of the list: {see}")
        names = ", ".join(repr(q) for q in _near(queries["query"], wanted))
        fix = f"did you mean {names}?" if names else f"see what the list has: {see}"
        raise QueryListError(f"no such query: {wanted!r}", where=where, fix=fix)
    return dict(found.slice(0, 1).to_pylist()[0])


def _near(queries: pa.ChunkedArray, wanted: str) -> list[str]:
    """Return some queries that are spelt nearly so, then some that contain what is wanted."""
    containing = queries.filter(pc.match_substring(queries, wanted)).slice(0, _SUGGESTED)
    length = pc.utf8_length(queries)
    least, most = len(wanted) - _MISSPELT, len(wanted) + _MISSPELT
    alike = pc.and_(pc.greater_equal(length, least), pc.less_equal(length, most))
    # hardly anybody misspells both ends; comparing 500,000 queries one by one would take seconds
    ends = pc.or_(pc.starts_with(queries, wanted[0]), pc.ends_with(queries, wanted[-1]))
    nearly = queries.filter(pc.and_(alike, ends)).to_pylist()
    close = difflib.get_close_matches(wanted, nearly, _SUGGESTED, cutoff=0.75)
    return list(dict.fromkeys([*close, *containing.to_pylist()]))[:_SUGGESTED]


def _refuse_unmatched(run: RunFolder) -> None:
    if not run.tables("matched"):
        raise StorageError(
            "nothing was matched with the queries yet",
            where=storage.redact(storage.join(run.root, "g0", "matched")),
            fix=f"wit match RECIPE --out {storage.redact(run.root)}",
        )


def _balance(run: RunFolder, query: Query) -> dict[str, Any]:
    """Return the query's row of the report's table."""
    for batch in storage.parquet_batches(
        run.report("balance.parquet"), ["query_id", "status", *FIGURES, "drawn_per_round"]
    ):
        mine = batch.filter(pc.equal(batch["query_id"], query.id)).to_pylist()
        if mine:
            return dict(mine[0])
    raise StorageError(
        f"the report has no query {query.id}, which is in the query list",
        where=storage.redact(run.report("balance.parquet")),
        fix="the query list was changed since: write the report anew with wit report ROOT",
    )


def _count(run: RunFolder, query: Query, counts: dict[str, int]) -> list[int]:
    """Count what was drawn, came alive and is kept; return what each round drew.

    Memory is 16 bytes for every pair that the query drew or keeps.
    """
    rounds = [_having(urls, "drawn_by", query) for urls in run.rounds("selected")]
    kept = run.kept
    keeps = _having(kept, "kept_by", query)
    images = [url for files in run.rounds("images") for url in files]
    if rounds:
        counts["drawn"] = len(pa.chunked_array([*rounds, keeps]).unique())
    if images:
        alive = _having(images, "drawn_by", query, alive=True)
        counts["alive"] = len(pa.chunked_array([alive, keeps]).unique())
    if kept:
        counts["kept"] = len(keeps)
        counts["contained"] = sum(len(rows) for _, rows in _rows(kept, ["query_ids"], query))
    return [len(drawn) for drawn in rounds]


def _having(urls: Iterable[str], column: str, query: Query, *, alive: bool = False) -> pa.Array:
    """Return the uids of the rows whose list has the query, of those alive if it says so."""
    found = [pa.array([], pa.binary(16))]
    for batch, rows in _rows(urls, [column, "uid", *(["outcome"] if alive else [])], query):
        mine = batch.take(pa.array(rows))
        if alive:
            mine = mine.filter(pc.equal(mine["outcome"], Outcome.ALIVE.value))
        found.append(mine["uid"])
    return pa.concat_arrays(found)


def _rows(
    urls: Iterable[str], columns: list[str], query: Query
) -> Iterator[tuple[pa.RecordBatch, I64]]:
    """Yield batches of tables, and in which rows the list in the first column has the query."""
    for url in urls:
        for batch in storage.parquet_batches(url, columns):
            yield batch, query.rows(batch[columns[0]], url)


def _samples(run: RunFolder, query: Query, pairs: Fates, per_fate: int) -> list[Sample]:
    """Return sample pairs of every fate, kept ones first."""
    chosen = [at for fate in _ORDER for at in pairs.samples(fate, per_fate)]
    places = [(int(file), int(row)) for file, row in pairs.found[chosen]]
    texts = fates.take(fates.few, pairs.texts, places, _PAIR)
    why = _why(run, pairs, chosen)
    found = [
        _sample(t, fates.FATES[pairs.fate[at]], why[at])
        for at, t in zip(chosen, texts, strict=True)
    ]
    return found + _lost(run, query, pairs, per_fate)


def _sample(pair: dict[str, str | None], fate: str, why: str) -> Sample:
    text, url, page_url = (pair[name] or "" for name in _PAIR)
    return Sample(text, url, page_url, fate, why)


def _why(run: RunFolder, pairs: Fates, chosen: list[int]) -> dict[int, str]:
    """Return by position why a pair was lost, or under which key it is kept."""
    why = dict.fromkeys(chosen, "")
    asked = [at for at in chosen if pairs.fate[at] in {fates.DEAD, fates.DEFERRED}]
    places = [(int(file), int(row)) for file, row in pairs.told[asked]]
    answers = fates.take(fates.few, pairs.answers, places, ["reason", "detail"])
    why |= {at: _words(a["reason"], a["detail"]) for at, a in zip(asked, answers, strict=True)}
    why |= {at: _words(*pairs.reasons[at]) for at in chosen if at in pairs.reasons}
    spare = "alive, but every query that it serves has its pairs"
    waiting = "" if run.kept else "alive; what is kept was not decided yet"
    why |= {at: waiting or spare for at in chosen if pairs.fate[at] == fates.SPARE}
    kept = {pairs.uids[at].as_py(): at for at in chosen if pairs.fate[at] == fates.KEPT}
    return why | {kept[uid]: f"shard key {key}" for uid, key in _keys(run, list(kept)).items()}


def _words(reason: str | None, detail: str | None) -> str:
    told = words(reason or "no reason given")
    return f"{told} ({detail})" if detail else told


def _keys(run: RunFolder, uids: list[bytes]) -> dict[bytes, str]:
    """Return the shard keys of pairs, as far as there are shards."""
    wanted, found = pa.array(uids, pa.binary(16)), dict[bytes, str]()
    tables = (url for folder in run.shards for url in storage.list_files(folder, ".parquet"))
    for url in tables:
        if len(found) == len(uids):
            break
        if storage.name_of(url).removesuffix(".parquet").isdigit():
            for batch in storage.parquet_batches(url, ["uid", "key"]):
                mine = batch.filter(pc.is_in(batch["uid"], value_set=wanted))
                found |= {row["uid"]: row["key"] for row in mine.to_pylist()}
    return found


def _lost(run: RunFolder, query: Query, pairs: Fates, per_fate: int) -> list[Sample]:
    """Return sample pairs that contained the query and were dropped before a table had them."""
    lost, urls = fates.lost_in_dedup(run, query, pairs)
    table = lost.table
    uids = fates.whole(table["uid"])
    known = fates.rejections(run, uids, [Reason.DUPLICATE_URL, Reason.REPEATED_TEXT])
    rows = [row for row in table.to_pylist() if row["uid"] in known][:per_fate]
    places = [(row["file"], row["row"]) for row in rows]
    texts = fates.take(fates.exchange_batches, urls, places, _PAIR)
    reasons = [_words(*known[row["uid"]]) for row in rows]
    name = fates.FATES[fates.DROPPED]
    return [_sample(t, name, why) for t, why in zip(texts, reasons, strict=True)]


def _refuse_other_texts(query: str, samples: list[Sample], where: str) -> None:
    """Refuse pairs that were matched with another list, in which the query's id meant another."""
    tokens = f" {normalise(query)} "
    for sample in samples:
        is_removed = not sample.text
        if not is_removed and tokens not in f" {normalise(sample.text)} ":
            raise StorageError(
                f"a pair should contain {query!r} but does not: {printable(sample.text)[:80]!r}",
                where=storage.redact(where),
                fix="the pairs are of another query list; build the run again with wit build",
            )
