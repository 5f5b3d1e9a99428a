"""Which pictures ``learning.py`` trains on and which it tests with, and that none are both.

Held out are a style of drawing (two, in fact), a tenth of the concepts in every style, and a tenth
of the stamps and of the clip art. What is trained on is told by ``leaks`` not to show any of these:

* no picture of a held-out style;
* no emoji with the root of a held-out concept (so no skin tone, gender or variant of it);
* no text with all the words of any name of a held-out concept, in whatever order, as singular or
  plural, in one word or in two: names of Unicode, of CLDR and of every style;
* no stamp or clip art with the text of one that is held out (all are held out together);
* no picture with the perceptual hash of one that is tested with, and for stamps and clip art, which
  come in series, none with a hash that differs in a few bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from wit_builder.curate import balance
from wit_builder.curate.match import Matcher
from wit_builder.curate.pairs import any_where, ids_where, pairs_of
from wit_builder.hashing import hash_column, label_seed, pair_uid
from wit_builder.shards.layout import MAX_BLOCK_BYTES, Metadata, key_of
from wit_builder.shards.manifest import finish
from wit_builder.shards.write import Pair, write_shard
from wit_builder.text import normalise_column

HELD_OUT_STYLES = ("fluent", "lines")
CAPTIONED = ("stamps", "clipart")
HELD_OUT_SHARE = 0.1

MAX_NAMESAKES = 40
"""A concept whose name stands in more texts of other things is not held out: half of all pictures
would go with "person"."""

NEAR_BITS = 4
"""Perceptual hashes that differ in no more bits are of one picture, or of one series."""

_PER_SHARD = 1000
_PLURALS = (("ies", "y"), ("es", ""), ("ves", "f"), ("ves", "fe"))
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
    "women": "woman",
}
_STOP_WORDS = frozenset(
    ["a", "an", "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"]
)
_COLOURED = 24  # difference between channels, of 255, that an eye sees
_MIN_COLOUR_SHARE = 0.02

Row = dict[str, Any]


class Concept(NamedTuple):
    """A root, and what the test calls it."""

    root: str
    name: str


class Split(NamedTuple):
    """What is trained on, and the tests; rows as in ``learning_pictures.PICTURES``.

    Attributes:
        pool: what may be trained on, with columns ``uid`` and ``query_ids``.
        trained: concepts of the pool.
        held_out: concepts that the pool does not show.
        test: pictures of held-out styles or concepts, or both, one a style and root.
        captioned: held-out stamps and clip art.
    """

    pool: pa.Table
    trained: list[Concept]
    held_out: list[Concept]
    test: list[Row]
    captioned: list[Row]


# --- words -----------------------------------------------------------------


def forms(word: str) -> set[str]:
    """Return a word, and all that it might be the plural of."""
    found = {word, _IRREGULAR.get(word, word)}
    if len(word) > 3 and word.endswith("s"):
        found.add(word[:-1])
    for plural, singular in _PLURALS:
        if len(word) > len(plural) + 1 and word.endswith(plural):
            found.add(word.removesuffix(plural) + singular)
    return found


def tokens_of(texts: Iterable[str]) -> list[list[str]]:
    """Return the words of each text that say something, in their order."""
    normalised = normalise_column(pa.array(texts, pa.string())).to_pylist()
    return [[word for word in text.split() if word not in _STOP_WORDS] for text in normalised]


class Index:
    """Finds the texts that have all the words of a name: in any order, number and spelling apart.

    "light bulb" is found in "Bulbs that give light", "lightbulbs" and "a light-bulb".
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._rows: dict[str, set[int]] = defaultdict(set)
        for row, words in enumerate(tokens_of(texts)):
            joined = map("".join, pairwise(words))
            for form in set[str]().union(*map(forms, (*words, *joined))):
                self._rows[form].add(row)

    def containing(self, name: str) -> set[int]:
        """Return the rows of the texts; none for a name without words."""
        (words,) = tokens_of([name])
        found = [self._having(word) for word in words]
        return set.intersection(*found) | self._having("".join(words)) if found else set()

    def knows(self, name: str) -> bool:
        """Return whether every word of a name stands in some text."""
        (words,) = tokens_of([name])
        return all(self._having(word) for word in words)

    def _having(self, word: str) -> set[int]:
        return set[int]().union(*(self._rows.get(form, set()) for form in forms(word)))


# --- splitting -------------------------------------------------------------


