"""What PMI puts on top of bigrams, with and without a floor on counts: docs/bigrams.md's tables.

    pip download --no-deps --only-binary=:all: --dest .data symspellpy==6.10.1
    python benchmarks/bigram_quality.py [--data .data]

Counts are real: those of the excerpt of English Wikipedia, counted here as a build counts them, and
those of the Web 1T lists that the package ``symspellpy`` carries. It is read as data, out of the
wheel; without it the tables about the web are left out. The rest is from ``make data``.

In the package, bigrams have 64 times the count that Web 1T has. That is undone here and checked: no
pair may then be more frequent than a word of it.
"""

from __future__ import annotations

import argparse
import math
import platform
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from wit_builder.demo.fetch_data import EXCERPT, WORDNET, WORDS
from wit_builder.queries import wordnet
from wit_builder.queries.grams import Counter
from wit_builder.queries.merge import sums
from wit_builder.queries.ranks import Vocabulary, scored
from wit_builder.queries.streams import Part
from wit_builder.queries.wikipedia import Article, Dump
from wit_builder.queries.wikitext import plain_column
from wit_builder.text import normalise_column

TOP = 15
AROUND = 8
BUDGETS = (1_000, 10_000, 100_000)
FLOORS = (1, 2, 3, 5, 10, 25, 100)
SHOWN_FLOORS = (1, 5, 25, 100)
PARTS = (8, 4, 2, 1)
FIXED_CUT = 15  # bits: what a cut in bits admits as the excerpt grows

WEB_TOKENS = 1_024_908_267_229
"""Of Web 1T 5-gram Version 1, by its entry LDC2006T13 in the catalogue of its publisher."""
WEB_FACTOR = 64
WEB_FLOORS = (100_000, 1_000_000, 10_000_000)

METACLIP_BITS = 30  # arXiv 2309.16671
WIKIPEDIA_TOKENS = 3_000_000_000  # about all of English Wikipedia
WIKIPEDIA_FLOOR = 100  # the CLIP paper's, for words

_ORDER = [("pmi", "descending"), ("count", "descending"), ("gram", "ascending")]
_BY_COUNT = _ORDER[1:]

Hints = dict[str, Callable[[pa.ChunkedArray], float]]
"""What may tell a good bigram from a bad one: the share of some that have a property."""


class Corpus(NamedTuple):
    """What was counted.

    Attributes:
        tokens: in all.
        words: distinct ones, with counts.
        bigrams: with counts and PMI, highest PMI first, as a list takes them.
    """

    tokens: int
    words: pa.Table
    bigrams: pa.Table

    def above(self, floor: int) -> pa.Table:
        """Return the bigrams that occur so often at least, highest PMI first."""
        return self.bigrams.filter(pc.greater_equal(self.bigrams["count"], floor))

    def by_count(self) -> pa.Table:
        """Return all bigrams, most frequent first."""
        return self.bigrams.sort_by(_BY_COUNT)


def corpus(words: pa.Table, bigrams: pa.Table, tokens: int) -> Corpus:
    ranked = pa.concat_tables(scored([bigrams], Vocabulary([words], tokens)))
    return Corpus(tokens, words, ranked.sort_by(_ORDER).combine_chunks())


# --- what is counted --------------------------------------------------------


class Excerpt:
    """The articles of the excerpt, in the order of the dump."""

    def __init__(self, place: Path) -> None:
        dump = Dump(Part(str(place)))
        pages = [page.wikitext for page in dump if isinstance(page, Article)]
        self.texts = plain_column(pa.array(pages, pa.string()), dump.hidden_links)

    def counted(self, start: int = 0, step: int = 1) -> Corpus:
        """Return the counts of every so many articles, made as a build makes them."""
        counter = Counter()
        texts = self.texts.take(pa.array(range(start, len(self.texts), step)))
        grams = sums([*counter.add(texts), counter.take()])
        words, bigrams = (grams.filter(pc.equal(grams["n"], n)) for n in (1, 2))
        return corpus(words, bigrams, counter.tokens)

    def in_one_article(self) -> pa.Array:
        """Return the bigrams that a single article has."""
        counter = Counter(2, word_slots=1 << 16, gram_slots=1 << 17, step=1 << 14)
        found = []
        for i in range(len(self.texts)):
            grams = sums([*counter.add(self.texts.slice(i, 1)), counter.take()])
            found.append(grams.filter(pc.equal(grams["n"], 2))["gram"])
        counts = pc.value_counts(pa.concat_arrays([c for gram in found for c in gram.chunks]))
        once = pc.equal(counts.field("counts"), 1)
        return counts.field("values").filter(once)


