"""What sources offer, in which order, and what is wrong with them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from wit_builder.errors import QueryListError
from wit_builder.queries import bigrams, sources
from wit_builder.recipe import QueriesSection, WikipediaSource
from wit_builder.tables import Source

NO_TITLES = sources.TITLES.empty_table()


def titles(*names: str) -> pa.Table:
    """Return a table of titles."""
    return pa.table([list(names)], schema=sources.TITLES)


def test_title_rule():
    """The suffix that tells pages apart goes, list pages go, and each title comes once, sorted."""
    given = titles(
        "Zebra", "Mercury (planet)", "Mercury (element)", "List of dogs", "Lists of lists",
        "Listening", "(I Can't Get No) Satisfaction", "Blue (Da Ba Dee) (song)",
    )  # fmt: skip
    expected = [
        "(I Can't Get No) Satisfaction", "Blue (Da Ba Dee)", "Listening", "Mercury", "Zebra",
    ]  # fmt: skip
    assert sources.title_queries(given, "en") == expected


def test_list_pages_of_another_language():
    """Where no rule for list pages is known, none is dropped."""
    assert sources.title_queries(titles("List of dogs"), "bg") == ["List of dogs"]


def test_order_of_sources(tmp_path):
    """Sources come in their order of precedence, those not asked for not at all."""
    (tmp_path / "own.txt").write_text("\ufeffred panda\n\n  C++  \r\n")
    section = QueriesSection(
        numbers=3,
        custom=[str(tmp_path / "own.txt")],
        wikipedia=WikipediaSource(dumps=[], unigram_min_count=1, bigram_min_count=1),
    )
    grams = bigrams.count(["a b"])
    offered = dict(sources.offers(section, grams, titles("Dog")))
    assert {str(source): table["surface"].to_pylist() for source, table in offered.items()} == {
        "custom": ["red panda", "C++"],
        "number": ["0", "1", "2"],
        "unigram": ["a", "b"],
        "bigram": ["a b"],
        "title": ["Dog"],
    }
    assert list(offered) == [s for s in Source if s in offered]


def test_no_titles_no_bigrams():
    """Titles and bigrams can be left out."""
    section = QueriesSection(
        numbers=0, wikipedia=WikipediaSource(dumps=[], bigram_budget=0, titles=False)
    )
    assert [s for s, _ in sources.offers(section, bigrams.GRAMS.empty_table(), NO_TITLES)] == [
        Source.UNIGRAM
    ]


def test_custom_list_missing(tmp_path):
    """A custom list that is not there is named."""
    section = QueriesSection(custom=[str(tmp_path / "none.txt")])
    with pytest.raises(QueryListError, match=r"none\.txt\] -> check queries\.custom"):
        list(sources.offers(section, bigrams.GRAMS.empty_table(), NO_TITLES))


def test_custom_list_not_utf8(tmp_path):
    """A custom list in another encoding is named with the line that shows it."""
    (tmp_path / "own.txt").write_bytes(b"dog\ncaf\xe9\n")
    section = QueriesSection(custom=[str(tmp_path / "own.txt")])
    with pytest.raises(QueryListError, match=r"not UTF-8 \[.*own\.txt, line 2\]"):
        list(sources.offers(section, bigrams.GRAMS.empty_table(), NO_TITLES))
