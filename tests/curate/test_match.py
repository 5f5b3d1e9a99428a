from __future__ import annotations

import doctest

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.curate import match
from wit_builder.curate.match import Matcher
from wit_builder.text import normalise

# Few words and many separators, so that queries overlap, nest and repeat often.
WORDS = st.sampled_from(["a", "b", "ab", "été", "東", "ß", "ﬁ", "\u0131", "9", "A", "İ"])
SEPARATORS = st.sampled_from([" ", "  ", "-", "(", "'", "\u00a0", "\n", ""])
PHRASE = st.lists(st.tuples(WORDS, SEPARATORS), max_size=9).map(
    lambda p: "".join(w + s for w, s in p)
)
TEXT = st.one_of(PHRASE, st.text(max_size=30))


def naive(queries: list[str], texts: list[str]) -> list[list[int]]:
    """Token by token, as the documentation says it."""
    wanted: dict[tuple[str, ...], int] = {}
    for i, query in enumerate(queries):
        wanted.setdefault(tuple(normalise(query).split()), i)
    found = []
    for text in texts:
        tokens = normalise(text).split()
        spans = {
            tuple(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1)
        }
        found.append(sorted(wanted[s] for s in spans if s in wanted))
    return found


@given(st.lists(TEXT, max_size=12), st.lists(TEXT, max_size=8))
def test_equals_a_naive_token_search(queries: list[str], texts: list[str]) -> None:
    """On any Unicode queries and texts the matcher finds what a naive token search finds."""
    found = Matcher(pa.array(queries, pa.string())).match(pa.array(texts, pa.string()))
    assert found.to_pylist() == naive(queries, texts)


@given(st.data(), st.lists(TEXT, min_size=1, max_size=4))
def test_equals_a_naive_search_for_pieces_of_the_texts(
    data: st.DataObject, texts: list[str]
) -> None:
    """Queries cut out of random texts, so that they overlap, nest and touch, are all found."""
    place = st.integers(0, 40)
    cuts = data.draw(st.lists(st.tuples(st.sampled_from(texts), place, place), max_size=12))
    queries = [text[begin:end] for text, begin, end in cuts] + texts[:1]
    found = Matcher(pa.array(queries, pa.string())).match(pa.array(texts, pa.string()))
    assert found.to_pylist() == naive(queries, texts)


def test_the_example_in_the_documentation_holds() -> None:
    """The matcher can be used alone, as its module's docstring shows."""
    result = doctest.testmod(match)
    assert result.attempted >= 3
    assert result.failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(dog)", ["dog"]),
        ("A trip to Paris, Texas!", ["paris", "Paris, Texas"]),
        ("category", []),
        ("hot dog dog", ["dog", "hot dog"]),
        ("new york new", ["new york"]),
        ("New York City Hall", ["new york", "new york city", "city hall"]),
        ("", []),
        ("DOG", ["dog"]),
    ],
)
def test_whole_tokens(text: str, expected: list[str]) -> None:
    """A query matches where its tokens stand in the text as consecutive whole tokens."""
    queries = [
        "dog",
        "cat",
        "paris",
        "Paris, Texas",
        "hot dog",
        "new york",
        "new york city",
        "city hall",
        "york new jersey",
        "",
    ]
    (found,) = Matcher(pa.array(queries)).match(pa.array([text])).to_pylist()
    assert [queries[i] for i in found] == expected


def test_a_slice_is_matched_as_a_column_of_its_own() -> None:
    """A sliced array gives the matches of its own rows."""
    matcher = Matcher(pa.array(["x", "one", "two"]).slice(1))
    texts = pa.array(["two", "one two", "one"]).slice(1)
    assert matcher.match(texts).to_pylist() == [[0, 1], [0]]


def test_many_matches_in_one_text() -> None:
    """A text with more matches than any estimate gives all of them, sorted, each once."""
    words = [f"w{i}" for i in range(1000)]
    text = " ".join(words[::-1] * 2)
    (found,) = Matcher(pa.array(words)).match(pa.array([text])).to_pylist()
    assert found == list(range(1000))


def test_type_is_a_list_of_int32() -> None:
    """The result has the type of ``query_ids`` even where nothing matched."""
    assert Matcher(pa.array([], pa.string())).match(pa.array(["a"])).type == pa.list_(
        pa.field("element", pa.int32(), nullable=False)
    )
