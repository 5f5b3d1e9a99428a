"""What sources offer, in which order, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from wit_builder import exchange, storage
from wit_builder.errors import QueryListError
from wit_builder.queries import merge, sources
from wit_builder.queries.grams import GRAMS
from wit_builder.queries.scripts import Refusals
from wit_builder.queries.sources import Counted, Offer
from wit_builder.queries.titles import TITLES
from wit_builder.sections import QueriesSection, WikipediaSource
from wit_builder.tables import Source

HAN = "\u732b"


def counted(folder: Path, grams: dict[str, int], titles: Mapping[str, int | None]) -> Counted:
    """Publish counts and titles in two buckets each; return where they are."""
    rows = pa.table([list(grams), [g.count(" ") + 1 for g in grams], grams.values()], schema=GRAMS)
    exchange.scatter(rows, exchange.bucket_of(rows["gram"], 2), 2, str(folder / "grams"))
    merged = [str(folder / f"{bucket}.parquet") for bucket in range(2)]
    for bucket, out in enumerate(merged):
        merge.run_sum(merge.SumJob([str(folder / "grams")], bucket, out))
    ranked = []
    for number, (title, views) in enumerate(titles.items()):
        ranked.append(str(folder / f"t{number}.parquet"))
        row = pa.table([[title.lower()], [title], [views]], schema=TITLES)
        storage.write_parquet(ranked[-1], row)
    return Counted(merged, ranked, sum(c for g, c in grams.items() if " " not in g))


def offered(section: QueriesSection, where: Counted) -> dict[Source, Offer]:
    """Return all offers by source."""
    return {offer.source: offer for offer in sources.offers(section, where, Refusals())}


def surfaces(offers: dict[Source, Offer]) -> dict[str, list[str]]:
    """Return what each source offers."""
    return {str(source): offer.rows["surface"].to_pylist() for source, offer in offers.items()}


def test_order_of_sources(tmp_path):
    """Sources come in their order of precedence, those not asked for not at all."""
    (tmp_path / "own.txt").write_text("\ufeffred panda\n\n  C++  \r\n")
    wikipedia = WikipediaSource(
        unigram_min_count=1, bigram_min_count=1, longest_gram=3, ngram_min_count=1
    )
    section = QueriesSection(numbers=3, custom=[str(tmp_path / "own.txt")], wikipedia=wikipedia)
    grams = {"a": 2, "b": 1, "a b": 1, "a b a": 1}
    found = offered(section, counted(tmp_path, grams, {"Dog": None}))
    assert surfaces(found) == {
        "custom": ["red panda", "C++"],
        "number": ["0", "1", "2"],
        "unigram": ["a", "b"],
        "bigram": ["a b"],
        "ngram": ["a b a"],
        "title": ["Dog"],
    }
    assert list(found) == [s for s in Source if s in found]


def test_floors_and_ranks(tmp_path):
    """Words are by count and bigrams by PMI, both from their floor on; ties by code points."""
    grams = {"a": 9, "b": 5, "c": 5, "d": 4, "a b": 3, "b c": 3, "c b": 3, "c d": 2, "a d": 1}
    wikipedia = WikipediaSource(unigram_min_count=5, bigram_min_count=2, titles=False)
    found = offered(QueriesSection(numbers=0, wikipedia=wikipedia), counted(tmp_path, grams, {}))
    assert surfaces(found) == {"unigram": ["a", "b", "c"], "bigram": ["b c", "c b", "c d", "a b"]}
    pmi = found[Source.BIGRAM].rows["pmi"].to_pylist()
    assert pmi == sorted(pmi, reverse=True)
    assert found[Source.BIGRAM].offered == 4


def test_least_pmi(tmp_path):
    """A least PMI leaves bigrams out, too."""
    grams = {"a": 8, "b": 8, "a b": 4, "b a": 1}
    wikipedia = WikipediaSource(bigram_min_count=1, bigram_min_pmi=0.0, titles=False)
    found = offered(QueriesSection(numbers=0, wikipedia=wikipedia), counted(tmp_path, grams, {}))
    assert surfaces(found)["bigram"] == ["a b"]


def test_scripts_are_refused_before_ranking(tmp_path):
    """Rows in refused scripts take no place among those that rank first, and are counted."""
    refusals = Refusals()
    wikipedia = WikipediaSource(unigram_min_count=1, titles=False)
    section = QueriesSection(numbers=0, size=1, wikipedia=wikipedia)
    where = counted(tmp_path, {HAN: 9, "a": 2}, {})
    [words, _] = sources.offers(section, where, refusals)
    assert words.rows["surface"].to_pylist() == ["a"]
    assert refusals.rows == 1


def test_titles(tmp_path):
    """Titles are by views above a floor, without lists, and lose what only tells pages apart."""
    titles = {
        "Zebra": 50,
        "Mercury (planet)": 70,
        "List of dogs": 90,
        "Listening": 60,
        "Lists of lists": 80,
        "Rare": 4,
        "Blue (Da Ba Dee) (song)": 10,
    }
    section = QueriesSection(numbers=0, wikipedia=WikipediaSource(title_min_views=5))
    found = offered(section, counted(tmp_path, {}, titles))[Source.TITLE]
    expected = ["Mercury", "Listening", "Zebra", "Blue (Da Ba Dee)"]
    assert found.rows["surface"].to_pylist() == expected
    assert found.rows["views"].to_pylist() == [70, 60, 50, 10]
    assert found.ranked_by == "views"


def test_list_pages_of_another_language(tmp_path):
    """Each language has its own list pages; where no rule is known, none is dropped."""
    titles = {"List of dogs": 3, "Liste der Hunde": 2}
    where = counted(tmp_path, {}, titles)
    for language, expected in (("de", ["List of dogs"]), ("xx", list(titles))):
        section = QueriesSection(numbers=0, language=language, wikipedia=WikipediaSource())
        found = offered(section, where)[Source.TITLE]
        assert found.rows["surface"].to_pylist() == expected


def test_titles_without_views(tmp_path):
    """Without page views titles are in code-point order, ranked by nothing."""
    section = QueriesSection(numbers=0, wikipedia=WikipediaSource())
    found = offered(section, counted(tmp_path, {}, {"Zebra": None, "Ant": None}))[Source.TITLE]
    assert found.rows["surface"].to_pylist() == ["Ant", "Zebra"]
    assert found.ranked_by is None


def test_custom_lists_by_weight(tmp_path):
    """The heaviest custom queries come first, over all lists; others stay as written."""
    (tmp_path / "a.csv").write_text("query,weight\nlight,1\nheavy,9.5\n")
    (tmp_path / "b.txt").write_text("last\nvery last\n")
    lists = [str(tmp_path / "b.txt"), str(tmp_path / "a.csv")]
    section = QueriesSection(numbers=0, custom=lists, custom_budget=2)
    found = offered(section, Counted())[Source.CUSTOM]
    assert found.rows["surface"].to_pylist() == ["heavy", "light", "last", "very last"]
    assert found.budget == 2


def test_custom_list_missing(tmp_path):
    """A custom list that is not there is named."""
    section = QueriesSection(custom=[str(tmp_path / "none.txt")])
    with pytest.raises(QueryListError, match=r"none\.txt\] -> check queries\.custom"):
        offered(section, Counted())
