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

from wit_builder import tables
from wit_builder.tables import Source
from wit_builder.text import normalise_column

SCRIPTS_WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
"""Refused for now: a text in these has no token borders, so a query would never match."""

MAX_EXAMPLES = 200


class SourceSummary(msgspec.Struct, frozen=True):
    """What became of a source's rows: ``offered`` is the sum of the other counts."""

    source: str
    offered: int
    kept: int
    in_earlier_source: int
    repeated: int
    over_budget: int
    empty: int
    refused: int


class Merged(msgspec.Struct, frozen=True):
    """Surfaces that differ by more than case and hyphens (C, C++, C#), and are one query."""

    query: str
    surfaces: list[str]


class Refused(msgspec.Struct, frozen=True):
    """Rows refused because of their script, with the first of them."""

    script: str
    rows: int
    example: str


class Summary(msgspec.Struct, frozen=True):
    """How a query list came about; ``summary.json`` beside it.

    ``merged`` counts all queries that join several spellings; the first of them are listed.
    """

    queries: int
    tokens: int
    articles: int
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
    ]
)


def assemble(
    offers: Iterable[tuple[Source, pa.Table]],
    budgets: dict[Source, int],
    *,
    tokens: int = 0,
    articles: int = 0,
) -> QueryList:
    """Return the list that the offers make.

    Args:
        offers: a table of ``sources.OFFER`` per source, in order of precedence, best rows first.
        budgets: of a source, how many queries it may add that no earlier one has.
        tokens: how many were counted, for the summary.
        articles: how many were read, for the summary.
    """
    rows = _ROWS.empty_table()
    summaries: list[SourceSummary] = []
    refused: list[pa.Table] = []
    for source, offer in offers:
        sifted, counts, foreign = _sift(source, offer)
        refused.append(foreign)
        taken = _within_budget(sifted, rows["query"], budgets.get(source))
        new, repeated = _news(taken, rows["query"])
        counts |= {"over_budget": sifted.num_rows - taken.num_rows, "repeated": repeated}
        counts |= {"kept": new, "in_earlier_source": taken.num_rows - new - repeated}
        summaries.append(SourceSummary(source=str(source), offered=offer.num_rows, **counts))
        rows = pa.concat_tables([rows, taken])
    merged, examples = _merged(rows)
    queries = _list(rows)
    summary = Summary(
        queries=queries.num_rows,
        tokens=tokens,
        articles=articles,
        sources=summaries,
        merged=merged,
        merged_examples=examples,
        refused=_refusals(refused),
        warnings=_warnings(summaries, budgets),
    )
    return QueryList(queries, summary)


def _sift(source: Source, offer: pa.Table) -> tuple[pa.Table, dict[str, int], pa.Table]:
    """Return an offer's usable rows, counts of the others, and the rows of refused scripts."""
    query = normalise_column(offer["surface"])
    kind = pa.array(np.full(len(query), list(Source).index(source), np.int8))
    rows = pa.table([query, offer["surface"], kind, offer["count"], offer["pmi"]], schema=_ROWS)
    named = rows.filter(pc.not_equal(rows["query"], ""))
    foreign = pc.match_substring_regex(named["query"], f"[{_script_classes()}]")
    refused = named.filter(foreign)
    counts = {"empty": rows.num_rows - named.num_rows, "refused": refused.num_rows}
    return named.filter(pc.invert(foreign)), counts, refused


def _script_classes() -> str:
    return "".join(rf"\p{{{script}}}" for script in SCRIPTS_WITHOUT_SPACES)


def _within_budget(rows: pa.Table, earlier: pa.ChunkedArray, budget: int | None) -> pa.Table:
    """Return the rows down to the one that spends the budget on new queries."""
    if budget is None:
        return rows
    spent = np.cumsum(_first_of_kind(rows["query"]) & _not_in(rows["query"], earlier))
    return rows.slice(0, int(np.searchsorted(spent, budget)) + 1 if budget else 0)


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
            "views": pa.nulls(len(queries), pa.int64()),
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
    """Return a column per query: from the row that has a value, even if it is not the one kept.

    Only the unigram and bigram sources have counts, and no string is both.
    """
    known = rows[name].is_valid().to_numpy()
    at = codes[known]
    value = np.zeros(size, rows.schema.field(name).type.to_pandas_dtype())
    missing = np.ones(size, np.bool_)
    value[at] = rows[name].drop_null().to_numpy()
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


def _refusals(refused: list[pa.Table]) -> list[Refused]:
    if not refused:
        return []
    rows = pa.concat_tables(refused)
    out = []
    for script in SCRIPTS_WITHOUT_SPACES:
        has = rows.filter(pc.match_substring_regex(rows["query"], rf"\p{{{script}}}"))
        if has.num_rows:
            out.append(Refused(script, has.num_rows, has["surface"][0].as_py()))
    return out


def _warnings(summaries: list[SourceSummary], budgets: dict[Source, int]) -> list[str]:
    nothing = [f"{s.source} offers nothing" for s in summaries if not s.offered]
    short = [
        f"{s.source} adds {s.kept:,} queries, fewer than its budget of {budget:,}"
        for s in summaries
        if s.offered and (budget := budgets.get(Source(s.source), 0)) > s.kept
    ]
    return nothing + short
