"""Plots: they stay in their frame and say in words what they show."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from wit_builder.report import figures

counts = st.lists(st.integers(1, 10**9), min_size=1, max_size=400)


@given(before=counts, cap=st.integers(1, 10**6))
def test_marks_stay_in_their_frame(before, cap):
    """Whatever the counts, every point of both plots is inside the drawing."""
    falling = np.sort(np.array(before))[::-1]
    after = np.minimum(falling, cap)
    head = int((falling > cap).sum())
    shares = LexborHTMLParser(str(figures.share_plot(falling, after, head)))
    bars = LexborHTMLParser(str(figures.histogram(figures.bins(falling, after), cap)))
    assert (len(shares.css("polyline")), len(bars.css("polyline"))) == (2, 1)
    assert len(shares.css("line.cap")) == (head > 0)
    for curve in [*shares.css("polyline"), *bars.css("polyline")]:
        points = [p.split(",") for p in (curve.attributes["points"] or "").split()]
        assert all(0 <= float(x) <= 400 and 0 <= float(y) <= 300 for x, y in points)
        assert len(points) >= 2
    for rect in bars.css("rect"):
        x, y, width, height = (
            float(rect.attributes[k] or "nan") for k in ("x", "y", "width", "height")
        )
        assert min(x, y, width, height) >= 0
        assert x + width <= 400
        assert y + height <= 300


@given(before=counts, cap=st.integers(1, 10**6))
def test_bins_hold_every_query_once(before, cap):
    """Bins double, without gap or overlap, and together have all queries, before and after."""
    pairs = np.array(before)
    found = figures.bins(pairs, np.minimum(pairs, cap))
    assert [b.first for b in found] == [2**k for k in range(len(found))]
    assert all(b.last + 1 == c.first for b, c in pairwise(found))
    for b in found:
        assert b.before == sum(b.first <= n <= b.last for n in before)
        assert b.after == sum(b.first <= min(n, cap) <= b.last for n in before)
    assert sum(b.before for b in found) == sum(b.after for b in found) == len(before)


def test_a_plot_says_in_words_what_it_shows():
    """A reader who cannot see it hears the figures that matter."""
    before = np.array([1000, 10, 1, 1])
    said = str(figures.histogram(figures.bins(before, np.array([20, 10, 1])), 20))
    assert "Most queries, 2, have 1 pair before balancing." in said
    assert "The last bar before is at 512 to 1,023 pairs, the last after at 16 to 31 pairs." in said
    said = str(figures.histogram(figures.bins(before, np.array([], np.int64)), 20))
    assert "The last bar before is at 512 to 1,023 pairs." in said
    assert "<title>512 to 1,023 pairs: 1 query before, 0 after</title>" in said
    said = str(figures.share_plot(np.array([1000, 10, 1]), np.array([20, 20, 20]), 1))
    assert "Before balancing, half of all pairs belong to 1 query. " in said
    assert "After balancing, half of all pairs belong to 2 queries." in said
    assert "head: 1</text>" in said


@given(before=counts, cap=st.integers(1, 10**6))
def test_no_bar_after_balancing_passes_the_cap(before, cap):
    """What is kept is drawn up to the cap's line; a cap of one leaves a thin bar at the axis."""
    pairs = np.array(before)
    plot = LexborHTMLParser(
        str(figures.histogram(figures.bins(pairs, np.minimum(pairs, cap)), cap))
    )
    line = float(plot.css("line.cap")[0].attributes["x1"] or "nan")
    for bar in plot.css("rect.bin"):
        x, width = (float(bar.attributes[name] or "nan") for name in ("x", "width"))
        assert width >= 3
        assert x + width <= max(line, 44 + 3) + 0.2


def test_nothing_kept_draws_what_was_before_only():
    """Where everything died, only the marks of before balancing are there."""
    none, before = np.array([], np.int64), np.array([3, 1])
    assert str(figures.share_plot(before, none, 0)).count("<polyline") == 1
    plot = str(figures.histogram(figures.bins(before, none), 2))
    assert 'class="curve before"' in plot
    assert 'class="bin after"' not in plot


def test_something_is_never_drawn_as_nothing():
    """One pair in a billion still shows; none does not."""
    widths = re.findall(r'width="([\d.]+)"', figures.stacked_bar([("a", 1), ("b", 0)], 10**9))
    assert float(widths[0]) > 0
    assert float(widths[1]) == 0


def test_ticks_are_short():
    """Powers of ten read the same on a phone."""
    assert [figures.short_number(10**p) for p in (0, 3, 5, 6, 9)] == ["1", "1k", "100k", "1M", "1B"]