def split(rows: Sequence[Row], concepts: Sequence[Concept], queries: pa.Array) -> Split:
    """Return the split; the same rows, in any order, give the same.

    Args:
        rows: all pictures.
        concepts: that pictures are tested with; those without one of the first held-out style are
            left out.
        queries: the query list; pictures whose text contains none of it are not trained on.
    """
    rows = sorted(rows, key=lambda row: (row["style"], row["name"], row["text"]))
    tested = {row["root"] for row in rows if row["style"] == HELD_OUT_STYLES[0]}
    known = [concept for concept in concepts if concept.root in tested]
    held_out = _held_out(rows, known)
    chosen = [row for row in rows if row["style"] in CAPTIONED]
    captioned = _some(_unique(chosen))
    test = list(_test_rows(rows, known, {c.root for c in held_out}))
    wrong = leaks(rows, held_out, test, captioned)
    right = (row for at, row in enumerate(rows) if at not in wrong and not _is_line(row))
    pool = _matched(list(right), queries)
    found = set(pool["root"].to_pylist())
    trained = [c for c in known if c.root in found]
    listed = {c.root for c in (*trained, *held_out)}
    test = [row for row in test if row["root"] in listed]
    return Split(pool, trained, held_out, test, captioned)


def _held_out(rows: Sequence[Row], concepts: Sequence[Concept]) -> list[Concept]:
    """Return a tenth of the concepts, by a hash, of those with few namesakes."""
    index, names = Index(row["text"] for row in rows), _names(rows, concepts)
    own: dict[str, set[int]] = defaultdict(set)
    for at, row in enumerate(rows):
        own[row["root"]].add(at)
    chosen: list[Concept] = []
    for concept in sorted(concepts, key=lambda c: _order("concept", c.root)):
        if len(chosen) >= HELD_OUT_SHARE * len(concepts):
            break
        told = set[int]().union(*(index.containing(name) for name in names[concept.root]))
        if len(told - own[concept.root]) <= MAX_NAMESAKES:
            chosen.append(concept)
    return sorted(chosen)


def _names(rows: Iterable[Row], concepts: Iterable[Concept]) -> dict[str, set[str]]:
    """Return all that the concepts are called, by root; of a figure with a tone, without it."""
    names = {concept.root: {concept.name} for concept in concepts}
    for row in rows:
        if row["root"] in names and row["name"] == row["root"]:
            names[row["root"]].add(row["text"])
    return names


def _unique(rows: Iterable[Row]) -> list[Row]:
    """Return one row for each text."""
    return list({row["text"]: row for row in reversed(list(rows))}.values())


def _some(rows: Iterable[Row]) -> list[Row]:
    """Return a tenth of the rows, by a hash of their texts."""
    return [row for row in rows if _order("text", row["text"]) < HELD_OUT_SHARE * 2**64]


def _order(purpose: str, what: str) -> int:
    return xxhash.xxh64_intdigest(what.encode(), label_seed(0, purpose))


def _test_rows(rows: Iterable[Row], known: Iterable[Concept], held_out: set[str]) -> Iterator[Row]:
    """Yield each concept as it is without skin tone and gender, where style or concept is new."""
    roots = {concept.root for concept in known}
    for row in rows:
        is_new = row["style"] in HELD_OUT_STYLES or row["root"] in held_out
        if is_new and row["root"] in roots and row["root"] == row["name"]:
            yield row


def leaks(
    rows: Sequence[Row], held_out: Iterable[Concept], test: Iterable[Row], captioned: Iterable[Row]
) -> set[int]:
    """Return which rows must not be trained on, by the rules at the top."""
    held_out, test, captioned = list(held_out), list(test), list(captioned)
    roots = {concept.root for concept in held_out}
    index = Index(row["text"] for row in rows)
    named: set[int] = set()
    for names in _names([*rows, *test], held_out).values():
        named = named.union(*map(index.containing, names))
    texts = set(_normalised(row["text"] for row in captioned))
    pictures = {row["phash"] for row in test}
    return (
        _near(rows, captioned)
        | named
        | {
            at
            for at, (row, text) in enumerate(
                zip(rows, _normalised(row["text"] for row in rows), strict=True)
            )
            if row["style"] in HELD_OUT_STYLES
            or row["root"] in roots
            or text in texts
            or row["phash"] in pictures
        }
    )


