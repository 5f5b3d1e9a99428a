"""A MediaWiki dump of any size for the benchmarks, made from real text.

    python benchmarks/wiki_corpus.py [NAME.xml.bz2] [--megabytes 64] [--kind multistream|plain]

``write`` repeats the pages of the real English excerpt, articles, redirects and all, until there is
as much XML as wanted. Each repetition is made to count like new text:

* A fifth of its words, outside markup, is replaced by words of the English Wikipedia, drawn in
  proportion to how often each stands there. The hundred most frequent ones (the, of, was) neither
  go nor come: they are the frame in which new words meet. Words too rare for the list (it starts
  at 20) are drawn as well, at the rate that its own tail implies, and spelled from two of its own.
* Paragraphs stand in a new order; so do the pages; titles and ids are new.

Markup, templates, tables, tags, references, entities and addresses stay as they are, and a
paragraph moves only with all that it opens: the XML stays well-formed, the wikitext closed. The
same seed gives the same bytes, whatever the number of cores. ``wiki_growth.py`` measures how far
its words and bigrams are from natural ones. Run as a script, this says how fast it writes.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import itertools
import multiprocessing
import os
import tempfile
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import wiki_pages
from benchmarks.wiki_pages import COPY, Page, Text

Kind = Literal["multistream", "plain"]

PAGES_PER_STREAM = 100
"""As Wikimedia's multistream dumps have them."""

FRAME_WORDS = 100
"""So many of the most frequent words stay where they are, and are not drawn."""

REPLACED = 0.35
"""Share of the other words that are replaced; of all words it is 0.2."""

RARE = 0.014
"""Share of words too rare for the list, of all that are drawn.

In the list, n(k), the number of words standing at least k times, goes from 829,253 (k = 20) to
274,686 (k = 100): like k**-0.687. Down to k = 1 that makes 6.5 million words, and the 5.7 million
below 20 make up sum(n(k), k = 1..19) - 19 n(20) = 19 million tokens: 1.4 % of the 1.4e9 that are
no frame words.
"""

_STEMS = 2400  # pairs of so many words give as many rare words (5.76 million) as RARE counts

_HEADER = b"BZh9"
_TRAILER = 0x177245385090
_PLAIN_CHUNK = 700_000
"""Bytes that fit one bz2 block of 900,000 whatever they are: its first step adds 1/4 at most."""


class Corpus(NamedTuple):
    """What was written: bytes of XML and of the file, and pages (redirects too)."""

    xml_bytes: int
    file_bytes: int
    pages: int


def write(place: Path, excerpt: Path, words: Path, megabytes: int, seed: int, kind: Kind) -> Corpus:
    """Write a dump, and if it is ``multistream`` its index beside it; both appear whole.

    Args:
        place: ``NAME.xml.bz2``; the index is ``NAME-index.txt.bz2``, lines ``offset:id:title`` with
            the title escaped as in the XML, as Wikimedia has them.
        excerpt: ``enwiki-excerpt.xml.bz2`` of the data folder.
        words: ``enwiki-words.parquet`` of the data folder.
        megabytes: millions of bytes of XML, at least; at most a stream (about 3 MB) more.
        seed: of everything that is drawn.
        kind: ``multistream``: a bz2 stream for the head, one for every hundred pages, one for the
            end. ``plain``: one bz2 stream.
    """
    head, _ = wiki_pages.split(excerpt)
    end = b"</mediawiki>\n"
    size, pages = len(head.encode()) + len(end), 0
    with tempfile.TemporaryDirectory(prefix=".corpus-", dir=place.parent) as folder:
        writer = _Multistream(Path(folder)) if kind == "multistream" else _Plain(Path(folder))
        with writer:
            writer.add(_packed(head.encode(), [], kind))
            with contextlib.closing(_streams(excerpt, words, seed, kind)) as streams:
                for packed in streams:
                    writer.add(packed)
                    size, pages = size + packed.xml_bytes, pages + len(packed.titles)
                    if size >= megabytes * 1_000_000:
                        break
            writer.add(_packed(end, [], kind))
        writer.publish(place)
    return Corpus(size, place.stat().st_size, pages)


def index_of(place: Path) -> Path:
    """Return where the index of a multistream dump is."""
    return place.with_name(place.name.removesuffix(".xml.bz2") + "-index.txt.bz2")


