"""Filters of other packages: found, held to the contract, and told apart by version."""

from __future__ import annotations

import numpy as np
import pytest

from tests.judge.conftest import MakeFilter
from wit_builder.errors import FilterError, RecipeError
from wit_builder.judge import hook
from wit_builder.sections import FilterSection
from wit_builder.tables import IMAGES

IMAGE = np.full((2, 2, 3), 100, np.uint8)


def judged(section: FilterSection, images: int = 2) -> hook.Verdict:
    rows = IMAGES.empty_table()
    return hook.load([section])[0].judge([IMAGE] * images, ["text", "bad"][:images], rows)


def test_scores_and_objections_bear_the_filters_name(offer: MakeFilter):
    """Options reach the factory; a column is FILTER.SCORE, an objection begins with FILTER."""
    offer("bright = MODULE:brightness")
    verdict = judged(FilterSection(name="bright", options={"scale": 0.5}))
    assert verdict.scores["bright.mean"].tolist() == [50.0, 50.0]
    assert verdict.scores["bright.mean"].dtype == np.float32
    assert verdict.objections == [None, "bright: says so"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min": {"mean": 100.5}}, "bright.mean 100.0 < 100.5"),
        ({"max": {"mean": 99.9}}, "bright.mean 100.0 > 99.9"),
        ({"min": {"mean": 100}, "max": {"mean": 100}}, None),
    ],
)
def test_a_score_beyond_its_limit_is_an_objection(offer: MakeFilter, limits, words):
    """The limits themselves are allowed; what the filter itself says goes before."""
    offer("bright = MODULE:brightness")
    verdict = judged(FilterSection(name="bright", **limits))
    assert verdict.objections == [words, "bright: says so"]


def test_a_limit_is_compared_as_the_column_tells_it(offer: MakeFilter):
    """0.7 is not below 0.7, though as a float32 it is less."""
    code = "def make():\n    return lambda i, t, r: ({'s': [0.7] * len(i)}, [None] * len(i))"
    offer("s = MODULE:make", code=code)
    assert judged(FilterSection(name="s", min={"s": 0.7})).objections == [None, None]


def test_an_unknown_filter_is_refused_with_those_known(offer: MakeFilter):
    """A slip of the pen is told from a package that is not installed."""
    offer("bright = MODULE:brightness")
    with pytest.raises(RecipeError, match=r"no filter is called 'brigth'.*mean 'bright'"):
        hook.settings([FilterSection(name="brigth")])
    with pytest.raises(RecipeError, match=r"'nsfw'.*known: bright, similarity"):
        hook.load([FilterSection(name="nsfw")])


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"min": {"maen": 1.0}}, "gives no score 'maen'.*its scores: mean"),
        ({"max": {"bright.mean": 1.0}}, "gives no score 'bright.mean'"),
        ({"options": {"skale": 1}}, r"cannot be made: TypeError.*skale.*\[filters.options\]"),
        ({"options": {"scale": "x"}}, None),
    ],
)
def test_a_recipe_that_does_not_suit_a_filter_is_refused(offer: MakeFilter, section, words):
    """Before a picture is looked at: unknown scores and options."""
    offer("bright = MODULE:brightness")
    if words is None:  # known only once there is a picture
        with pytest.raises(FilterError, match="fails on 2 pictures: TypeError"):
            judged(FilterSection(name="bright", **section))
        return
    with pytest.raises(RecipeError, match=words):
        hook.load([FilterSection(name="bright", **section)])


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("1 / 0", "fails on 0 pictures: ZeroDivisionError"),
        ("None", "no pair of scores"),
        ("{'s': []}", "no pair of scores"),
        ("({'s': [1.0]}, [None] * n)", r"gives s of shape \(1,\) for 0 pictures"),
        ("({'s': ['x'] * n}, [None] * n)", "no numbers as s: ValueError"),
        ("({'s': [float('nan')] * n}, [None] * n)", "gives s = nan"),
        ("({'s': [float('-inf')] * n}, [None] * n)", "gives s = -inf"),
        ("({'s': [1.0] * n}, [None])", "objections 1 for 0 pictures"),
        ("({'s': [1.0] * n}, None)", "objections NoneType for 0 pictures"),
        ("({'s': [1.0] * n}, [False] * n)", "as objection False"),
        ("({1: [1.0] * n}, [None] * n)", "names a score 1"),
        ("({'s': [1.0] * n} if n else {}, [None] * n)", r"gives the scores \['s'\], and before"),
    ],
)
def test_a_filter_that_breaks_the_contract_is_named(offer: MakeFilter, returned: str, words: str):
    """Whatever it does, the error is one line that names it."""
    code = f"def make():\n    def judge(i, t, r):\n        n = len(i)\n        return {returned}\n"
    offer("broken = MODULE:make", code=code + "    return judge")
    with pytest.raises(FilterError, match=f"the filter broken .*{words}") as caught:
        judged(FilterSection(name="broken"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("x = MODULE:missing", "cannot be loaded: AttributeError"),
        ("x = no_such_module:make", "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_a_filter_that_cannot_be_loaded_is_named(offer: MakeFilter, entry: str, words: str):
    """A half-removed package is no traceback."""
    offer(entry)
    with pytest.raises(RecipeError, match=f"the filter x {words}"):
        hook.load([FilterSection(name="x")])


def test_a_new_version_changes_what_a_stage_depends_on(offer: MakeFilter):
    """So do options and limits; so the stage is done anew."""
    section = FilterSection(name="bright")
    offer("bright = MODULE:brightness", package="lamps")
    before = hook.settings([section])
    assert before == hook.settings([section])
    assert before != hook.settings([FilterSection(name="bright", min={"mean": 1.0})])
    offer("bright = MODULE:brightness", package="lamps", version="2.0")
    assert before != hook.settings([section])
    assert hook.settings([section])[0][2] == "lamps 2.0"


def test_one_name_is_one_filter(offer: MakeFilter):
    """Two packages, or two sections, that claim a name are refused."""
    offer("bright = MODULE:brightness")
    with pytest.raises(RecipeError, match="two filters are called 'bright'"):
        hook.settings([FilterSection(name="bright"), FilterSection(name="bright", min={"m": 1})])
    offer("bright = MODULE:brightness")
    with pytest.raises(RecipeError, match=r"2 filters .*'bright' \[filters1 1.0, filters2 1.0\]"):
        hook.settings([FilterSection(name="bright")])


def test_filters_are_made_once_a_process(offer: MakeFilter):
    """A model is not loaded again for every unit."""
    offer("bright = MODULE:brightness")
    section = FilterSection(name="bright")
    assert hook.load([section])[0] is hook.load([section])[0]
    assert hook.load([]) == []
