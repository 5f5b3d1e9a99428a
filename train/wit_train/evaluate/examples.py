"""Examples to learn from, to choose by and to be judged by: checked, split off, drawn.

Legend: N examples, F features, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wit_builder.errors import TrainingError

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_VALIDATION_SHARE = 0.2


class Examples(NamedTuple):
    """Features and classes of pictures.

    Attributes:
        feature_NF: taken as float32; no copy where it is, in C order.
        target_N: class numbers from 0; not every class need occur.
    """

    feature_NF: F32
    target_N: I64


class Splits(NamedTuple):
    """Examples that were checked.

    Attributes:
        train, validation, test: what is learned from, chosen by, judged by.
        origin: what training and validation were split from; None where both were given.
        notes: what a reader must know of them.
    """

    train: Examples
    validation: Examples
    test: Examples
    origin: Examples | None
    notes: list[str]

    def whole(self) -> Examples:
        """Return training and validation together; a copy where both were given."""
        if self.origin is not None:
            return self.origin
        feature_NF = np.concatenate([self.train.feature_NF, self.validation.feature_NF])
        return Examples(feature_NF, np.concatenate([self.train.target_N, self.validation.target_N]))


def checked(train: Examples, validation: Examples | None, test: Examples, seed: int) -> Splits:
    """Return the three sets, or raise what is wrong with them.

    Test examples of a class that training lacks stay, and are noted: no answer to them can be
    right. In a validation set they are an error: it would choose for other classes.

    Args:
        train: examples of at least two classes.
        validation: None splits off a fifth of each class of ``train``, rounded down, but one where
            a class has two to four; a class of one stays whole.
        test: any examples.
        seed: of the split, at least 0.

    Raises:
        TrainingError: a set is empty, has a feature that is not finite, other widths or an example
            without class; training has one class only; validation has a class that training lacks;
            nothing can be split off.
    """
    train, test = _sound(train, "training set"), _sound(test, "test set")
    class_C = np.unique(train.target_N)
    if len(class_C) < 2:
        what = f"all examples are of class {class_C[0]}"
        raise TrainingError(what, where="training set", fix="give at least two classes")
    _same_width(train, test, "test set")
    notes = _lacking(class_C, test.target_N)
    if validation is None:
        learned, held = _split(train, seed)
        notes.append(f"{len(held.target_N):,} training examples were split off for validation")
        return Splits(learned, held, test, train, notes)
    held = _sound(validation, "validation set")
    _same_width(train, held, "validation set")
    unknown = np.setdiff1d(held.target_N, class_C)
    if len(unknown):
        what, fix = (
            f"class {unknown[0]} is not in the training set",
            "give sets of the same classes",
        )
        raise TrainingError(what, where="validation set", fix=fix)
    return Splits(train, held, test, None, notes)


def part(examples: Examples, chosen_N: npt.NDArray[np.bool_]) -> Examples:
    """Return the chosen ones, copied, in their order."""
    return Examples(examples.feature_NF[chosen_N], examples.target_N[chosen_N])


def places(target_N: I64, seed: int, draw: int) -> I64:
    """Return the place of each example in a shuffled list of its class, from 0.

    Args:
        target_N: classes.
        seed: at least 0.
        draw: another one shuffles otherwise.
    """
    # numpy promises the raw numbers of a bit generator for all its versions, and nothing else
    random_N = np.random.PCG64((seed, draw)).random_raw(len(target_N))
    order_N = np.lexsort((random_N, target_N))
    _, first_C, size_C = np.unique(target_N[order_N], return_index=True, return_counts=True)
    place_N = np.empty(len(target_N), np.int64)
    place_N[order_N] = np.arange(len(target_N)) - np.repeat(first_C, size_C)
    return place_N


def _split(whole: Examples, seed: int) -> tuple[Examples, Examples]:
    _, class_N, size_C = np.unique(whole.target_N, return_inverse=True, return_counts=True)
    share_C = np.where(size_C > 1, np.maximum(1, size_C * _VALIDATION_SHARE), 0).astype(np.int64)
    held_N = places(whole.target_N, seed, 0) < share_C[class_N]
    if not held_N.any():
        what = "no class has two examples, so none can be split off for validation"
        raise TrainingError(what, where="training set", fix="give a validation set")
    return part(whole, ~held_N), part(whole, held_N)


def _lacking(class_C: I64, target_N: I64) -> list[str]:
    lacking_N = target_N[~np.isin(target_N, class_C)]
    if not len(lacking_N):
        return []
    named = ", ".join(str(c) for c in np.unique(lacking_N)[:5])
    return [f"{len(lacking_N):,} test examples count as wrong: training lacks class {named}"]


def _same_width(train: Examples, other: Examples, name: str) -> None:
    width, found = train.feature_NF.shape[1], other.feature_NF.shape[1]
    if found != width:
        what = f"{found} features where the training set has {width}"
        raise TrainingError(what, where=name, fix="use the same model for all sets")


def _sound(examples: Examples, name: str) -> Examples:
    """Return examples as float32 and int64, or raise what is wrong with them."""
    feature_NF = np.ascontiguousarray(examples.feature_NF, np.float32)
    target_N = np.asarray(examples.target_N, np.int64)
    if not len(target_N):
        raise TrainingError("no examples", where=name, fix="give a set with pictures that decode")
    if feature_NF.ndim != 2 or len(feature_NF) != len(target_N):
        what = f"features {feature_NF.shape} and classes {target_N.shape} do not match"
        raise TrainingError(what, where=name, fix="give a row of features for each example")
    if target_N.min() < 0:
        where = f"{name}, example {target_N.argmin()}"
        raise TrainingError("an example has no class", where=where, fix="leave it out")
    finite_N = np.isfinite(feature_NF).all(1)
    if not finite_N.all():
        where = f"{name}, example {finite_N.argmin()}"
        fix = "look at the model's weights, or embed in float32"
        raise TrainingError("a feature is not finite", where=where, fix=fix)
    return Examples(feature_NF, target_N)
