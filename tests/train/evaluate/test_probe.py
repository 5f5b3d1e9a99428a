import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from wit_builder.errors import TrainingError
from wit_train.evaluate import probe
from wit_train.evaluate.examples import Examples, checked, places
from wit_train.evaluate.probe import STRENGTHS, Settings, few_shot, linear_probe, search


def made(count: int, classes: int = 5, seed: int = 0, *, first: int = 0) -> Examples:
    """Blobs that overlap, of 12 features; every class occurs."""
    drawn = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    features = np.random.default_rng(99).normal(size=(classes, 12))[targets]
    noisy = (features + 1.5 * drawn.normal(size=(count, 12))).astype(np.float32)
    return Examples(noisy, targets + first)


TRAIN, VALIDATION, TEST = made(120, seed=1), made(60, seed=2), made(200, seed=3)


def by_hand(examples: Examples, strength: float) -> LogisticRegression:
    """What a user of scikit-learn would write."""
    tolerance = 1e-4 / len(examples.target_N)
    with threadpoolctl.threadpool_limits(1):
        return LogisticRegression(C=1 / strength, max_iter=1000, tol=tolerance).fit(*examples)


def joined(one: Examples, other: Examples) -> Examples:
    features = np.concatenate([one.feature_NF, other.feature_NF])
    return Examples(features, np.concatenate([one.target_N, other.target_N]))


@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_scikit_learns_logistic_regression_on_training_and_validation(classes):
    """Predictions and scores are those of scikit-learn at the strength that was chosen."""
    train, validation, test = (made(90, classes, seed) for seed in (1, 2, 3))
    found = linear_probe(train, validation, test)
    classifier = by_hand(joined(train, validation), found.strength)
    predicted = classifier.predict(test.feature_NF)
    assert found.predicted_N.tolist() == predicted.tolist()
    assert float((found.rank_N == 0).mean()) == accuracy_score(test.target_N, predicted)
    balanced = balanced_accuracy_score(test.target_N, predicted)
    assert probe.measured("mean_per_class", found.predicted_N, test.target_N) == balanced
    assert found.converged
    assert found.iterations == classifier.n_iter_[0]


def test_ranks_are_places_in_scikit_learns_probabilities():
    """A rank below five is what scikit-learn's probabilities put among the best five."""
    train, test = made(200, 8, 1, first=3), made(100, 8, 2, first=3)
    found = linear_probe(train, None, test)
    probabilities = by_hand(train, found.strength).predict_proba(test.feature_NF)
    best = np.argsort(-probabilities, 1)[:, :5] + 3
    assert (found.rank_N < 5).tolist() == (best == test.target_N[:, None]).any(1).tolist()


def test_the_sweep_measures_scikit_learns_accuracy_on_validation():
    """Each strength that was tried has the accuracy that scikit-learn has on validation."""
    found = linear_probe(TRAIN, VALIDATION, TEST)
    for strength, value in found.swept[::4]:
        assert value == by_hand(TRAIN, strength).score(*VALIDATION)
    assert found.strength == max(found.swept, key=lambda at: (at[1], at[0]))[0]


def test_the_metric_that_is_swept_can_be_the_mean_of_the_classes():
    """A set that is scored per class is swept per class."""
    few = Examples(VALIDATION.feature_NF[:53], VALIDATION.target_N[:53])
    found = linear_probe(TRAIN, few, TEST, Settings("mean_per_class"))
    strength, value = found.swept[0]
    predicted = by_hand(TRAIN, strength).predict(few.feature_NF)
    assert value == pytest.approx(balanced_accuracy_score(few.target_N, predicted))


def test_strengths_are_the_papers():
    """There are 96 steps, of an eighth of a decade each, from 1e-6 to 1e6."""
    assert len(STRENGTHS) == 97
    assert (STRENGTHS[0], STRENGTHS[48], STRENGTHS[-1]) == pytest.approx((1e-6, 1, 1e6))
    assert np.diff(np.log10(STRENGTHS)) == pytest.approx(np.full(96, 1 / 8))


def test_the_search_visits_what_the_papers_would():
    """It begins with seven strengths, then halves the interval around the best one."""
    visited = list[float]()

    def measure(strength: float) -> float:
        visited.append(strength)
        return -abs(math.log10(strength) - 1.4)

    best, swept = search(measure)
    decades = np.log10(visited)
    assert decades[:7] == pytest.approx([-6, -4, -2, 0, 2, 4, 6])
    assert decades[7:] == pytest.approx([1, 3, 0.5, 1.5, 1.25, 1.75, 1.375, 1.625])
    assert np.log10(best) == pytest.approx(1.375)
    assert [strength for strength, _ in swept] == sorted(visited)


