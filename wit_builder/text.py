"""The one normaliser that queries and alt texts share.

Unicode NFKC, lower case, every run of characters that are neither letter nor mark nor digit
becomes one space, trimmed. What is left are *tokens* separated by single spaces, so a query matches
where its tokens stand in a text as consecutive whole tokens: "(dog)" contains "dog", "Paris, Texas"
is findable, "category" does not contain "cat".

ASCII, most of the web's alt texts, goes through a kernel; the rest through Arrow (utf8proc and
RE2). Both give the same result on ASCII, which a test holds them to.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.hashing import binary_buffers

_NOT_TOKEN = r"[^\p{L}\p{M}\p{Nd}]+"  # noqa: S105 - a pattern, not a secret


def normalise(text: str) -> str:
    """Return one text, normalised."""
    return str(normalise_column(pa.array([text], pa.string()))[0].as_py())


def normalise_column(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return the normalised form of every text.

    Args:
        texts: string or large_string column without nulls.

    Returns:
        Array of the same type and length: tokens separated by single spaces.
    """
    if isinstance(texts, pa.ChunkedArray):
        chunks = [normalise_column(chunk) for chunk in texts.chunks]
        return pa.concat_arrays(chunks) if chunks else pa.array([], texts.type)
    assert texts.null_count == 0
    data, offsets = binary_buffers(texts)
    out = np.empty(int(offsets[-1] - offsets[0]), np.uint8)
    ends = np.zeros(len(texts) + 1, np.int64)
    foreign = np.zeros(len(texts), np.bool_)
    _normalise_ascii(data, offsets, out, ends, foreign)
    plain = _string_array(out, ends, texts.type)
    if not foreign.any():
        return plain
    mask = pa.array(foreign)
    return pc.replace_with_mask(plain, mask, _normalise_unicode(texts.filter(mask)))


def _normalise_unicode(texts: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    return pc.utf8_trim(pc.replace_substring_regex(lower, _NOT_TOKEN, " "), " ")


def _string_array(
    data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], kind: pa.DataType
) -> pa.Array:
    wide = pa.types.is_large_string(kind)
    offsets = ends if wide else ends.astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[: ends[-1]])]
    return pa.Array.from_buffers(kind, len(ends) - 1, buffers)


def _ascii_table() -> npt.NDArray[np.uint8]:
    """Return, for each byte, its lower-case token byte, a space, or 255 for not ASCII."""
    table = np.full(256, 255, np.uint8)
    table[:128] = ord(" ")
    for code in range(128):
        if chr(code).isalnum():
            table[code] = ord(chr(code).lower())
    return table


_ASCII = _ascii_table()
_SPACE = np.uint8(ord(" "))


@numba.njit(cache=True, nogil=True)
def _normalise_ascii(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
    foreign: npt.NDArray[np.bool_],
) -> None:
    at = 0
    for i in range(foreign.size):
        begin = at
        gap = False
        for j in range(offsets[i], offsets[i + 1]):
            byte = _ASCII[data[j]]
            if byte == 255:
                foreign[i] = True
                at = begin
                break
            if byte == _SPACE:
                gap = True
                continue
            if gap and at > begin:
                out[at] = _SPACE
                at += 1
            gap = False
            out[at] = byte
            at += 1
        ends[i + 1] = at
