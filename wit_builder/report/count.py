"""Pairs per query at every stage, and what became of the rest.

Memory: some numbers per query and one per query and round, and at a time either a batch of rows or
what one bucket drew and keeps.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wit_builder import storage, tables
from wit_builder.hashing import hash_column
from wit_builder.report.folder import I64, U64, RunFolder, draw_keys, ids_of, refuse_foreign
from wit_builder.tables import Outcome

_BATCH_ROWS = 1 << 18

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
    "crawl",
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
        drawn_per_round: int64 [rounds, queries], pairs that its draw asked for in each round of
            each generation, in order; a deferred pair is asked for again.
    """

    matched: I64
    drawn: I64
    alive: I64
    kept: I64
    contained: I64
    answered: I64
    drawn_per_round: I64

    def status(self, cap_per_query: int) -> npt.NDArray[np.str_]:
        """Return the status of every query, one of ``STATUSES``."""
        return np.select(
            [self.matched == 0, self.kept >= cap_per_query, self.answered >= self.matched],
            [EMPTY, FULL, EXHAUSTED],
            SHORT,
        )


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What a round asked for, in pairs, and how it was answered.

    Attributes:
        number: from 1, within its generation.
        unknown: drawn pairs without a final answer after it; 0 when the loop has converged.
    """

    generation: str
    number: int
    asked: int
    alive: int
    dead: int
    deferred: int
    unknown: int


def count_pairs(run: RunFolder, queries: int) -> Counts:
    """Return the number of pairs per query at every stage.

    Args:
        run: the run; a bucket of ``selected`` and ``kept`` must hold the same pairs throughout.
        queries: length of the query list.

    Raises:
        StorageError: a table is missing or unreadable, or names a query outside the list.
    """
    images = [url for files in run.rounds("images") for url in files]
    final = [Outcome.ALIVE, Outcome.DEAD]
    drawn, kept, contained = (np.zeros(queries, np.int64) for _ in range(3))
    alive = _count(images, "drawn_by", queries, [Outcome.ALIVE])
    for selected, keeps in _by_bucket(run):
        asked = _read(selected, ["uid", "drawn_by"], tables.SELECTED)
        keep = _read(keeps, ["uid", "kept_by"], tables.KEPT)
        kept_ids = ids_of(keep["kept_by"])
        refuse_foreign(ids_of(asked["drawn_by"]), queries, selected[0] if selected else "")
        refuse_foreign(kept_ids, queries, keeps[0] if keeps else "")
        drawn_ids, late_ids = _draws(asked, keep)
        drawn += np.bincount(drawn_ids, minlength=queries)
        alive += np.bincount(late_ids, minlength=queries)
        kept += np.bincount(kept_ids, minlength=queries)
        contained += _count(keeps, "query_ids", queries)
    return Counts(
        matched=_count(run.tables("matched"), "query_ids", queries),
        drawn=drawn,
        alive=alive,
        kept=kept,
        contained=contained,
        answered=_count(images, "query_ids", queries, final),
        drawn_per_round=_per_round(run, queries),
    )


def _per_round(run: RunFolder, queries: int) -> I64:
    rounds = [_count(urls, "drawn_by", queries) for urls in run.rounds("selected")]
    return np.array(rounds, np.int64).reshape(len(rounds), queries)


def _by_bucket(run: RunFolder) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the tables of each bucket: what all rounds selected, first round first, and kept."""
    selected: dict[str, list[str]] = defaultdict(list)
    kept: dict[str, list[str]] = defaultdict(list)
    for files in run.rounds("selected"):
        for url in files:
            selected[storage.name_of(url)].append(url)
    for url in run.kept:
        kept[storage.name_of(url)].append(url)
    for name in sorted({*selected, *kept}):
        yield selected[name], kept[name]


def _read(urls: Iterable[str], columns: list[str], schema: pa.Schema) -> pa.Table:
    empty = pa.schema([schema.field(name) for name in columns]).empty_table()
    parts = [storage.read_parquet(url, columns).cast(empty.schema) for url in urls]
    return pa.concat_tables([empty, *parts])


def _draws(asked: pa.Table, keep: pa.Table) -> tuple[I64, I64]:
    """Return query ids of a bucket: of every (pair, query) drawn or kept, and of those kept late.

    Late is a query that keeps a pair which came alive when others drew it.
    """
    last, before = _last_rows(asked)
    came, came_ids = draw_keys(last, "drawn_by")
    keys, ids = draw_keys(before, "drawn_by")
    kept, kept_ids = draw_keys(keep, "kept_by")
    late, gone = ~_are_among(kept, came), ~_are_among(keys, came)
    _, first = np.unique(np.r_[keys[gone], kept[late]], return_index=True)
    others = np.r_[ids[gone], kept_ids[late]][first]
    return np.r_[came_ids, others], kept_ids[late]