def web(wheel: Path) -> Corpus:
    """Return the Web 1T counts of the package; print what its factor does."""
    words = _list(wheel, "frequency_dictionary_en_82_765.txt", ["gram", "count"])
    pairs = _list(wheel, "frequency_bigramdictionary_en_243_342.txt", ["x", "y", "count"])
    assert not (pairs["count"].to_numpy() % WEB_FACTOR).any()
    together = pc.divide(pairs["count"], WEB_FACTOR)
    at = (pc.index_in(pairs[word], words["gram"].combine_chunks()) for word in ("x", "y"))
    least = pc.min_element_wise(*(words["count"].take(indices) for indices in at))
    over = [pc.sum(pc.greater(counts, least)).as_py() for counts in (pairs["count"], together)]
    assert over[1] == 0 == least.null_count
    table(
        ["bigram counts", "bigrams more frequent than one of their words"],
        [["as packaged", over[0]], [f"divided by {WEB_FACTOR}", over[1]]],
    )
    gram = pc.binary_join_element_wise(pairs["x"], pairs["y"], " ")
    return corpus(words, pa.table({"gram": gram, "count": together}), WEB_TOKENS)


def _list(wheel: Path, name: str, columns: list[str]) -> pa.Table:
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"symspellpy/{name}").removeprefix(b"\xef\xbb\xbf")
    return pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(column_names=columns),
        parse_options=pacsv.ParseOptions(delimiter=" ", quote_char=False),
        convert_options=pacsv.ConvertOptions(column_types={"count": pa.int64()}),
    )


def hints(data: Path) -> Hints:
    lemmas = normalise_column(pa.array(wordnet.names(str(data / WORDNET), "all")))
    words = pq.read_table(data / WORDS)
    frequent = words.filter(pc.greater_equal(words["count"], WIKIPEDIA_FLOOR))["gram"]
    return {"WordNet": within(lemmas), "both words frequent": of_words(frequent.combine_chunks())}


def within(grams: pa.Array) -> Callable[[pa.ChunkedArray], float]:
    return lambda some: float(pc.mean(pc.is_in(some, grams)).as_py())


def of_words(words: pa.Array) -> Callable[[pa.ChunkedArray], float]:
    def share(some: pa.ChunkedArray) -> float:
        known = pc.is_in(pc.list_flatten(pc.split_pattern(some, " ")), words)
        return float(np.all(np.reshape(known.to_numpy(), (-1, 2)), axis=1).mean())

    return share


# --- tables -----------------------------------------------------------------


