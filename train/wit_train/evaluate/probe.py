"""Linear probes: how well logistic regression tells classes apart by a model's features.

As in the CLIP paper (section 3.2, appendix A.3): scikit-learn's L-BFGS, at most 1,000 iterations,
on features as they are, neither standardised nor normalised. The strength lambda of the L2 penalty
is that of ``sum of losses + lambda / 2 * |weights|^2``, so scikit-learn's ``C`` is 1 / lambda. Two
classes get scikit-learn's binary regression.

A fit ends when no slope of that sum exceeds 1e-4. That was scikit-learn's default when the paper
was written; since version 1.4 the same default is of the mean over N, which ends weakly penalised
fits long before their optimum. Hence ``tol = 1e-4 / N`` here.

Features stay float32. Every fit begins at zero: from a neighbour's weights it takes a third fewer
iterations, but weakly penalised ones end elsewhere (decision 52). clip_benchmark trains by AdamW,
on a GPU only, over 97 weight decays from 1e-6 to 100: its numbers are of another estimator.

Legend: N examples, F features, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from wit_builder.errors import TrainingError
from wit_train.evaluate.examples import F32, I64, Examples, Splits, checked, part, places

Metric = Literal["top1", "mean_per_class"]
Told = Callable[[str], object]

MAX_ITERATIONS = 1000
STRENGTHS = tuple(float(10.0 ** (at / 8 - 6)) for at in range(97))
"""What is swept: 1e-6 to 1e6 in 96 steps, 8 a decade (CLIP paper, appendix A.3)."""
_FIRST_STEP = 16
"""Two decades: the search begins with 1e-6, 1e-4, ... 1e6."""
_TOLERANCE = 1e-4
_ROWS = 4096
"""Examples that are scored at once."""


class Settings(msgspec.Struct, frozen=True):
    """How probes are fitted.

    Attributes:
        metric: what is best on the validation set: the data set's own, as in the paper.
        seed: of what is split off and drawn; at least 0.
        draws: of a few examples of each class.
        threads: of each fit's products of matrices. With one, results are the same on any number
            of cores; another number changes the last bits, and may change a prediction.
    """

    metric: Metric = "top1"
    seed: int = 0
    draws: int = 3
    threads: int = 1


class Probe(NamedTuple):
    """What a linear probe found on the test set.

    Attributes:
        strength: lambda, chosen on the validation set.
        swept: the strengths that were tried, ascending, with the metric on the validation set.
        predicted_N: class of each test example.
        rank_N: how many classes score above the right one; 0 where ``predicted_N`` is right. Of
            equal scores the lower class goes first, as in scikit-learn's ``predict``. A class that
            training lacks ranks behind all.
        train, validation: examples; the last fit is on both.
        converged: whether the last fit ended before its limit of iterations.
        iterations: of the last fit.
        notes: what else a reader must know.
    """

    strength: float
    swept: list[tuple[float, float]]
    predicted_N: I64
    rank_N: I64
    train: int
    validation: int
    converged: bool
    iterations: int
    notes: list[str]


class Shot(NamedTuple):
    """What probes on a few examples of each class found on the test set.

    Attributes:
        k: examples of a class.
        accuracies: top-1 of each draw.
        strength: lambda, chosen by the first draw on the validation set.
        short: classes of which there are fewer than k; all of theirs are used.
        notes: what else a reader must know.
    """

    k: int
    accuracies: list[float]
    strength: float
    short: int
    notes: list[str]

    @property
    def mean(self) -> float:
        """Top-1, mean over the draws."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Standard deviation of top-1 over the draws (n - 1); 0 for one draw."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


class _Fit(NamedTuple):
    """A fitted classifier of scikit-learn, which has no types."""

    classifier: Any
    converged: bool
    iterations: int


