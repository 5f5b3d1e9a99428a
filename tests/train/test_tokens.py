"""Token ids against open_clip's own tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder.errors import MissingPartError
from wit_train import tokens
from wit_train.tokens import Tokenizer

TEXTS = [
    "",
    " ",
    "a photo of a dog",
    "A PHOTO, of the cat's 3 kittens!!",
    "don't we'll they've I'M he'd",
    "<start_of_text>x<end_of_text>",
    "<END_OF_TEXT>",
    "naïve café — “quotes” … ½ ﬁ",
    "AT&amp;T &lt;b&gt; &amp;amp;",
    "schÃ¶n mojibake â€™",
    "日本語のテキスト と 한국어",
    "हिन्दी पाठ",
    "Ελληνικά Русский العربية עברית",
    "emoji 👩‍👩‍👧 🇩🇪 🍎",
    "tabs\tand\nnew  lines ",
    "x" * 300,
    "1234567890 3.14",
    "\x00\x07 control",
    "İstanbul ẞ \u017f",
    "http://example.com/a_b?c=d&e=f#g",
    "l'été n'est pas 'fini'",
    "C++ / C# — §5 ¶",
    "e\u0301 combining",
    "\uff41\uff42\u3000\uff46",
]


@pytest.fixture(scope="module")
def reference():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.mark.parametrize("length", [77, 8])
def test_ids_are_open_clips(reference, length: int):
    """Every text, however odd, has open_clip's ids, cut to the context as open_clip cuts."""
    expected = reference(TEXTS, context_length=length).numpy()
    np.testing.assert_array_equal(Tokenizer(length)(TEXTS), expected)


@given(st.text(max_size=60))
@settings(max_examples=400)
def test_any_text_has_open_clips_ids(reference, tokenizer: Tokenizer, text: str):
    """Random Unicode, too."""
    assert tokenizer.encode(text) == reference.encode(text)


def test_without_open_clip_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """A missing package is named with the command that brings it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    tokens._read_merges.cache_clear()
    with pytest.raises(MissingPartError, match=r"wit-builder\[train\]"):
        Tokenizer()
    tokens._read_merges.cache_clear()
