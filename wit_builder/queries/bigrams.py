"""How often words and pairs of neighbouring words occur, and which pairs belong together.

A *gram* is one normalised token, or two that are neighbours in a sentence, with a space between.
Sentences end at a line break and at ``. ! ? ; :`` followed by white space; they are cut before
normalising, which removes the marks. Abbreviations ("Dr. Smith") are cut too: that loses a few
pairs and invents none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.text import normalise_column

GRAMS = pa.schema([("gram", pa.string()), ("n", pa.int8()), ("count", pa.int64())])
"""Counts of one unit, or merged: ``n`` is the number of tokens; sorted by ``n`` and ``gram``."""

SCORED = pa.schema([("gram", pa.string()), ("count", pa.int64()), ("pmi", pa.float64())])
"""Grams of a list, in its order."""

_BATCH_CHARS = 8 << 20
_MERGE_ROWS = 8_000_000
_SENTENCE_END = r"[.!?;:]\s+|\n+"


def count(texts: Iterable[str]) -> pa.Table:
    """Return how often each gram occurs in the texts, as ``GRAMS``.

    Texts are taken some 8 million characters at a time, so memory is that of the distinct grams.
    """
    parts: list[pa.Table] = []
    rows = 0
    for batch in _batches(texts):
        parts.extend(_count_batch(batch))
        rows += sum(part.num_rows for part in parts[-2:])
        if rows > _MERGE_ROWS:
            parts = [merge(parts)]
            rows = 0
    return merge(parts)


def merge(parts: list[pa.Table]) -> pa.Table:
    """Return the sums of several ``GRAMS``, independent of their order."""
    if not parts:
        return GRAMS.empty_table()
    grouped = pa.concat_tables(parts).group_by(["n", "gram"], use_threads=False)
    summed = grouped.aggregate([("count", "sum")]).rename_columns(["n", "gram", "count"])
    ordered = summed.sort_by([("n", "ascending"), ("gram", "ascending")])
    return ordered.select(GRAMS.names).cast(GRAMS)


def unigrams(grams: pa.Table, min_count: int) -> pa.Table:
    """Return the words that occur at least so often, as ``SCORED`` without PMI.

    The most frequent come first; equally frequent ones are in code-point order.
    """
    words = _of_size(grams, 1)
    words = words.filter(pc.greater_equal(words["count"], min_count))
    words = words.sort_by([("count", "descending"), ("gram", "ascending")])
    return _scored(words, pa.nulls(words.num_rows, pa.float64()))


def bigrams(grams: pa.Table, min_count: int) -> pa.Table:
    """Return the pairs that occur at least so often, as ``SCORED``, highest PMI first.

    Pointwise mutual information is ``log2(p(xy) / (p(x) p(y)))`` in bits (Church and Hanks 1990,
    equation 1; named by CLIP, arXiv 2103.00020, footnote 1, which gives no cut), each probability
    being a count over the number of tokens, as there. The floor is needed: without one, PMI is
    highest for pairs seen once. Equal scores are ordered by count, then by code points.
    """
    words, pairs = _of_size(grams, 1), _of_size(grams, 2)
    pairs = pairs.filter(pc.greater_equal(pairs["count"], min_count))
    if not pairs.num_rows:
        return SCORED.empty_table()
    lift = _lift(words, pairs)
    # The order comes from the ratio, by IEEE division alone, and the logarithm is rounded: library
    # versions differ in the last bit of log2, and the same counts must give the same bytes.
    pmi = pa.array(np.round(np.log2(lift), 6))
    pairs = pairs.append_column("pmi", pmi).append_column("lift", pa.array(lift))
    order = [("lift", "descending"), ("count", "descending"), ("gram", "ascending")]
    pairs = pairs.sort_by(order)
    return _scored(pairs, pairs["pmi"])


def tokens(grams: pa.Table) -> int:
    """Return the number of tokens counted."""
    return int(pc.sum(_of_size(grams, 1)["count"]).as_py() or 0)


def _lift(words: pa.Table, pairs: pa.Table) -> npt.NDArray[np.float64]:
    """Return p(xy) / (p(x) p(y)) of every pair."""
    sides = pc.split_pattern(pairs["gram"].combine_chunks(), " ")
    known = words["gram"].combine_chunks()
    counts = words["count"].to_numpy().astype(np.float64)
    first, second = (
        counts[pc.index_in(pc.list_element(sides, side), value_set=known).to_numpy()]
        for side in (0, 1)
    )
    together = pairs["count"].to_numpy().astype(np.float64)
    lift: npt.NDArray[np.float64] = (together / first) * (counts.sum() / second)
    return lift


def _of_size(grams: pa.Table, n: int) -> pa.Table:
    return grams.filter(pc.equal(grams["n"], n))


def _scored(grams: pa.Table, pmi: pa.Array) -> pa.Table:
    return pa.table([grams["gram"], grams["count"], pmi], schema=SCORED)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    chars = 0
    for text in texts:
        batch.append(text)
        chars += len(text)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _count_batch(texts: list[str]) -> list[pa.Table]:
    """Return the unigrams and the bigrams of some texts."""
    pieces = pc.split_pattern_regex(pa.array(texts, pa.string()), _SENTENCE_END)
    sentences = normalise_column(pc.list_flatten(pieces))
    sentences = sentences.filter(pc.not_equal(sentences, ""))
    split = pc.split_pattern(sentences, " ")
    encoded = pc.dictionary_encode(pc.list_flatten(split))
    ids = encoded.indices.to_numpy().astype(np.int64)
    words = encoded.dictionary
    return [_unigram_counts(ids, words), _bigram_counts(ids, words, pc.list_value_length(split))]


def _unigram_counts(ids: npt.NDArray[np.int64], words: pa.Array) -> pa.Table:
    return _grams(words, 1, np.bincount(ids, minlength=len(words)))


def _bigram_counts(ids: npt.NDArray[np.int64], words: pa.Array, lengths: pa.Array) -> pa.Table:
    last_of_sentence = np.cumsum(lengths.to_numpy()) - 1
    starts_pair = np.ones(len(ids), np.bool_)
    starts_pair[last_of_sentence] = False
    first = np.flatnonzero(starts_pair)
    pairs, counts = np.unique(ids[first] * len(words) + ids[first + 1], return_counts=True)
    left, right = np.divmod(pairs, max(1, len(words)))
    joined = pc.binary_join_element_wise(words.take(left), words.take(right), " ")
    return _grams(joined, 2, counts)


def _grams(grams: pa.Array, n: int, counts: npt.NDArray[np.int64]) -> pa.Table:
    sizes = pa.array(np.full(len(grams), n, np.int8))
    return pa.table([grams, sizes, pa.array(counts.astype(np.int64))], schema=GRAMS)