def _last_rows(asked: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return each pair's row of the last round that asked for it, and the rows of those before."""
    _, from_end = np.unique(hash_column(asked["uid"])[::-1], return_index=True)
    last = np.zeros(len(asked), np.bool_)
    last[len(asked) - 1 - from_end] = True
    return asked.filter(pa.array(last)), asked.filter(pa.array(~last))


def _are_among(keys: U64, others: U64) -> npt.NDArray[np.bool_]:
    """Return which keys are among the others; numpy's isin takes 15 times as long on a million."""
    if not len(others):
        return np.zeros(len(keys), np.bool_)
    order, others = np.argsort(keys), np.sort(others)
    # keys in their order look up places in theirs: near to one another in memory
    places = np.searchsorted(others, keys[order])
    found = np.empty(len(keys), np.bool_)
    found[order] = others[np.minimum(places, len(others) - 1)] == keys[order]
    return found


def _batches(url: str, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some columns of a table, some rows at a time."""
    for batch in storage.parquet_batches(url, columns, _BATCH_ROWS):
        yield pa.Table.from_batches([batch])


def _count(
    urls: Iterable[str], column: str, queries: int, outcomes: list[Outcome] | None = None
) -> I64:
    """Return in how many rows a list column has each query; of rows with one of these outcomes."""
    total = np.zeros(queries, np.int64)
    for url in urls:
        for table in _batches(url, [column, *(["outcome"] if outcomes else [])]):
            rows = (
                table.filter(pc.is_in(table["outcome"], pa.array(outcomes))) if outcomes else table
            )
            ids = ids_of(rows[column])
            refuse_foreign(ids, queries, url)
            total += np.bincount(ids, minlength=queries)
    return total


def count_kept(run: RunFolder) -> int:
    """Return how many pairs are kept."""
    rows = 0
    for url in run.kept:
        with storage.open_arrow(url) as file:
            rows += pq.ParquetFile(file).metadata.num_rows
    return rows


def count_rounds(run: RunFolder, unknown: Sequence[int]) -> list[Round]:
    """Return what every round asked for and how it was answered, in order.

    Args:
        run: the run.
        unknown: ``Round.unknown`` of each round.
    """
    named = zip(run.generations, run.rounds_of_generations("images"), strict=True)
    places = [(name, n, files) for name, rounds in named for n, files in enumerate(rounds, 1)]
    return [_round(*place, left) for place, left in zip(places, unknown, strict=True)]


def _round(generation: str, number: int, images: list[str], unknown: int) -> Round:
    outcomes: Counter[tuple[str, ...]] = Counter()
    for url in images:
        for table in _batches(url, ["outcome"]):
            outcomes.update(_tally(table, "outcome"))
    alive, dead, deferred = (
        outcomes[(o.value,)] for o in (Outcome.ALIVE, Outcome.DEAD, Outcome.DEFERRED)
    )
    return Round(
        generation=generation,
        number=number,
        asked=alive + dead + deferred,
        alive=alive,
        dead=dead,
        deferred=deferred,
        unknown=unknown,
    )


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
    for url in run.rejections:
        for table in _batches(url, ["stage", "reason"]):
            counts.update(_tally(table, "stage", "reason"))
    counts = Counter({key: n for key, n in counts.items() if key[0] != "fetch"})
    dead = (
        table.filter(pc.equal(table["outcome"], Outcome.DEAD.value))
        for url in (url for files in run.rounds("images") for url in files)
        for table in _batches(url, ["outcome", "reason"])
    )
    for lost in itertools.chain(dead, still_deferred(run)):
        counts.update({("fetch", *key): n for key, n in _tally(lost, "reason").items()})
    rows = sorted(counts.items(), key=lambda kv: (_place(kv[0][0]), -kv[1], kv[0][1]))
    schema = pa.schema([tables.REJECTIONS.field("stage"), tables.REJECTIONS.field("reason")])
    schema = schema.append(pa.field("count", pa.int64(), False, {"doc": "items dropped"}))
    return pa.table(
        [[k[0] for k, _ in rows], [k[1] for k, _ in rows], [n for _, n in rows]], schema=schema
    )


def still_deferred(run: RunFolder) -> Iterator[pa.Table]:
    """Yield ``uid`` and ``reason`` of pairs that a generation's last round deferred for good.

    Those that a later generation asked for again are left out. Memory: a generation's deferred
    pairs.
    """
    generations = run.rounds_of_generations("images")
    for number, rounds in enumerate(generations):
        left = [
            table.filter(pc.equal(table["outcome"], Outcome.DEFERRED.value))
            for url in (rounds[-1] if rounds else [])
            for table in _batches(url, ["uid", "outcome", "reason"])
        ]
        deferred = pa.concat_tables([*left, tables.IMAGES.empty_table().select(_DEFERRED)])
        later = [url for rounds in generations[number + 1 :] for files in rounds for url in files]
        for url in later if len(deferred) else []:
            for table in _batches(url, ["uid"]):
                again = pc.is_in(deferred["uid"], value_set=table["uid"])
                deferred = deferred.filter(pc.invert(again))
        yield deferred


_DEFERRED = ["uid", "outcome", "reason"]


def _place(stage: str) -> tuple[int, str]:
    return (STAGE_ORDER.index(stage) if stage in STAGE_ORDER else len(STAGE_ORDER), stage)
