"""What people see of a list."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest

from wit_builder.queries import show
from wit_builder.queries.assemble import assemble
from wit_builder.queries.sources import OFFER
from wit_builder.tables import Source


@pytest.fixture
def queries() -> pa.Table:
    """Ten numbers, and bigrams of which one is a title, too."""
    numbers = pa.table([[str(n) for n in range(10)], [None] * 10, [None] * 10], schema=OFFER)
    pairs = pa.table([["new york", "hot dog"], [7, 5], [3.25, 2.0]], schema=OFFER)
    title = pa.table(
        [["New York", "Say, \u201cCheese\u201d"], [None] * 2, [None] * 2], schema=OFFER
    )
    offers = [(Source.NUMBER, numbers), (Source.BIGRAM, pairs), (Source.TITLE, title)]
    return assemble(offers, {}).queries


def test_summary_table(queries):
    """Each source has a row with its size, its overlap and both its ends."""
    rows = show.summary_table(queries, examples=2)
    assert [(r.source, r.queries, r.also_elsewhere) for r in rows] == [
        ("number", 10, 0),
        ("bigram", 2, 1),
        ("title", 1, 0),
    ]
    assert (rows[0].first, rows[0].last) == (["0", "1"], ["8", "9"])
    assert (rows[1].first, rows[1].last) == (["new york", "hot dog"], [])


def test_explain_a_query(queries):
    """A query is found however it is written, and all that is known of it is told."""
    told = show.explain(queries, " New-York! ")
    assert told.row is not None
    assert told.row["count"] == 7
    lines = str(told).splitlines()
    assert lines[0] == "'new york' is query 10"
    assert [line.split() for line in lines[1:]] == [
        ["surface", "new", "york"],
        ["source", "bigram"],
        ["also_in", "title"],
        ["count", "7"],
        ["pmi", "3.25"],
    ]


def test_explain_what_is_not_there(queries):
    """A text that is no query is said not to be in the list; one without words, to be none."""
    assert str(show.explain(queries, "Zebra")) == "'zebra' is not in the list"
    assert "normalises to nothing" in str(show.explain(queries, "?!"))


def test_spread_as_csv(queries):
    """A sample takes even steps through each source, and reads back as it was."""
    rows = list(csv.DictReader(io.StringIO(show.as_csv(show.spread(queries, 3)).decode())))
    assert [r["query"] for r in rows] == ["0", "4", "9", "new york", "hot dog", "say cheese"]
    assert rows[-1]["surface"] == "Say, \u201cCheese\u201d"
    assert rows[3]["also_in"] == "title"
