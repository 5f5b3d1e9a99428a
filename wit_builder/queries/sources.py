"""What each source offers to the query list, best first, before anything is normalised.

An offer is a table of ``OFFER`` rows. Order within a source: as given (custom, numbers, WordNet),
by count (unigrams), by PMI (bigrams), by code points (titles, until page views rank them).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.errors import QueryListError, StorageError
from wit_builder.queries import bigrams, wordnet
from wit_builder.recipe import QueriesSection
from wit_builder.tables import Source

OFFER = pa.schema([("surface", pa.string()), ("count", pa.int64()), ("pmi", pa.float64())])
TITLES = pa.schema([("title", pa.string())])

_LIST_PAGES = {"en": r"^(?i:lists? of )"}
"""Pages that name a list, not a thing, by language. Others have no rule yet, and keep theirs."""

_DISAMBIGUATION = r"\s+\([^()]*\)$"


def offers(
    section: QueriesSection, grams: pa.Table, titles: pa.Table
) -> Iterator[tuple[Source, pa.Table]]:
    """Yield what each source of the recipe offers, in order of precedence.

    Args:
        section: the recipe's ``[queries]``.
        grams: merged counts of all dumps (``bigrams.GRAMS``).
        titles: titles of all dumps (``TITLES``).

    Raises:
        QueryListError: a custom list or a WordNet file cannot be used.
    """
    if section.custom:
        yield Source.CUSTOM, _plain([q for place in section.custom for q in _custom(place)])
    if section.numbers:
        yield Source.NUMBER, _plain([str(number) for number in range(section.numbers)])
    if section.wordnet:
        yield Source.WORDNET, _plain(wordnet.names(section.wordnet.path, section.wordnet.names))
    wikipedia = section.wikipedia
    if wikipedia is None:
        return
    yield Source.UNIGRAM, _counted(bigrams.unigrams(grams, wikipedia.unigram_min_count))
    if wikipedia.bigram_budget:
        yield Source.BIGRAM, _counted(bigrams.bigrams(grams, wikipedia.bigram_min_count))
    if wikipedia.titles:
        yield Source.TITLE, _plain(title_queries(titles, section.language))


def title_queries(titles: pa.Table, language: str) -> list[str]:
    """Return what titles ask for, each once, in code-point order.

    A last word in parentheses only tells pages apart and is dropped: "Animalia (book)" asks for
    "Animalia". List pages ("List of Atlas Shrugged characters") ask for nothing.
    """
    column = titles["title"]
    if language in _LIST_PAGES:
        column = column.filter(
            pc.invert(pc.match_substring_regex(column, pattern=_LIST_PAGES[language]))
        )
    column = pc.replace_substring_regex(column, _DISAMBIGUATION, "")
    return sorted(set(column.to_pylist()) - {""})


def _custom(place: str) -> list[str]:
    """Return the lines of a text file that are not blank."""
    try:
        return [line.strip() for line in _text(place).split("\n") if line.strip()]
    except StorageError as error:
        raise QueryListError(
            f"cannot read a custom list: {error.what}",
            where=place,
            fix="check queries.custom in the recipe",
        ) from error


def _text(place: str) -> str:
    data = storage.read_bytes(place)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise QueryListError(
            "a custom list is not UTF-8", where=f"{place}, line {line}", fix="save it as UTF-8"
        ) from error


def _plain(surfaces: list[str]) -> pa.Table:
    nothing = [pa.nulls(len(surfaces), OFFER.field(i).type) for i in (1, 2)]
    return pa.table([pa.array(surfaces, pa.string()), *nothing], schema=OFFER)


def _counted(scored: pa.Table) -> pa.Table:
    return pa.table([scored["gram"], scored["count"], scored["pmi"]], schema=OFFER)
