"""How sure a number is, beside scikit-learn and textbooks."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from wit_train.evaluate import statistics


@pytest.mark.parametrize("level", [0.5, 0.95, 0.995])
@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (1, 2), (7, 20)])
def test_clopper_pearson_is_exact(hits: int, trials: int, level: float):
    """At either end, as many hits or more (fewer) have a chance of half of what is left."""

    def chance(share: float, counts: range) -> float:
        return sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in counts)

    low, high = statistics.clopper_pearson(hits, trials, level)
    tail = (1 - level) / 2
    assert low == 0 if not hits else chance(low, range(hits, trials + 1)) == pytest.approx(tail)
    assert high == 1 if hits == trials else chance(high, range(hits + 1)) == pytest.approx(tail)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_roc_auc_is_scikit_learns(data):
    """Ties and all; and it lies in its interval."""
    count = data.draw(st.integers(2, 40))
    kinds = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    kinds[:2] = [True, False]
    steps = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    scores = np.array(steps) / 10
    found = statistics.roc_auc(scores, np.array(kinds))
    assert found.value == pytest.approx(roc_auc_score(kinds, scores))
    if found.low is not None and found.high is not None:
        assert 0 <= found.low < found.value < found.high <= 1 or found.value in (0, 1)


def test_one_kind_has_no_roc_curve():
    """It is said, rather than given a number."""
    with pytest.raises(ValueError, match="both kinds"):
        statistics.roc_auc(np.array([0.1, 0.2]), np.array([True, True]))


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_the_mean_per_class_is_scikit_learns_balanced_accuracy(examples):
    """Classes without an example do not count."""
    target, right = (np.array(part) for part in zip(*examples, strict=True))
    found = statistics.mean_per_class(right, target)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        expected = balanced_accuracy_score(target, np.where(right, target, 7))
    assert found.value == pytest.approx(expected)


@pytest.mark.parametrize("each", [1, 2, 20])
def test_the_interval_of_the_mean_per_class_holds_the_truth(each):
    """In some 95 of 100 draws of examples, be it that there is one of each class or twenty."""
    drawn = np.random.default_rng(each)
    share_C = drawn.uniform(0.1, 0.9, 100)
    target_N = np.repeat(np.arange(100), each)
    held = 0
    for _ in range(200):
        right_N = drawn.random(len(target_N)) < share_C[target_N]
        found = statistics.mean_per_class(right_N, target_N)
        held += (found.low or 0) <= share_C.mean() <= (found.high or 0)
    assert 180 <= held <= 200


@pytest.mark.parametrize("right", [[True] * 10 + [False] * 10, [True] * 20])
def test_no_interval_is_of_no_width(right: list[bool]):
    """Not where a model is always right about one class and never about the other."""
    found = statistics.mean_per_class(np.array(right), np.repeat([0, 1], 10))
    assert found.low is not None
    assert found.low < found.value
    apart = statistics.roc_auc(np.array([0.1, 0.2]), np.array([False, True]))
    assert (apart.value, apart.low, apart.high) == (1.0, None, None)


def test_captions_of_one_picture_go_together():
    """An interval over clusters holds the truth as often as it says; one over trials does not."""
    drawn = np.random.default_rng(0)
    held, held_by_trials = 0, 0
    for _ in range(300):
        share_N = drawn.random(80) < 0.4  # a picture is found by all of its captions, or by none
        hits_N, trials_N = share_N * 5, np.full(80, 5)
        found = statistics.clustered(hits_N, trials_N)
        held += (found.low or 0) <= 0.4 <= (found.high or 0)
        low, high = statistics.clopper_pearson(int(hits_N.sum()), 400)
        held_by_trials += low <= 0.4 <= high
    assert held >= 0.91 * 300
    assert held_by_trials < 0.8 * 300


def test_single_captions_are_independent():
    """Then the interval is Clopper and Pearson's; it is that over pictures where all agree."""
    one = statistics.clustered(np.array([1, 0, 1]), np.ones(3, np.int64), 0.2)
    assert one == statistics.share(2, 3, 0.2)
    all_right = statistics.clustered(np.array([2, 5, 3]), np.array([2, 5, 3]))
    assert (all_right.low, all_right.high) == statistics.clopper_pearson(3, 3)
