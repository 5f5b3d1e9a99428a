"""Writes the report of a run: two tables, the figures as JSON, and the page."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from wit_builder import storage, tables
from wit_builder.errors import StorageError
from wit_builder.report import datasheet, facts, page
from wit_builder.report.count import (
    FIGURES,
    Counts,
    Round,
    count_kept,
    count_pairs,
    count_rejections,
    count_rounds,
    still_deferred,
)
from wit_builder.report.folder import I64, RunFolder
from wit_builder.report.summary import Packed, Step, Summary
from wit_builder.shards.read import read_info
from wit_builder.units import Done


class ReportJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a report needs to know that does not stand in the run's tables.

    Attributes:
        root: the run's folder.
        generation: the last generation; all up to it are reported on together.
        since: the first one whose shards are in the data set: a later one may have redone all.
        rounds: how many rounds were done; as many must be there.
        cap_per_query: the recipe's cap, in pairs.
        title: name of the data set.
        recipe_digest: digest of the resolved recipe.
        found: what went through each stage before fetching, first stage first.
        unknown_after: per round, drawn pairs that were unknown after it.
    """

    root: str
    generation: str = "g0"
    since: str = "g0"
    rounds: int
    cap_per_query: int
    title: str
    recipe_digest: str
    found: list[Step]
    unknown_after: list[int]


def run(job: ReportJob) -> Done:
    """Write ``ROOT/report``: two tables, the summary, the page and the datasheet.

    The same tables give the same bytes.

    Raises:
        StorageError: a table or a round is missing, or is not of this query list.
        ShardFormatError: pairs are kept, but nothing was packed.
    """
    folder = RunFolder(job.root, job.generation, job.since)
    _refuse_missing_rounds(folder, job.rounds)
    _refuse_missing_kept(folder)
    queries = storage.read_parquet(folder.queries, ["query_id", "query", "source"])
    counts = count_pairs(folder, len(queries))
    balance = balance_table(queries, counts, job.cap_per_query)
    rejections = count_rejections(folder)
    summary = _summarise(job, folder, balance)
    html = page.render(summary, balance, rejections)
    sheet = datasheet.write(summary, facts.count(folder, balance), rejections)
    outputs = [
        storage.write_parquet(folder.report("balance.parquet"), balance),
        storage.write_parquet(folder.report("rejections.parquet"), rejections),
        storage.publish_bytes(folder.report("summary.json"), msgspec.json.encode(summary)),
        storage.publish_bytes(folder.report("index.html"), html.encode()),
        storage.publish_bytes(folder.report("datasheet.md"), sheet.encode()),
    ]
    return Done(outputs, {"queries": len(queries), **summary.statuses})


def _refuse_missing_rounds(folder: RunFolder, rounds: int) -> None:
    for kind in ("selected", "images"):
        found = len(folder.rounds(kind))
        if found != rounds:
            raise StorageError(
                f"{found} of {rounds} rounds have {kind} tables",
                where=storage.join(folder.root, folder.generation, kind),
                fix="run wit build again: it does what is missing",
            )


def _refuse_missing_kept(folder: RunFolder) -> None:
    """Refuse a bucket of pairs of which a generation of the data set has no table of kept ones."""
    buckets = {storage.name_of(url) for url in folder.tables("matched")}
    for name in folder.generations[folder.generations.index(folder.since) :]:
        kept = RunFolder(folder.root, name, since=name).kept
        if missing := sorted(buckets - {storage.name_of(url) for url in kept}):
            raise StorageError(
                f"no table says what was kept of bucket {missing[0].removesuffix('.parquet')}",
                where=storage.join(folder.root, name, "kept"),
                fix="run wit build again: it does what is missing",
            )


def balance_table(queries: pa.Table, counts: Counts, cap_per_query: int) -> pa.Table:
    """Return a row per query of the list, in its order (``tables.BALANCE``)."""
    columns = {name: queries[name] for name in ("query_id", "query", "source")}
    figures = {n: pa.array(getattr(counts, n)) for n in FIGURES}
    figures["drawn_per_round"] = _lists(counts.drawn_per_round)
    figures["status"] = pa.array(counts.status(cap_per_query).tolist(), pa.string())
    return tables.conform(pa.table({**columns, **figures}), tables.BALANCE)


def _lists(per_round: I64) -> pa.ListArray:
    """Return a list per query of its number in each round."""
    rounds, queries = per_round.shape
    offsets = np.arange(queries + 1, dtype=np.int32) * np.int32(rounds)
    kind = tables.BALANCE.field("drawn_per_round").type
    return pa.ListArray.from_arrays(offsets, per_round.T.ravel(), type=kind)


def _summarise(job: ReportJob, folder: RunFolder, balance: pa.Table) -> Summary:
    rounds, kept = count_rounds(folder, job.unknown_after), count_kept(folder)
    infos = [read_info(url) for url in folder.shards]
    if kept and not infos:
        read_info(storage.join(folder.root, folder.since, "shards"))  # says what is missing
    return Summary(
        title=job.title,
        recipe_digest=job.recipe_digest,
        generation=job.generation,
        since=job.since,
        cap_per_query=job.cap_per_query,
        queries=len(balance),
        statuses=page.status_counts(balance["status"]),
        funnel=[*job.found, *_fetched(folder, rounds), Step("kept", kept)],
        rounds=rounds,
        dataset=Packed(
            samples=sum(info.samples for info in infos),
            shards=sum(info.shards for info in infos),
            bytes=sum(info.bytes for info in infos),
        ),
        pairs_kept=kept,
    )


def _fetched(folder: RunFolder, rounds: list[Round]) -> list[Step]:
    """Return the steps of fetching; a pair that was deferred and asked for again counts once."""
    alive = sum(r.alive for r in rounds)
    left = sum(len(pairs) for pairs in still_deferred(folder))
    asked = alive + sum(r.dead for r in rounds) + left
    return [Step("asked for", asked), Step("fetched alive", alive)]
