"""Axes and marks of the plots."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from wit_train.evaluate import plots
from wit_train.evaluate.results import Score, Shot

_share = st.floats(0, 1)


@given(st.lists(_share, min_size=1))
def test_an_axis_holds_its_values_in_few_ticks(values):
    """It is within 0 and 100 %, around all values, with two to seven ticks that all differ."""
    axis = plots.percent_axis(values)
    assert 0 <= axis.low <= min(values) + 1e-9
    assert max(values) - 1e-9 <= axis.high <= 1 + 1e-9
    labels = [label for _, label in axis.ticks]
    assert 2 <= len(labels) <= 7
    assert len({*labels}) == len(labels)


@given(_share, _share, _share)
def test_marks_stay_in_their_bar(low, value, high):
    """No mark begins before its bar or ends beyond it by more than its least width."""
    low, value, high = sorted((low, value, high))
    score = Score(value, low, low, high)
    for drawn in (plots.interval_bar(score), plots.interval_mark(score, plots.Axis(0, 1, []))):
        for frame in re.findall(r"<rect[^>]*>", drawn):
            of = {k: float(v) for k, v in re.findall(r'(x|width)="([^"]*)"', frame)}
            assert of.get("x", 0.0) >= 0
            assert of.get("x", 0.0) + of["width"] <= 100.41


def test_one_shot_and_one_strength_are_drawn():
    """A single point has an axis, and a perfect score is not above it."""
    shot = plots.few_shot([Shot(4, 1.0, [], 1.0)], None, 1.0)
    assert shot.count("<circle") == 1
    assert plots.sweep([(1.0, 1.0)], 1.0).count("<circle") == 1
    assert "nan" not in shot
