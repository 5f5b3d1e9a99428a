"""Why a text is a query of a list, or why it is not: from the list and from what was counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import recipe as recipes
from wit_builder import sections, storage
from wit_builder.exchange import bucket_of
from wit_builder.queries import build, ranks
from wit_builder.queries.assemble import SourceSummary
from wit_builder.queries.scripts import Refusals
from wit_builder.queries.show import figure
from wit_builder.queries.sources import names_a_list
from wit_builder.sections import WikipediaSource
from wit_builder.tables import QUERIES, Source
from wit_builder.text import normalise


def explain(root: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield what a run's list says of a text, which is normalised first, as headings and texts.

    Args:
        root: the run's folder.
        text: any spelling of a query.

    Raises:
        StorageError: there is no list, or the run's tables cannot be read.
    """
    query = normalise(text)
    if not query:
        yield text, "normalises to nothing: it has no letter or digit"
        return
    table = storage.read_parquet(storage.join(root, build.LIST), QUERIES.names)
    found = table.filter(pc.equal(table["query"], query)).to_pylist()
    counts = _Counts(root)
    if found:
        yield query, f"query {found[0].pop('query_id')}"
        yield from _known(found[0])
        yield "  in", _why_in(counts, found[0])
    else:
        yield query, "not in the list"
        yield from _why_not(counts, query)
    if not counts.current:
        yield "  but", "counts or recipe changed since the list was made: build it again"


def _known(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in row.items():
        if name != "query" and value is not None and value != []:
            yield f"  {name}", ", ".join(value) if isinstance(value, list) else str(value)


def _why_in(counts: _Counts, row: dict[str, Any]) -> str:
    summary = counts.source(row["source"])
    if summary is None or summary.cut is None:
        return f"{row['source']} has it, and no source before"
    cut = summary.cut
    return f"{figure(cut.by, row[cut.by])}; {row['source']} ends at {figure(cut.by, cut.least)}"


def _why_not(counts: _Counts, query: str) -> Iterator[tuple[str, str]]:
    """Yield why each source that could have a query does not bring it, by the rules of the list."""
    if not Refusals().sift(pa.table({"query": [query]}), "query").num_rows:
        yield "  refused", "it is in a script without spaces between words"
        return
    for summary in counts.summary.sources:
        if summary.source in _UNRANKED:
            cut = f"none of the {summary.kept + summary.in_earlier_source:,} taken"
            beyond = f"; {summary.over_budget:,} are beyond the cut" if summary.over_budget else ""
            yield f"  {summary.source}", cut + beyond
    if counts.settings.wikipedia:
        words = query.count(" ") + 1
        source = {1: Source.UNIGRAM, 2: Source.BIGRAM}.get(words, Source.NGRAM)
        yield f"  {source}", _why_no_gram(counts, source, query, words)
        yield "  title", _why_no_title(counts, query)


_UNRANKED = (Source.CUSTOM, Source.NUMBER, Source.WORDNET)


def _why_no_gram(counts: _Counts, source: Source, query: str, words: int) -> str:
    wikipedia = counts.wikipedia
    if words > wikipedia.longest_gram:
        return f"runs of {words} words were not counted"
    floor = {1: wikipedia.unigram_min_count, 2: wikipedia.bigram_min_count}.get(
        words, wikipedia.ngram_min_count
    )
    count = counts.count(query)
    if count < floor:
        return f"{figure('count', count)}, fewer than the floor of {floor:,}"
    if words == 1:
        return _beyond(counts, source, "count", count)
    pmi = counts.pmi(query, count)
    if pmi is None:
        return f"{figure('count', count)}, but a word of it was not counted"
    least = wikipedia.bigram_min_pmi
    if words == 2 and least is not None and pmi < least:
        return f"{figure('pmi', pmi)}, less than the floor of {least:g}"
    return f"{figure('count', count)}, {_beyond(counts, source, 'pmi', pmi)}"


def _why_no_title(counts: _Counts, query: str) -> str:
    if not counts.wikipedia.titles:
        return "titles were not asked for"
    found = counts.title(query)
    if found is None:
        return "no article has this title"
    title, views, least = found["title"], found["views"], counts.wikipedia.title_min_views
    if names_a_list(pa.chunked_array([[title]]), counts.settings.language)[0].as_py():
        return f"{title!r} names a list, not a thing"
    if views is None and least:
        return f"{title!r} has no views counted; the floor is {least:,}"
    if views is not None and views < least:
        return f"{title!r} has {figure('views', views)}, fewer than the floor of {least:,}"
    return f"{title!r}: {_beyond(counts, Source.TITLE, 'views', views)}"


def _beyond(counts: _Counts, source: Source, by: str, value: float | None) -> str:
    """Return why something that passes every floor is not in the list."""
    has = "nothing ranks it" if value is None else figure(by, value)
    summary = counts.source(source)
    if summary is None or summary.budget == 0:
        return f"{has}; the budget of {source}s is 0"
    if summary.cut is None:
        return f"{has}; the list was full before"
    return f"{has}; the cut is at {figure(by, summary.cut.least)}"


class _Counts:
    """What a run counted, and by which rules it chose."""

    def __init__(self, root: str) -> None:
        self.summary = build.read_summary(root)
        self.settings = self.summary.settings
        self.wikipedia = self.settings.wikipedia or WikipediaSource(titles=False)
        recipe = recipes.load(storage.join(root, "recipe.toml"), sections.Recipe)
        self.current = build.is_current(root, self.summary, recipe.queries)
        self._grams = storage.list_files(storage.join(root, build.COUNTS), ".parquet")
        self._titles = storage.list_files(storage.join(root, build.TITLES), ".parquet")

    def count(self, gram: str) -> int:
        """Return how often a gram was counted."""
        if not self._grams:
            return 0
        found = _row(self._grams, "gram", gram)
        return int(found["count"]) if found else 0

    def pmi(self, gram: str, count: int) -> float | None:
        """Return the PMI of a gram that was counted so often, in bits; None if it has none."""
        words = sorted(set(gram.split(" ")))
        counts = pa.array([self.count(word) for word in words], pa.int64())
        known = pa.table([pa.array(words), counts], ["gram", "count"]).filter(pc.greater(counts, 0))
        vocabulary = ranks.Vocabulary([known], self.summary.tokens)
        one = pa.table([[gram], pa.array([count], pa.int64())], ["gram", "count"])
        return vocabulary.pmi(one)[0].as_py()

    def title(self, query: str) -> dict[str, Any] | None:
        """Return the most viewed title that asks for a query."""
        return _row(self._titles, "query", query) if self._titles else None

    def source(self, name: str) -> SourceSummary | None:
        """Return what became of a source's rows."""
        return next((s for s in self.summary.sources if s.source == name), None)


def _row(urls: list[str], column: str, text: str) -> dict[str, Any] | None:
    """Return the row with a text of tables that are scattered by it."""
    [bucket] = bucket_of(pa.array([text]), len(urls))
    table = storage.read_parquet(urls[bucket])
    rows = table.filter(pc.equal(table[column], text)).slice(0, 1).to_pylist()
    return rows[0] if rows else None
