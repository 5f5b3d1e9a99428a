"""A query list for people: its sources, their cuts and overlaps, and why a query is in or out.

``python -m wit_builder.queries.show LIST`` prints a sample spread over the whole list as CSV; that
is how ``queries/sample.csv`` is made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from wit_builder import storage
from wit_builder.errors import WitError
from wit_builder.queries.assemble import SourceSummary, Summary
from wit_builder.tables import Source

_EXAMPLES = 5


class SourceRow(msgspec.Struct, frozen=True):
    """One source's part of a list.

    Attributes:
        summary: what became of its rows.
        also_in: how many of its queries each later source has, too.
        first: the first few, which its ranking puts highest.
        last: the last few: those at its cut, where it has one.
    """

    summary: SourceSummary
    also_in: dict[str, int]
    first: list[str]
    last: list[str]


def source_rows(queries: pa.Table, summary: Summary, examples: int = _EXAMPLES) -> list[SourceRow]:
    """Return a row per source of a list (``tables.QUERIES``), in order of precedence."""
    return [_source_row(queries, source, examples) for source in summary.sources]


def _source_row(queries: pa.Table, summary: SourceSummary, examples: int) -> SourceRow:
    part = queries.filter(pc.equal(queries["source"], summary.source))
    others = pc.value_counts(pc.list_flatten(part["also_in"])).to_pylist()
    order = list(Source)
    also_in = {o["values"]: o["counts"] for o in others}
    names = part["query"]
    first, last = names.slice(0, examples), names.slice(max(examples, len(names) - examples))
    return SourceRow(
        summary,
        dict(sorted(also_in.items(), key=lambda item: order.index(Source(item[0])))),
        first.to_pylist(),
        last.to_pylist(),
    )


def lines(queries: pa.Table, summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield what a list is made of, as headings and texts."""
    yield "queries", f"{summary.queries:,}"
    for stage, counts in summary.read.items():
        told = (f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        yield f"  {stage}", ", ".join(told) or "nothing"
    for row in source_rows(queries, summary):
        yield from _source_lines(row)
    if summary.merged:
        examples = "; ".join(", ".join(m.surfaces) for m in summary.merged_examples[:_EXAMPLES])
        yield "merged", f"{summary.merged:,} queries join several spellings: {examples}"
    for refused in summary.refused:
        yield "refused", f"{refused.rows:,} in {refused.script}: {refused.example}"
    for warning in summary.warnings:
        yield "warning", warning


def _source_lines(row: SourceRow) -> Iterator[tuple[str, str]]:
    s = row.summary
    budget = "" if s.budget is None else f", budget {s.budget:,}"
    yield s.source, f"{s.kept:,} queries of {s.offered:,} offered{budget}"
    known = {
        "in earlier sources": s.in_earlier_source,
        "repeated": s.repeated,
        "beyond the cut": s.over_budget,
        "without a word": s.empty,
        "refused": s.refused,
    }
    rest = ", ".join(f"{count:,} {name}" for name, count in known.items() if count)
    if rest:
        yield "  not taken", rest
    if row.also_in:
        yield "  also in", ", ".join(f"{name} {count:,}" for name, count in row.also_in.items())
    if row.first:
        yield "  first", ", ".join(row.first)
    if row.last:
        yield "  last", ", ".join(row.last)
    if s.cut is not None:
        yield "  cut", f"at {figure(s.cut.by, s.cut.least)}"
        if s.cut.left:
            yield "  left out", ", ".join(s.cut.left[:_EXAMPLES])


def figure(name: str, value: float) -> str:
    """Return a figure with its unit: "PMI 7.1 bits", "12 views"."""
    if name == "pmi":
        return f"PMI {value:.2f} bits"
    return f"{int(value):,} {'occurrences' if name == 'count' else name}"


def spread(queries: pa.Table, rows_per_source: int) -> pa.Table:
    """Return rows at even steps through each source's part of a list, first and last included."""
    chosen: list[int] = []
    for source in Source:
        places = np.flatnonzero(pc.equal(queries["source"], str(source)).to_numpy())
        steps = np.linspace(0, len(places) - 1, min(rows_per_source, len(places)))
        chosen += places[steps.astype(np.int64)].tolist()
    return queries.take(pa.array(chosen, pa.int64()))


def as_csv(queries: pa.Table) -> bytes:
    """Return rows of a list as CSV, ``also_in`` joined by spaces."""
    at = queries.schema.get_field_index("also_in")
    joined = pc.binary_join(queries["also_in"], " ")
    sink = pa.BufferOutputStream()
    options = pa.csv.WriteOptions(quoting_style="needed")
    pa.csv.write_csv(queries.set_column(at, "also_in", joined), sink, options)
    return bytes(sink.getvalue())


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(as_csv(spread(storage.read_parquet(sys.argv[1]), 25)))
    except WitError as error:
        sys.exit(str(error))
