"""The made pool has the shape that is published, and the model leaves numbers of matches alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.balance_scale import (
    CAP,
    HEAD,
    MATCHED,
    MATCHES,
    QUERIES,
    TOP,
    Texts,
    drawn_texts,
    expected,
    published_counts,
)


@pytest.mark.parametrize("head_share", [0.945, 0.955])
def test_counts_have_the_published_sums(head_share):
    """Queries, matches, the head's part, and the most frequent ones are as told."""
    counts = published_counts(head_share)
    assert len(counts) == QUERIES
    assert np.count_nonzero(counts) == MATCHED
    assert counts.sum() == pytest.approx(MATCHES)
    assert counts[:HEAD].sum() == pytest.approx(MATCHES * head_share)
    assert counts[HEAD - 1] == pytest.approx(CAP)
    assert (counts[: len(TOP)] == np.array(TOP) * 1e6).all()
    assert (np.diff(counts) <= 0).all()


@pytest.mark.parametrize("leaning", [0.0, 0.3, 0.5])
def test_queries_come_as_often_as_their_counts(leaning):
    """Whatever the leaning, but for those that come twice in a text."""
    counts = np.array([1.0, 4, 2, 3, *[10] * 90])
    texts = drawn_texts(50_000, counts, np.random.default_rng(1), leaning)
    found = np.bincount(texts.queries, minlength=len(counts))
    shares, wanted = found / found.sum(), counts / counts.sum()
    assert np.abs(shares - wanted).max() < 5 * np.sqrt(wanted.max() / found.sum()) + 0.001


def test_queries_of_a_text_are_distinct_and_in_order():
    """Every text has at least one, and they rise."""
    texts = drawn_texts(2_000, np.array([5.0, 1, 1, 1]), np.random.default_rng(1), 0.4)
    lists = np.split(texts.queries, texts.offsets[1:-1])
    assert len(lists) == 2_000
    assert all(len(ids) and (np.diff(ids) > 0).all() for ids in lists)


def test_the_expected_share_is_that_of_independent_draws():
    """Chances of 1/2 and 1/4 keep 1/2 and 5/8; below the cap all is kept."""
    texts = Texts(np.array([0, 1, 3, 4]), np.array([0, 0, 1, 2], np.int32))
    kept = expected(texts, np.array([20.0, 40, 10]), 10)
    assert kept.pairs == pytest.approx((1 / 2 + 5 / 8 + 1) / 3)
    assert kept.matches == pytest.approx((1 / 2 + 2 * 5 / 8 + 1) / 4)
