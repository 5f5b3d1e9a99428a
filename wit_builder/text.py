"""The one normaliser that queries and alt texts share.

Unicode NFKC, lower case (and NFKC again, for what composes in lower case only), every run of
characters that are neither letter nor mark nor digit becomes one space, trimmed. What is left are
*tokens* separated by single spaces, so a query matches where its tokens stand in a text as
consecutive whole tokens: "(dog)" contains "dog", "Paris, Texas" is findable, "category" does not
contain "cat".

Arrow (utf8proc and RE2) defines the result, and a kernel gives the same bytes much faster. It
writes for each character what Arrow makes of that character alone. That is the whole truth where no
character composes with the one before it: lower case and token or not are decided one by one. Texts
with one that might, such as a combining accent, or with a rare one, go through Arrow: two of 27,000
sentences of English Wikipedia did.
"""

from __future__ import annotations

import functools
import unicodedata

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder.hashing import binary_buffers

_NOT_TOKEN = r"[^\p{L}\p{M}\p{Nd}]+"  # noqa: S105 - a pattern, not a secret

_TABLE_SIZE = 0x20000
"""Two planes of Unicode, as far as emoji. The third, of rare ideographs, is left to Arrow."""

_MAX_RESULT = 4
"""Bytes that an entry of the table can hold."""

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


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
    data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
    out = np.empty(len(data) + _MAX_RESULT, np.uint8)
    ends = np.zeros(len(texts) + 1, np.int64)
    left = np.zeros(len(texts), np.bool_)
    table = _table() if len(data) and data.max() > 127 else np.empty(0, np.uint32)
    _normalise_most(data, offsets, table, out, ends, left)
    done = _string_array(out, ends, texts.type)
    if not left.any():
        return done
    mask = pa.array(left)
    return pc.replace_with_mask(done, mask, _normalise_by_arrow(texts.filter(mask)))


def _normalise_by_arrow(texts: pa.Array) -> pa.Array:
    return pc.utf8_trim(_untrimmed(texts), " ")


def _untrimmed(texts: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    lower = pc.utf8_normalize(lower, form="NFKC")  # some pairs compose in lower case only
    return pc.replace_substring_regex(lower, _NOT_TOKEN, " ")


def _string_array(data: U8, ends: I64, kind: pa.DataType) -> pa.Array:
    wide = pa.types.is_large_string(kind)
    offsets = ends if wide else ends.astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[: ends[-1]])]
    return pa.Array.from_buffers(kind, len(ends) - 1, buffers)


def _ascii_table() -> U8:
    """Return, for each byte, its lower-case token byte, a space, or 255 for not ASCII."""
    table = np.full(256, 255, np.uint8)
    table[:128] = ord(" ")
    for code in range(128):
        if chr(code).isalnum():
            table[code] = ord(chr(code).lower())
    return table


@functools.cache
def _table() -> U32:
    """Return what each code point becomes: its bytes, the first in the lowest eight bits.

    0 is for ASCII, for what might compose, and for results that are too long. Takes some 0.08 s.
    """
    characters = _uncomposing()
    data, starts = binary_buffers(_untrimmed(pa.array(characters, pa.string())))
    sizes = np.diff(starts)
    results = np.zeros(len(characters), np.uint32)
    for k in range(_MAX_RESULT):
        has = sizes > k
        results[has] |= data[starts[:-1][has] + k].astype(np.uint32) << np.uint32(8 * k)
    results[sizes > _MAX_RESULT] = 0
    table = np.zeros(_TABLE_SIZE, np.uint32)
    table[[ord(c) for c in characters]] = results
    return table


def _uncomposing() -> list[str]:
    """Return the non-ASCII characters of the table's range that never compose with one before.

    Such a character's full decomposition begins with a starter (combining class 0) that is second
    in no canonical composition. So nothing moves or composes across the character's beginning, and
    NFKC of both sides is NFKC of the whole (Unicode Standard Annex 15, sections 1.3 and 1.4).

    Python's version of Unicode may be older than Arrow's. That is why unassigned characters are
    left out: for those assigned, later versions change none of this (Unicode's stability policy).
    """
    characters = [chr(code) for code in range(128, _TABLE_SIZE)]
    seconds = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}  # Hangul
    first = {}
    for c in characters:
        mapping = unicodedata.decomposition(c).split()
        if mapping:
            first[c] = unicodedata.normalize("NFKD", c)[0]
        if len(mapping) == 2 and not mapping[0].startswith("<"):
            seconds.add(chr(int(mapping[1], 16)))
    return [
        c
        for c in characters
        if (start := first.get(c, c)) not in seconds
        and not unicodedata.combining(start)
        and unicodedata.category(c) not in ("Cn", "Cs")
    ]


_ASCII = _ascii_table()
_SPACE = np.uint8(ord(" "))

# Unsigned places spare the kernels a test for negative ones on each access. All that they are
# added to must be unsigned, too: numba makes the sum with a signed number a float.
_0, _1, _2, _3, _4, _5, _6 = (np.uint64(n) for n in range(7))
_BYTE = np.uint32(8)


@numba.njit(cache=True, inline="always")
def _put(
    out: U8, at: np.uint64, byte: np.uint8, in_token: np.uint64
) -> tuple[np.uint64, np.uint64]:
    """Write a byte, and return where the next one goes, and 1 if this one is of a token, or 0.

    A space is kept only after a token; without a branch, for that costs three times as much.
    """
    out[at] = byte
    of_token = np.uint64(byte != _SPACE)
    return at + (of_token | in_token), of_token


@numba.njit(cache=True, inline="always")
def _decode(data: U8, at: np.uint64, end: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the code point at a byte that is not ASCII, and how many bytes it has.

    Code point 0 stands for what is malformed (RFC 3629) or out of the table.
    """
    lead = data[at]
    size = _2 if lead < 0xE0 else _3 if lead < 0xF0 else _4
    if lead < 0xC2 or lead > 0xF4 or at + size > end:
        return _0, _1
    code = np.uint64(lead) & (np.uint64(0x7F) >> size)
    for k in range(at + _1, at + size):
        if data[k] >> 6 != 2:
            return _0, _1
        code = code << _6 | np.uint64(data[k] & 63)
    overlong = code >> (_5 * size - _4) == 0
    return (_0 if overlong or code >= _TABLE_SIZE else code), size


@numba.njit(cache=True, nogil=True)
def _normalise_most(
    data: U8, offsets: I64, table: U32, out: U8, ends: I64, left: npt.NDArray[np.bool_]
) -> None:
    """Normalise texts one after the other into ``out``, with ``ends`` of each; say which are left.

    A text is left, and empty, if a code point's entry in the table is 0, or if the results would
    outgrow the texts so far, which keeps ``out`` no longer than ``data`` but for one result.
    """
    at = _0
    for i in range(left.size):
        begin, in_token = at, _0
        j, end = np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        while j < end:
            byte = _ASCII[data[j]]
            if byte < 128:
                j += _1
                at, in_token = _put(out, at, byte, in_token)
                continue
            code, size = _decode(data, j, end)
            j += size
            result = table[code]
            if result == 0:
                left[i] = True
                break
            while result != 0:
                at, in_token = _put(out, at, np.uint8(result & 255), in_token)
                result >>= _BYTE
            if at > j:
                left[i] = True
                break
        if left[i]:
            at = begin
        elif in_token == _0 and at > begin:
            at -= _1
        ends[i + 1] = at
