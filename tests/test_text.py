"""The one normaliser."""

from __future__ import annotations

import re
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder import text

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


@given(st.lists(st.text(st.characters(max_codepoint=127)), max_size=20))
def test_the_ascii_kernel_equals_arrow(texts: list[str]) -> None:
    """The fast path gives what the general path gives."""
    column = pa.array(texts, pa.string())
    assert text.normalise_column(column).equals(text._normalise_unicode(column))


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
