"""Texts that come with too many URLs, over all archives."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder import exchange
from wit_builder.curate import repeats
from wit_builder.hashing import hash_column
from wit_builder.text import normalise, normalise_column

BUCKETS = 3
TEXTS = st.sampled_from(["a dog", "A Dog!", "dog", "a cat", "cat, a", "bird"])
PAIRS = st.lists(st.tuples(TEXTS, st.integers(0, 4)), max_size=30)


def write_uses(pairs: list[tuple[str, int]], url: str) -> str:
    """Write the uses of some pairs, as one archive's unit does."""
    texts = normalise_column(pa.array([text for text, _ in pairs], pa.string()))
    urls = pa.chunked_array([[f"http://a.test/{n}" for _, n in pairs]], pa.string())
    found = repeats.uses(texts, urls)
    exchange.scatter(found, repeats.bucket_of(found, BUCKETS), BUCKETS, url)
    return url


def repeated(files: list[str], limit: int, folder: Path) -> list[str]:
    """Return the tables of repeated texts, a bucket each."""
    places = [str(folder / f"{bucket}.parquet") for bucket in range(BUCKETS)]
    for bucket, place in enumerate(places):
        repeats.run(repeats.RepeatsJob(files, bucket, limit, place))
    return places


@settings(max_examples=30)  # each writes some ten files
@given(st.lists(PAIRS, min_size=1, max_size=4), st.integers(1, 4))
def test_texts_with_more_urls_than_the_limit_are_repeated(
    tmp_path_factory: pytest.TempPathFactory, archives: list[list[tuple[str, int]]], limit: int
) -> None:
    """Distinct URLs of a normalised text are counted over all archives, however they are cut."""
    folder = tmp_path_factory.mktemp("x")
    files = [write_uses(p, str(folder / f"{i}.uses")) for i, p in enumerate(archives)]
    found = repeats.read_repeated(repeated(files, limit, folder))
    urls = defaultdict(set)
    for text, url in (pair for pairs in archives for pair in pairs):
        urls[normalise(text)].add(url)
    expected = {
        xxhash.xxh64_intdigest(text.encode()) for text, of in urls.items() if len(of) > limit
    }
    assert found.tolist() == sorted(expected)
    together = write_uses([pair for pairs in archives for pair in pairs], str(folder / "all.uses"))
    assert repeats.read_repeated(repeated([together], limit, folder)).tolist() == found.tolist()


def test_texts_are_recognised_in_any_spelling() -> None:
    """A text is repeated if its normalised form is."""
    texts = pa.chunked_array([["A DOG", "a cat"], ["(a) dog"]])
    hashes = hash_column(pa.array(["a dog"]))
    assert repeats.is_repeated(texts, hashes).tolist() == [True, False, True]
    assert repeats.is_repeated(texts, hashes[:0]).tolist() == [False, False, False]
    assert repeats.read_repeated([]).tolist() == []


def test_a_bucket_counts_its_texts(tmp_path: Path) -> None:
    """Counts say how many texts there were, and how many of them are repeated."""
    url = write_uses([("a", 1), ("a", 2), ("a", 2), ("b", 1)], str(tmp_path / "f.uses"))
    jobs = [repeats.RepeatsJob([url], b, 1, str(tmp_path / f"{b}.parquet")) for b in range(BUCKETS)]
    done = [repeats.run(job) for job in jobs]
    assert sum(d.counts["texts"] for d in done) == 2
    assert sum(d.counts["repeated"] for d in done) == 1
    assert [repeats.run(job) for job in jobs] == done
