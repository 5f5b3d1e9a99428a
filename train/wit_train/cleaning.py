"""Captions cleaned as open_clip cleans them, mostly without ftfy.

open_clip passes every text through ``ftfy.fix_text`` (mojibake, HTML entities, curly quotes,
widths, ligatures, control characters, NFC) and twice through ``html.unescape``: 25 us for a short
text. Most need none or little of it, and that is told in 2 us; the rest go through ftfy itself.
"""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

from wit_train.bpe import missing

Clean = Literal["lower", "whitespace", "canonicalize"]
"""Names as in the ``tokenizer_kwargs`` of open_clip's model configurations."""

_KNOWN_FTFY = "6.3.1"
"""Whose code the shortcut was derived from; of any other version every text takes the long way."""

_ENTITY = "&#?[0-9A-Za-z]{1,24};"
_CONTROL = r"\x00-\x08\x0b\x0e-\x1f\x7f"
_NEEDS_FTFY_IN_ASCII = re.compile(f"[{_CONTROL}]|{_ENTITY}")
_NEEDS_FTFY = re.compile(
    f"[{_CONTROL}\u206a-\u206f\ud800-\udfff\ufeff\ufff9-\ufffc]|{_ENTITY}"
    "|\n[\xc2\xc3] "  # the one pattern of is_bad that must stand where a line begins
)
_FTFY_CUTS_AT = 1_000_000
_SUSPECTS = (
    *("c1", "bad", "currency", "start_punctuation", "end_punctuation", "numeric"),
    *("upper_accented", "box"),
)
_MORE_SUSPECTS = "\u00b0\u00d8\u00d9\u0153\u0402"
_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


def cleaned(text: str, clean: Clean = "lower") -> str:
    """Return a text as open_clip cleans it; white space is left as it is.

    open_clip then collapses white space; who splits the result has no need to.

    Args:
        text: any.
        clean: ``lower``, CLIP's; ``whitespace`` keeps capitals; ``canonicalize`` is lower and
            without ASCII punctuation.
    """
    if not (text.isascii() and text.isprintable() and "&" not in text):  # else nothing to undo
        text = _fixed(text)
        if "&" in text:
            text = html.unescape(html.unescape(text))
    if clean == "canonicalize":
        text = text.translate(_PUNCTUATION)
    return text if clean == "whitespace" else text.lower()


def _fixed(text: str) -> str:
    """Return ``ftfy.fix_text(text)``, but for white space that is collapsed later.

    Of ASCII, ftfy changes only entities, control characters and line breaks, and those are white
    space before and after. Of other texts without entities and control characters, and unless
    ``is_bad`` sees mojibake in a line, it changes a few characters each for itself and then
    composes (NFC), until nothing changes any more; so do we.
    """
    if text.isascii():
        return _ftfy().fix_text(text) if _NEEDS_FTFY_IN_ASCII.search(text) else text
    ftfy, now = _ftfy(), text
    if not ftfy.characters or len(text) > _FTFY_CUTS_AT:
        return ftfy.fix_text(text)
    while not (_NEEDS_FTFY.search(now) or ftfy.is_bad(now)):
        after = unicodedata.normalize("NFC", now.translate(ftfy.characters))
        if after == now:
            return now
        now = after
    return ftfy.fix_text(text)


class _Ftfy(NamedTuple):
    """The parts of ftfy; ``characters`` is empty where the shortcut must not be used."""

    fix_text: Callable[[str], str]
    characters: dict[int, str]
    suspect: re.Pattern[str]
    """Finds a character of those that everything has which ``bad`` finds; a tenth of the cost."""
    bad: re.Pattern[str]

    def is_bad(self, text: str) -> bool:
        """Return ``ftfy.badness.is_bad(text)``."""
        return bool(self.suspect.search(text) and self.bad.search(text))


@cache
def _ftfy() -> _Ftfy:
    """Return ftfy, imported at the first text that needs it (0.1 s).

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        import ftfy  # noqa: PLC0415 - comes with open_clip_torch, which is optional
        from ftfy import badness, chardata, fixes  # noqa: PLC0415
    except ImportError as error:
        raise missing("ftfy") from error
    if ftfy.__version__ != _KNOWN_FTFY:
        return _Ftfy(ftfy.fix_text, {}, re.compile(""), re.compile(""))
    suspects = "".join(badness.MOJIBAKE_CATEGORIES[name] for name in _SUSPECTS)
    quotes = map(ord, "\u02bc\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f")
    characters = {}
    for code in (*chardata.LIGATURES, *chardata.WIDTH_MAP, *quotes):
        wide = fixes.fix_character_width(fixes.fix_latin_ligatures(chr(code)))
        characters[code] = fixes.uncurl_quotes(wide)
    suspect = re.compile(f"[{suspects}{_MORE_SUSPECTS}]")
    return _Ftfy(ftfy.fix_text, characters, suspect, badness.BADNESS_RE)
