"""How sure a measured number is.

Legend: N examples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wit_train.evaluate.results import Score

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32] | npt.NDArray[np.int64]
_LEVEL = 0.95
_NORMAL = 1.959964
"""Standard deviations on either side that hold 95 % of a normal distribution."""
_TOP = 5


def clopper_pearson(hits: int, trials: int, level: float = _LEVEL) -> tuple[float, float]:
    """Return the exact confidence interval of a share (Clopper and Pearson, 1934).

    Args:
        hits: how many of the trials succeeded.
        trials: at least one.
        level: of confidence.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - takes half a second

    found = binomtest(hits, trials).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def share(hits: int, trials: int, chance: float | None = None) -> Score:
    """Return hits / trials with its interval; trials are at least one."""
    return Score(hits / trials, chance, *clopper_pearson(hits, trials))


def mean_per_class(
    right_N: npt.NDArray[np.bool_], target_N: Ints, chance: float | None = None
) -> Score:
    """Return the mean of the classes' shares, over the classes that have examples.

    The interval is normal, cut at 0 and 1, with p (1 - p) / n for the variance of a share h / n,
    where p = (h + 1) / (n + 2) (Laplace): so a class of one example, or one that is always right,
    does not pass for certain.
    """
    size_C = np.bincount(target_N)
    hits_C = np.bincount(target_N, weights=right_N, minlength=len(size_C))
    hits_C, size_C = hits_C[size_C > 0], size_C[size_C > 0]
    share_C = (hits_C + 1) / (size_C + 2)
    variance = float((share_C * (1 - share_C) / size_C).sum()) / len(size_C) ** 2
    return _normal(float((hits_C / size_C).mean()), variance, chance)


def clustered(hits_N: Ints, trials_N: Ints, chance: float | None = None) -> Score:
    """Return the share of trials that succeeded, where those of one cluster go together.

    Such as captions of one picture. The interval is normal, with the variance of a ratio of
    cluster totals; Clopper and Pearson's over the clusters where that is 0, and over the trials
    where every cluster has one.

    Args:
        hits_N: of each cluster.
        trials_N: of each cluster, at least one in all.
        chance: what guessing would give.
    """
    hits, trials, clusters = int(hits_N.sum()), int(trials_N.sum()), int((trials_N > 0).sum())
    if trials == clusters:
        return share(hits, trials, chance)
    value = hits / trials
    apart = float(((hits_N - value * trials_N) ** 2).sum())
    if not apart or clusters < 2:
        return Score(value, chance, *clopper_pearson(round(value * clusters), clusters))
    return _normal(value, clusters / (clusters - 1) * apart / trials**2, chance)


def classification(rank_N: Ints, target_N: Ints, classes: int) -> dict[str, Score]:
    """Return top-1, top-5 (of more than five classes) and the mean per class.

    Args:
        rank_N: how many classes score at least as well as the right one.
        target_N: the right ones.
        classes: to choose from.
    """
    count, right_N = len(rank_N), rank_N == 0
    scores = {"top1": share(int(right_N.sum()), count, 1 / classes)}
    if classes > _TOP:
        scores["top5"] = share(int((rank_N < _TOP).sum()), count, _TOP / classes)
    scores["mean_per_class"] = mean_per_class(right_N, target_N, 1 / classes)
    return scores


def roc_auc(score_N: F64, positive_N: npt.NDArray[np.bool_]) -> Score:
    """Return the area under the ROC curve: how often a positive example scores above a negative.

    A tie counts half (the Mann-Whitney statistic). The interval is DeLong's (1988), cut at 0 and 1;
    there is none where that has no width, as when all positive ones score above all negative ones.

    Raises:
        ValueError: all examples are of one kind.
    """
    from scipy.stats import rankdata  # noqa: PLC0415 - takes half a second

    positive, negative = score_N[positive_N], score_N[~positive_N]
    if not (len(positive) and len(negative)):
        raise ValueError("examples of both kinds are needed")
    every, own = rankdata(score_N), np.empty(len(score_N))
    own[positive_N], own[~positive_N] = rankdata(positive), rankdata(negative)
    below = every - own  # of the other kind: how many score less, ties half
    auc = float(below[positive_N].mean() / len(negative))
    kinds = (below[positive_N] / len(negative), below[~positive_N] / len(positive))
    variance = sum(part.var(ddof=1) / len(part) for part in kinds if len(part) > 1)
    return _normal(auc, float(variance), 0.5) if variance else Score(auc, 0.5)


def _normal(value: float, variance: float, chance: float | None) -> Score:
    half = _NORMAL * variance**0.5
    return Score(value, chance, max(0.0, value - half), min(1.0, value + half))
