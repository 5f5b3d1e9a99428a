"""Counts of mistakes, against plain loops over the pictures."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_train.evaluate import mistakes
from wit_train.evaluate.mistakes import Judged
from wit_train.evaluate.statistics import clopper_pearson

CLASSES = 5
_ids = st.integers(0, CLASSES - 1)
_found = st.lists(st.tuples(_ids, _ids, st.integers(1, 9), st.floats(-1, 1)), max_size=40)


def _judged(found: list[tuple[int, int, int, float]]) -> Judged:
    truths, answers, ranks, scores = (np.array(c) for c in zip(*found, strict=True))
    ranks = np.where(truths == answers, 0, ranks)
    return Judged(np.arange(len(found)), truths, answers, ranks, scores, CLASSES)


@given(_found.filter(len))
def test_counts_are_those_of_a_loop(found):
    """Pictures, right answers, answers and the most frequent mistake of every class."""
    counts = mistakes.per_class(_judged(found))
    for c in range(CLASSES):
        wrong = Counter(a for t, a, *_ in found if t == c != a)
        assert counts.pictures_C[c] == sum(t == c for t, *_ in found)
        assert counts.right_C[c] == sum(t == c == a for t, a, *_ in found)
        assert counts.within5_C[c] == sum(t == c and (a == c or r < 5) for t, a, r, _ in found)
        assert counts.answered_C[c] == sum(a == c for _, a, *_ in found)
        best = min(wrong, key=lambda a: (-wrong[a], a)) if wrong else -1
        assert (counts.mistaken_C[c], counts.mistakes_C[c]) == (best, wrong[best])


@given(_found.filter(len), st.integers(1, 3))
def test_confusions_are_those_of_a_loop(found, most):
    """Wrong answers of a class come most frequent first, their pictures surest first."""
    judged = _judged(found)
    for c in range(CLASSES):
        wrong = Counter(a for t, a, *_ in found if t == c != a)
        shown = mistakes.confusions(judged, c, most)
        wanted = sorted(wrong, key=lambda a: (-wrong[a], a))[:most]
        assert [(f.answer, f.times) for f in shown] == [(a, wrong[a]) for a in wanted]
        for confusion in shown:
            rows = confusion.rows_N.tolist()
            assert rows == sorted(rows, key=lambda i: (-found[i][3], i))
            assert all(found[i][:2] == (c, confusion.answer) for i in rows)
            assert len(rows) == confusion.times


@given(_found.filter(len), st.integers(0, 6))
def test_a_matrix_holds_every_picture_of_its_rows(found, columns):
    """Cells and what has no column add up; the rows' own classes are always columns."""
    counts = mistakes.per_class(_judged(found))
    truths = mistakes.by_accuracy(counts)[:3]
    shown = mistakes.matrix(_judged(found), truths, columns)
    assert shown.answers[: len(truths)] == truths.tolist() == shown.truths
    assert len(shown.answers) <= max(columns, len(truths))
    sums = shown.counts_MA.sum(1) + shown.others_M
    assert sums.tolist() == counts.pictures_C[truths].tolist()
    for truth, row in zip(shown.truths, shown.counts_MA.tolist(), strict=True):
        assert row == [sum(t == truth and a == b for t, a, *_ in found) for b in shown.answers]


def test_the_intervals_are_clopper_and_pearsons():
    """Whole columns have the bounds of single ones; a class without pictures has none."""
    found = [(0, 0, 1, 0.0)] * 3 + [(0, 1, 1, 0.0)] * 4 + [(1, 1, 1, 0.0)] * 5 + [(2, 1, 1, 0.0)]
    counts = mistakes.per_class(_judged(found))
    for c, (hits, trials) in enumerate([(3, 7), (5, 5), (0, 1)]):
        bounds = (counts.low_C[c], counts.high_C[c])
        assert bounds == pytest.approx(clopper_pearson(hits, trials), abs=1e-9)
    assert (counts.low_C[3], counts.high_C[3]) == (0, 1)


def test_one_unlucky_picture_is_not_the_worst_class():
    """By the bare share it comes first; surely below all pictures is the class of one in fifty."""
    found = [(0, 1, 1, 0.0)] + [(1, 1, 1, 0.0)] * 50
    found += [(2, 3, 1, 0.0)] * 49 + [(2, 2, 1, 0.0)]
    counts = mistakes.per_class(_judged(found))
    assert mistakes.by_accuracy(counts).tolist() == [0, 2, 1]
    assert mistakes.accuracy(counts) == 51 / 101
    assert mistakes.surely_worst(counts, 5).tolist() == [2]


def test_mistakes_are_shown_of_many_classes():
    """The surest wrong answers come first, and each class has its turn before the next round."""
    found = [(0, 1, 1, 0.9), (0, 1, 1, 0.8), (0, 0, 1, 1.0), (3, 1, 2, 0.1), (2, 1, 1, 0.5)]
    assert mistakes.surest_mistakes(_judged(found), 9).tolist() == [0, 4, 3, 1]
    assert mistakes.surest_mistakes(_judged(found), 2).tolist() == [0, 4]


def test_a_tie_with_the_right_class_is_a_mistake():
    """Ties count against the model, so the right class can be answered and not be right."""
    one = np.array([1])
    judged = Judged(one, one, one, one, np.array([0.5]), CLASSES)
    counts = mistakes.per_class(judged)
    assert (counts.right_C[1], counts.mistaken_C[1], counts.mistakes_C[1]) == (0, 1, 1)
