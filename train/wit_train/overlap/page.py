"""The page of overlap: pairs around the threshold, side by side, to judge by eye."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_train.evaluate import html
from wit_train.evaluate.results import Overlap
from wit_train.evaluate.thumbnails import thumbnail
from wit_train.overlap.lists import Listed
from wit_train.overlap.threshold import Measured

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

AROUND, FAR = 36, 12
"""Pairs that are shown on each side of the threshold, and further away on each side."""

_OF_A_PICTURE = 2  # pairs of one test picture at most: some have dozens
_BINS = 40
_WIDTH, _HEIGHT = 640.0, 150.0


class Row(NamedTuple):
    """A pair as the page shows it: thumbnails (none: does not decode), names and figures."""

    test: str | None
    training: str | None
    picture: str
    shard: str
    key: str
    url: str
    cosine: float | None
    correlation: float
    distance: int
    variant: str


class Bar(NamedTuple):
    """A bar of the histogram, in drawing units, and what it says."""

    x: float
    height: float
    kept: bool
    said: str


def chosen(pairs: pa.Table, least: float) -> list[int]:
    """Return the rows that are shown: of a cosine about the threshold, and of rejected pixels.

    Args:
        pairs: of ``lists.PAIRS``.
        least: the threshold.
    """
    index_M = pairs["index"].to_numpy()
    cosine_M, correlation_M = (
        pairs[name].to_numpy().astype(np.float64) for name in ("cosine", "correlation")
    )
    rejected = np.where(np.isnan(cosine_M), correlation_M, np.nan)
    above, below, others = (
        _near_and_far(_nearest(values, index_M))
        for values in (
            np.where(cosine_M >= least, cosine_M - least, np.nan),
            np.where(cosine_M < least, least - cosine_M, np.nan),
            1 - rejected,
        )
    )
    by_cosine = sorted(above + below, key=lambda row: (-cosine_M[row], row))
    return by_cosine + sorted(others, key=lambda row: (-rejected[row], row))


def _nearest(far_M: F64, index_M: I64) -> list[int]:
    """Return rows by how far off they are, without those that are NaN; few of a test picture."""
    seen: dict[int, int] = {}
    rows = list[int]()
    for row in np.argsort(far_M, kind="stable")[: np.count_nonzero(~np.isnan(far_M))].tolist():
        seen[index_M[row]] = seen.get(index_M[row], 0) + 1
        if seen[index_M[row]] <= _OF_A_PICTURE:
            rows.append(row)
    return rows


def _near_and_far(side: Sequence[int]) -> list[int]:
    near, far = list(side[:AROUND]), side[AROUND:]
    steps = np.linspace(0, len(far) - 1, min(FAR, len(far))).astype(int)
    return near + [far[step] for step in sorted(set(steps.tolist()))]


def render(
    found: Overlap,
    pairs: pa.Table,
    listed: Listed,
    measured: Measured,
    pictures: dict[int, tuple[bytes, bytes]],
) -> str:
    """Return the page. The same values give the same text.

    Args:
        found: the result.
        pairs: of ``lists.PAIRS``.
        listed: how long the lists are.
        measured: what the model gives copies and others.
        pictures: the test and the training picture, encoded, of the rows that are shown.
    """
    rows = [_row(pairs.slice(row, 1).to_pylist()[0], *both) for row, both in pictures.items()]
    cosines = [cosine for cosine in pairs["cosine"].to_pylist() if cosine is not None]
    return html.render(
        "overlap.html.j2",
        found=found,
        accuracies=_accuracies(found),
        listed=listed,
        above=[row for row in rows if row.cosine is not None and row.cosine >= found.threshold],
        below=[row for row in rows if row.cosine is not None and row.cosine < found.threshold],
        rejected=[row for row in rows if row.cosine is None],
        pairs=len(pairs),
        plots=[
            _plot("Pairs of near hashes whose pixels correlate", cosines, found.threshold),
            _plot("Copies made of test pictures", measured.copies, found.threshold),
            _plot("Other test pictures most alike", measured.others, found.threshold),
        ],
    )


def _row(pair: dict[str, Any], test: bytes, training: bytes) -> Row:
    return Row(
        thumbnail(test),
        thumbnail(training),
        pair["picture"],
        pair["shard"],
        pair["key"],
        pair["url"] or "",
        pair["cosine"],
        pair["correlation"],
        pair["distance"],
        pair["variant"],
    )


def _accuracies(found: Overlap) -> list[dict[str, str]]:
    known = (("All", found.all), ("Overlap", found.overlap), ("Clean", found.clean))
    return [
        {
            "name": name,
            "figure": "no such picture" if score is None else html.percent(score.value),
            "interval": "" if score is None else html.interval(score),
        }
        for name, score in known
    ]


def _plot(title: str, values: Iterable[float], least: float) -> dict[str, Any]:
    """Return a histogram of cosines, as the template draws it."""
    cosines = np.clip(np.fromiter(values, np.float64), 0, 1)
    counts, edges = np.histogram(cosines, _BINS, (0.0, 1.0))
    highest = max(1, int(counts.max()))
    bars = [
        Bar(
            float(_WIDTH * left),
            float(_HEIGHT * count / highest),
            bool(left + right >= 2 * least),
            f"{count:,} between {left:.3f} and {right:.3f}",
        )
        for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True)
        if count
    ]
    return {
        "title": title,
        "count": len(cosines),
        "bars": bars,
        "wide": _WIDTH / _BINS,
        "mark": _WIDTH * min(max(least, 0.0), 1.0),
        "width": _WIDTH,
        "height": _HEIGHT,
    }