def table(head: list[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else f"{cell}" for cell in row)
        print(f"| {' | '.join(cells)} |")
    print()


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def bits(ranked: pa.Table, place: int) -> str:
    """Return the PMI at a place, counted from 1, or nothing if there are not so many."""
    return f"{ranked['pmi'][place - 1].as_py():.2f}" if place <= len(ranked) else ""


def size(made: Corpus) -> None:
    counts = made.bigrams["count"]
    shares = [percent(pc.mean(pc.equal(counts, n)).as_py()) for n in (1, 2)]
    head = ["words", "distinct words", "distinct bigrams", "of them once", "twice"]
    table(head, [[made.tokens, len(made.words), len(made.bigrams), *shares]])


def passing(tokens: int, least_bits: float) -> Iterator[tuple[int, int, int]]:
    """Yield all counts (pair, rarer word, other word) that reach a PMI in so many tokens.

    Each word is as frequent as the pair at least, so a pair seen ``k`` times has ``k`` bits of
    ``log2(tokens / k)`` at most: what passes is few.
    """
    most = tokens / 2**least_bits  # of c(x) c(y) / c(xy)
    for pair in range(1, int(most) + 1):
        for x in range(pair, math.isqrt(int(most * pair)) + 1):
            for y in range(x, int(most * pair / x) + 1):
                yield pair, x, y


def fixed_cut() -> None:
    """Print what passes MetaCLIP's cut, and what a pair of other counts would need."""
    every = list(passing(WIKIPEDIA_TOKENS, METACLIP_BITS))
    rows: list[list[object]] = []
    for pair, x, y in [*every, (1, 1, 3), (3, 3, 3), (25, 25, 25), (100, 100, 100)]:
        lift = pair / (x * y)
        pmi = f"{math.log2(lift * WIKIPEDIA_TOKENS):.2f}"
        needed = f"{2**METACLIP_BITS / lift / 1e9:.2f}"
        rows.append([pair, x, y, pmi, "yes" if (pair, x, y) in every else "no", needed])
    head = ["pair", "one word", "other word", f"PMI in {WIKIPEDIA_TOKENS / 1e9:.0f}e9 words"]
    table([*head, f"{METACLIP_BITS} bits", "words it takes, 1e9"], rows)
    most = WIKIPEDIA_TOKENS / 2**METACLIP_BITS
    print(f"What passes has c(x) c(y) / c(xy) <= {most:.2f}.\n")


def tops(made: Corpus, floors: Iterable[int]) -> None:
    """Print the first of every floor by PMI, and of all by count, with counts."""
    columns = {f"floor {floor:,}": made.above(floor) for floor in floors}
    columns["by count alone"] = made.by_count()
    cells = [
        [f"{row['gram']} ({row['count']:,})" for row in ranked.slice(0, TOP).to_pylist()]
        for ranked in columns.values()
    ]
    table(list(columns), zip(*cells, strict=True))


def around(made: Corpus, floor: int, places: Iterable[int]) -> None:
    """Print what stands at some places, counted from 1, and at those after them."""
    ranked = made.above(floor)
    rows = []
    for place in places:
        some = ranked.slice(place - 1, AROUND)
        rows.append([place, bits(ranked, place), "; ".join(some["gram"].to_pylist())])
    table([f"place, floor {floor:,}", "PMI", "bigrams from there on"], rows)


def tied(made: Corpus) -> None:
    """Print how many share the highest PMI, and some of them at even steps."""
    best = made.bigrams.filter(pc.equal(made.bigrams["pmi"], pc.max(made.bigrams["pmi"])))
    places = np.linspace(0, len(best), 2 * TOP, endpoint=False, dtype=np.int64)[1::2]
    some = "; ".join(best["gram"].take(pa.array(places)).to_pylist())
    print(f"{len(best):,} bigrams share the highest PMI. {TOP} at even steps: {some}.\n")


def by_floor(made: Corpus, floors: Iterable[int]) -> None:
    """Print, for every floor, how much PMI is possible, and where budgets would cut."""
    rows = []
    for floor in floors:
        ranked = made.above(floor)
        rate, most = 1e6 * floor / made.tokens, math.log2(made.tokens / floor)
        cuts = [bits(ranked, place) for place in (1, *BUDGETS)]
        rows.append([floor, f"{rate:.3g}", len(ranked), f"{most:.2f}", *cuts])
    head = ["floor", "a million words", "bigrams", "possible PMI", "highest"]
    table([*head, *(f"{place:,}th" for place in BUDGETS)], rows)


def by_hint(made: Corpus, floors: Iterable[int], known: Hints, first: int = BUDGETS[0]) -> None:
    """Print, for every floor that leaves enough, the shares of the first so many."""
    ranks = {f"{floor:,}": made.above(floor) for floor in floors}
    ranks["by count alone"] = made.by_count()
    rows = [
        [name, *(percent(share(ranked["gram"].slice(0, first))) for share in known.values())]
        for name, ranked in ranks.items()
        if len(ranked) >= first
    ]
    table([f"first {first:,}, floor", *known], rows)


def growth(parts: dict[int, Corpus]) -> None:
    """Print how cuts move with the size of what is counted."""
    head = ["part", "words", "log2", "bigrams", "at the highest PMI", f"{FIXED_CUT} bits or more"]
    head += ["1,000th, floor 1", "1,000th, floor 5"]
    rows = []
    for part, made in parts.items():
        pmi = made.bigrams["pmi"]
        equal = pc.sum(pc.equal(pmi, pc.max(pmi))).as_py()
        passes = pc.sum(pc.greater_equal(pmi, FIXED_CUT)).as_py()
        cuts = [bits(made.above(floor), 1000) for floor in (1, 5)]
        log = f"{math.log2(made.tokens):.2f}"
        rows.append([f"1/{part}", made.tokens, log, len(made.bigrams), equal, passes, *cuts])
    table(head, rows)


def about_the_web(made: Corpus, known: Hints) -> None:
    tops(made, WEB_FLOORS)
    around(made, WEB_FLOORS[0], [1_000, 10_000, 100_000])
    same = WEB_FLOORS[0] / made.tokens * WIKIPEDIA_TOKENS
    print(f"{WEB_FLOORS[0]:,} is as rare there as {same:.0f} in {WIKIPEDIA_TOKENS / 1e9:.0f}e9.\n")
    by_floor(made, WEB_FLOORS)
    for first in BUDGETS:
        by_hint(made, WEB_FLOORS, known, first)
    for counts, gram in ((made.words, "york"), (made.bigrams, "new york")):
        print(f"{gram}: {counts.filter(pc.equal(counts['gram'], gram))['count'][0].as_py():,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    data: Path = parser.parse_args().data
    print(f"Python {platform.python_version()}, pyarrow {pa.__version__}\n")

    excerpt, known = Excerpt(data / EXCERPT), hints(data)
    parts = {part: excerpt.counted(step=part) for part in PARTS}
    whole, halves = parts[1], [excerpt.counted(start, 2) for start in (0, 1)]
    size(whole)
    fixed_cut()
    tops(whole, SHOWN_FLOORS)
    tied(whole)
    around(whole, 5, [1_000, 3_000, 10_000])
    by_floor(whole, FLOORS)
    growth(parts)
    rare = whole.bigrams.filter(pc.less_equal(whole.bigrams["count"], 2))
    known_here = {
        "seen once or twice": within(rare["gram"].combine_chunks()),
        "in one article": within(excerpt.in_one_article()),
        **known,
    }
    for first in BUDGETS[:2]:
        by_hint(whole, FLOORS, known_here, first)
    again = within(halves[1].bigrams["gram"].combine_chunks())
    by_hint(halves[0], FLOORS, {"in the other half": again})
    if wheels := sorted(data.glob("symspellpy-*.whl")):
        about_the_web(web(wheels[-1]), known)
    else:
        print("Web 1T is left out: the docstring of this script says how to get it")


if __name__ == "__main__":
    main()
