"""What overlap did to an accuracy."""

from __future__ import annotations

import pyarrow as pa
import pytest
from scipy.stats import binom, binomtest

from wit_train.overlap.account import account


def _predictions(ranks: list[int]) -> pa.Table:
    return pa.table({"index": range(len(ranks)), "rank": pa.array(ranks, pa.int32())})


def test_accuracies_are_those_of_the_parts():
    """All, overlap and clean are counted apart; a picture without a prediction does not count."""
    found = account(_predictions([0, 0, 0, 1, 2, 0, 1, 0]), {0, 1, 2, 3, 99})
    assert found.all.value == 5 / 8
    assert found.overlap
    assert found.overlap.value == 3 / 4
    assert found.clean
    assert found.clean.value == 2 / 4
    assert found.inflation == pytest.approx(1 / 8)


def test_p_value_and_interval_are_the_paper_s():
    """One-tailed binomial test with the clean accuracy as null, and Clopper-Pearson at 99.5 %."""
    found = account(_predictions([0] * 9 + [1] + [0] * 50 + [1] * 50), set(range(10)))
    assert found.p_value == pytest.approx(binom.sf(8, 10, 0.5))
    assert found.overlap
    exact = binomtest(9, 10).proportion_ci(0.995, method="exact")
    assert (found.overlap.low, found.overlap.high) == pytest.approx((exact.low, exact.high))


def test_no_overlap_inflates_nothing():
    """Without overlapping pictures there is no test and no interval, and all is clean."""
    found = account(_predictions([0, 1]), set())
    assert (found.overlap, found.p_value, found.inflation) == (None, None, 0)


def test_overlap_without_clean_pictures_has_no_null_hypothesis():
    """Where all pictures overlap, what clean ones would score is unknown, and so is the rest."""
    found = account(_predictions([0, 1]), {0, 1})
    assert (found.clean, found.p_value, found.inflation) == (None, None, None)
    assert found.overlap
    assert found.overlap.value == 0.5
