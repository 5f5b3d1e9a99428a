"""The best rows of many, and PMI by its formula."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.queries import ranks

ORDER = [("count", "descending"), ("gram", "ascending")]


def counts(rows: dict[str, int]) -> pa.Table:
    """Return counts of grams as a table."""
    values = pa.array(rows.values(), pa.int64())
    return pa.table({"gram": pa.array(rows, pa.string()), "count": values})


@given(st.lists(st.lists(st.integers(1, 5), max_size=40), max_size=8), st.integers(0, 12))
def test_best(tables, most):
    """The rows that rank first are those that sorting everything puts first."""
    best = ranks.Best(counts({}).schema, most, ORDER)
    best._spare = 3  # look at what is held often
    everything = []
    for number, values in enumerate(tables):
        rows = {f"g{number}-{k}": value for k, value in enumerate(values)}
        best.add(counts(rows))
        everything += list(rows.items())
    expected = sorted(everything, key=lambda row: (-row[1], row[0]))[:most]
    found = best.rows()
    assert list(zip(*(found[c].to_pylist() for c in ("gram", "count")), strict=True)) == expected
    assert best.seen == len(everything)


def test_pmi_formula():
    """PMI is log2 of p(xy) / (p(x) p(y)) over the number of tokens."""
    vocabulary = ranks.Vocabulary([counts({"new": 2, "york": 2, "is": 2, "old": 1})], 7)
    found = vocabulary.pmi(counts({"new york": 1, "york is": 2})).to_pylist()
    expected = [math.log2((c / 7) / (2 / 7) ** 2) for c in (1, 2)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_pmi_of_longer_grams():
    """PMI of more words is shared out over their neighbours, so that lengths can be compared."""
    vocabulary = ranks.Vocabulary([counts({"a": 10, "b": 20, "c": 40})], 1000)
    [found] = vocabulary.pmi(counts({"a b c": 5})).to_pylist()
    assert found == pytest.approx(math.log2(0.005 / (0.01 * 0.02 * 0.04)) / 2, abs=1e-6)


def test_words_that_were_not_counted():
    """A gram has no PMI if a word of it was not counted, and is left out."""
    vocabulary = ranks.Vocabulary([counts({"a": 10})], 100)
    grams = counts({"a zebra": 3, "a a": 2})
    assert [value is None for value in vocabulary.pmi(grams).to_pylist()] == [True, False]
    [kept] = ranks.scored([grams], vocabulary)
    assert kept["gram"].to_pylist() == ["a a"]


def test_least_pmi():
    """Grams below the least PMI asked for are left out; one that has it stays."""
    vocabulary = ranks.Vocabulary([counts({"a": 10, "b": 10})], 100)
    grams = counts({"a b": 1, "b a": 2, "b b": 4})
    [kept] = ranks.scored([grams], vocabulary, least=1.0)
    assert kept["gram"].to_pylist() == ["b a", "b b"]
    assert kept["pmi"].to_pylist() == [1.0, 2.0]


def test_no_words():
    """An empty vocabulary knows no word."""
    vocabulary = ranks.Vocabulary([counts({})], 0)
    assert vocabulary.pmi(counts({"a b": 1})).to_pylist() == [None]
