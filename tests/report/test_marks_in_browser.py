"""The page's colours, as the browser resolves them, told apart by every eye."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from wit_builder.report import build

from .browser import NEEDED, opened

pytestmark = NEEDED

F64 = npt.NDArray[np.float64]

MARKS = ["status-full", "status-exhausted", "status-short", "status-empty"]
OUTCOMES = ["outcome-alive", "outcome-dead", "outcome-deferred"]
SEEN_BY = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]
    ),
    "deuteranopia": np.array(
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]
    ),
    "tritanopia": np.array(
        [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9309, 0.1476], [0.0047, 0.6914, 0.3039]]
    ),
}
"""Linear RGB as seen without one kind of cone (Machado, Oliveira and Fernandes, 2009)."""
COLOUR = "name => getComputedStyle(document.querySelector(`.swatch.${name}`)).backgroundColor"


def _linear(colour: str) -> F64:
    channels = np.array([float(c) for c in colour[4:-1].split(",")]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _lab(linear: F64) -> F64:
    """CIE L*a*b* of linear sRGB, white D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_differ_for_every_eye(browser, job, scheme):
    """A legend's colours are 20 apart (CIE76), for the colour-blind too, and 3 to 1 from paper."""
    build.run(job)
    with opened(browser, Path(job.root, "report", "index.html")) as page:
        page.emulate_media(color_scheme=scheme)
        found = {name: _linear(page.evaluate(COLOUR, name)) for name in (*MARKS, *OUTCOMES)}
        paper = _linear(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    lightness = np.array([0.2126, 0.7152, 0.0722])
    for names in (MARKS, OUTCOMES):
        colours = {name: found[name] for name in names}
        for name, linear in colours.items():
            dark, light = sorted([linear @ lightness, paper @ lightness])
            assert (light + 0.05) / (dark + 0.05) >= 3, name
        for eye, cones in SEEN_BY.items():
            for one, other in combinations(names, 2):
                apart = np.linalg.norm(_lab(cones @ colours[one]) - _lab(cones @ colours[other]))
                assert apart >= 20, (eye, one, other)
