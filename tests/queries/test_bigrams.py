"""Counts are exact, their merge has no order, and PMI is what its formula says."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.queries import bigrams, wikipedia, wikitext

WORDS = st.lists(st.sampled_from(["dog", "Cat", "the", "1", ".", "!", "\n", "Dr."]), max_size=30)
TEXTS = st.lists(WORDS.map(" ".join), max_size=6)


def is_part_of_word(character: str) -> bool:
    """Return whether it is a letter, a mark or a digit."""
    return unicodedata.category(character)[0] in "LM" or character.isdecimal()


def straightforward(texts: list[str]) -> Counter[str]:
    """Count grams one by one, with Python's own Unicode tables."""
    counts: Counter[str] = Counter()
    for text in texts:
        for sentence in re.split(r"[.!?;:][ \t\n\r\f\v]+|\n+", text):
            # Simple case mapping, character by character: Python's full mapping writes a last Greek
            # sigma differently, and a dotted capital I as two characters.
            folded = "".join(c.lower()[0] for c in unicodedata.normalize("NFKC", sentence))
            words = "".join(c if is_part_of_word(c) else " " for c in folded).split()
            counts.update(words)
            counts.update(f"{a} {b}" for a, b in itertools.pairwise(words))
    return counts


def as_counter(grams: pa.Table) -> Counter[str]:
    """Return a table of counts as a Counter, and check that no gram stands there twice."""
    rows = grams.to_pylist()
    counts = Counter({row["gram"]: row["count"] for row in rows})
    assert len(counts) == len(rows)
    assert all(row["n"] == row["gram"].count(" ") + 1 for row in rows)
    return counts


@given(TEXTS)
def test_counts_equal_a_straightforward_count(texts):
    """Every gram has the count that counting one by one gives."""
    assert as_counter(bigrams.count(texts)) == straightforward(texts)


def test_real_excerpt(data_dir):
    """On the real excerpt, counts equal a straightforward count."""
    dump = wikipedia.Dump(str(data_dir / "enwiki-excerpt.xml.bz2"))
    texts = [wikitext.plain(article.wikitext) for article in dump]
    counts = as_counter(bigrams.count(texts))
    assert counts == straightforward(texts)
    assert counts["abraham lincoln"] > 10


def test_bigrams_stay_within_sentences():
    """No bigram crosses the end of a sentence, a line or a text."""
    counts = as_counter(bigrams.count(["a b. c d! e\nf; g", "h"]))
    assert {gram for gram in counts if " " in gram} == {"a b", "c d"}


def test_marks_inside_words_do_not_end_sentences():
    """A full stop without white space after it joins its neighbours in one sentence."""
    assert as_counter(bigrams.count(["3.5 km"])) == {"3": 1, "5": 1, "km": 1, "3 5": 1, "5 km": 1}


@given(TEXTS, st.integers(1, 4), st.randoms(use_true_random=False))
def test_merge(texts, size, random):
    """Counts of parts, merged in any order, are the counts of the whole, byte for byte."""
    parts = [bigrams.count(texts[i : i + size]) for i in range(0, len(texts), size)]
    random.shuffle(parts)
    assert bigrams.merge(parts).equals(bigrams.count(texts))


def test_batches_do_not_show(monkeypatch):
    """How many texts are counted at a time changes nothing."""
    texts = ["the dog barks. the cat sleeps", "the dog sleeps", "cat"] * 5
    whole = bigrams.count(texts)
    monkeypatch.setattr(bigrams, "_BATCH_CHARS", 20)
    monkeypatch.setattr(bigrams, "_MERGE_ROWS", 10)
    assert bigrams.count(texts).equals(whole)


def test_no_text():
    """No texts, or texts without words, give empty tables all the way."""
    grams = bigrams.count(["", "...", "\n"])
    assert bigrams.tokens(grams) == 0
    assert bigrams.unigrams(grams, 1).num_rows == 0
    assert bigrams.bigrams(grams, 1).num_rows == 0


def test_unigram_floor_and_order():
    """Words at the floor stay; the most frequent come first, ties in code-point order."""
    grams = bigrams.count(["b b a a c c c d"])
    assert bigrams.unigrams(grams, 2)["gram"].to_pylist() == ["c", "a", "b"]


def test_pmi_formula():
    """PMI is log2 of p(xy) / (p(x) p(y)) over the number of tokens."""
    text = "new york is new. york is old"
    rows = {r["gram"]: r for r in bigrams.bigrams(bigrams.count([text]), 1).to_pylist()}
    once, twice = 1 / 7, 2 / 7
    expected = {"new york": once / twice**2, "york is": twice / twice**2}
    for gram, lift in expected.items():
        assert rows[gram]["pmi"] == pytest.approx(math.log2(lift), abs=1e-6)


def test_bigram_floor_order_and_ties():
    """Bigrams under the floor go; the rest are by PMI, then count, then code points."""
    grams = bigrams.count(["x y\nz w\nx y\nz w\na b\nthe the the the"])
    ranked = bigrams.bigrams(grams, 2)
    assert ranked["gram"].to_pylist() == ["x y", "z w", "the the"]
    assert ranked["pmi"].to_pylist() == sorted(ranked["pmi"].to_pylist(), reverse=True)
