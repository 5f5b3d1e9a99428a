from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import text
from wit_builder.demo.captions import TEXT_SHARES, Text, credit, with_article, write
from wit_builder.demo.data import seeded

names = st.sampled_from(["red apple", "owl", "grapes", "keycap 1", "T-Rex", "1st place medal"])


def _contains(caption, name):
    return f" {text.normalise(name)} " in f" {text.normalise(caption)} "


@given(
    st.integers(), names, st.sampled_from(["", "blue"]), st.sampled_from([Text.CAPTION, Text.LONG])
)
def test_a_caption_names_what_the_picture_shows(seed, name, background, kind):
    """A query for the concept's name matches every caption and credit of it."""
    caption = write(seeded(seed), kind, name, background)
    assert caption is not None
    assert _contains(caption, name)
    assert _contains(credit(seeded(seed), name), name)
    assert (len(caption) > 4096) == (kind is Text.LONG)


@given(st.integers())
def test_other_texts_do_not_name_it(seed):
    """Generic texts, file names and stubs say nothing of what the picture shows."""
    for kind in (Text.GENERIC, Text.FILE_NAME, Text.SHORT):
        caption = write(seeded(seed), kind, "red apple", "")
        assert caption
        assert "apple" not in caption
    assert write(seeded(seed), Text.NONE, "red apple", "") is None


def test_shares_of_texts_make_a_whole():
    """Every picture has one kind of text."""
    assert set(TEXT_SHARES) == set(Text)
    assert sum(TEXT_SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [("owl", "an owl"), ("red apple", "a red apple"), ("grapes", "grapes"), ("dress", "a dress")],
)
def test_a_name_gets_its_article(name, phrase):
    """Captions read as English, mostly."""
    assert with_article(name) == phrase
