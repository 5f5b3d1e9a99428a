"""Plots as inline SVG: no library, no script, colours from the page's style sheet.

Only numbers and words of this module enter the markup. Shares are drawn in per cent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from wit_train.evaluate.html import interval, percent, quantity
from wit_train.evaluate.results import Score, Shot

_WIDTH, _HEIGHT = 400, 280
_KEY = 24
"""Height of what tells the lines apart, below a plot."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 388, 26, 236
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25)
_TICKS = 6
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis:
    """A scale from values to drawing units, with its ticks."""

    low: float
    high: float
    ticks: list[tuple[float, str]]

    def place(self, value: float, start: float, end: float) -> float:
        """Return the position of a value between ``start`` and ``end``."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)

    def x(self, value: float) -> float:
        """Return its position from the left."""
        return self.place(value, _LEFT, _RIGHT)

    def y(self, value: float) -> float:
        """Return its position from the top."""
        return self.place(value, _BOTTOM, _TOP)


_WHOLE = Axis(0, 1, [])


def percent_axis(values: Sequence[float]) -> Axis:
    """Return an axis of shares in [0, 1] around some values, with few round ticks."""
    low, high = min(values), max(values)
    step = next((s / 100 for s in _STEPS if high - low <= s / 100 * (_TICKS - 2)), 0.25)
    last = min(max(math.ceil(high / step), 1), round(1 / step))
    first = max(0, min(math.floor(low / step), last - 1))
    places = 0 if step >= 0.01 else 1
    ticks = [(i * step, f"{100 * i * step:.{places}f} %") for i in range(first, last + 1)]
    return Axis(first * step, last * step, ticks)


def interval_bar(score: Score) -> Markup:
    """Return a bar from nothing to the value, on a track to all, with a line over its interval.

    Chance, where it is known, is an upright line over both, set off from them by the ground.
    """
    marks = [f'<rect class="value" width="{100 * score.value:.2f}" height="10"/>']
    marks += _interval(score, _WHOLE, (3.5, 3))
    if score.chance is not None:
        marks.append(_upright_mark("halo", score.chance, _WHOLE, 2.8))
        marks.append(_upright_mark("chance", score.chance, _WHOLE, 1.4))
    return _bar(marks)


def interval_mark(score: Score, axis: Axis) -> Markup:
    """Return the value as a mark on its interval; for an axis that does not begin at nothing."""
    return _bar([*_interval(score, axis, (1, 8)), _upright_mark("mark", score.value, axis, 0.9)])


def _interval(score: Score, axis: Axis, rows: tuple[float, float]) -> list[str]:
    """Return the interval as a rectangle; ``rows`` are its top and height, of ten."""
    if score.low is None or score.high is None:
        return []
    left, right = axis.place(score.low, 0, 100), axis.place(score.high, 0, 100)
    frame = f'x="{left:.2f}" y="{rows[0]}" width="{max(right - left, 0.4):.2f}"'
    return [f'<rect class="interval" {frame} height="{rows[1]}"/>']


def _upright_mark(name: str, value: float, axis: Axis, width: float) -> str:
    left = min(max(axis.place(value, 0, 100) - width / 2, 0), 100 - width)
    return f'<rect class="{name}" x="{left:.2f}" width="{width}" height="10"/>'


def _bar(marks: list[str]) -> Markup:
    drawn = (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(marks)}</svg>"
    )
    return Markup(drawn)  # noqa: S704 - numbers and class names of this module only


def sweep(tried: Sequence[tuple[float, float]], chosen: float) -> Markup:
    """Return validation accuracy over the strength of the penalty, with the one that was chosen.

    Args:
        tried: strength, above zero, and accuracy.
        chosen: strength.
    """
    points = sorted((math.log10(strength), accuracy) for strength, accuracy in tried)
    x = _decades([at for at, _ in points])
    y = percent_axis([accuracy for _, accuracy in points])
    marks = [_line([(x.x(a), y.y(b)) for a, b in points])]
    marks += [_dot(x.x(a), y.y(b), "tried", f"{_strength(10**a)}: {percent(b)}") for a, b in points]
    at = f"{x.x(math.log10(chosen)):.1f}"
    marks.append(f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_BOTTOM}"/>')
    best = percent(max(accuracy for _, accuracy in points))
    said = "Accuracy on validation by strength of the penalty. "
    said += f"The best is {best}; {_strength(chosen)} was chosen."
    titles = ("strength of the L2 penalty", "accuracy on validation")
    return _figure(said, (x, y), titles, marks, [("mark", f"chosen: {_strength(chosen)}")])


def _decades(logs: Sequence[float]) -> Axis:
    first, last = math.floor(min(logs)), math.ceil(max(logs))
    last = max(last, first + 1)
    step = math.ceil((last - first) / _TICKS)
    ticks = [
        (float(p), f"10{str(p).translate(_SUPERSCRIPT)}") for p in range(first, last + 1, step)
    ]
    return Axis(first, last, ticks)


def _strength(value: float) -> str:
    return f"{value:.3g}"


def few_shot(shots: Sequence[Shot], zero_shot: Score | None, whole: float | None) -> Markup:
    """Return accuracy over pictures of a class, as figure 6 of the CLIP paper.

    A dot for each draw, a line through the means; zero-shot is a line across, with its interval.
    Where some classes have fewer pictures than asked, the number on the axis has an asterisk.

    Args:
        shots: at least one.
        zero_shot: top-1 without any picture.
        whole: top-1 of the probe on the whole training set; a line across.
    """
    ordered = sorted(shots, key=lambda s: s.shots)
    x = _doublings(ordered)
    values = [value for s in ordered for value in (*s.draws, s.top1)]
    lines = [zero_shot.value] if zero_shot else []
    lines += [] if whole is None else [whole]
    y = percent_axis([*values, *lines])
    across = [("zero", "zero-shot", zero_shot.value)] if zero_shot else []
    across += [] if whole is None else [("whole", "all pictures", whole)]
    marks = [_band(zero_shot, y)] if zero_shot else []
    marks += [_level(y.y(value), name) for name, _, value in across]
    marks.append(_line([(x.x(math.log2(s.shots)), y.y(s.top1)) for s in ordered]))
    for s in ordered:
        at = x.x(math.log2(s.shots))
        marks += [_dot(at, y.y(value), "draw", percent(value)) for value in s.draws]
        marks.append(_dot(at, y.y(s.top1), "mean", f"{s.shots}: {percent(s.top1)}{_short(s)}"))
    titles = ("pictures of each class to learn from", "top-1 on the test set")
    key = [(name, f"{label} {percent(value)}") for name, label, value in across]
    return _figure(_told(ordered, zero_shot), (x, y), titles, marks, key)


def _short(shot: Shot) -> str:
    return f", fewer in {quantity(shot.short, 'classes')}" if shot.short else ""


def _told(ordered: Sequence[Shot], zero_shot: Score | None) -> str:
    parts = [
        f"{quantity(s.shots, 'pictures')} of a class{_short(s)}: {percent(s.top1)}" for s in ordered
    ]
    said = f"Top-1 of a linear probe. {'; '.join(parts)}."
    return f"{said} Zero-shot: {percent(zero_shot.value)}." if zero_shot else said


def _doublings(shots: Sequence[Shot]) -> Axis:
    ticks = [(math.log2(s.shots), f"{s.shots:,}{'*' if s.short else ''}") for s in shots]
    low, high = min(ticks)[0], max(ticks)[0]
    margin = 0.06 * (high - low) or 1.0
    return Axis(low - margin, high + margin, ticks)


def _band(score: Score, y: Axis) -> str:
    """Return the interval of a score as a band across; nothing where there is none."""
    if score.low is None or score.high is None:
        return ""
    top, bottom = y.y(min(score.high, y.high)), y.y(max(score.low, y.low))
    frame = f'x="{_LEFT}" y="{top:.1f}" width="{_RIGHT - _LEFT}" height="{bottom - top:.1f}"'
    return f'<rect class="band" {frame}><title>zero-shot: {interval(score)}</title></rect>'


def _level(y: float, name: str) -> str:
    return f'<line class="{name}" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _line(points: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="curve" points="{path}"/>'


def _dot(x: float, y: float, name: str, told: str) -> str:
    return (
        f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{told}</title></circle>'
    )


def _figure(
    said: str,
    axes: tuple[Axis, Axis],
    titles: tuple[str, str],
    marks: list[str],
    key: Sequence[tuple[str, str]],
) -> Markup:
    """Return a plot; ``key`` tells of its lines below it, where no mark is in the way."""
    frame = f'class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT + (_KEY if key else 0)}"'
    parts = [
        f'<svg {frame} role="img" aria-label="{said}">',
        *_grid(*axes, titles),
        *marks,
        *_key(key),
        "</svg>",
    ]
    return Markup("".join(parts))  # noqa: S704 - numbers and words of this module only


def _key(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Return a sample of each line with its label, side by side."""
    out, y = [], _HEIGHT + _KEY - 6
    for at, (name, label) in enumerate(lines):
        x = _LEFT + at * (_RIGHT - _LEFT) / 2
        out.append(f'<line class="{name}" x1="{x}" x2="{x + 26}" y1="{y - 4}" y2="{y - 4}"/>')
        out.append(f'<text class="label" x="{x + 32}" y="{y}">{label}</text>')
    return out


def _grid(x: Axis, y: Axis, titles: tuple[str, str]) -> list[str]:
    """Return lines, tick labels and titles of both axes."""
    out = []
    for value, label in y.ticks:
        at = y.y(value)
        out.append(f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in x.ticks:
        at, low = x.x(value), _BOTTOM + 5
        out.append(f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{_BOTTOM}" y2="{low}"/>')
        out.append(f'<text x="{at:.1f}" y="{_BOTTOM + 19}" text-anchor="middle">{label}</text>')
    middle = (_LEFT + _RIGHT) / 2
    out.append(f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{_BOTTOM}" y2="{_BOTTOM}"/>')
    out.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{titles[0]}</text>')
    out.append(f'<text x="0" y="10">{titles[1]}</text>')
    return out
