"""Pairs per query at every stage, and what became of the rest.

Memory: eight numbers per query, one bucket of a table at a time, and 17 bytes per (kept pair, query
that keeps it).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage, tables
from wit_builder.errors import StorageError
from wit_builder.report.folder import I64, U64, RunFolder, draw_keys, ids_of
from wit_builder.tables import Outcome

FULL, SHORT, EXHAUSTED, EMPTY = STATUSES = ("full", "short", "exhausted", "empty")
"""What a query ended as; exactly one holds:

- ``full``: it keeps as many pairs as the cap allows;
- ``exhausted``: it keeps fewer, and every pair that contains it was asked for and answered, alive
  or dead: only new archives can bring more;
- ``short``: it keeps fewer, and pairs that contain it were never asked for, or not answered yet:
  a further round can bring more;
- ``empty``: no pair's text contains it.
"""

FIGURES = ("matched", "drawn", "alive", "kept", "contained")
"""The numbers of pairs that the balance table has per query."""

STAGE_ORDER = (
    "extract",
    "filter",
    "match",
    "language",
    "dedup",
    "balance",
    "fetch",
    "keep",
    "pack",
)
"""Stages as rejections are listed; others follow by name."""


@dataclass(frozen=True)
class Counts:
    """Numbers of pairs per query; each array is int64 with one value per query id.

    Attributes:
        matched: pairs whose text contains the query.
        drawn: different pairs that its draw ever contained. A pair that another query had asked for
            before is never asked for again, so kept pairs count as drawn too.
        alive: of the drawn pairs, those that came alive.
        kept: pairs it keeps, at most the cap.
        contained: kept pairs that contain it, whichever query keeps them.
        answered: pairs that contain it with a final outcome, alive or dead.
    """

    matched: I64
    drawn: I64
    alive: I64
    kept: I64
    contained: I64
    answered: I64

    def status(self, cap_per_query: int) -> npt.NDArray[np.str_]:
        """Return the status of every query, one of ``STATUSES``."""
        return np.select(
            [self.matched == 0, self.kept >= cap_per_query, self.answered >= self.matched],
            [EMPTY, FULL, EXHAUSTED],
            SHORT,
        )


class Round(msgspec.Struct, frozen=True):
    """What a round asked for, in pairs, and how it was answered."""

    number: int
    asked: int
    alive: int
    dead: int
    deferred: int


def count_pairs(run: RunFolder, queries: int) -> Counts:
    """Return the number of pairs per query at every stage.

    Args:
        run: the run; a bucket of ``selected`` must hold the same pairs in every round.
        queries: length of the query list.

    Raises:
        StorageError: a table is missing or unreadable, or names a query outside the list.
    """
    kept = pa.concat_tables([storage.read_parquet(url) for url in run.kept])
    keys, ids = draw_keys(kept, "kept_by")
    _refuse_foreign(ids, queries, run.kept[0])
    images = [url for files in run.rounds("images") for url in files]
    final = {Outcome.ALIVE, Outcome.DEAD}
    return Counts(
        matched=_count(run.tables("matched"), queries),
        drawn=_count_distinct(_by_bucket(run), keys, ids, queries),
        alive=_count_distinct(_alive(images), keys, ids, queries),
        kept=np.bincount(ids, minlength=queries),
        contained=np.bincount(_known(kept["query_ids"], queries, run.kept[0]), minlength=queries),
        answered=_count(images, queries, final),
    )


def _count(urls: Iterable[str], queries: int, outcomes: set[Outcome] | None = None) -> I64:
    """Return how many rows contain each query, of rows with one of these outcomes, or of all."""
    total = np.zeros(queries, np.int64)
    for url in urls:
        table = storage.read_parquet(url, ["query_ids", *(["outcome"] if outcomes else [])])
        if outcomes:
            table = table.filter(pc.is_in(table["outcome"], pa.array(sorted(outcomes))))
        total += np.bincount(_known(table["query_ids"], queries, url), minlength=queries)
    return total


def _known(column: pa.ChunkedArray, queries: int, url: str) -> I64:
    ids = ids_of(column)
    _refuse_foreign(ids, queries, url)
    return ids


def _refuse_foreign(ids: I64, queries: int, url: str) -> None:
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < queries:
        worst = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise StorageError(
            f"names query {worst}, but the query list ends at {queries - 1}",
            where=url,
            fix="this table is of another query list; remove its run folder and build again",
        )


def _by_bucket(run: RunFolder) -> Iterator[tuple[pa.Table, str]]:
    """Yield what all rounds drew, a bucket at a time: a deferred pair is drawn again later."""
    buckets: dict[str, list[str]] = defaultdict(list)
    for files in run.rounds("selected"):
        for url in files:
            buckets[storage.name_of(url)].append(url)
    for _, urls in sorted(buckets.items()):
        parts = [storage.read_parquet(url, ["uid", "drawn_by"]) for url in urls]
        yield pa.concat_tables(parts), urls[0]


def _alive(urls: Iterable[str]) -> Iterator[tuple[pa.Table, str]]:
    for url in urls:
        table = storage.read_parquet(url, ["uid", "drawn_by", "outcome"])
        yield table.filter(pc.equal(table["outcome"], Outcome.ALIVE.value)), url


def _count_distinct(
    parts: Iterable[tuple[pa.Table, str]], kept: U64, kept_ids: I64, queries: int
) -> I64:
    """Return the size of the union, per query, of what the parts draw and of what is kept.

    No (pair, query) may stand in two parts; within a part it may stand often.
    """
    order = np.argsort(kept)
    ranked, missing = kept[order], np.ones(len(kept), np.bool_)
    total = np.zeros(queries, np.int64)
    for table, url in parts:
        keys, ids = draw_keys(table, "drawn_by")
        _refuse_foreign(ids, queries, url)
        unique, first = np.unique(keys, return_index=True)
        total += np.bincount(ids[first], minlength=queries)
        missing[np.isin(ranked, unique)] = False
    return total + np.bincount(kept_ids[order][missing], minlength=queries)


def count_rounds(run: RunFolder) -> list[Round]:
    """Return what every round asked for and how it was answered, in order."""
    found = []
    for number, files in enumerate(run.rounds("images"), 1):
        outcomes: Counter[tuple[str, ...]] = Counter()
        for url in files:
            outcomes.update(_tally(storage.read_parquet(url, ["outcome"]), "outcome"))
        by_outcome = [outcomes[(o.value,)] for o in (Outcome.ALIVE, Outcome.DEAD, Outcome.DEFERRED)]
        found.append(Round(number, sum(by_outcome), *by_outcome))
    return found


def _tally(table: pa.Table, *columns: str) -> dict[tuple[str, ...], int]:
    grouped = table.group_by(list(columns)).aggregate([([], "count_all")]).to_pylist()
    return {tuple(row[c] or "" for c in columns): row["count_all"] for row in grouped}


def count_rejections(run: RunFolder) -> pa.Table:
    """Return ``stage``, ``reason``, ``count`` of all that was dropped, by stage.

    Within a stage the most frequent reason comes first. What fetching lost is counted from the
    image tables, which have it pair by pair: the dead of all rounds, and those that a generation's
    last round still deferred. Rows of the stage ``fetch`` in the rejection tables would count it
    twice and are passed over.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for url in run.tables("rejected"):
        counts.update(_tally(storage.read_parquet(url, ["stage", "reason"]), "stage", "reason"))
    counts = Counter({key: n for key, n in counts.items() if key[0] != "fetch"})
    for rounds in run.rounds_of_generations("images"):
        for number, files in enumerate(rounds, 1):
            lost = [Outcome.DEAD.value, *([Outcome.DEFERRED.value] * (number == len(rounds)))]
            for url in files:
                table = storage.read_parquet(url, ["outcome", "reason"])
                table = table.filter(pc.is_in(table["outcome"], pa.array(lost)))
                counts.update({("fetch", *k): n for k, n in _tally(table, "reason").items()})
    rows = sorted(counts.items(), key=lambda kv: (_place(kv[0][0]), -kv[1], kv[0][1]))
    schema = pa.schema([tables.REJECTIONS.field("stage"), tables.REJECTIONS.field("reason")])
    schema = schema.append(pa.field("count", pa.int64(), False, {"doc": "items dropped"}))
    return pa.table(
        [[k[0] for k, _ in rows], [k[1] for k, _ in rows], [n for _, n in rows]], schema=schema
    )


def _place(stage: str) -> tuple[int, str]:
    return (STAGE_ORDER.index(stage) if stage in STAGE_ORDER else len(STAGE_ORDER), stage)