def _near(rows: Iterable[Row], others: Iterable[Row]) -> set[int]:
    """Return which pictures look like one of the others."""
    ours, theirs = (np.array([int(r["phash"], 16) for r in g], np.uint64) for g in (rows, others))
    found = np.zeros(len(ours), np.bool_)
    for one in theirs:
        found |= np.bitwise_count(ours ^ one) <= NEAR_BITS
    return set(np.flatnonzero(found).tolist())


def _normalised(texts: Iterable[str]) -> list[str]:
    return [str(t) for t in normalise_column(pa.array(texts, pa.string())).to_pylist()]


def _is_line(row: Row) -> bool:
    """Return whether an OpenMoji picture has no colours: it would show the style of the lines."""
    if row["style"] != "openmoji":
        return False
    pixels = _pixels(row)
    spread = pixels.max(axis=2).astype(int) - pixels.min(axis=2)
    return bool((spread > _COLOURED).mean() < _MIN_COLOUR_SHARE)


def _pixels(row: Row) -> npt.NDArray[np.uint8]:
    pixels: Any = cv2.imdecode(np.frombuffer(row["jpeg"], np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None, row["name"]
    return np.asarray(pixels, np.uint8)


def _matched(pool: Sequence[Row], queries: pa.Array) -> pa.Table:
    """Return the rows whose texts contain a query, with the queries, and uids in their order."""
    table = with_uids(pool)
    found = Matcher(queries).match(table["text"])
    table = table.append_column("query_ids", found)
    return table.filter(pc.greater(pc.list_value_length(found), 0)).combine_chunks()


def with_uids(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table with a column ``uid``, in the order of that."""
    uids = [pair_uid(url_of(row), row["text"]) for row in rows]
    table = pa.Table.from_pylist(list(rows))
    return table.append_column("uid", pa.array(uids, pa.binary(16))).sort_by("uid")


def url_of(row: Row) -> str:
    """Return an address that names a picture; nobody answers there."""
    return f"https://{row['style']}.example/{row['name']}"


# --- balance ---------------------------------------------------------------


def balanced(pool: pa.Table, queries: pa.Array, cap: int, seed: int) -> pa.Table:
    """Return the pairs that some query draws, with column ``drawn_by``: ``wit balance`` in memory.

    Args:
        pool: of a split.
        queries: the query list.
        cap: pairs that a query draws at most.
        seed: of the draw.
    """
    pairs = pairs_of(pool["uid"], pool["query_ids"])
    mask = balance.draw(pairs, balance.query_seeds(normalise_column(queries), seed), cap)
    kept = pool.append_column("drawn_by", ids_where(pairs, mask))
    return kept.filter(pa.array(any_where(pairs, mask)))


def unbalanced(pool: pa.Table, size: int, seed: int) -> pa.Table:
    """Return that many pairs of the pool, each as likely as any other."""
    ranks = hash_column(pool["uid"], label_seed(seed, "unbalanced"))
    chosen = np.sort(np.argsort(ranks, kind="stable")[:size])
    return pool.take(chosen).append_column("drawn_by", pool["query_ids"].take(chosen))


def write(folder: str, pairs: pa.Table, queries: pa.Array, seed: int) -> None:
    """Write pairs as a finished data set of shards, in an order drawn from the seed."""
    order = np.argsort(hash_column(pairs["uid"], label_seed(seed, "pack")), kind="stable")
    rows, words = pairs.take(order).to_pylist(), queries.to_pylist()
    starts = range(0, len(rows), _PER_SHARD)
    for shard, start in enumerate(starts):
        part = enumerate(rows[start : start + _PER_SHARD], start)
        write_shard(folder, shard, [_pair(at, row, words) for at, row in part], MAX_BLOCK_BYTES)
    finish(folder, len(starts), generation="g0", recipe="0", max_block_bytes=MAX_BLOCK_BYTES)


def _pair(at: int, row: Row, words: Sequence[str]) -> Pair:
    height, width = _pixels(row).shape[:2]
    metadata = Metadata(
        url=url_of(row),
        page_url=None,
        caption=row["text"],
        text_from="given",
        width=width,
        height=height,
        original_width=width,
        original_height=height,
        sha256=sha256(row["jpeg"]).hexdigest(),
        queries=[words[i] for i in row.get("drawn_by") or ()],
        license=None,
        uid=row["uid"].hex(),
    )
    return Pair(key_of(at), row["jpeg"], metadata)