def _streams(excerpt: Path, words: Path, seed: int, kind: Kind) -> Generator[_Packed, None, None]:
    """Yield one stream's worth of pages after another, without end, made on all cores."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    material = (excerpt, words, seed, kind)
    context = multiprocessing.get_context("spawn")  # whoever calls may have threads
    with ProcessPoolExecutor(workers, context, _prepare, material) as pool:
        ahead = 2 * (workers or 1)
        waiting = deque(pool.submit(_stream, number) for number in range(ahead))
        try:
            for number in itertools.count(ahead):
                yield waiting.popleft().result()
                waiting.append(pool.submit(_stream, number))
        finally:
            pool.shutdown(cancel_futures=True)


class _Multistream:
    """A file of bz2 streams one after another, and its index."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "dump").open("wb")
        self._index: list[str] = []

    def __enter__(self) -> None:
        self._file.__enter__()

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, packed: _Packed) -> None:
        self._index += [f"{self._file.tell()}:{title}\n" for title in packed.titles]
        self._file.writelines(packed.parts)

    def publish(self, place: Path) -> None:
        index = Path(self._file.name).with_name("index")
        index.write_bytes(bz2.compress("".join(self._index).encode()))
        index.replace(index_of(place))
        Path(self._file.name).replace(place)


class _Plain:
    """A file of one bz2 stream, put together from the blocks of others.

    Blocks begin at any bit. After the last come 48 bits that say so, and a checksum: that of each
    block, xor that of the ones before rotated left by a bit (``BZ2_compressBlock`` of bzip2 1.0).
    """

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "dump").open("wb")
        self._file.write(_HEADER)
        self._bits = np.empty(0, np.uint8)
        self._checksum = 0

    def __enter__(self) -> None:
        self._file.__enter__()

    def __exit__(self, *_: object) -> None:
        self._append(np.unpackbits(np.frombuffer(_TRAILER.to_bytes(6), np.uint8)))
        self._append(np.unpackbits(np.frombuffer(self._checksum.to_bytes(4), np.uint8)))
        self._file.write(np.packbits(self._bits).tobytes())
        self._file.close()

    def add(self, packed: _Packed) -> None:
        for part in packed.parts:
            end = int.from_bytes(part[-11:])  # trailer, checksum, and up to 7 bits of padding
            padding = next(n for n in range(8) if end >> n + 32 & (1 << 48) - 1 == _TRAILER)
            count = 8 * (len(part) - len(_HEADER)) - 80 - padding
            self._append(np.unpackbits(np.frombuffer(part[len(_HEADER) :], np.uint8), count=count))
            rotated = (self._checksum << 1 | self._checksum >> 31) & 0xFFFFFFFF
            self._checksum = rotated ^ end >> padding & 0xFFFFFFFF

    def _append(self, bits: npt.NDArray[np.uint8]) -> None:
        bits = np.concatenate([self._bits, bits])
        whole = len(bits) // 8 * 8
        self._file.write(np.packbits(bits[:whole]).tobytes())
        self._bits = bits[whole:]

    def publish(self, place: Path) -> None:
        Path(self._file.name).replace(place)


# What follows runs in the worker processes.


class _Packed(NamedTuple):
    """A hundred pages, compressed.

    Attributes:
        xml_bytes: before compression.
        parts: whole bz2 streams, of one block each if the dump is plain.
        titles: ``id:title`` of each page.
    """

    xml_bytes: int
    parts: list[bytes]
    titles: list[str]


class _Vocabulary:
    """Draws words as often as they stand in the English Wikipedia."""

    def __init__(self, words: Path) -> None:
        table = pq.read_table(words)
        table = table.filter(pc.utf8_is_alnum(table["gram"]))  # not 'style="text' and the like
        # the list has no single letters: an article, and what is left of a genitive
        self.frame = frozenset(["a", "s", *table["gram"][:FRAME_WORDS].to_pylist()])
        self._words = table["gram"][FRAME_WORDS:].combine_chunks()
        self._until = np.cumsum(table["count"].to_numpy()[FRAME_WORDS:])
        stems = self._words.slice(1000, 50_000)
        length = pc.utf8_length(stems)
        fit = pc.and_(pc.is_in(length, pc.cast([4, 5, 6], length.type)), pc.utf8_is_alpha(stems))
        self._stems = stems.filter(fit).to_pylist()[:_STEMS]

    def draw(self, rng: np.random.Generator, count: int) -> list[str]:
        """Return so many words."""
        places = np.searchsorted(self._until, rng.integers(0, self._until[-1], count), "right")
        drawn: list[str] = self._words.take(places).to_numpy(zero_copy_only=False).tolist()
        for place in np.flatnonzero(rng.random(count) < RARE).tolist():
            first, second = rng.integers(0, _STEMS, 2).tolist()
            drawn[place] = self._stems[first] + self._stems[second]
        return drawn


