"""One list of all offers: unique, in order of precedence, every row accounted for."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import tables
from wit_builder.errors import QueryListError
from wit_builder.queries.assemble import Cut, QueryList, assemble, check_budgets
from wit_builder.queries.scripts import Refusals
from wit_builder.queries.sources import OFFER, Offer
from wit_builder.sections import QueriesSection
from wit_builder.tables import Source
from wit_builder.text import normalise

HAN, HIRAGANA, THAI = "\u732b", "\u732b \u3044\u306c", "\u0e41\u0e21\u0e27"
SURFACES = st.lists(
    st.sampled_from(["a", "A", "a!", "b", "a b", "A-b", "", "--", HAN, "c", "d", HIRAGANA])
)


def offer(source: Source, *surfaces: str, budget: int | None = None, **figures: float) -> Offer:
    """Return a source's offer of these surfaces, all with the same figures."""
    columns = [[figures.get(name)] * len(surfaces) for name in ("count", "pmi", "views")]
    ranked_by = next((n for n in ("pmi", "count", "views") if n in figures), None)
    return Offer(source, pa.table([surfaces, *columns], schema=OFFER), budget, ranked_by=ranked_by)


def made_of(*offers: Offer, size: int = 500_000) -> QueryList:
    """Return the list that offers make."""
    return assemble(offers, Refusals(), QueriesSection(size=size))


def test_first_source_keeps_a_duplicate():
    """A query belongs to the first source that has it; the others are recorded, sorted."""
    made = made_of(
        offer(Source.WORDNET, "Dog", "hot dog"),
        offer(Source.UNIGRAM, "dog", "cat", count=9),
        offer(Source.BIGRAM, "hot dog", count=5, pmi=2.5),
        offer(Source.TITLE, "DOG", "Cat", "Ox", views=70),
    )
    rows = made.queries.to_pylist()
    assert [(r["query"], r["surface"], r["source"], r["also_in"]) for r in rows] == [
        ("dog", "Dog", "wordnet", ["title", "unigram"]),
        ("hot dog", "hot dog", "wordnet", ["bigram"]),
        ("cat", "cat", "unigram", ["title"]),
        ("ox", "Ox", "title", []),
    ]
    assert [(r["count"], r["pmi"], r["views"]) for r in rows] == [
        (9, None, 70),
        (5, 2.5, None),
        (9, None, 70),
        (None, None, 70),
    ]
    assert made.queries.schema.equals(tables.QUERIES, check_metadata=True)


def test_merged_spellings_are_listed():
    """C, C++ and C# are one query, and the summary says so; case and hyphens are not told."""
    made = made_of(offer(Source.CUSTOM, "C++", "C#", "C", "ice-cream", "Ice cream"))
    assert made.queries["query"].to_pylist() == ["c", "ice cream"]
    assert made.queries["surface"].to_pylist() == ["C++", "ice-cream"]
    assert made.summary.merged == 1
    assert made.summary.merged_examples[0].query == "c"
    assert made.summary.merged_examples[0].surfaces == ["C", "C#", "C++"]


def test_scripts_without_spaces():
    """A query in a script without spaces is refused by name, counted, with an example."""
    made = made_of(offer(Source.CUSTOM, HAN, HIRAGANA, "dog", THAI))
    assert made.queries["query"].to_pylist() == ["dog"]
    assert [(r.script, r.rows, r.example) for r in made.summary.refused] == [
        ("Han", 2, HAN),
        ("Hiragana", 1, HIRAGANA),
        ("Thai", 1, THAI),
    ]
    assert made.summary.sources[0].refused == 3


def test_budget_counts_what_is_new():
    """A budget is spent on new queries only, best first, and what is beyond it is counted."""
    made = made_of(
        offer(Source.WORDNET, "a b"),
        offer(Source.BIGRAM, "c d", "a b", "e f", "g h", "i j", budget=2, count=7, pmi=1.5),
        offer(Source.TITLE, "G h"),
    )
    assert made.queries["query"].to_pylist() == ["a b", "c d", "e f", "g h"]
    assert made.queries["source"].to_pylist() == ["wordnet", "bigram", "bigram", "title"]
    assert made.summary.sources[1].over_budget == 2
    assert made.summary.sources[1].cut == Cut("pmi", 1.5, ["c d", "a b", "e f"], ["g h", "i j"])
    assert not made.summary.warnings


def test_size_of_the_list():
    """No more queries than the size are taken; sources that come late take what is left."""
    first = offer(Source.NUMBER, "1", "2", "3")
    late = offer(Source.TITLE, "3", "a", "b", "c", views=5)
    made = made_of(first, late, size=5)
    assert made.queries["query"].to_pylist() == ["1", "2", "3", "a", "b"]
    assert made.summary.sources[1].over_budget == 1
    assert made_of(first, late, size=2).queries["query"].to_pylist() == ["1", "2"]
    full = made_of(first, offer(Source.BIGRAM, "a b", "c d", budget=2), size=4)
    assert full.summary.warnings[0].endswith("fewer than its budget of 2: the list is full")


def test_what_is_ranked_by_nothing_is_told():
    """When a source without an order is cut, the summary warns."""
    made = made_of(offer(Source.TITLE, "a", "b", "c"), size=2)
    assert made.summary.warnings == ["title is ranked by nothing, and 1 rows had no room"]


def test_short_of_budget():
    """A source that cannot spend its budget, or offers nothing, is warned about, or refused."""
    short = offer(Source.BIGRAM, "a b", budget=2, count=3, pmi=1.0)
    made = made_of(offer(Source.UNIGRAM), short)
    assert made.summary.warnings == [
        "unigram offers nothing",
        "bigram adds 1 queries, fewer than its budget of 2",
    ]
    with pytest.raises(QueryListError, match=r"bigram adds 1 .* \[queries\.strict_budgets\]"):
        check_budgets(made.summary)
    check_budgets(made_of(offer(Source.BIGRAM, "a b", budget=1)).summary)


def test_nothing():
    """No offers make an empty list of the right schema."""
    made = made_of()
    assert made.queries.num_rows == 0
    assert made.queries.schema.equals(tables.QUERIES)


@given(SURFACES, SURFACES, SURFACES, st.integers(0, 4), st.integers(1, 8))
def test_any_offers(first, second, third, budget, size):
    """On any offers, queries are unique and normal, ids dense, and every row is counted once."""
    offers = [
        offer(Source.CUSTOM, *first),
        offer(Source.BIGRAM, *second, budget=budget),
        offer(Source.TITLE, *third),
    ]
    made = made_of(*offers, size=size)
    queries = made.queries["query"].to_pylist()
    assert len(set(queries)) == len(queries) == made.summary.queries <= size
    assert all(query == normalise(query) != "" for query in queries)
    assert [normalise(s) for s in made.queries["surface"].to_pylist()] == queries
    assert made.queries["query_id"].to_pylist() == list(range(len(queries)))
    for s, given_offer in zip(made.summary.sources, offers, strict=True):
        parts = s.kept + s.in_earlier_source + s.repeated + s.over_budget + s.empty + s.refused
        assert s.offered == given_offer.rows.num_rows == parts
    assert sum(s.kept for s in made.summary.sources) == len(queries)
    assert made.queries["source"].to_pylist().count("bigram") <= budget
