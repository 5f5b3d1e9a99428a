"""Token ids against open_clip's own tokenizer."""

from __future__ import annotations

import bz2
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import emoji
import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from wit_builder.errors import MissingPartError, TrainingError
from wit_train.tokens import Clean, Tokenizer

CLEANS = get_args(Clean)
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
    "salt & pepper, AT&T, R&D;",
    "schÃ¶n mojibake â€™",
    "日本語のテキスト と 한국어",
    "हिन्दी पाठ",
    "Ελληνικά Русский العربية עברית",
    "emoji 👩‍👩‍👧 🇩🇪 🍎",
    "tabs\tand\nnew  lines ",
    "x" * 300,
    "1234567890 3.14",
    "\x00\x07 control",
    "\x1b[31mred\x1b[0m",
    "İstanbul ẞ \u017f",
    "ΣΑΣ ΣΑΣ. Σ",
    "http://example.com/a_b?c=d&e=f#g",
    "snake_case __init__ {braces} ~tilde~",
    "l'été n'est pas 'fini'",
    "C++ / C# — §5 ¶",
    "e\u0301 combining",
    "\uff41\uff42\u3000\uff46 \uff06amp\uff1b \uff1cb\uff1e &amp;",
    "one\nÃ two\r\nthree\u2028four",
    "\ud800 half a pair",
    "zero\u200bwidth\u200d\ufeff \u00ad",
]
LONG = [
    "word " * 20_000,
    "été " * 20_000,
    "&amp; " * 2_000,
    "sehr" * 2_000,
    "写真" * 1_500,
    "1" * 100_000,
    "!?" * 50_000,
    "â€™ " * 10_000,
    "<end_of_text>" * 5_000,
]
ODD = st.sampled_from(
    [*"aB' \n\t\x00\x85&;<>éÉœŒÃÂ€“”\u2019°²½ßŉﬁＡ\uff06\u3000\u03b1ςΣЂ\u0301\u1100\u1161"]
)


@pytest.fixture(scope="module")
def references() -> dict[str, Any]:
    from open_clip.tokenizer import SimpleTokenizer

    return {clean: SimpleTokenizer(clean=clean) for clean in CLEANS}


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {clean: Tokenizer(clean=clean) for clean in CLEANS}


@pytest.fixture(params=CLEANS)
def both(
    request: pytest.FixtureRequest, references: dict[str, Any], tokenizers: dict[str, Tokenizer]
) -> tuple[Any, Tokenizer]:
    """open_clip's tokenizer and ours, with the same cleaning."""
    return references[request.param], tokenizers[request.param]


@pytest.mark.parametrize("clean", CLEANS)
@pytest.mark.parametrize("length", [2, 8, 32, 77])
def test_ids_are_open_clips(references: dict[str, Any], clean: Clean, length: int):
    """Every text, however odd, has open_clip's ids, cut to the context as open_clip cuts."""
    expected = references[clean](TEXTS, context_length=length).numpy()
    np.testing.assert_array_equal(Tokenizer(length, clean)(TEXTS), expected)


def test_long_texts_have_open_clips_ids(both: tuple[Any, Tokenizer]):
    """A caption of 100 kB is cut where open_clip cuts it."""
    reference, ours = both
    np.testing.assert_array_equal(ours(LONG), reference(LONG).numpy())


def test_a_word_of_100_kb_is_cut():
    """A caption that is one word of 100 kB has ids, too; open_clip is busy with it for minutes."""
    word = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=100_000))
    ids = Tokenizer()([word, "a" * 100_000])
    assert ids.shape == (2, 77)
    assert (ids > 0).all()


@given(st.text(max_size=60) | st.text(ODD, max_size=12), st.sampled_from(CLEANS))
@settings(max_examples=1500)
def test_any_text_has_open_clips_ids(
    references: dict[str, Any], tokenizers: dict[str, Tokenizer], text: str, clean: str
):
    """Random Unicode, too."""
    assert tokenizers[clean].encode(text) == references[clean].encode(text)


def assigned() -> Iterator[str]:
    """Yield every character that Unicode has assigned, half pairs among them."""
    for code in range(0x110000):
        if unicodedata.category(chr(code)) not in {"Cn", "Co"}:
            yield chr(code)


def test_every_character_has_open_clips_ids(both: tuple[Any, Tokenizer]):
    """Each assigned code point alone and between letters; 64 of them to a text."""
    reference, ours = both
    characters = list(assigned())
    for first in range(0, len(characters), 64):
        text = " ".join(f"{c} a{c}b" for c in characters[first : first + 64])
        assert ours.encode(text) == reference.encode(text), f"U+{ord(characters[first]):04X} ..."


def mojibake(text: str, encoding: str) -> str:
    return text.encode().decode(encoding, "replace")


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "cp1251", "cp1253", "mac_roman", "cp437"]
)
def test_mojibake_has_open_clips_ids(both: tuple[Any, Tokenizer], encoding: str):
    """Texts whose bytes were read in a wrong encoding."""
    reference, ours = both
    for text in (mojibake(text, encoding) for text in TEXTS if text.isprintable()):
        assert ours.encode(text) == reference.encode(text), text


def test_names_of_emoji_have_open_clips_ids(both: tuple[Any, Tokenizer]):
    """Real captions of a few words in 14 languages."""
    reference, ours = both
    for sign, names in list(emoji.EMOJI_DATA.items())[::7]:
        for name in (name for name in names.values() if isinstance(name, str)):
            text = f"{sign} {name.strip(':').replace('_', ' ')}"
            assert ours.encode(text) == reference.encode(text), text


def test_wikipedia_has_open_clips_ids(both: tuple[Any, Tokenizer], data_dir: Path):
    """Real prose with markup, entities and many alphabets."""
    reference, ours = both
    markup = bz2.decompress((data_dir / "enwiki-excerpt.xml.bz2").read_bytes()).decode()
    lines = [line for line in markup.split("\n") if not line.isascii()]
    for line in random.Random(3).sample(lines, 700):
        assert ours.encode(line[:500]) == reference.encode(line[:500]), line


def test_pieces_are_cut_at_all_white_space_of_the_pattern():
    """Every piece of a text has a word: what ``regex`` takes for white space, ``split`` cuts."""
    white = regex.compile(r"\s")
    spaces = [c for c in map(chr, range(0x110000)) if white.match(c)]
    assert "".join(spaces).split() == []


def test_no_texts_have_no_ids():
    """An empty list gives an array without rows."""
    assert Tokenizer()([]).shape == (0, 77)


def test_what_is_no_tokenizer_is_refused():
    """A cleaning that open_clip does not know, and a context without room for start and end."""
    unknown: Any = "upper"
    with pytest.raises(TrainingError, match="no cleaning is called 'upper'"):
        Tokenizer(clean=unknown)
    with pytest.raises(TrainingError, match="context of 1"):
        Tokenizer(1)


def test_without_open_clip_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """A missing package is named with the command that brings it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPartError, match=r"wit-builder\[train\]"):
        Tokenizer()