def linear_probe(
    train: Examples,
    validation: Examples | None,
    test: Examples,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    told: Told = lambda _: None,
) -> Probe:
    """Return what a linear probe finds: swept on validation, then fitted on both, judged on test.

    The same input gives the same result on any number of cores, as long as ``settings.threads`` is
    the same. Memory beside the features given: those of training and validation once more, joined
    or split; about 10 bytes x N x C and 170 bytes x F x C for a fit.

    Args:
        train: examples to learn from, of at least two classes.
        validation: to choose the strength on; None splits off a fifth of each class of ``train``.
        test: to judge by. Examples of classes that training lacks count as wrong, and are noted.
        settings: how.
        told: is given a line about each fit.

    Raises:
        TrainingError: the sets are not usable (see ``examples.checked``).
    """
    splits = checked(train, validation, test, settings.seed)
    strength, swept, unsettled = _swept(splits.train, splits.validation, settings, told)
    whole = splits.whole()
    fit = _fitted(whole, strength, settings.threads)
    told(f"strength {strength:.3g} on all {len(whole.target_N):,} examples: {_ended(fit)}")
    predicted_N, rank_N = _judged(fit, splits.test, settings.threads)
    return Probe(
        strength,
        swept,
        predicted_N,
        rank_N,
        len(splits.train.target_N),
        len(splits.validation.target_N),
        fit.converged,
        fit.iterations,
        splits.notes + unsettled + ([] if fit.converged else [f"the last fit {_ended(fit)}"]),
    )


def few_shot(
    train: Examples,
    validation: Examples | None,
    test: Examples,
    shots: Sequence[int],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    told: Told = lambda _: None,
) -> list[Shot]:
    """Return top-1 of probes on k examples of each class, for each k (CLIP paper, figure 6).

    A draw takes examples by seed, without repeats; its examples for a smaller k are among those for
    a larger one. The strength is chosen once for each k, by the first draw. Validation examples are
    never trained on. Without a validation set a fifth of each class is split off before drawing.

    Args:
        train: examples to draw from.
        validation: to choose the strengths on.
        test: to judge by.
        shots: how many examples of each class, such as 1, 2, 4, 8, 16.
        settings: how.
        told: is given a line about each fit.

    Raises:
        TrainingError: as ``linear_probe``; or a number of shots is less than one, or more than any
            class has.
    """
    if not shots or min(shots) < 1:
        what = "a number of shots is at least one"
        raise TrainingError(what, where=str(list(shots)), fix="say 1,2,4,8,16")
    splits = checked(train, validation, test, settings.seed)
    most = int(np.bincount(splits.train.target_N).max())
    if max(shots) > most:
        raise TrainingError(
            f"no class has {max(shots):,} examples to draw from, the largest {most:,}",
            where="few-shot",
            fix="ask for fewer",
        )
    return [_shot(splits, k, settings, told) for k in shots]


def _shot(splits: Splits, k: int, settings: Settings, told: Told) -> Shot:
    target_N = splits.train.target_N
    drawn = [
        part(splits.train, places(target_N, settings.seed, draw + 1) < k)
        for draw in range(settings.draws)
    ]
    strength, _, notes = _swept(drawn[0], splits.validation, settings, lambda _: None)
    accuracies = list[float]()
    for examples in drawn:
        fit = _fitted(examples, strength, settings.threads)
        _, rank_N = _judged(fit, splits.test, settings.threads)
        accuracies.append(float((rank_N == 0).mean()))
        told(f"{k} of each class: {accuracies[-1]:.2%} of the test examples, {_ended(fit)}")
        notes += [] if fit.converged else [f"a fit {_ended(fit)}"]
    size_C = np.unique(target_N, return_counts=True)[1]
    short = int((size_C < k).sum())
    if short:
        notes.append(f"{short:,} of {len(size_C):,} classes have fewer examples")
    named = [f"{k} of each class: {note}" for note in notes]
    return Shot(k, accuracies, strength, short, splits.notes + named)


# --- the strength -----------------------------------------------------------


def search(measure: Callable[[float], float]) -> tuple[float, list[tuple[float, float]]]:
    """Return the best of ``STRENGTHS``, and all that were measured, ascending.

    The paper's search: begins with 7 strengths two decades apart, then measures the two points half
    way to the neighbours of the best one, until those are an eighth of a decade away; 11 to 15 of
    the 97. It finds the peak of a curve that only rises before it and only falls behind it. Among
    equals the strongest penalty wins: the simpler classifier, and the faster fit.

    Args:
        measure: what is to be as high as can be.
    """
    found = {at: measure(STRENGTHS[at]) for at in range(0, len(STRENGTHS), _FIRST_STEP)}
    step = _FIRST_STEP
    while step > 1:
        step //= 2
        best = _peak(found)
        for at in (best - step, best + step):
            if 0 <= at < len(STRENGTHS):
                found[at] = measure(STRENGTHS[at])
    return STRENGTHS[_peak(found)], [(STRENGTHS[at], found[at]) for at in sorted(found)]


