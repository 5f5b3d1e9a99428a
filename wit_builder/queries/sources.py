"""What each source offers to the query list, best first, in order of precedence.

Order within a source: by weight, else as written (custom), as it is (numbers, WordNet), by count
(unigrams), by PMI (bigrams and longer grams), by page views, else by code points (titles).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.queries import lists, merge, ranks, titles, wordnet
from wit_builder.queries.grams import GRAMS
from wit_builder.queries.scripts import Refusals
from wit_builder.sections import QueriesSection, WikipediaSource
from wit_builder.tables import Source

OFFER = pa.schema(
    [
        ("surface", pa.string()),
        ("count", pa.int64()),
        ("pmi", pa.float64()),
        ("views", pa.int64()),
    ]
)

_COUNT = [("count", "descending"), ("gram", "ascending")]
_PMI = [("pmi", "descending"), *_COUNT]
_VIEWS = [("views", "descending"), ("title", "ascending")]

_LIST_PAGES = {
    "bg": "Списък (?:на|с|от) ",  # noqa: RUF001 - Bulgarian
    "cs": "Seznam ",
    "de": "Listen? (?:aller|der|des|von) ",
    "en": "Lists? of ",
    "es": "Lista de ",
    "fr": "Liste (?:de |des |du |d['\u2019])",
    "it": "Liste? (?:di |dei |del |della |delle |degli |d['\u2019])",
    "nl": "Lijst van ",
    "pt": "Lista d[aeo]s? ",
    "sv": "Lista över ",
}
"""How titles begin that name a list, not a thing. Other languages have no rule, and keep theirs: in
Polish or Russian such a title begins as "Schindler's List" does."""


class Counted(msgspec.Struct, frozen=True):
    """Where the counts of a run are.

    Attributes:
        grams: merged tables (``grams.GRAMS``), one per bucket.
        titles: ranked titles (``titles.TITLES``), one per bucket.
        tokens: how many were counted in all.
    """

    grams: list[str] = []
    titles: list[str] = []
    tokens: int = 0


class Offer(NamedTuple):
    """A source's rows for the list.

    Attributes:
        source: whose they are.
        rows: ``OFFER``, best first; of very many only those that can come into question.
        budget: new queries it may add, or None.
        offered: rows it has in all; None if ``rows`` are all.
        refused: how many of them are in refused scripts, and not in ``rows``.
        ranked_by: what decides the order: a column of the rows, "weight", or nothing (None).
    """

    source: Source
    rows: pa.Table
    budget: int | None = None
    offered: int | None = None
    refused: int = 0
    ranked_by: str | None = None


def offers(section: QueriesSection, counted: Counted, refusals: Refusals) -> Iterator[Offer]:
    """Yield what each source of the recipe offers, in order of precedence.

    Args:
        section: the recipe's ``[queries]``.
        counted: where the counts are.
        refusals: told of rows in scripts that are refused before they are ranked.

    Raises:
        QueryListError: a custom list or a WordNet file cannot be used.
        StorageError: a table of counts cannot be read.
    """
    if section.custom:
        rows, weighed = _custom(section.custom)
        by = "weight" if weighed else None
        yield Offer(Source.CUSTOM, _plain(rows), section.custom_budget, ranked_by=by)
    if section.numbers:
        yield Offer(Source.NUMBER, _plain([str(number) for number in range(section.numbers)]))
    if section.wordnet:
        names = wordnet.names(section.wordnet.path, section.wordnet.names)
        yield Offer(Source.WORDNET, _plain(names))
    if section.wikipedia is not None:
        yield from _of_wikipedia(section, section.wikipedia, counted, refusals)


def check(section: QueriesSection) -> None:
    """Refuse a section whose custom lists or WordNet files cannot be used.

    Raises:
        QueryListError: one cannot; says which and why.
    """
    _custom(section.custom)
    if section.wordnet:
        wordnet.check(section.wordnet.path)


def _of_wikipedia(
    section: QueriesSection, wikipedia: WikipediaSource, counted: Counted, refusals: Refusals
) -> Iterator[Offer]:
    # No more than these can be taken, or be passed over for what earlier sources have.
    most = 2 * section.size
    if wikipedia.unigram_budget != 0:
        words = _at_least(counted, 1, wikipedia.unigram_min_count)
        best, refused = _best(words, ranks.Best(GRAMS, most, _COUNT), refusals)
        yield _ranked(Source.UNIGRAM, best, refused, wikipedia.unigram_budget)
    for source, sizes, budget in _runs(wikipedia):
        scored = _scored(wikipedia, counted, sizes)
        empty = ranks.Best(ranks.SCORED, budget + section.size, _PMI)
        best, refused = _best(scored, empty, refusals)
        yield _ranked(source, best, refused, budget)
    if wikipedia.titles and wikipedia.title_budget != 0:
        things = (
            _things(storage.read_parquet(url), section.language, wikipedia.title_min_views)
            for url in counted.titles
        )
        best, refused = _best(things, ranks.Best(titles.TITLES, most, _VIEWS), refusals, "query")
        yield _titles(best, refused, wikipedia.title_budget)


def _at_least(counted: Counted, n: int, count: int) -> Iterator[pa.Table]:
    for url in counted.grams:
        yield from merge.at_least(url, n, count)


def _runs(wikipedia: WikipediaSource) -> Iterator[tuple[Source, list[tuple[int, int]], int]]:
    """Yield the sources of more than one word: lengths with their floors, and the budget."""
    if wikipedia.bigram_budget:
        yield Source.BIGRAM, [(2, wikipedia.bigram_min_count)], wikipedia.bigram_budget
    if wikipedia.longest_gram > 2 and wikipedia.ngram_budget:
        sizes = [(n, wikipedia.ngram_min_count) for n in range(3, wikipedia.longest_gram + 1)]
        yield Source.NGRAM, sizes, wikipedia.ngram_budget


def _scored(
    wikipedia: WikipediaSource, counted: Counted, sizes: list[tuple[int, int]]
) -> Iterator[pa.Table]:
    # in the same text, a word occurs at least as often as what it stands in
    floor = min(count for _, count in sizes)
    vocabulary = ranks.Vocabulary(_at_least(counted, 1, floor), counted.tokens)
    least = wikipedia.bigram_min_pmi if sizes[0][0] == 2 else None
    for n, count in sizes:
        yield from ranks.scored(_at_least(counted, n, count), vocabulary, least)


def _best(
    tables: Iterator[pa.Table], best: ranks.Best, refusals: Refusals, column: str = "gram"
) -> tuple[ranks.Best, int]:
    """Return the best rows of tables, and how many rows were refused before."""
    before = refusals.rows
    for table in tables:
        best.add(refusals.sift(table, column))
    return best, refusals.rows - before


def _ranked(source: Source, best: ranks.Best, refused: int, budget: int | None) -> Offer:
    rows = best.rows()
    by = "pmi" if "pmi" in rows.column_names else "count"
    pmi = rows["pmi"] if by == "pmi" else pa.nulls(len(rows), pa.float64())
    columns = [rows["gram"], rows["count"], pmi, pa.nulls(len(rows), pa.int64())]
    offer = pa.table(columns, schema=OFFER)
    return Offer(source, offer, budget, best.seen + refused, refused, by)


def _titles(best: ranks.Best, refused: int, budget: int | None) -> Offer:
    rows = best.rows()
    nothing = [pa.nulls(len(rows), OFFER.field(i).type) for i in (1, 2)]
    offer = pa.table([titles.plain(rows["title"]), *nothing, rows["views"]], schema=OFFER)
    viewed = rows["views"].null_count < len(rows)
    by = "views" if viewed else None
    return Offer(Source.TITLE, offer, budget, best.seen + refused, refused, by)


def _things(ranked: pa.Table, language: str, min_views: int) -> pa.Table:
    """Return the titles that are viewed enough and name a thing: no "List of ... characters"."""
    if min_views:
        ranked = ranked.filter(pc.greater_equal(ranked["views"], min_views).fill_null(False))
    return ranked.filter(pc.invert(names_a_list(ranked["title"], language)))


def names_a_list(names: pa.ChunkedArray, language: str) -> pa.ChunkedArray:
    """Return which titles name a list, not a thing, where a rule for the language is known."""
    begins = _LIST_PAGES.get(language, r"[^\s\S]")
    return pc.match_substring_regex(titles.plain(names), f"^(?i:{begins})")


def _custom(places: list[str]) -> tuple[list[str], bool]:
    """Return the queries of all lists, heaviest first, and whether any has a weight.

    Equal weights, and none, stay as written.
    """
    if not places:
        return [], False
    rows = pa.concat_tables(lists.read(place, "query", "weight") for place in places)
    weights = rows["weight"].fill_null(0).to_numpy()
    order = pa.array(np.argsort(-weights, kind="stable"))
    return rows["query"].take(order).to_pylist(), rows["weight"].null_count < len(rows)


def _plain(surfaces: list[str]) -> pa.Table:
    nothing = [pa.nulls(len(surfaces), OFFER.field(i).type) for i in (1, 2, 3)]
    return pa.table([pa.array(surfaces, pa.string()), *nothing], schema=OFFER)
