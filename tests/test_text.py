"""The one normaliser."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import text
from wit_builder.hashing import binary_buffers

CASES = [
    ("(dog)", "dog"),
    ("Paris, Texas", "paris texas"),
    ("  two\t\nspaces  ", "two spaces"),
    ("C++ and C#", "c and c"),
    ("ﬁne ｆｕｌｌ", "fine full"),  # noqa: RUF001 - compatibility forms on purpose
    ("Ünïcode", "ünïcode"),
    ("snake_case-word", "snake case word"),
    ("हिन्दी", "हिन्दी"),
    ("...", ""),
    ("", ""),
]


@pytest.mark.parametrize(("raw", "expected"), CASES)
def test_known_cases(raw: str, expected: str) -> None:
    """Each case gives the tokens that a reader would expect."""
    assert text.normalise(raw) == expected


def reference(raw: str) -> str:
    """The definition, letter by letter, with Python's own Unicode tables."""
    lower = unicodedata.normalize("NFKC", raw).lower()
    kept = (c if re.match("[LM]|Nd", unicodedata.category(c)) else " " for c in lower)
    return " ".join("".join(kept).split())


@given(st.lists(st.text(st.characters(max_codepoint=0x24F)), max_size=20))
def test_equals_the_definition_on_latin_text(texts: list[str]) -> None:
    """Columns mixed of ASCII and other Latin texts come out as defined, letter by letter."""
    expected = [reference(t.replace("İ", "I")) for t in texts]  # its lower case differs by library
    column = pa.array([t.replace("İ", "I") for t in texts], pa.string())
    assert text.normalise_column(column).to_pylist() == expected


# What composes, expands, changes its length in lower case, or is longer than the table's entries.
INTERESTING = (
    [chr(code) for code in range(0x300, 0x370)]  # combining marks
    + [chr(code) for code in range(0x1100, 0x1200)]  # Hangul jamo
    + [chr(code) for code in range(0xAC00, 0xAC40)]  # Hangul syllables
    + [chr(code) for code in range(0x3131, 0x3164)]  # jamo that NFKC makes combining
    + [chr(code) for code in range(0xFB00, 0xFB07)]  # ligatures
    + [chr(code) for code in range(0xFF01, 0xFFEF)]  # full and half width
    + [chr(code) for code in range(0x370, 0x3E0)]  # Greek
    + [chr(code) for code in range(0x1F00, 0x2000)]  # Greek extended
    + [chr(code) for code in range(0x2000, 0x2150)]  # punctuation, superscripts, letter-like
    + [chr(code) for code in range(0x2150, 0x2190)]  # fractions, Roman numbers
    + [chr(code) for code in range(0x2460, 0x2500)]  # in circles and brackets
    + [chr(code) for code in range(0x3200, 0x3400)]  # CJK compatibility
    + [chr(code) for code in range(0xF900, 0xFB00)]
    + [chr(code) for code in range(0x900, 0xA00)]  # Devanagari, Bengali
    + [chr(code) for code in range(0xFE00, 0xFE10)]  # variation selectors
    + [chr(code) for code in range(0x1F300, 0x1F700)]  # emoji
    + [chr(code) for code in range(0x1D400, 0x1D800)]  # mathematical letters
    + [chr(code) for code in range(0x2F800, 0x2FA20)]  # out of the table
    + list("\N{ZERO WIDTH JOINER}\N{ACUTE ACCENT}\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}")
    + list("ſẛßẞŉǄ½¨ﷺ")
)
CHARACTERS = st.one_of(
    st.characters(codec="utf-8"), st.sampled_from(INTERESTING), st.sampled_from("aZ9 -\N{EN DASH}é")
)
UNCOMPOSING = text._uncomposing()


def same_as_arrow(texts: list[str]) -> bool:
    column = pa.array(texts, pa.large_string())
    return bool(text.normalise_column(column).equals(text._normalise_by_arrow(column)))


@given(st.lists(st.text(st.characters(max_codepoint=127)), max_size=20))
def test_the_kernel_equals_arrow_on_ascii(texts: list[str]) -> None:
    """The fast path gives what the general path gives."""
    assert same_as_arrow(texts)


@given(st.lists(st.text(CHARACTERS), max_size=20))
def test_the_kernel_equals_arrow_on_any_text(texts: list[str]) -> None:
    """Whatever the characters, both paths give the same."""
    assert same_as_arrow(texts)


@given(st.lists(st.text(st.sampled_from([*UNCOMPOSING, *"aZ9 -"])), max_size=20))
def test_the_kernel_equals_arrow_on_what_it_takes(texts: list[str]) -> None:
    """Texts without a character that might compose come out the same, and need no Arrow."""
    assert same_as_arrow(texts)


def test_each_character_is_what_arrow_makes_of_it() -> None:
    """Every character of four planes gives the same alone, inside a word, and after space."""
    codes = (*range(0xD800), *range(0xE000, 0x30000), *range(0xE0000, 0xE1000))
    room = "-" * 40  # lets results grow, so that the kernel can take them
    assert same_as_arrow([chr(code) for code in codes])
    assert same_as_arrow([f"{room}a{chr(code)}b" for code in codes])