class _Material(NamedTuple):
    pages: list[Page]
    vocabulary: _Vocabulary
    seed: int
    kind: Kind


_material: _Material | None = None


def _prepare(excerpt: Path, words: Path, seed: int, kind: Kind) -> None:
    global _material  # noqa: PLW0603 - a worker process has one, read before its first job
    vocabulary = _Vocabulary(words)
    pages = [wiki_pages.page(xml, vocabulary.frame) for xml in wiki_pages.split(excerpt)[1]]
    _material = _Material(pages, vocabulary, seed, kind)


def _stream(number: int) -> _Packed:
    """Return the stream of this number."""
    assert _material is not None
    made, titles = [], []
    for place in range(number * PAGES_PER_STREAM, (number + 1) * PAGES_PER_STREAM):
        copy, turn = divmod(place, len(_material.pages))
        order = np.random.default_rng([_material.seed, 0, copy]).permutation(len(_material.pages))
        page = _material.pages[order[turn]]
        rng = np.random.default_rng([_material.seed, 1, place])
        text = _perturbed(page.text, rng, _material.vocabulary)
        ids = {"title": page.title, "id": place + 1, "revision": 10**9 + place, "copy": copy + 1}
        frame = page.frame.format(**ids)
        made += [frame, text.replace(COPY, f" {copy + 1}"), page.rest]
        titles.append(f"{place + 1}:{page.title} {copy + 1}")
    return _packed("".join(made).encode(), titles, _material.kind)


def _perturbed(text: Text, rng: np.random.Generator, vocabulary: _Vocabulary) -> str:
    """Return the text with other words, its paragraphs in another order."""
    chosen = np.flatnonzero(rng.random(len(text.words)) < REPLACED)
    pieces = text.pieces.copy()
    drawn = vocabulary.draw(rng, len(chosen))
    # A Python loop over the replaced words, 0.1 us each: a tenth of what bz2 takes for the text.
    for place, word, capital in zip(
        text.words[chosen].tolist(), drawn, text.capital[chosen].tolist(), strict=True
    ):
        pieces[place] = word.capitalize() if capital else word
    lines = ["".join(pieces[first:end]) for first, end in text.lines]
    moved = [lines[line] for line in rng.permutation(text.paragraphs).tolist()]
    for line, other in zip(text.paragraphs.tolist(), moved, strict=True):
        lines[line] = other
    return "\n".join(lines)


def _packed(xml: bytes, titles: list[str], kind: Kind) -> _Packed:
    size = len(xml) if kind == "multistream" else _PLAIN_CHUNK
    parts = [bz2.compress(xml[i : i + size]) for i in range(0, len(xml), size)]
    return _Packed(len(xml), parts, titles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("place", type=Path, nargs="?", help="NAME.xml.bz2; default: thrown away")
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=["multistream", "plain"], default="multistream")
    options = parser.parse_args()
    excerpt, words = options.data / "enwiki-excerpt.xml.bz2", options.data / "enwiki-words.parquet"
    with tempfile.TemporaryDirectory() as folder:
        place = options.place or Path(folder) / "dump.xml.bz2"
        started = time.perf_counter()
        made = write(place, excerpt, words, options.megabytes, options.seed, options.kind)
        took = time.perf_counter() - started
    print(f"{made.pages:,} pages, {made.xml_bytes / 1e6:.1f} MB of XML, {options.kind} ", end="")
    print(f"{made.file_bytes / 1e6:.1f} MB: {took:.1f} s, {made.xml_bytes / 1e6 / took:.1f} MB/s")


if __name__ == "__main__":
    main()
