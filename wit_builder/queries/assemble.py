"""Offers of all sources become one list: normalised, unique, in order of precedence.

Of what normalises to the same string the first offer stays and the other sources are recorded. All
work is on whole columns; each offered row ends in exactly one count of the summary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from wit_builder import tables
from wit_builder.errors import QueryListError
from wit_builder.queries.count import IN_LANGUAGE
from wit_builder.queries.scripts import Refusals, Refused
from wit_builder.queries.sources import Offer
from wit_builder.sections import QueriesSection
from wit_builder.tables import Source
from wit_builder.text import normalise_column

MAX_EXAMPLES = 10_000
_SAMPLE = 8


class Cut(msgspec.Struct, frozen=True):
    """Where a source's rows end in the list.

    Attributes:
        by: the column that ranks them: count, pmi (bits) or views.
        least: its value in the last row taken.
        taken: the last queries taken.
        left: the first ones left out.
    """

    by: str
    least: float
    taken: list[str]
    left: list[str]


class SourceSummary(msgspec.Struct, frozen=True):
    """What became of a source's rows: ``offered`` is the sum of the other counts.

    ``over_budget`` are those beyond its budget, or beyond the size of the list.
    """

    source: str
    offered: int
    kept: int
    in_earlier_source: int
    repeated: int
    over_budget: int
    empty: int
    refused: int
    budget: int | None = None
    ranked_by: str | None = None
    cut: Cut | None = None


class Merged(msgspec.Struct, frozen=True):
    """Surfaces that differ by more than case and hyphens (C, C++, C#), and are one query."""

    query: str
    surfaces: list[str]


class Summary(msgspec.Struct, frozen=True):
    """How a query list came about; ``summary.json`` beside it.

    ``settings`` are those of the recipe, without the places of inputs. ``read`` tells what was read
    and skipped on the way, by stage. ``merged`` counts all queries
    that join several spellings; the first ``MAX_EXAMPLES`` of them are listed.
    """

    queries: int
    settings: QueriesSection
    tokens: int
    read: dict[str, dict[str, int]]
    sources: list[SourceSummary]
    merged: int
    merged_examples: list[Merged]
    refused: list[Refused]
    warnings: list[str]


class QueryList(NamedTuple):
    """A list (``tables.QUERIES``) and the account of its making."""

    queries: pa.Table
    summary: Summary


_ROWS = pa.schema(
    [
        ("query", pa.string()),
        ("surface", pa.string()),
        ("source", pa.int8()),
        ("count", pa.int64()),
        ("pmi", pa.float64()),
        ("views", pa.int64()),
    ]
)


def assemble(
    offers: Iterable[Offer],
    refusals: Refusals,
    settings: QueriesSection,
    *,
    tokens: int = 0,
    read: dict[str, dict[str, int]] | None = None,
) -> QueryList:
    """Return the list that the offers make.

    Args:
        offers: in order of precedence; each is asked for when those before it are in the list.
        refusals: where rows in scripts that are refused are counted.
        settings: the recipe's ``[queries]``: its size, and for the summary.
        tokens: how many were counted, for the summary.
        read: what each stage before counted, by its name, for the summary.
    """
    rows = _ROWS.empty_table()
    summaries: list[SourceSummary] = []
    for offer in offers:
        room = settings.size - sum(s.kept for s in summaries)
        taken, summary = _take(offer, refusals, rows["query"], room)
        summaries.append(summary)
        rows = pa.concat_tables([rows, taken])
    merged, examples = _merged(rows)
    queries = _list(rows)
    summary_of_all = Summary(
        queries=queries.num_rows,
        settings=without_places(settings),
        tokens=tokens,
        read=read or {},
        sources=summaries,
        merged=merged,
        merged_examples=examples,
        refused=refusals.by_script(),
        warnings=_warnings(summaries) + _odd_reading(read or {}, settings.language),
    )
    return QueryList(queries, summary_of_all)


def _take(
    offer: Offer, refusals: Refusals, earlier: pa.ChunkedArray, room: int
) -> tuple[pa.Table, SourceSummary]:
    """Return the rows of an offer that go into the list, and what became of the others."""
    named = _named(offer)
    usable = refusals.sift(named, "query")
    budget = room if offer.budget is None else min(offer.budget, room)
    taken = _within(usable, earlier, budget)
    new, repeated = _news(taken, earlier)
    offered = offer.rows.num_rows if offer.offered is None else offer.offered
    refused = offer.refused + named.num_rows - usable.num_rows
    empty = offer.rows.num_rows - named.num_rows
    summary = SourceSummary(
        source=str(offer.source),
        offered=offered,
        kept=new,
        in_earlier_source=taken.num_rows - new - repeated,
        repeated=repeated,
        over_budget=offered - refused - empty - taken.num_rows,
        empty=empty,
        refused=refused,
        budget=offer.budget,
        ranked_by=offer.ranked_by,
        cut=_cut(offer.ranked_by, usable, taken.num_rows),
    )
    return taken, summary


def without_places(settings: QueriesSection) -> QueriesSection:
    """Return settings without the places of inputs: what a list was made by, wherever they lie."""
    wordnet, wikipedia = settings.wordnet, settings.wikipedia
    return replace(
        settings,
        custom=[],
        buckets=0,
        wordnet=wordnet and replace(wordnet, path=""),
        wikipedia=wikipedia
        and replace(wikipedia, dumps=[], counts=[], title_lists=[], pageviews=[]),
    )


def check_budgets(summary: Summary) -> None:
    """Refuse a list in which a source falls short of its budget.

    Raises:
        QueryListError: one does; says by how much.
    """
    if short := _short(summary.sources):
        raise QueryListError(
            "; ".join(short),
            where="queries.strict_budgets",
            fix="lower the budget or its source's floor, or give the source more to count",
        )


def _named(offer: Offer) -> pa.Table:
    """Return an offer's rows as ``_ROWS``, without those that normalise to nothing."""
    offered = offer.rows
    query = normalise_column(offered["surface"])
    kind = pa.array(np.full(len(query), list(Source).index(offer.source), np.int8))
    columns = [query, offered["surface"], kind, *(offered[c] for c in ("count", "pmi", "views"))]
    rows = pa.table(columns, schema=_ROWS)
    return rows.filter(pc.not_equal(rows["query"], ""))


def _within(rows: pa.Table, earlier: pa.ChunkedArray, budget: int) -> pa.Table:
    """Return the rows down to the one that spends the budget on new queries."""
    spent = np.cumsum(_first_of_kind(rows["query"]) & _not_in(rows["query"], earlier))
    return rows.slice(0, int(np.searchsorted(spent, budget)) + 1 if budget else 0)


def _cut(by: str | None, rows: pa.Table, taken: int) -> Cut | None:
    if by is None or by not in rows.column_names or not taken:
        return None
    queries = rows["query"]
    return Cut(
        by=by,
        least=float(rows[by][taken - 1].as_py()),
        taken=queries.slice(max(0, taken - _SAMPLE), min(taken, _SAMPLE)).to_pylist(),
        left=queries.slice(taken, _SAMPLE).to_pylist(),
    )


def _news(rows: pa.Table, earlier: pa.ChunkedArray) -> tuple[int, int]:
    """Return how many rows bring a new query, and how many repeat a row of their own source."""
    first = _first_of_kind(rows["query"])
    return int((first & _not_in(rows["query"], earlier)).sum()), int((~first).sum())


def _first_of_kind(values: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    codes, _ = _encode(values)
    first = np.zeros(len(codes), np.bool_)
    first[np.unique(codes, return_index=True)[1]] = True
    return first


def _not_in(values: pa.ChunkedArray, earlier: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    known: npt.NDArray[np.bool_] = pc.is_in(values, value_set=earlier).to_numpy()
    return ~known


def _encode(values: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], pa.Array]:
    """Return a code per value, and the distinct values; both in order of first appearance."""
    encoded = values.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary


def _list(rows: pa.Table) -> pa.Table:
    codes, queries = _encode(rows["query"])
    first = rows.take(pa.array(np.unique(codes, return_index=True)[1]))
    kinds = first["source"].to_numpy()
    also = np.zeros(len(queries), np.int64)
    np.bitwise_or.at(also, codes, np.int64(1) << rows["source"].to_numpy().astype(np.int64))
    also &= ~(np.int64(1) << kinds.astype(np.int64))
    return pa.table(
        {
            "query_id": pa.array(np.arange(len(queries), dtype=np.int32)),
            "query": queries,
            "surface": first["surface"],
            "source": pa.array(list(Source), pa.string()).take(pa.array(kinds)),
            "also_in": _SOURCE_SETS.take(pa.array(also)),
            "count": _scatter(rows, "count", codes, len(queries)),
            "pmi": _scatter(rows, "pmi", codes, len(queries)),
            "views": _scatter(rows, "views", codes, len(queries)),
        },
        schema=tables.QUERIES,
    )


_SOURCE_SETS = pa.array(
    [
        sorted(s for bit, s in enumerate(Source) if members >> bit & 1)
        for members in range(2 ** len(Source))
    ],
    pa.list_(pa.string()),
)
"""Every set of sources, at the index whose bits are its members."""


def _scatter(rows: pa.Table, name: str, codes: npt.NDArray[np.int32], size: int) -> pa.Array:
    """Return a column per query: of the first row that has a value, even if it is not the one kept.

    Counts and views are of one source each, and PMI of one for each number of words.
    """
    known = np.flatnonzero(rows[name].is_valid().to_numpy())[::-1]
    at = codes[known]
    value = np.zeros(size, rows.schema.field(name).type.to_pandas_dtype())
    missing = np.ones(size, np.bool_)
    value[at] = rows[name].drop_null().to_numpy()[::-1]
    missing[at] = False
    return pa.array(value, mask=missing)


def _merged(rows: pa.Table) -> tuple[int, list[Merged]]:
    """Return how many queries join different spellings, and the first such."""
    codes, queries = _encode(rows["query"])
    folded = pa.table([pa.array(codes), _spelling(rows["surface"])], names=["code", "surface"])
    distinct = folded.group_by("code").aggregate([("surface", "count_distinct")])
    several = pc.greater(distinct["surface_count_distinct"], 1)
    found = np.sort(distinct.filter(several)["code"].to_numpy())
    spelled: dict[int, set[str]] = {int(code): set() for code in found[:MAX_EXAMPLES]}
    wanted = np.flatnonzero(np.isin(codes, found[:MAX_EXAMPLES]))
    for row, surface in zip(
        wanted, rows["surface"].take(pa.array(wanted)).to_pylist(), strict=True
    ):
        spelled[int(codes[row])].add(surface)
    examples = [Merged(queries[code].as_py(), sorted(s)) for code, s in spelled.items()]
    return len(found), examples


def _spelling(surfaces: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return surfaces without what nobody would call another word: case, and hyphens for spaces."""
    return pc.replace_substring(pc.utf8_lower(surfaces), "-", " ")


def _warnings(summaries: list[SourceSummary]) -> list[str]:
    nothing = [f"{s.source} offers nothing" for s in summaries if not s.offered]
    unranked = [
        f"{s.source} is ranked by nothing, and {s.over_budget:,} rows had no room"
        for s in summaries
        if s.over_budget and not s.ranked_by
    ]
    return nothing + _short([s for s in summaries if s.offered]) + unranked


def _odd_reading(read: dict[str, dict[str, int]], language: str) -> list[str]:
    """Return what was read and can hardly be meant."""
    counted = read.get("count", {})
    others = {
        name.removeprefix(IN_LANGUAGE): pages
        for name, pages in counted.items()
        if name.startswith(IN_LANGUAGE) and name != IN_LANGUAGE + language
    }
    odd = [
        f"{pages:,} pages of the dumps are in {other!r}, and queries.language is {language!r}"
        for other, pages in sorted(others.items())
    ]
    if read.get("views", {}).get("lines_of_project") == 0:
        odd.append(f"no line of the page view files is of the Wikipedia {language!r}")
    return odd


def _short(summaries: list[SourceSummary]) -> list[str]:
    return [
        f"{s.source} adds {s.kept:,} queries, fewer than its budget of {s.budget:,}"
        + (": the list is full" if s.over_budget else "")
        for s in summaries
        if s.budget is not None and s.kept < s.budget
    ]
