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
_LETTER_WIDTH = 6.5
_THINNEST = 3.0
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


def log_axis(highest: float, title: str, low: float = 1) -> Axis:
    """Return a logarithmic axis from ``low`` to at least 10, with ticks at powers of ten from 1."""
    high = max(float(highest), 10.0)
    powers = range(int(np.floor(np.log10(high) + 1e-9)) + 1)
    return Axis(low, high, [(10.0**p, short_number(10**p)) for p in powers], title, log=True)


def short_number(n: int) -> str:
    """Return a power of ten in few characters: ``1``, ``100``, ``10k``, ``1M``."""
    for step, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if n >= step:
            return f"{n // step}{letter}"
    return str(n)


@dataclass(frozen=True)
class Bin:
    """Queries with ``first`` to ``last`` pairs, both included: how many before and after."""

    first: int
    last: int
    before: int
    after: int


def bins(before: I64, after: I64) -> list[Bin]:
    """Return numbers of queries by their numbers of pairs: 1, 2 to 3, 4 to 7 and so on, doubling.

    Args:
        before: pairs per query before balancing, without zeros; not empty.
        after: the same after balancing.
    """
    # the exponent of a float is exact for whole numbers: 2**k is the first of its bin
    exponents = [np.frexp(counts)[1] - 1 for counts in (before, after)]
    length = int(max(e.max(initial=0) for e in exponents)) + 1
    tallies = [np.bincount(e, minlength=length).tolist() for e in exponents]
    pairs = enumerate(zip(*tallies, strict=True))
    return [Bin(1 << k, (2 << k) - 1, then, now) for k, (then, now) in pairs]


def histogram(found: list[Bin], cap_per_query: int) -> Markup:
    """Return the histogram of pairs per query, both axes logarithmic, with the cap as a line.

    What there is after balancing is filled and ends at the cap; what was before is an outline.
    """
    edges = [float(b.first) for b in found] + [float(found[-1].last + 1)]
    most = max(max(b.before, b.after) for b in found)
    x = log_axis(max(edges[-1], cap_per_query * 1.3), "pairs per query")
    y = log_axis(most * 1.4, "queries, in each doubling of pairs", low=0.5)
    xs = x.place(edges, _LEFT, _RIGHT)
    cap_x = float(x.place([cap_per_query], _LEFT, _RIGHT)[0])
    marks = [_bar_of(b.after, xs[i : i + 2], cap_x, y) for i, b in enumerate(found)]
    marks.append(_outline([b.before for b in found], xs, y))
    marks += _marker(cap_x, f"cap: {quantity(cap_per_query, 'pairs')}", _TOP + 11)
    marks += [_hint(b, xs[i : i + 2]) for i, b in enumerate(found)]
    return _figure(_said(found), x, y, marks)


def _said(found: list[Bin]) -> str:
    top, after = max(found, key=lambda b: b.before), [b for b in found if b.after]
    last = f", the last after at {_range(after[-1])}" if after else ""
    return (
        f"Histogram of pairs per query. Most queries, {top.before:,}, have {_range(top)} before "
        f"balancing. The last bar before is at {_range(found[-1])}{last}."
    )


def _range(b: Bin) -> str:
    return "1 pair" if b.last == 1 else f"{b.first:,} to {b.last:,} pairs"


def _bar_of(count: int, xs: F64, cap_x: float, y: Axis) -> str:
    """Return the filled bar of a bin, no further right than the cap.

    Where a bin begins at the cap, its bar is a thin one that ends there.
    """
    if not count:
        return ""
    top = float(y.place([count], _BOTTOM, _TOP)[0])
    right = min(xs[1] - 1, cap_x)
    left = max(min(xs[0], right - _THINNEST), _LEFT)
    width = max(right - left, _THINNEST)
    return (
        f'<rect class="bin after" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
        f'height="{_BOTTOM - top:.1f}"/>'
    )


def _outline(counts: list[int], xs: F64, y: Axis) -> str:
    """Return the steps over the bins; where a bin is empty they go down to the axis."""
    heights = y.place([max(count, y.low) for count in counts], _BOTTOM, _TOP)
    points = [f"{xs[0]:.1f},{_BOTTOM:.1f}"]
    for i, height in enumerate(heights):
        points += [f"{xs[i]:.1f},{height:.1f}", f"{xs[i + 1]:.1f},{height:.1f}"]
    points.append(f"{xs[-1]:.1f},{_BOTTOM:.1f}")
    return f'<polyline class="curve before" points="{" ".join(points)}"/>'


def _hint(b: Bin, xs: F64) -> str:
    """Return a transparent column that tells its bin's numbers under the pointer."""
    told = f"{_range(b)}: {quantity(b.before, 'queries')} before, {b.after:,} after"
    frame = f'x="{xs[0]:.1f}" y="{_TOP}" width="{xs[1] - xs[0]:.1f}" height="{_BOTTOM - _TOP}"'
    return f'<rect class="hint" {frame}><title>{told}</title></rect>'


def _marker(x: float, label: str, label_y: float) -> list[str]:
    """Return an upright line at ``x``, its label to the right where there is room."""
    fits = x + 6 + _LETTER_WIDTH * len(label) < _WIDTH
    at, anchor = (x + 6, "start") if fits else (x - 6, "end")
    line = f'<line class="cap" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_BOTTOM}"/>'
    place = f'x="{at:.1f}" y="{label_y:.1f}" text-anchor="{anchor}"'
    return [line, f'<text class="cap-label" {place}>{label}</text>']


def share_plot(before: I64, after: I64, head: int) -> Markup:
    """Return the plot of the cumulative share of pairs by query rank, the rank logarithmic.

    Args:
        before: pairs per query before balancing, falling, without zeros; not empty.
        after: the same after balancing, sorted on its own.
        head: how many queries have more pairs than the cap before balancing; marked if any.
    """
    x = log_axis(len(before), "query rank, most pairs first")
    ticks = [(float(p), f"{p} %") for p in range(0, 101, 25)]
    y = Axis(0, 100, ticks, "share of all pairs, cumulative")
    curves = [
        _curve(name, np.cumsum(counts) / counts.sum() * 100, x, y)
        for name, counts in (("before", before), ("after", after))
        if len(counts)
    ]
    if head:
        edge = float(x.place([head], _LEFT, _RIGHT)[0])
        curves += _marker(edge, f"head: {head:,}", _BOTTOM - 8)
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