@given(peak=st.floats(-7, 7), rise=st.floats(0.01, 9), fall=st.floats(0.01, 9))
def test_the_search_finds_the_peak_of_a_curve_that_has_one(peak, rise, fall):
    """Where a curve rises, then falls, the search finds what measuring all 97 would."""

    def curve(strength: float) -> float:
        away = math.log10(strength) - peak
        return -rise * away**2 if away > 0 else fall * away

    best, swept = search(curve)
    assert curve(best) == max(curve(strength) for strength in STRENGTHS)
    assert 11 <= len(swept) <= 15


def test_of_equal_strengths_the_strongest_wins():
    """A curve without a peak ends at its strongest penalty."""
    assert search(lambda _: 0.5)[0] == STRENGTHS[-1]


def test_a_fifth_of_each_class_is_split_off_where_there_is_no_validation_set():
    """The split is by class and by seed, and the last fit is on all of the training set."""
    splits = checked(TRAIN, None, TEST, seed=0)
    assert np.bincount(splits.validation.target_N).tolist() == [4] * 5
    assert np.bincount(splits.train.target_N).tolist() == [20] * 5
    rows = {row.tobytes() for row in np.concatenate([splits.train[0], splits.validation[0]])}
    assert rows == {row.tobytes() for row in TRAIN.feature_NF}
    other = checked(TRAIN, None, TEST, seed=1)
    assert not np.array_equal(splits.validation.feature_NF, other.validation.feature_NF)
    assert splits.whole() is splits.origin


def test_a_class_of_one_stays_in_training():
    """Nothing is split off a class of one example, and one example of a class of two."""
    train = Examples(TRAIN.feature_NF[:3], np.array([0, 1, 1]))
    splits = checked(train, None, Examples(TEST.feature_NF[:2], np.array([0, 1])), seed=0)
    assert sorted(splits.train.target_N) == [0, 1]
    assert splits.validation.target_N.tolist() == [1]


@given(
    targets=st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array),
    seed=st.integers(0, 2**63),
    k=st.integers(1, 20),
)
def test_a_draw_takes_k_of_each_class_without_repeats(targets, seed, k):
    """A class gives k different examples, or all it has; a smaller draw is part of a larger."""
    order = places(targets, seed, draw=1)
    for c in np.unique(targets):
        size = int((targets == c).sum())
        assert sorted(order[targets == c]) == list(range(size))
        assert ((targets == c) & (order < k)).sum() == min(k, size)
    assert (places(targets, seed, draw=1) == order).all()


def test_draws_do_not_change_with_versions():
    """The order of a seed is written down here: numpy's raw random numbers stay as they are."""
    assert places(np.zeros(8, int), seed=3, draw=1).tolist() == [0, 3, 2, 4, 6, 7, 1, 5]


def test_few_shot_is_scikit_learn_on_the_drawn_examples():
    """Each draw's accuracy is scikit-learn's on k examples of each class, without validation."""
    found = few_shot(TRAIN, VALIDATION, TEST, [1, 4], Settings(seed=7, draws=2))
    assert [shot.k for shot in found] == [1, 4]
    for shot in found:
        for draw, accuracy in enumerate(shot.accuracies):
            taken = places(TRAIN.target_N, 7, draw + 1) < shot.k
            drawn = Examples(TRAIN.feature_NF[taken], TRAIN.target_N[taken])
            assert np.bincount(drawn.target_N).tolist() == [shot.k] * 5
            assert accuracy == by_hand(drawn, shot.strength).score(*TEST)
        assert shot.mean == pytest.approx(sum(shot.accuracies) / 2)
        assert shot.spread == pytest.approx(np.ptp(shot.accuracies) / np.sqrt(2))
        assert (shot.short, shot.notes) == (0, [])


def test_classes_with_too_few_examples_give_what_they_have_and_are_counted():
    """A class with fewer than k examples is neither left out nor passed over in silence."""
    train = Examples(TRAIN.feature_NF[:13], TRAIN.target_N[:13])  # classes of 3, 3, 3, 2, 2
    (shot,) = few_shot(train, VALIDATION, TEST, [3], Settings(draws=1))
    assert shot.short == 2
    assert shot.notes == ["3 of each class: 2 of 5 classes have fewer examples"]
    assert shot.accuracies == [by_hand(train, shot.strength).score(*TEST)]
    assert shot.spread == 0


def test_the_same_seed_gives_the_same_again():
    """Neither what is split off nor what is fitted changes between calls."""
    once, again = (linear_probe(TRAIN, None, TEST, Settings(seed=5)) for _ in range(2))
    assert (once.strength, once.swept, once.notes) == (again.strength, again.swept, again.notes)
    assert once.predicted_N.tobytes() == again.predicted_N.tobytes()
    assert once.rank_N.tobytes() == again.rank_N.tobytes()
    shots = [few_shot(TRAIN, None, TEST, [2], Settings(seed=s, draws=2)) for s in (5, 5, 6)]
    assert shots[0] == shots[1] != shots[2]


