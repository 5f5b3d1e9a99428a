"""Counts are exact, whatever the sizes of tables and steps."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.queries import grams, wikipedia, wikitext
from wit_builder.queries.merge import sums
from wit_builder.queries.streams import Part
from wit_builder.queries.wikipedia import Article

WORDS = st.lists(st.sampled_from(["dog", "Cat", "the", "1", ".", "!", "\n", "Dr."]), max_size=30)
TEXTS = st.lists(WORDS.map(" ".join), max_size=6)


def is_part_of_word(character: str) -> bool:
    """Return whether it is a letter, a mark or a digit."""
    return unicodedata.category(character)[0] in "LM" or character.isdecimal()


def straightforward(texts: list[str], longest: int = 2) -> Counter[str]:
    """Count grams one by one, with Python's own Unicode tables."""
    counts: Counter[str] = Counter()
    for text in texts:
        for sentence in re.split(r"[.!?;:][ \t\n\r\f\v]+|\n+", text):
            # Simple case mapping, character by character: Python's full mapping writes a last Greek
            # sigma differently, and a dotted capital I as two characters.
            folded = "".join(c.lower()[0] for c in unicodedata.normalize("NFKC", sentence))
            words = "".join(c if is_part_of_word(c) else " " for c in folded).split()
            for n in range(1, longest + 1):
                runs = zip(*(words[k:] for k in range(n)), strict=False)
                counts.update(" ".join(run) for run in runs)
    return counts


SMALL = {"word_slots": 1 << 12, "gram_slots": 1 << 12, "step": 1 << 10}


def counted(texts: list[str], longest: int = 2, sizes: dict[str, int] = SMALL) -> Counter[str]:
    """Return the sums of all partial counts, as a Counter."""
    counter = grams.Counter(longest, **sizes)
    partials = [*counter.add(pa.array(texts, pa.string())), counter.take()]
    table = sums(partials)
    words = sum(row["count"] for row in table.to_pylist() if row["n"] == 1)
    assert counter.tokens == words
    return as_counter(table)


def as_counter(table: pa.Table) -> Counter[str]:
    """Return a table of counts as a Counter, and check that no gram stands there twice."""
    rows = table.to_pylist()
    counts = Counter({row["gram"]: row["count"] for row in rows})
    assert len(counts) == len(rows)
    assert all(row["n"] == row["gram"].count(" ") + 1 and row["count"] for row in rows)
    return counts


@given(TEXTS, st.integers(2, 5))
def test_counts_equal_a_straightforward_count(texts, longest):
    """Every gram, of every length asked for, has the count that counting one by one gives."""
    assert counted(texts, longest) == straightforward(texts, longest)


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", ".", "\n"]), max_size=200),
    st.integers(2, 4),
)
def test_full_tables_do_not_show(words, longest):
    """However often tables are full and begun anew, within a sentence too, the sums are exact."""
    texts = [" ".join(words), " ".join(reversed(words))]
    sizes = {"word_slots": 16, "gram_slots": 32, "step": 4}
    assert counted(texts, longest, sizes) == straightforward(texts, longest)


def test_full_tables_are_handed_on():
    """Memory is bounded: many distinct grams come in several partial tables."""
    counter = grams.Counter(2, word_slots=64, gram_slots=64, step=16)
    text = " ".join(f"w{i}" for i in range(500))
    partials = [*counter.add(pa.array([text])), counter.take()]
    assert len(partials) > 10
    assert as_counter(sums(partials)) == straightforward([text])


def test_real_excerpt(data_dir):
    """On the real excerpt, counts equal a straightforward count."""
    dump = wikipedia.Dump(Part(str(data_dir / "enwiki-excerpt.xml.bz2")))
    articles = [page for page in dump if isinstance(page, Article)]
    texts = [wikitext.plain(article.wikitext) for article in articles]
    counts = counted(texts)
    assert counts == straightforward(texts)
    assert counts["abraham lincoln"] > 10


def test_bulgarian_excerpt(data_dir):
    """On the Bulgarian excerpt, which is all but ASCII, counts equal a straightforward count."""
    dump = wikipedia.Dump(Part(str(data_dir / "bgwiki-excerpt.xml.bz2")))
    articles = [page for page in dump if isinstance(page, Article)]
    texts = [wikitext.plain(article.wikitext, dump.hidden_links) for article in articles]
    assert counted(texts) == straightforward(texts)


def test_grams_stay_within_sentences():
    """No gram crosses the end of a sentence, a line or a text."""
    counts = counted(["a b. c d! e\nf; g", "h"])
    assert {gram for gram in counts if " " in gram} == {"a b", "c d"}


def test_marks_inside_words_do_not_end_sentences():
    """A full stop without white space after it joins its neighbours in one sentence."""
    assert counted(["3.5 km"]) == {"3": 1, "5": 1, "km": 1, "3 5": 1, "5 km": 1}


def test_a_token_too_long_is_no_word():
    """What is longer than a word can be is left out, counted, and ends the run it stands in."""
    counter = grams.Counter()
    text = f"a b {'x' * (grams.MAX_TOKEN_BYTES + 1)} c d"
    table = pa.concat_tables([*counter.add(pa.array([text])), counter.take()])
    assert as_counter(table) == {"a": 1, "b": 1, "c": 1, "d": 1, "a b": 1, "c d": 1}
    assert counter.too_long == 1


def test_slices_of_columns():
    """A slice of a column is counted as what it shows."""
    texts = pa.array(["no", "a b", "b c. d", "no"]).slice(1, 2)
    counter = grams.Counter()
    table = pa.concat_tables([*counter.add(texts), counter.take()])
    assert as_counter(table) == straightforward(["a b", "b c. d"])


@pytest.mark.parametrize("texts", [[], [""], ["...", "\n", ""]])
def test_no_text(texts):
    """No texts, or texts without words, give an empty table."""
    assert counted(texts) == {}


def test_sentences_are_slices():
    """Sentences follow each other without gap, so that nothing of a text is lost."""
    texts = ["a. b!c? d", "", "e\n\nf:g"]
    parts = grams.sentences(pa.array(texts)).to_pylist()
    assert "".join(parts) == "".join(texts)
    assert list(itertools.chain(parts)) == ["a.", " b!c?", " d", "", "e\n", "\n", "f:g"]