def _peak(found: dict[int, float]) -> int:
    return max(found, key=lambda at: (found[at], at))


def _swept(
    train: Examples, validation: Examples, settings: Settings, told: Told
) -> tuple[float, list[tuple[float, float]], list[str]]:
    """Return the best strength, what was measured, and a note if fits did not converge."""
    unsettled = list[float]()

    def measure(strength: float) -> float:
        fit = _fitted(train, strength, settings.threads)
        predicted_N, _ = _judged(fit, validation, settings.threads)
        value = measured(settings.metric, predicted_N, validation.target_N)
        unsettled.extend([] if fit.converged else [strength])
        told(f"strength {strength:.3g}: {settings.metric} {value:.2%} on validation, {_ended(fit)}")
        return value

    strength, swept = search(measure)
    note = f"{len(unsettled)} of {len(swept)} fits of the sweep did not converge"
    return strength, swept, [note] if unsettled else []


def measured(metric: Metric, predicted_N: I64, target_N: I64) -> float:
    """Return the share of right predictions, of all or as mean of the classes that occur."""
    right_N = predicted_N == target_N
    if metric == "top1":
        return float(right_N.mean())
    _, class_N, size_C = np.unique(target_N, return_inverse=True, return_counts=True)
    return float((np.bincount(class_N, weights=right_N) / size_C).mean())


# --- one fit ----------------------------------------------------------------


def _fitted(examples: Examples, strength: float, threads: int) -> _Fit:
    """Return the classifier of one strength; what scikit-learn warns of is in ``converged``."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - takes a second
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - as above
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn

    classifier = LogisticRegression(
        C=1 / strength, max_iter=MAX_ITERATIONS, tol=_TOLERANCE / len(examples.target_N)
    )
    with threadpool_limits(threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        # of a few examples of each of many classes it asks whether they are classes
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        classifier.fit(examples.feature_NF, examples.target_N)
    others = [w for w in caught if not issubclass(w.category, ConvergenceWarning)]
    for other in others:
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return _Fit(classifier, len(others) == len(caught), int(classifier.n_iter_[0]))


def _ended(fit: _Fit) -> str:
    how = "converged" if fit.converged else "did not converge"
    return f"{how} in {fit.iterations} iterations"


def _judged(fit: _Fit, examples: Examples, threads: int) -> tuple[I64, I64]:
    """Return what is predicted, and the rank of the right class (see ``Probe.rank_N``)."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn

    class_C: I64 = fit.classifier.classes_
    predicted_N, rank_N = np.empty_like(examples.target_N), np.empty_like(examples.target_N)
    for first in range(0, len(rank_N), _ROWS):
        rows = slice(first, first + _ROWS)
        with threadpool_limits(threads):
            score_NC = _scores(fit.classifier, examples.feature_NF[rows])
        predicted_N[rows] = class_C[score_NC.argmax(1)]
        rank_N[rows] = _ranks(score_NC, class_C, examples.target_N[rows])
    return predicted_N, rank_N


def _scores(classifier: Any, feature_NF: F32) -> F32:
    scores: F32 = classifier.decision_function(feature_NF)
    # of two classes scikit-learn scores the second only
    return np.stack([np.zeros_like(scores), scores], 1) if scores.ndim == 1 else scores


def _ranks(score_NC: F32, class_C: I64, target_N: I64) -> I64:
    column_N = np.searchsorted(class_C, target_N).clip(max=len(class_C) - 1)
    right_N1 = np.take_along_axis(score_NC, column_N[:, None], 1)
    before_NC = np.arange(len(class_C)) < column_N[:, None]
    rank_N = ((score_NC > right_N1) | ((score_NC == right_N1) & before_NC)).sum(1)
    return np.where(class_C[column_N] == target_N, rank_N, len(class_C))
