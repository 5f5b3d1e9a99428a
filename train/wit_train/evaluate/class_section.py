"""What the page tells of single classes: their accuracy, and what the worst are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from wit_train.evaluate import mistakes, plots
from wit_train.evaluate.html import ordinal, signed
from wit_train.evaluate.mistakes import Confusion, Judged, PerClass
from wit_train.evaluate.results import Score
from wit_train.evaluate.thumbnails import Pictures, thumbnails

WORST, CONFUSIONS, OF_EACH = 10, 3, 4
"""Classes whose mistakes are shown, wrong answers of each, pictures of each: 120 at most."""

MISTAKES = 21
"""Pictures with wrong answers where no class is surely bad: rows of seven, on phones of three."""

MATRIX_CLASSES, MATRIX_COLUMNS = 12, 18
CLASS_ROWS = 5000
"""Rows of the table of classes at most, worst first; a data set's 1,000 are some 0.5 MB of page."""


class _Wanted(NamedTuple):
    """A class with its confusions, of which pictures are to be shown."""

    truth: int
    confusions: list[Confusion]


def class_section(
    predictions: pa.Table | None, classes: Sequence[str], pictures: Pictures
) -> dict[str, Any] | None:
    """Return what the page tells of classes; None where no picture was measured.

    Args:
        predictions: ``results.PREDICTIONS``.
        classes: names, by the numbers in the predictions.
        pictures: asked once, for ``WORST * CONFUSIONS * OF_EACH`` at most, or ``MISTAKES``.
    """
    if predictions is None or not len(predictions):
        return None
    judged = Judged.of(predictions, len(classes))
    counts = mistakes.per_class(judged)
    order = mistakes.by_accuracy(counts)
    few = len(order) <= MATRIX_CLASSES
    truths = np.sort(order) if few else mistakes.surely_worst(counts, MATRIX_CLASSES)
    shown = (predictions["picture"], pictures)
    worst = _worst(judged, counts, classes, shown)
    return {
        "count": len(order),
        "rows": [_class_row(counts, classes, c) for c in order[:CLASS_ROWS].tolist()],
        "perfect": int((counts.right_C[order] == counts.pictures_C[order]).sum()),
        "average": mistakes.accuracy(counts),
        "worst": worst,
        "mistakes": [] if worst else _mistakes(judged, classes, shown),
        "matrix": _matrix(judged, truths, classes) if len(truths) > 1 else None,
        "matrix_of_all": few,
    }


def _class_row(counts: PerClass, classes: Sequence[str], c: int) -> dict[str, Any]:
    of, right, within5 = (int(column[c]) for column in counts[:3])
    low, high = float(counts.low_C[c]), float(counts.high_C[c])
    mistaken = int(counts.mistaken_C[c])
    return {
        "name": classes[c],
        "pictures": of,
        "top1": right / of,
        "top5": within5 / of,
        "answered": int(counts.answered_C[c]),
        "bar": plots.interval_bar(Score(right / of, None, low, high)),
        "mistaken": "" if mistaken < 0 else _answer(classes, c, mistaken),
        "mistakes": int(counts.mistakes_C[c]),
    }


def _answer(classes: Sequence[str], truth: int, answer: int) -> str:
    """Return the name of an answer; a tie at the top counts against the model, so it is none."""
    return classes[answer] if answer != truth else "another class, in a tie"


def _worst(
    judged: Judged,
    counts: PerClass,
    classes: Sequence[str],
    shown: tuple[pa.ChunkedArray, Pictures],
) -> list[dict[str, Any]]:
    """Return the worst classes with what they are taken for, and pictures of that."""
    worst = mistakes.surely_worst(counts, WORST).tolist()
    wanted = [_Wanted(c, mistakes.confusions(judged, c, CONFUSIONS)) for c in worst]
    rows = [r for w in wanted for f in w.confusions for r in f.rows_N[:OF_EACH].tolist()]
    seen = _seen(judged, rows, shown)
    return [_worst_class(w, counts, classes, seen) for w in wanted]


def _mistakes(
    judged: Judged, classes: Sequence[str], shown: tuple[pa.ChunkedArray, Pictures]
) -> list[dict[str, Any]]:
    """Return pictures with wrong answers: what they are, and what they were taken for."""
    rows = mistakes.surest_mistakes(judged, MISTAKES).tolist()
    seen = _seen(judged, rows, shown)
    of = [(int(judged.target_N[r]), int(judged.predicted_N[r])) for r in rows]
    return [
        seen[row] | {"truth": classes[truth], "answer": _answer(classes, truth, answer)}
        for row, (truth, answer) in zip(rows, of, strict=True)
    ]


def _seen(
    judged: Judged, rows: list[int], shown: tuple[pa.ChunkedArray, Pictures]
) -> dict[int, dict[str, Any]]:
    """Return what is told of pictures, by their rows in the predictions."""
    names = shown[0].take(pa.array(rows, pa.int64())).to_pylist()
    places = [int(judged.index_N[row]) for row in rows]
    thumbs = thumbnails(places, shown[1])
    return {
        row: {
            "name": name,
            "score": signed(judged.score_N[row]),
            "place": ordinal(int(judged.rank_N[row])),
            **thumbs[place]._asdict(),
        }
        for row, place, name in zip(rows, places, names, strict=True)
    }


def _worst_class(
    wanted: _Wanted, counts: PerClass, classes: Sequence[str], seen: dict[int, dict[str, Any]]
) -> dict[str, Any]:
    truth = wanted.truth
    return _class_row(counts, classes, truth) | {
        "right": int(counts.right_C[truth]),
        "confusions": [
            {
                "answer": _answer(classes, truth, found.answer),
                "count": found.times,
                "pictures": [seen[row] for row in found.rows_N[:OF_EACH].tolist()],
            }
            for found in wanted.confusions
        ],
    }


def _matrix(judged: Judged, truths: mistakes.I64, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the confusions of some classes; None where there are none to see."""
    found = mistakes.matrix(judged, truths, MATRIX_COLUMNS)
    if np.trace(found.counts_MA) == found.counts_MA.sum():
        return None
    rows = []
    for truth, counts_A, others in zip(found.truths, found.counts_MA, found.others_M, strict=True):
        whole = int(counts_A.sum() + others)
        counts = [*zip(found.answers, counts_A.tolist(), strict=True), (-1, int(others))]
        cells = [
            {
                "count": count,
                "share": f"{count / whole:.3f}" if answer >= 0 else "",
                "right": answer == truth,
                "told": f"{classes[truth]} taken for "
                f"{'other classes' if answer < 0 else classes[answer]}: "
                f"{count:,} of {whole:,}",
            }
            for answer, count in counts
        ]
        rows.append({"name": classes[truth], "cells": cells})
    others = bool(found.others_M.any())
    if not others:
        rows = [{**row, "cells": row["cells"][:-1]} for row in rows]
    names = [classes[answer] for answer in found.answers] + ["other classes"] * others
    return {"rows": rows, "columns": names}
