"""What people see of a list."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import pyarrow as pa
import pytest

from wit_builder.queries import show
from wit_builder.queries.assemble import QueryList, assemble
from wit_builder.queries.scripts import Refusals
from wit_builder.queries.sources import OFFER, Offer
from wit_builder.sections import QueriesSection
from wit_builder.tables import Source


def offer(source: Source, rows: Mapping[str, tuple[object, ...]], **more: object) -> Offer:
    """Return an offer of surfaces with their figures."""
    columns = [list(rows), *([row[k] for row in rows.values()] for k in range(3))]
    return Offer(source, pa.table(columns, schema=OFFER), **more)  # type: ignore[arg-type]


@pytest.fixture
def made() -> QueryList:
    """Ten numbers, two bigrams of four, one of which is a title, too, and a title."""
    nothing = (None, None, None)
    pairs = {"new york": (7, 3.25, None), "hot dog": (5, 2.0, None), "red fox": (4, 1.5, None)}
    titles = {"New York": (None, None, 90), "Say, \u201cCheese\u201d": (None, None, 8)}
    offers = [
        offer(Source.NUMBER, {str(n): nothing for n in range(10)}),
        offer(Source.BIGRAM, pairs, budget=2, ranked_by="pmi"),
        offer(Source.TITLE, titles, ranked_by="views"),
    ]
    return assemble(
        offers,
        Refusals(),
        QueriesSection(),
        tokens=1234,
        read={"count": {"articles": 5, "oversized": 0}},
    )


def test_source_rows(made):
    """Each source has a row with its size, its overlaps and both its ends."""
    rows = show.source_rows(made.queries, made.summary, examples=2)
    assert [(r.summary.source, r.summary.kept, r.also_in) for r in rows] == [
        ("number", 10, {}),
        ("bigram", 2, {"title": 1}),
        ("title", 1, {}),
    ]
    assert (rows[0].first, rows[0].last) == (["0", "1"], ["8", "9"])
    assert (rows[1].first, rows[1].last) == (["new york", "hot dog"], [])


def test_lines(made):
    """A list is shown with its counts, cuts, both sides of a cut, and what was counted."""
    told = list(show.lines(*made))
    assert ("queries", "13") in told
    assert ("  count", "5 articles") in told
    assert ("bigram", "2 queries of 3 offered, budget 2") in told
    assert ("  not taken", "1 beyond the cut") in told
    assert ("  also in", "title 1") in told
    assert ("  cut", "at PMI 2.00 bits") in told
    assert ("  left out", "red fox") in told
    assert ("  cut", "at 8 views") in told


def test_spread_as_csv(made):
    """A sample takes even steps through each source, and reads back as it was."""
    rows = list(csv.DictReader(io.StringIO(show.as_csv(show.spread(made.queries, 3)).decode())))
    assert [r["query"] for r in rows] == ["0", "4", "9", "new york", "hot dog", "say cheese"]
    assert rows[-1]["surface"] == "Say, \u201cCheese\u201d"
    assert rows[3]["also_in"] == "title"
