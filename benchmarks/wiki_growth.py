"""How natural the words of the benchmarks' dumps are: distinct words and bigrams by size.

    python benchmarks/wiki_growth.py [--data .data] [--megabytes 1 4 16 64]

In natural text the number of distinct words, and of distinct pairs of neighbours, grows like a
power of the number of words (Heaps' law): a dump made by mere repetition would stop growing. One
dump of ``wiki_corpus`` is counted up to each of the sizes, and beside it the real excerpt that it
is made of, up to an eighth, a quarter, a half and the whole. The count is a plain one: a word is a
run of letters and digits in what is no markup, in lower case; a bigram does not go beyond a line or
across markup. Each exponent is that of the growth since the row above.

The last column has the number of distinct words that so many draws from the real counts of the
English Wikipedia would give. Real text has fewer, since a word that is there once is soon there
again.
"""

from __future__ import annotations

import argparse
import bz2
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmarks import wiki_corpus, wiki_pages

_WORD = re.compile(r"[^\W_]+")
_TEXT = re.compile(r"<text[^>]*>(.*?)</text>", re.DOTALL)


class Growth(NamedTuple):
    """What stands before a cut: bytes of XML, words, distinct words, distinct bigrams."""

    xml_bytes: int
    words: int
    distinct: int
    bigrams: int


def growth(place: Path, cuts: list[int]) -> Iterator[Growth]:
    """Yield the growth at each cut (in bytes of XML, ascending); the last is at most the end."""
    ids: dict[str, int] = {}
    bigrams, fresh, words, size = np.empty(0, np.int64), [np.empty(0, np.int64)], 0, 0
    remaining = list(cuts)
    for page in _pages(place):
        size += len(page.encode())
        for run in _runs(page):
            # A Python loop over words: a million in three seconds, markup and all.
            numbers = np.array([ids.setdefault(w, len(ids)) for w in run], np.int64)
            words += len(numbers)
            fresh.append(numbers[:-1] << 32 | numbers[1:])
        if remaining and size >= remaining[0]:
            bigrams, fresh = np.unique(np.concatenate([bigrams, *fresh])), []
            yield Growth(size, words, len(ids), len(bigrams))
            del remaining[0]
    if remaining:
        yield Growth(size, words, len(ids), len(np.unique(np.concatenate([bigrams, *fresh]))))


def _pages(place: Path) -> Iterator[str]:
    """Yield the pages' XML."""
    lines: list[str] = []
    with bz2.open(place, "rt", encoding="utf-8", newline="\n") as xml:
        for line in xml:
            lines.append(line)
            if line == "  </page>\n":
                yield "".join(lines)
                lines.clear()


def _runs(page: str) -> Iterator[list[str]]:
    """Yield the words of a page, cut at lines and markup; a redirect has none."""
    found = _TEXT.search(page)
    if found is None or "<redirect " in page:
        return
    for stretch in wiki_pages.prose(found[1]):
        for line in stretch.lower().split("\n"):
            if words := _WORD.findall(line):
                yield words


def _drawn(counts: Path, words: int) -> float:
    """Return how many distinct words so many independent draws are expected to give."""
    count = pq.read_table(counts)["count"].to_numpy()
    return float(-np.expm1(words * np.log1p(-count / count.sum())).sum())


def _report(name: str, rows: Iterator[Growth], counts: Path) -> None:
    last = None
    for row in rows:
        steps = ["", ""]
        if last is not None:
            more = math.log(row.words / last.words)
            steps = [
                f"{math.log(row.distinct / last.distinct) / more:.2f}",
                f"{math.log(row.bigrams / last.bigrams) / more:.2f}",
            ]
        print(
            f"{name:8} {row.xml_bytes / 1e6:7.1f} {row.words:12,} {row.distinct:9,} {steps[0]:>5} "
            f"{row.bigrams:11,} {steps[1]:>5} {_drawn(counts, row.words):11,.0f}"
        )
        last = row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    excerpt, counts = options.data / "enwiki-excerpt.xml.bz2", options.data / "enwiki-words.parquet"
    sizes = sorted(options.megabytes)
    print("text      MB XML        words  distinct  exp.     bigrams  exp.   if drawn")
    whole = len(bz2.decompress(excerpt.read_bytes()))
    _report("excerpt", growth(excerpt, [whole // 8, whole // 4, whole // 2, whole]), counts)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "dump.xml.bz2"
        wiki_corpus.write(place, excerpt, counts, sizes[-1], options.seed, "multistream")
        _report("made", growth(place, [size * 1_000_000 for size in sizes]), counts)


if __name__ == "__main__":
    main()
