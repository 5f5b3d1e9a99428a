"""Plots as inline SVG: no library, no script, colours from the page's style sheet.

All plots share one drawing area of 400 by 300 units, whose text stays readable on a phone. Only
numbers and words of this module enter the markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from wit_builder.report.folder import I64
from wit_builder.report.summary import quantity

F64 = npt.NDArray[np.float64]

_WIDTH, _HEIGHT = 400, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 390, 26, 256
_POINTS = 160
"""Ranks drawn per curve, evenly spaced on the logarithmic axis."""


@dataclass(frozen=True)
class Axis:
    """A scale from values to drawing units, with its ticks and its title."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    title: str
    log: bool = False

    def place(self, values: F64 | Sequence[float], start: float, end: float) -> F64:
        """Return positions between ``start`` and ``end``."""
        v, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            v, low, high = np.log10(v), np.log10(low), np.log10(high)
        return start + (v - low) / (high - low) * (end - start)


def log_axis(highest: float, title: str) -> Axis:
    """Return a logarithmic axis from 1 to at least 10, with ticks at powers of ten."""
    high = max(float(highest), 10.0)
    powers = range(int(np.floor(np.log10(high) + 1e-9)) + 1)
    return Axis(1, high, [(10.0**p, short_number(10**p)) for p in powers], title, log=True)


def short_number(n: int) -> str:
    """Return a power of ten in few characters: ``1``, ``100``, ``10k``, ``1M``."""
    for step, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if n >= step:
            return f"{n // step}{letter}"
    return str(n)


def rank_plot(before: I64, after: I64, cap_per_query: int) -> Markup:
    """Return the plot of pairs per query by rank, both axes logarithmic, with the cap as a line.

    Args:
        before: pairs per query before balancing, falling, without zeros; not empty.
        after: the same after balancing, sorted on its own.
        cap_per_query: the cap, in pairs.
    """
    x = log_axis(len(before), "query rank, most frequent first")
    y = log_axis(max(int(before[0]) * 1.15, cap_per_query * 1.3), "pairs per query")
    cap_y = float(y.place([cap_per_query], _BOTTOM, _TOP)[0])
    cap = (
        f'<line class="cap" x1="{_LEFT}" x2="{_RIGHT}" y1="{cap_y:.1f}" y2="{cap_y:.1f}"/>'
        f'<text class="cap-label" x="{_RIGHT}" y="{cap_y - 6:.1f}" text-anchor="end">'
        f"cap: {cap_per_query:,} pairs</text>"
    )
    said = (
        f"Pairs per query by rank. Before balancing the first query has {int(before[0]):,} pairs, "
        f"after balancing {int(after[0]) if len(after) else 0:,}."
    )
    curves = [_curve("before", before, x, y), _curve("after", after, x, y)]
    return _figure(said, x, y, [cap, *curves])


def share_plot(before: I64, after: I64) -> Markup:
    """Return the plot of the cumulative share of pairs by query rank, the rank logarithmic.

    Args:
        before: pairs per query before balancing, falling, without zeros; not empty.
        after: the same after balancing, sorted on its own.
    """
    x = log_axis(len(before), "query rank, most frequent first")
    ticks = [(float(p), f"{p} %") for p in range(0, 101, 25)]
    y = Axis(0, 100, ticks, "share of all pairs, cumulative")
    curves = [
        _curve(name, np.cumsum(counts) / counts.sum() * 100, x, y)
        for name, counts in (("before", before), ("after", after))
        if len(counts)
    ]
    said = "Cumulative share of pairs by query rank."
    for when, counts in (("Before", before), ("After", after)):
        if len(counts):
            holders = quantity(_holders_of_half(counts), "queries")
            said += f" {when} balancing, half of all pairs belong to {holders}."
    return _figure(said, x, y, curves)


def _holders_of_half(counts: I64) -> int:
    """Return how many of the most frequent queries have half of all pairs together."""
    return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2) + 1)


def _curve(name: str, values: npt.NDArray[np.generic], x: Axis, y: Axis) -> str:
    if not len(values):
        return ""
    spaced = np.geomspace(1, len(values), min(_POINTS, len(values)))
    ranks = np.unique(np.round(spaced).astype(np.int64))
    xs = x.place(ranks.astype(np.float64), _LEFT, _RIGHT)
    ys = y.place(values[ranks - 1].astype(np.float64), _BOTTOM, _TOP)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True))
    # a single query has a point, not a line: round caps make it a dot
    points += f" {xs[0]:.1f},{ys[0]:.1f}" if len(ranks) == 1 else ""
    return f'<polyline class="curve {name}" points="{points}"/>'


def _figure(said: str, x: Axis, y: Axis, marks: list[str]) -> Markup:
    frame = f'class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    parts = [
        f'<svg {frame} role="img" aria-label="{escape(said)}">',
        *_grid(x, y),
        *marks,
        "</svg>",
    ]
    return Markup("".join(parts))  # noqa: S704 - numbers and words of this module only


def _grid(x: Axis, y: Axis) -> list[str]:
    """Return lines, tick labels and titles of both axes."""
    xs = x.place([value for value, _ in x.ticks], _LEFT, _RIGHT)
    ys = y.place([value for value, _ in y.ticks], _BOTTOM, _TOP)
    out = []
    for at, (_, label) in zip(ys, y.ticks, strict=True):
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for at, (_, label) in zip(xs, x.ticks, strict=True):
        out.append(
            f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{_BOTTOM}" y2="{_BOTTOM + 5}"/>'
        )
        out.append(f'<text x="{at:.1f}" y="{_BOTTOM + 19}" text-anchor="middle">{label}</text>')
    out.append(f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>')
    out.append(
        f'<text class="title" x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 4}" text-anchor="middle">'
        f"{x.title}</text>"
    )
    out.append(f'<text class="title" x="0" y="10">{y.title}</text>')
    return out


def stacked_bar(parts: Sequence[tuple[str, float]], whole: float) -> Markup:
    """Return a horizontal bar cut into classes, each as long as its share of ``whole``.

    Args:
        parts: CSS class and value of each piece, left to right.
        whole: the value of the full width.
    """
    at, rects = 0.0, []
    for name, value in parts:
        length = 100 * value / whole if whole else 0.0
        drawn = max(length, 0.4) if value else 0.0  # something is never drawn as nothing
        rects.append(f'<rect class="{name}" x="{at:.2f}" width="{drawn:.2f}" height="10"/>')
        at += length
    return Markup(  # noqa: S704 - numbers and class names of this package only
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(rects)}</svg>"
    )
