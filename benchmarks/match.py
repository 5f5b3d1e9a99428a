"""How many texts a second one core matches: the kernel alone, and with normalising.

    python benchmarks/match.py --wordnet FOLDER

Queries are the lemmas of Princeton WordNet (``index.noun`` and its siblings in FOLDER), texts are
its glosses, cut into captions at semicolons: English prose of about a dozen words.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

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


def rate(work: Callable[[], object], texts: int, repeats: int) -> float:
    """Return texts a second, the median of several runs after one that compiles."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return texts / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    queries, texts = lemmas(options.wordnet), captions(options.wordnet, options.texts)
    started = time.perf_counter()
    matcher = Matcher(queries)
    built = time.perf_counter() - started
    normalised = normalise_column(texts)
    matched = matcher.match_normalised(normalised)
    size = normalised.nbytes / len(texts)
    print(f"{len(queries):,} queries (table built in {built:.2f} s, compiling included)")
    matches = len(matched.values) / len(texts)
    print(f"{len(texts):,} texts of {size:.0f} bytes, {matches:.1f} matches each")
    for name, work in {
        "normalise": lambda: normalise_column(texts),
        "match, normalised texts": lambda: matcher.match_normalised(normalised),
        "normalise and match": lambda: matcher.match(texts),
    }.items():
        print(f"{name:25} {rate(work, len(texts), options.repeats) / 1e6:6.2f} M texts/s")


if __name__ == "__main__":
    main()
