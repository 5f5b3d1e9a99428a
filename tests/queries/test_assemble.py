"""One list of all offers: unique, in order of precedence, every row accounted for."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import tables
from wit_builder.queries.assemble import assemble
from wit_builder.queries.sources import OFFER
from wit_builder.tables import Source
from wit_builder.text import normalise

HAN, HIRAGANA, THAI = "\u732b", "\u732b \u3044\u306c", "\u0e41\u0e21\u0e27"
SURFACES = st.lists(
    st.sampled_from(["a", "A", "a!", "b", "a b", "A-b", "", "--", HAN, "c", "d", HIRAGANA])
)


def offer(*surfaces: str, count: int | None = None, pmi: float | None = None) -> pa.Table:
    """Return an offer of these surfaces, all with the same figures."""
    return pa.table([surfaces, [count] * len(surfaces), [pmi] * len(surfaces)], schema=OFFER)


def test_first_source_keeps_a_duplicate():
    """A query belongs to the first source that has it; the others are recorded, sorted."""
    made = assemble(
        [
            (Source.WORDNET, offer("Dog", "hot dog")),
            (Source.UNIGRAM, offer("dog", "cat", count=9)),
            (Source.BIGRAM, offer("hot dog", count=5, pmi=2.5)),
            (Source.TITLE, offer("DOG", "Cat", "Ox")),
        ],
        {},
    )
    rows = made.queries.to_pylist()
    assert [(r["query"], r["surface"], r["source"], r["also_in"]) for r in rows] == [
        ("dog", "Dog", "wordnet", ["title", "unigram"]),
        ("hot dog", "hot dog", "wordnet", ["bigram"]),
        ("cat", "cat", "unigram", ["title"]),
        ("ox", "Ox", "title", []),
    ]
    assert [(r["count"], r["pmi"]) for r in rows] == [(9, None), (5, 2.5), (9, None), (None, None)]
    assert made.queries.schema.equals(tables.QUERIES, check_metadata=True)


def test_merged_spellings_are_listed():
    """C, C++ and C# are one query, and the summary says so; case and hyphens are not told."""
    made = assemble([(Source.CUSTOM, offer("C++", "C#", "C", "ice-cream", "Ice cream"))], {})
    assert made.queries["query"].to_pylist() == ["c", "ice cream"]
    assert made.queries["surface"].to_pylist() == ["C++", "ice-cream"]
    assert made.summary.merged == 1
    assert made.summary.merged_examples[0].query == "c"
    assert made.summary.merged_examples[0].surfaces == ["C", "C#", "C++"]


def test_scripts_without_spaces():
    """A query in a script without spaces is refused by name, counted, with an example."""
    made = assemble([(Source.CUSTOM, offer(HAN, HIRAGANA, "dog", THAI))], {})
    assert made.queries["query"].to_pylist() == ["dog"]
    assert [(r.script, r.rows, r.example) for r in made.summary.refused] == [
        ("Han", 2, HAN),
        ("Hiragana", 1, HIRAGANA),
        ("Thai", 1, THAI),
    ]
    assert made.summary.sources[0].refused == 3


def test_budget_counts_what_is_new():
    """A budget is spent on new queries only, best first, and what is beyond it is counted."""
    made = assemble(
        [
            (Source.WORDNET, offer("a b")),
            (Source.BIGRAM, offer("c d", "a b", "e f", "g h", "i j")),
            (Source.TITLE, offer("G h")),
        ],
        {Source.BIGRAM: 2},
    )
    assert made.queries["query"].to_pylist() == ["a b", "c d", "e f", "g h"]
    assert made.queries["source"].to_pylist() == ["wordnet", "bigram", "bigram", "title"]
    assert made.summary.sources[1].over_budget == 2
    assert not made.summary.warnings


def test_short_of_budget():
    """A source that cannot spend its budget, or offers nothing, is warned about."""
    made = assemble([(Source.UNIGRAM, offer()), (Source.BIGRAM, offer("a b"))], {Source.BIGRAM: 2})
    assert made.summary.warnings == [
        "unigram offers nothing",
        "bigram adds 1 queries, fewer than its budget of 2",
    ]


def test_nothing():
    """No offers make an empty list of the right schema."""
    made = assemble([], {})
    assert made.queries.num_rows == 0
    assert made.queries.schema.equals(tables.QUERIES)


@given(SURFACES, SURFACES, SURFACES, st.integers(0, 4))
def test_any_offers(first, second, third, budget):
    """On any offers, queries are unique and normal, ids dense, and every row is counted once."""
    offers = [(Source.CUSTOM, offer(*first)), (Source.BIGRAM, offer(*second))]
    offers.append((Source.TITLE, offer(*third)))
    made = assemble(offers, {Source.BIGRAM: budget})
    queries = made.queries["query"].to_pylist()
    assert len(set(queries)) == len(queries) == made.summary.queries
    assert all(query == normalise(query) != "" for query in queries)
    assert [normalise(s) for s in made.queries["surface"].to_pylist()] == queries
    assert made.queries["query_id"].to_pylist() == list(range(len(queries)))
    for s, (_, table) in zip(made.summary.sources, offers, strict=True):
        parts = s.kept + s.in_earlier_source + s.repeated + s.over_budget + s.empty + s.refused
        assert s.offered == table.num_rows == parts
    assert sum(s.kept for s in made.summary.sources) == len(queries)
    assert made.queries["source"].to_pylist().count("bigram") <= budget
