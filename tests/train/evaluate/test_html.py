"""How figures are written, and what every page of this folder has."""

from __future__ import annotations

import base64
import hashlib
import re

import jinja2
import pytest

from wit_builder.pages import NO_BREAK
from wit_train.evaluate import html
from wit_train.evaluate.results import Score


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 %"), (0.0004, "< 0.1 %"), (0.5, "50.0 %"), (0.9996, "> 99.9 %"), (1, "100 %")],
)
def test_per_cents_are_exact_at_the_ends(value, said):
    """Only nothing is 0 % and only all of it is 100 %."""
    assert html.percent(value).replace(NO_BREAK, " ") == said


def test_places_and_counts_are_words():
    """Ranks from 0 are places from 1; one of a kind is in the singular."""
    assert [html.ordinal(r) for r in (0, 1, 2, 3, 10, 12, 20, 110, 1010)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "13th", "21st", "111th", "1,011th")
    ]
    said = [html.quantity(n, u) for n, u in ((1, "classes"), (2000, "classes"), (1, "pictures"))]
    assert said == ["1 class", "2,000 classes", "1 picture"]


def test_an_interval_that_is_not_known_is_nothing():
    """There is no interval without both ends."""
    assert html.interval(Score(0.5, None, 0.25, 0.755)).startswith("25.0 to 75.5")
    assert html.interval(Score(0.5, 0.1)) == ""


def test_a_page_runs_its_own_script_only():
    """The policy names the digest of the one script in the page."""
    page = html.render("base.html.j2")
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page


def test_a_value_that_a_template_lacks_is_an_error():
    """No page is published with a hole in it."""
    with pytest.raises(jinja2.UndefinedError):
        html.render("evaluation.html.j2")
