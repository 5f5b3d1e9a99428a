"""How many texts a second one core matches: ours beside an Aho-Corasick automaton, in one run.

    python benchmarks/match.py [--data .data]

Queries are the lemmas of Princeton WordNet, texts are its glosses cut at semicolons: English prose
of about a dozen words. The peer is a pyahocorasick loop over normalised texts, queries and texts
padded with spaces so that only whole tokens match, as MetaCLIP's code does it. Both run alternately
on the same texts, and must find the same matches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import ahocorasick
import pyarrow as pa

from wit_builder.curate.match import Matcher
from wit_builder.text import normalise_column

PARTS = ("noun", "verb", "adj", "adv")


def lemmas(folder: Path) -> pa.Array:
    """Return the distinct lemmas, in the order of the files."""
    lines = (line for part in PARTS for line in (folder / f"index.{part}").open())
    names = (line.split(" ", 1)[0].replace("_", " ") for line in lines if not line.startswith(" "))
    return pa.array(list(dict.fromkeys(names)))


def captions(folder: Path, least: int) -> pa.Array:
    """Return glosses cut at semicolons, repeated until there are at least so many."""
    lines = (line for part in PARTS for line in (folder / f"data.{part}").open())
    glosses = (line.split(" | ", 1)[1] for line in lines if " | " in line)
    pieces = [p for gloss in glosses for piece in gloss.split(";") if len(p := piece.strip()) > 40]
    return pa.array((pieces * (least // len(pieces) + 1))[:least])


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--texts", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    folder = options.data / "wordnet"
    queries, texts = lemmas(folder), captions(folder, options.texts)
    matcher, made = Matcher(queries), automaton(normalise_column(queries).to_pylist())
    normalised = normalise_column(texts)
    plain = normalised.to_pylist()
    matched = matcher.match_normalised(normalised)
    assert matched.to_pylist() == peer(made, plain), "the two find different matches"
    size, matches = normalised.nbytes / len(texts), len(matched.values) / len(texts)
    print(f"{len(queries):,} queries; {len(texts):,} texts of {size:.0f} bytes, ", end="")
    print(f"{matches:.1f} matches each")
    works: dict[str, Callable[[], object]] = {
        "pyahocorasick, normalised texts": lambda: peer(made, plain),
        "match, normalised texts": lambda: matcher.match_normalised(normalised),
        "normalise": lambda: normalise_column(texts),
        "normalise and match": lambda: matcher.match(texts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.repeats):
        for name, work in works.items():
            seconds[name].append(timed(work))
    rates = {name: len(texts) / statistics.median(took) for name, took in seconds.items()}
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{name:32} {rate / 1e6:6.2f} M texts/s  {rate / first:5.1f} x the peer")


if __name__ == "__main__":
    main()
