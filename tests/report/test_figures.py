"""Plots: they stay in their frame and say in words what they show."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from wit_builder.report import figures

counts = st.lists(st.integers(1, 10**9), min_size=1, max_size=400)


@given(before=counts, cap=st.integers(1, 10**6))
def test_curves_stay_in_their_frame(before, cap):
    """Whatever the counts, every point of both plots is inside the drawing."""
    falling = np.sort(np.array(before))[::-1]
    after = np.minimum(falling, cap)
    for plot in (figures.rank_plot(falling, after, cap), figures.share_plot(falling, after)):
        curves = LexborHTMLParser(str(plot)).css("polyline")
        assert len(curves) == 2
        for curve in curves:
            points = [p.split(",") for p in (curve.attributes["points"] or "").split()]
            assert all(0 <= float(x) <= 400 and 0 <= float(y) <= 300 for x, y in points)
            assert len(points) >= 2


def test_a_plot_says_in_words_what_it_shows():
    """A reader who cannot see it hears the two figures that matter."""
    before, after = np.array([1000, 10, 1]), np.array([20, 10, 1])
    said = str(figures.rank_plot(before, after, 20))
    assert "the first query has 1,000 pairs, after balancing 20." in said
    said = str(figures.share_plot(before, np.array([20, 20, 20])))
    assert "Before balancing, half of all pairs belong to 1 query. " in said
    assert "After balancing, half of all pairs belong to 2 queries." in said


def test_nothing_kept_draws_one_curve():
    """Where everything died, only the curve before balancing is there."""
    none = np.array([], np.int64)
    assert str(figures.rank_plot(np.array([3, 1]), none, 2)).count("<polyline") == 1
    assert str(figures.share_plot(np.array([3, 1]), none)).count("<polyline") == 1


def test_something_is_never_drawn_as_nothing():
    """One pair in a billion still shows; none does not."""
    widths = re.findall(r'width="([\d.]+)"', figures.stacked_bar([("a", 1), ("b", 0)], 10**9))
    assert float(widths[0]) > 0
    assert float(widths[1]) == 0


def test_ticks_are_short():
    """Powers of ten read the same on a phone."""
    assert [figures.short_number(10**p) for p in (0, 3, 5, 6, 9)] == ["1", "1k", "100k", "1M", "1B"]
