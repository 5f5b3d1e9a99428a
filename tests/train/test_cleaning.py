"""The shortcut around ftfy against ftfy itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import ftfy
import pytest
from ftfy.badness import BADNESS_RE, is_bad
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wit_builder.errors import MissingPartError
from wit_train import cleaning
from wit_train.cleaning import cleaned

SEEN_BY_FTFY = sorted(
    {*filter(lambda c: not c.isascii(), BADNESS_RE.pattern), *map(chr, range(0x80, 0x530))}
    | {*"\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u20ac\u2122\u3000\uff01\ufb01\ufeff\ufffd"}
)
"""All that is_bad names, and what its ranges of letters lie in."""
COMPANY = [*"aAzZ0 .,?!'\"\n\r\t\u2028<>&;"]


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    cleaning._ftfy.cache_clear()
    yield
    cleaning._ftfy.cache_clear()


def collapsed(text: str) -> str:
    """White space is collapsed by whoever splits the text."""
    return " ".join(text.split())


def test_every_character_is_fixed_as_ftfy_fixes_it():
    """Alone: so that each character which ftfy changes is seen to need it."""
    for code in range(sys.maxunicode + 1):  # 15 us each where ftfy is asked
        character = chr(code)
        if character.isascii() or code < 0x3100 or 0xD700 <= code < 0x10000 or code % 7 == 0:
            assert collapsed(cleaning._fixed(character)) == collapsed(ftfy.fix_text(character))


@given(st.text(st.sampled_from(SEEN_BY_FTFY + COMPANY * 8), max_size=12))
@settings(max_examples=3000)
@example("1.\n\xc3 two")  # a pattern that must stand where a line begins
@example("a\u0153\nb")
@example("&lt; <\n&lt;")  # entities are let be after a "<"
@example("\u0149\u0301")
def test_texts_are_fixed_as_ftfy_fixes_them(text: str):
    """Texts of characters that ftfy looks at, near what it looks for beside them."""
    assert collapsed(cleaning._fixed(text)) == collapsed(ftfy.fix_text(text))


def test_mojibake_always_has_a_suspect():
    """Texts without a suspect are never bad, however their characters stand."""
    suspect, rng = cleaning._ftfy().suspect, random.Random(5)
    innocent = [c for c in BADNESS_RE.pattern + "".join(COMPANY) if not suspect.match(c)]
    innocent = sorted(set(innocent))
    assert len(innocent) > 100
    for _ in range(4000):  # a pattern is of up to four characters: so, of a few in many orders
        text = "".join(rng.choices(rng.sample(innocent, 8), k=300))
        assert not is_bad(text), BADNESS_RE.search(text)


def test_long_texts_are_left_to_ftfy():
    """Where ftfy would cut a text by length, it is asked."""
    text = "a" * 999_999 + "e\u0301"
    assert cleaning._fixed(text) == ftfy.fix_text(text) != "a" * 999_999 + "é"


def test_another_ftfy_is_always_asked(monkeypatch: pytest.MonkeyPatch):
    """The shortcut is for the version that it was derived from."""
    monkeypatch.setattr(ftfy, "__version__", "7.0")
    monkeypatch.setattr(ftfy, "fix_text", lambda text: f"fixed {text}")
    assert cleaned("É") == "fixed é"
    assert cleaned("E") == "e"


def test_without_ftfy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """A missing package is named with the command that brings it."""
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MissingPartError, match=r"wit-builder\[train\]"):
        cleaned("é")