def test_no_character_of_the_table_composes_with_one_before() -> None:
    """Each gives the same after, and before, one of each kind that others compose with."""
    firsts = "aeKκΑιиगেကᄀ가각ﬁ´½ゕ\U00011131\N{ANGSTROM SIGN}"  # noqa: RUF001 - such characters
    room = "-" * 200
    assert same_as_arrow([f"{room}{c}{c.join(firsts)}{c}" for c in UNCOMPOSING])


def test_both_parts_of_every_composition_come_out_composed() -> None:
    """Every canonical composition gives the same composed, in two parts, and in all its parts."""
    composed = [chr(c) for c in range(0x30000) if unicodedata.decomposition(chr(c))]
    parts = [unicodedata.decomposition(c).split() for c in composed]
    pairs = ["".join(chr(int(p, 16)) for p in two) for two in parts if not two[0].startswith("<")]
    hangul = [unicodedata.normalize("NFD", chr(code)) for code in range(0xAC00, 0xD7A4, 7)]
    assert same_as_arrow([f"x{pair}x" for pair in (*pairs, *hangul)])
    assert same_as_arrow([unicodedata.normalize("NFKD", c) for c in composed])
    assert not {pair[1] for pair in (*pairs, *hangul) if len(pair) > 1} & set(UNCOMPOSING)


@pytest.mark.parametrize(
    "raw",
    [
        "Café – “naïve” … it’s 5 µm²",  # noqa: RUF001 - what alt texts have
        "Най-голямата река в България",
        "Ἀθῆναι, ΣΊΣΥΦΟΣ",
        "東京タワー、서울",
        "ｆｕｌｌ ﬁne ①",  # noqa: RUF001 - compatibility forms on purpose
        "🇧🇬 👩‍🚀 ❤️",
        "wider than before: ½ \N{ACUTE ACCENT}",
    ],
)
def test_common_texts_need_no_arrow(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts and signs that most texts have are the kernel's."""
    expected = text._normalise_by_arrow(pa.array([raw]))[0].as_py()
    monkeypatch.setattr(text, "_normalise_by_arrow", None)
    assert text.normalise(raw) == expected


@pytest.mark.parametrize("raw", ["½", "½½½½", "a½", "ŉ", "\N{ACUTE ACCENT}" * 2, "-½½"])
def test_results_may_outgrow_their_texts(raw: str) -> None:
    """Where results are longer than the texts, the longest are not cut."""
    assert same_as_arrow([raw])
    assert same_as_arrow([raw, "-----", raw, raw])


@given(st.lists(st.text(st.sampled_from("½ŉ-aé\N{COMBINING ACUTE ACCENT}"))))
def test_the_kernel_stays_in_its_buffer(texts: list[str]) -> None:
    """The kernel writes at most one result past the length of its input; texts left are empty."""
    data, offsets = binary_buffers(pa.array(texts, pa.string()))
    out = np.full(len(data) + 64, 255, np.uint8)
    ends, left = np.zeros(len(texts) + 1, np.int64), np.zeros(len(texts), np.bool_)
    text._normalise_most(data, offsets, text._table(), out, ends, left)
    assert (out[len(data) + text._MAX_RESULT :] == 255).all()
    assert (ends <= offsets).all()
    assert not np.diff(ends)[left].any()


MALFORMED = {
    "stray continuation": b"\x83\xa9",
    "cut after the lead": b"\xc3",
    "cut before the last byte": b"\xe2\x80",
    "lead after lead": b"\xc3\xc3",
    "overlong in two": b"\xc1\x81",
    "overlong in three": b"\xe0\x83\xa9",
    "overlong in four": b"\xf0\x80\x83\xa9",
    "surrogate": b"\xed\xa0\x80",
    "past the last": b"\xf4\x90\x80\x80",
    "lead of five": b"\xf8\x90\x80\x80",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_malformed_utf8_is_refused(raw: bytes) -> None:
    """Arrow's error stands, and bytes of the next text are not taken for the rest."""
    cells = pa.array([b"a" + raw, b"\xa9\xa9\xa9"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 2, cells.buffers())
    with pytest.raises(pa.ArrowInvalid, match="Invalid UTF-8"):
        text.normalise_column(column[:1])


@given(st.lists(st.text(), max_size=20))
def test_only_tokens_and_single_spaces_are_left(texts: list[str]) -> None:
    """Whatever comes in, no leading, trailing or double space comes out."""
    for value in text.normalise_column(pa.array(texts, pa.string())).to_pylist():
        assert value == value.strip(" ")
        assert "  " not in value


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_and_chunks_are_respected(kind: pa.DataType) -> None:
    """A slice of a column, or a chunked one, gives the same values."""
    column = pa.array(["A-1", "é-2", "B-3", "ç-4", ""], kind)
    assert text.normalise_column(column[1:4]).to_pylist() == ["é 2", "b 3", "ç 4"]
    chunked = pa.chunked_array([column[:2], column[2:]])
    assert text.normalise_column(chunked).to_pylist() == ["a 1", "é 2", "b 3", "ç 4", ""]
    assert text.normalise_column(column[:0]).to_pylist() == []


@given(st.text())
def test_normalising_twice_changes_nothing(given_text):
    """What is normalised stays as it is."""
    once = text.normalise(given_text)
    assert text.normalise(once) == once


def test_composed_in_lower_case_only():
    """Of letters that compose with a mark in lower case only, both cases become the same."""
    assert text.normalise("H\u0331") == text.normalise("h\u0331") == "\u1e96"
