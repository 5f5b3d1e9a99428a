"""Which classes a model gets wrong, and for what it takes them. No loop over pictures.

Legend: N pictures, C classes, M classes whose mistakes are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_LEVEL = 0.95


@dataclass(frozen=True)
class Judged:
    """The columns of ``results.PREDICTIONS`` that count, and the number of classes."""

    index_N: I64
    target_N: I64
    predicted_N: I64
    rank_N: I64
    score_N: F64
    classes: int

    @classmethod
    def of(cls, predictions: pa.Table, classes: int) -> Judged:
        """Return them of a table."""
        target_N, predicted_N, rank_N, index_N = (
            predictions[name].to_numpy().astype(np.int64)
            for name in ("target", "predicted", "rank", "index")
        )
        score_N = predictions["score"].to_numpy().astype(np.float64)
        return cls(index_N, target_N, predicted_N, rank_N, score_N, classes)


class PerClass(NamedTuple):
    """Counts by class, and the 95 % confidence interval of each one's top-1."""

    pictures_C: I64
    right_C: I64
    within5_C: I64
    answered_C: I64
    """How often it was the answer, rightly or not."""
    low_C: F64
    high_C: F64
    mistaken_C: I64
    """The most frequent wrong answer; -1 where there is none."""
    mistakes_C: I64
    """How often that was the answer."""


def per_class(judged: Judged) -> PerClass:
    """Return the counts of every class; one without pictures has an interval of [0, 1]."""

    def count(of_N: I64) -> I64:
        return np.bincount(of_N, minlength=judged.classes)

    pictures_C = count(judged.target_N)
    right_C = count(judged.target_N[judged.rank_N == 0])
    within5_C = count(judged.target_N[judged.rank_N < 5])
    low_C, high_C = _clopper_pearson(right_C, pictures_C)
    mistaken_C, mistakes_C = _most_frequent_mistake(judged)
    answered_C = count(judged.predicted_N)
    return PerClass(
        pictures_C, right_C, within5_C, answered_C, low_C, high_C, mistaken_C, mistakes_C
    )


def _clopper_pearson(hits_C: I64, trials_C: I64) -> tuple[F64, F64]:
    """Return the bounds of ``statistics.clopper_pearson`` for whole columns, without trials too."""
    from scipy.special import betaincinv  # noqa: PLC0415 - takes half a second

    tail, missed_C = (1 - _LEVEL) / 2, trials_C - hits_C
    # the parameters of a beta distribution are above zero; at the ends the bound is exact
    low_C = betaincinv(np.maximum(hits_C, 1), missed_C + 1, tail)
    high_C = betaincinv(hits_C + 1, np.maximum(missed_C, 1), 1 - tail)
    return np.where(hits_C == 0, 0.0, low_C), np.where(missed_C == 0, 1.0, high_C)


def _wrong_pairs(judged: Judged) -> tuple[I64, I64, I64]:
    """Return truth, answer and count of every mistake; of each truth the most frequent first."""
    wrong_N = judged.rank_N > 0
    codes, counts = np.unique(
        judged.target_N[wrong_N] * judged.classes + judged.predicted_N[wrong_N], return_counts=True
    )
    truths, answers = codes // judged.classes, codes % judged.classes
    order = np.lexsort((answers, -counts, truths))
    return truths[order], answers[order], counts[order]


def _most_frequent_mistake(judged: Judged) -> tuple[I64, I64]:
    truths, answers, counts = _wrong_pairs(judged)
    found, first = np.unique(truths, return_index=True)
    mistaken_C, mistakes_C = np.full(judged.classes, -1), np.zeros(judged.classes, np.int64)
    mistaken_C[found], mistakes_C[found] = answers[first], counts[first]
    return mistaken_C, mistakes_C


def by_accuracy(counts: PerClass) -> I64:
    """Return the classes that have pictures: lowest top-1 first, then the largest."""
    present = np.flatnonzero(counts.pictures_C)
    share = counts.right_C[present] / counts.pictures_C[present]
    return present[np.lexsort((present, -counts.pictures_C[present], share))]


def accuracy(counts: PerClass) -> float:
    """Return top-1 over all pictures; of none it is 0."""
    return float(counts.right_C.sum() / max(counts.pictures_C.sum(), 1))


def surely_worst(counts: PerClass, most: int) -> I64:
    """Return the classes whose top-1 is surely below that of all pictures, lowest first.

    Their intervals end below it. So a class of one picture, and that one wrong, is none of them.
    """
    low = np.flatnonzero((counts.pictures_C > 0) & (counts.high_C < accuracy(counts)))
    return low[np.lexsort((low, counts.high_C[low]))][:most]


def surest_mistakes(judged: Judged, most: int) -> I64:
    """Return rows of the predictions with a wrong answer, the highest scores first.

    Each class has its turn before one has its second, so that no class is all that is seen.
    """
    rows_N = np.flatnonzero(judged.rank_N > 0)
    rows_N = rows_N[np.lexsort((rows_N, -judged.score_N[rows_N], judged.target_N[rows_N]))]
    _, first_N, class_N = np.unique(judged.target_N[rows_N], return_index=True, return_inverse=True)
    turn_N = np.arange(len(rows_N)) - first_N[class_N]
    return rows_N[np.lexsort((rows_N, -judged.score_N[rows_N], turn_N))][:most]


class Confusion(NamedTuple):
    """A class taken for another."""

    answer: int
    times: int
    rows_N: I64
    """Of the table of predictions: the highest scores first, which were the surest mistakes."""


def confusions(judged: Judged, truth: int, most: int) -> list[Confusion]:
    """Return for what a class was taken, most frequent first, ``most`` of them at most."""
    rows_N = np.flatnonzero((judged.target_N == truth) & (judged.rank_N > 0))
    rows_N = rows_N[np.lexsort((rows_N, -judged.score_N[rows_N]))]
    answers, counts = np.unique(judged.predicted_N[rows_N], return_counts=True)
    order = np.lexsort((answers, -counts))[:most]
    return [
        Confusion(answer, count, rows_N[judged.predicted_N[rows_N] == answer])
        for answer, count in zip(answers[order].tolist(), counts[order].tolist(), strict=True)
    ]


class Matrix(NamedTuple):
    """How often which class was the answer: a row for each truth."""

    truths: list[int]
    answers: list[int]
    counts_MA: I64
    others_M: I64
    """Answers that have no column."""


def matrix(judged: Judged, truths: I64, columns: int) -> Matrix:
    """Return the confusions of some classes.

    The columns are those classes in the same order, then the answers they got most often.
    """
    row_of_C = np.full(judged.classes, -1)
    row_of_C[truths] = np.arange(len(truths))
    row_N = row_of_C[judged.target_N]
    shown_N = row_N >= 0
    cells = row_N[shown_N] * judged.classes + judged.predicted_N[shown_N]
    shape = (len(truths), judged.classes)
    counts_MC = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    foreign_C = counts_MC.sum(0)
    foreign_C[truths] = 0
    further = np.flatnonzero(foreign_C)
    further = further[np.lexsort((further, -foreign_C[further]))][: max(columns - len(truths), 0)]
    answers = np.concatenate([truths, further])
    counts_MA = counts_MC[:, answers]
    others_M = counts_MC.sum(1) - counts_MA.sum(1)
    return Matrix(truths.tolist(), answers.tolist(), counts_MA, others_M)
