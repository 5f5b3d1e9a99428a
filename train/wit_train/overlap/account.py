"""What overlap did to an accuracy: of all, overlapping and clean pictures (CLIP, section 5)."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from wit_train.evaluate.results import Score
from wit_train.evaluate.statistics import clopper_pearson, share

LEVEL = 0.995
"""Confidence of the interval of the overlap's accuracy."""


class Account(NamedTuple):
    """Accuracies, and whether they differ by more than chance.

    Attributes:
        all, overlap, clean: top-1; None where there is no such picture.
        inflation: all less clean; None where nothing is clean.
        p_value: of the one-tailed (greater) binomial test of the overlap's accuracy, the clean
            pictures' being the null hypothesis; None where one of the two is missing.
    """

    all: Score
    overlap: Score | None
    clean: Score | None
    inflation: float | None
    p_value: float | None


def account(predictions: pa.Table, overlapping: Collection[int]) -> Account:
    """Return the accuracies of a test set's parts.

    Args:
        predictions: with ``index``, and ``rank``: 0 where the right class came first; not empty.
        overlapping: indices of test pictures; those without a prediction do not count.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - takes half a second

    right = predictions["rank"].to_numpy() == 0
    known = np.fromiter(overlapping, np.int64, len(overlapping))
    is_overlap = np.isin(predictions["index"].to_numpy(), known)
    hits, trials = int(right[is_overlap].sum()), int(is_overlap.sum())
    clean_hits, clean_trials = int(right.sum()) - hits, len(right) - trials
    whole = share(int(right.sum()), len(right))
    overlap = Score(hits / trials, None, *clopper_pearson(hits, trials, LEVEL)) if trials else None
    if not clean_trials:
        return Account(whole, overlap, None, None, None)
    clean = share(clean_hits, clean_trials)
    p_value = None
    if trials:
        p_value = float(binomtest(hits, trials, clean.value, alternative="greater").pvalue)
    return Account(whole, overlap, clean, whole.value - clean.value, p_value)
