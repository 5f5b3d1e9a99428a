"""Titles get the form in which MediaWiki keeps them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.queries.title_form import forms, is_utf8

SPELLINGS = {
    "Main_Page": "Main Page",
    "main page": "Main page",
    " _Foo__ bar_ ": "Foo bar",
    "Caf%C3%A9": "Café",
    "AC%2FDC": "AC/DC",
    "100%25": "100%",
    "100%_Pure": "100% Pure",
    "A%zz%4": "A%zz%4",
    "Paris#History": "Paris",
    "Paris%23History": "Paris",
    ":Paris": "Paris",
    "2001:_A_Space_Odyssey": "2001: A Space Odyssey",
    "éclair": "Éclair",
    "дом": "Дом",
    "ßuper": "ßuper",
    "ɐ": "Ɐ",
    "\u017f": "S",
    "თბილისი": "თბილისი",
    "𐐨x": "𐐀x",
    '"Heroes"_(song)': '"Heroes" (song)',
    "x" * 255: "X" + "x" * 254,
}

NO_PAGES = {
    "empty": "",
    "blank": "_ _",
    "dash": "-",
    "section_only": "#History",
    "angle_bracket": "a<b",
    "template": "{{dog}}",
    "pipe": "a|b",
    "escaped_line_break": "a%0Ab",
    "escape_not_utf8": "caf%E9",
    "too_long": "x" * 256,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_form(spelling):
    """A title comes out as MediaWiki keeps it, and stays so."""
    form = SPELLINGS[spelling]
    assert forms(pa.array([spelling, form])).to_pylist() == [form, form]


@pytest.mark.parametrize("flaw", NO_PAGES)
def test_no_page(flaw):
    """What can be no page's title is null, and its neighbours are whole."""
    out = forms(pa.array(["a", NO_PAGES[flaw], "b"]))
    out.validate(full=True)
    assert out.to_pylist() == ["A", None, "B"]


def test_nulls_slices_and_chunks():
    """A column comes out in its order, however it is cut; null stays null."""
    column = pa.chunked_array([pa.array(["x", "a_b", None]).slice(1), pa.array(["é"])])
    assert forms(column).to_pylist() == ["A b", None, "É"]
    assert forms(pa.chunked_array([], pa.string())).to_pylist() == []


@given(st.lists(st.text()))
def test_any_text(texts):
    """Any text gives valid UTF-8, of at most 255 bytes, with nothing that no title has."""
    out = forms(pa.array(texts, pa.string()))
    out.validate(full=True)
    for title in out.drop_null().to_pylist():
        assert 0 < len(title.encode()) <= 258
        assert not set(title) & set("_#<>[]{}|\n")
        assert title == " ".join(title.split(" "))


@given(st.text(min_size=1, max_size=1).filter(lambda c: ord(c) < 0x20000))
def test_first_letter(letter):
    """A first letter is upper case where Python has one letter for that, but for Georgian."""
    upper = letter.upper()
    stays = len(upper) != 1 or "\u10d0" <= letter <= "\u10ff"
    expected = (letter if stays else upper) + "zé"
    (title,) = forms(pa.array([letter + "zé"])).to_pylist()
    assert title in (None, expected) or letter in " _:%#"


@given(st.lists(st.sampled_from([0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xE0, 0xE1,
                                 0xED, 0xF0, 0xF4, 0xF5, 0xFF]), max_size=6))  # fmt: skip
def test_utf8(values):
    """Bytes are UTF-8 exactly where Python decodes them."""
    data = bytes(values)
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not is_utf8(np.frombuffer(data, np.uint8), 0, len(data))
    else:
        assert is_utf8(np.frombuffer(data, np.uint8), 0, len(data))
