"""A query list for people: counts by source, samples, and what is known of one query.

``python -m wit_builder.queries.show LIST`` prints a sample spread over the whole list as CSV; that
is how ``queries/sample.csv`` is made.
"""

from __future__ import annotations

import sys

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from wit_builder import storage
from wit_builder.tables import Source
from wit_builder.text import normalise


class SourceRow(msgspec.Struct, frozen=True):
    """One source's part of a list.

    Attributes:
        source: its name.
        queries: how many it brought.
        also_elsewhere: how many of them a later source has, too.
        first: the first few, which its ranking puts highest.
        last: the last few, at the cut.
    """

    source: str
    queries: int
    also_elsewhere: int
    first: list[str]
    last: list[str]


class Explanation(msgspec.Struct, frozen=True):
    """What a list says of a text; ``row`` has its columns, or is None if it is not in the list."""

    asked: str
    query: str
    row: dict[str, object] | None

    def __str__(self) -> str:
        """In a line or a few."""
        if not self.query:
            return f"{self.asked!r} normalises to nothing: it has no letter or digit"
        if self.row is None:
            return f"{self.query!r} is not in the list"
        lines = [f"{self.query!r} is query {self.row['query_id']}"]
        known = {n: v for n, v in self.row.items() if n != "query_id" and v is not None and v != []}
        lines += [f"  {name:<8} {_plain(value)}" for name, value in known.items()]
        return "\n".join(lines)


def summary_table(queries: pa.Table, examples: int = 4) -> list[SourceRow]:
    """Return a row per source of a list (``tables.QUERIES``), in order of precedence."""
    return [
        _source_row(str(source), part, examples)
        for source in Source
        if (part := queries.filter(pc.equal(queries["source"], str(source)))).num_rows
    ]


def _source_row(source: str, part: pa.Table, examples: int) -> SourceRow:
    shared = pc.sum(pc.greater(pc.list_value_length(part["also_in"]), 0)).as_py()
    names = part["query"]
    first, last = names.slice(0, examples), names.slice(max(examples, len(names) - examples))
    return SourceRow(source, part.num_rows, int(shared), first.to_pylist(), last.to_pylist())


def explain(queries: pa.Table, text: str) -> Explanation:
    """Return what a list (``tables.QUERIES``) says of a text, which is normalised first."""
    query = normalise(text)
    found = queries.filter(pc.equal(queries["query"], query)).drop_columns(["query"])
    return Explanation(text, query, found.to_pylist()[0] if found.num_rows else None)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
    sys.stdout.buffer.write(as_csv(spread(storage.read_parquet(sys.argv[1]), 25)))
