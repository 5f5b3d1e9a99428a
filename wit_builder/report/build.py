"""Writes the report of a run: two tables, the figures as JSON, and the page."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from wit_builder import storage, tables
from wit_builder.errors import StorageError
from wit_builder.report import page
from wit_builder.report.count import FIGURES, Counts, count_pairs, count_rejections, count_rounds
from wit_builder.report.folder import RunFolder
from wit_builder.report.summary import Packed, Step, Summary
from wit_builder.shards.read import read_info
from wit_builder.units import Done


class ReportJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a report needs to know that does not stand in the run's tables.

    Attributes:
        root: the run's folder.
        generation: the last generation; all up to it are reported on together.
        rounds: how many rounds were done; as many must be there.
        cap_per_query: the recipe's cap, in pairs.
        title: name of the data set.
        recipe_digest: digest of the resolved recipe.
        funnel: what went through each stage, first stage first.
    """

    root: str
    generation: str = "g0"
    rounds: int
    cap_per_query: int
    title: str
    recipe_digest: str
    funnel: list[Step]


def run(job: ReportJob) -> Done:
    """Write ``ROOT/report``: balance.parquet, rejections.parquet, summary.json and index.html.

    The same tables give the same bytes.

    Raises:
        StorageError: a table or a round is missing, or is not of this query list.
        ShardFormatError: nothing was packed.
    """
    folder = RunFolder(job.root, job.generation)
    _refuse_missing_rounds(folder, job.rounds)
    queries = storage.read_parquet(folder.queries, ["query_id", "query", "source"])
    counts = count_pairs(folder, len(queries))
    balance = balance_table(queries, counts, job.cap_per_query)
    rejections = count_rejections(folder)
    summary = _summarise(job, folder, balance)
    html = page.render(summary, balance, rejections)
    outputs = [
        storage.write_parquet(folder.report("balance.parquet"), balance),
        storage.write_parquet(folder.report("rejections.parquet"), rejections),
        storage.publish_bytes(folder.report("summary.json"), msgspec.json.encode(summary)),
        storage.publish_bytes(folder.report("index.html"), html.encode()),
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


def balance_table(queries: pa.Table, counts: Counts, cap_per_query: int) -> pa.Table:
    """Return a row per query of the list, in its order (``tables.BALANCE``)."""
    columns = {name: queries[name] for name in ("query_id", "query", "source")}
    figures = {n: pa.array(getattr(counts, n)) for n in FIGURES}
    figures["status"] = pa.array(counts.status(cap_per_query).tolist(), pa.string())
    return tables.conform(pa.table({**columns, **figures}), tables.BALANCE)


def _summarise(job: ReportJob, folder: RunFolder, balance: pa.Table) -> Summary:
    infos = [read_info(url) for url in folder.shards]
    return Summary(
        title=job.title,
        recipe_digest=job.recipe_digest,
        generation=job.generation,
        cap_per_query=job.cap_per_query,
        queries=len(balance),
        statuses=page.status_counts(balance["status"]),
        funnel=job.funnel,
        rounds=count_rounds(folder),
        dataset=Packed(
            samples=sum(info.samples for info in infos),
            shards=sum(info.shards for info in infos),
            bytes=sum(info.bytes for info in infos),
        ),
        pairs_kept=sum(len(storage.read_parquet(url, ["uid"])) for url in folder.kept),
    )