def test_the_number_of_cores_changes_no_bit_of_a_fit():
    """A fit on one thread has the same weights whatever the process is allowed otherwise."""
    drawn = np.random.default_rng(0)
    wide = Examples(drawn.normal(size=(600, 300)).astype(np.float32), np.arange(600) % 40)
    weights = list[bytes]()
    for allowed in (1, 2):
        with threadpoolctl.threadpool_limits(allowed):
            weights.append(probe._fitted(wide, 1.0, threads=1).classifier.coef_.tobytes())
            allowed_now = {p["num_threads"] for p in threadpoolctl.threadpool_info()}
        assert allowed_now == {allowed}
    assert weights[0] == weights[1]


def test_features_stay_float32():
    """Neither what is given nor what is fitted is widened to float64."""
    sound = checked(TRAIN, VALIDATION, TEST, seed=0)
    assert sound.train.feature_NF is TRAIN.feature_NF
    assert probe._fitted(sound.train, 1.0, threads=1).classifier.coef_.dtype == np.float32


def test_a_fit_that_does_not_converge_is_told_and_noted_and_warns_of_nothing(monkeypatch):
    """Reaching the limit of iterations is in the result and in the lines, not in warnings."""
    monkeypatch.setattr(probe, "MAX_ITERATIONS", 2)
    lines = list[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = linear_probe(TRAIN, VALIDATION, TEST, told=lines.append)
        (shot,) = few_shot(TRAIN, VALIDATION, TEST, [2], Settings(draws=1))
    assert not found.converged
    assert found.iterations == 2
    assert any("of the sweep did not converge" in note for note in found.notes)
    assert found.notes[-1] == "the last fit did not converge in 2 iterations"
    assert len(lines) == len(found.swept) + 1
    assert lines[-1].endswith("did not converge in 2 iterations")
    assert shot.notes[-1] == "2 of each class: a fit did not converge in 2 iterations"


def test_other_warnings_of_a_fit_are_not_swallowed(monkeypatch):
    """Only what ``converged`` says is kept back."""

    def fit(self: LogisticRegression, *_: object) -> None:
        self.n_iter_ = np.array([1])
        warnings.warn("of another kind", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    with pytest.warns(RuntimeWarning, match="of another kind"):
        assert probe._fitted(TRAIN, 1.0, threads=1).converged


def test_test_examples_of_a_class_that_training_lacks_are_wrong_and_noted():
    """They stay in the test set: leaving them out would flatter."""
    test = joined(TEST, Examples(TEST.feature_NF[:3], np.array([2, 9, 7])))
    found = linear_probe(TRAIN, VALIDATION, test)
    assert found.notes == ["2 test examples count as wrong: training lacks class 7, 9"]
    assert found.rank_N[-2:].tolist() == [5, 5]
    assert len(found.predicted_N) == 203


def _nan(examples: Examples) -> Examples:
    features = examples.feature_NF.copy()
    features[4, 2] = np.nan
    return Examples(features, examples.target_N)


@dataclass
class _Flaw:
    what: str
    train: Examples = TRAIN
    validation: Examples | None = VALIDATION
    test: Examples = TEST


FLAWS = {
    "empty test set": _Flaw(
        r"no examples \[test set\]", test=Examples(TEST.feature_NF[:0], TEST.target_N[:0])
    ),
    "one class": _Flaw(
        r"all examples are of class 3 \[training", Examples(TRAIN.feature_NF, np.full(120, 3))
    ),
    "class unknown to training": _Flaw(
        r"class 5 is not in the training set \[validation set\]", validation=made(70, 7)
    ),
    "negative class": _Flaw(
        r"no class \[training set, example 0\]", Examples(TRAIN.feature_NF, TRAIN.target_N - 1)
    ),
    "not a number": _Flaw(r"not finite \[validation set, example 4\]", validation=_nan(TRAIN)),
    "other width": _Flaw(
        r"11 features where the training set has 12 \[test set\]",
        test=Examples(TEST.feature_NF[:, :11], TEST.target_N),
    ),
    "classes missing": _Flaw(
        r"\(120, 12\) and classes \(119,\) do not", Examples(TRAIN.feature_NF, TRAIN.target_N[1:])
    ),
    "an example a class": _Flaw(
        r"no class has two examples",
        Examples(TRAIN.feature_NF[:5], TRAIN.target_N[:5]),
        validation=None,
    ),
}


@pytest.mark.parametrize("flaw", FLAWS.values(), ids=FLAWS.keys())
def test_sets_that_cannot_be_used_are_refused(flaw):
    """The error says what is wrong, in which set, and what to do."""
    with pytest.raises(TrainingError, match=flaw.what) as caught:
        linear_probe(flaw.train, flaw.validation, flaw.test)
    assert caught.value.fix


@pytest.mark.parametrize("shots", [[], [4, 0]])
def test_shots_below_one_are_refused(shots):
    """A number of examples of a class is at least one."""
    with pytest.raises(TrainingError, match="at least one"):
        few_shot(TRAIN, VALIDATION, TEST, shots)
