"""Wikitext to the words a reader would see: no templates, tables, notes, files or markup.

The result is for counting words: it keeps the order of words and the ends of sentences, not the
looks of the page. One pass over the bytes of a column: ``pages`` has the loop and the lines,
``stack`` what opens and closes, ``scan`` what these share; ``links``, ``elements`` and ``entities``
are what their names say.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.hashing import binary_buffers
from wit_builder.queries.wikitext.pages import strip_pages

MEDIA_AND_CATEGORY = frozenset({"file", "image", "media", "category"})
"""Link prefixes that put a picture or a category, not words; a dump's own names come on top."""


def plain_column(texts: pa.Array, hidden_links: frozenset[str] = MEDIA_AND_CATEGORY) -> pa.Array:
    """Return the words of each article, a line for each paragraph, heading and list item.

    Time is linear in the bytes of the column, whatever they nest; no text comes out longer than it
    went in.

    Args:
        texts: string array without nulls: sources of pages.
        hidden_links: link prefixes to drop with what they link, in any case.

    Returns:
        String array of the same length.
    """
    assert texts.null_count == 0
    data, offsets = binary_buffers(texts)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    ends = strip_pages(data, offsets, _prefixes(hidden_links), out)
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(out[: ends[-1]])]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def plain(wikitext: str, hidden_links: frozenset[str] = MEDIA_AND_CATEGORY) -> str:
    """Return the words of one article, as ``plain_column`` does."""
    return str(plain_column(pa.array([wikitext], pa.string()), hidden_links)[0].as_py())


def _prefixes(names: frozenset[str]) -> npt.NDArray[np.int64]:
    """Return, for each name and letter, the code points of its two cases; a zero ends a name."""
    spelled = sorted({" ".join(name.replace("_", " ").split()).lower() for name in names} - {""})
    codes = np.zeros((len(spelled), max(map(len, spelled), default=0) + 1, 2), np.int64)
    for row, name in zip(codes, spelled, strict=True):
        for pair, letter in zip(row, name, strict=False):
            # A letter whose capital is several ("\N{LATIN SMALL LETTER SHARP S}") has itself only.
            upper = letter.upper() if len(letter.upper()) == 1 else letter
            pair[:] = ord(letter), ord(upper)
    return codes
