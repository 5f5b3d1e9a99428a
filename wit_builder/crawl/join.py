"""URLs by the column, made absolute and plain: the ones that need no more than bytes moved.

A kernel does what ``urls.resolve`` does for nearly all URLs of the web: it puts what an address
leaves out before it, trims it, drops its fragment, folds dot segments, and sets escapes right
(RFC 3986, sections 5.2 and 6.2.2). Then it tells whether the result is plainly normal. It is not,
where the kernel cannot do what is to be done: for hosts in capitals, or letters beyond ASCII.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.crawl.blocks import address_of, byte_at, copy, eight_at
from wit_builder.hashing import binary_buffers

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_SLASH, _BACKSLASH, _DOT, _COLON, _HYPHEN = (np.uint8(ord(c)) for c in "/\\.:-")
_PERCENT, _SPACE, _QUERY, _FRAGMENT = (np.uint8(ord(c)) for c in "% ?#")
_H = np.uint8(ord("h"))
_HTTP, _HTTPS, _SEVEN = (
    np.frombuffer(eight, np.uint64)[0] for eight in (b"http://\0", b"https://", b"\xff" * 7 + b"\0")
)
_HEX = np.frombuffer(b"0123456789ABCDEF", np.uint8)


def _unescaped(plain: str) -> U8:
    """Return for each byte the character that its escape stands for needlessly; 0 for none."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~"
    table = np.zeros(256, np.uint8)
    for character in letters + plain:
        table[ord(character)] = ord(character)
    return table


# As yarl has it, but for an escaped dot in a path.
_IN_PATH = _unescaped("!$&'()*,:;=@")
_IN_QUERY = _unescaped("!$'()*,./:?@")


_PLAIN, _ALSO_IN_QUERY = 1, 2
_KINDS = np.zeros(256, np.uint8)
"""Which characters may stand in a path or query as they are, or in a query alone."""
for _character in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~!$&'()*+,;=:@-":
    _KINDS[_character] = _PLAIN
for _character in b"./?":
    _KINDS[_character] = _ALSO_IN_QUERY

# Escapes that must stay, in a path and in a query.
_STAY = "20 22 23 25 3C 3E 5B 5C 5D 7B 7C 7D"


def _escapes(more: str) -> Mask:
    table = np.zeros(256, np.bool_)
    table[128:] = True
    for code in f"{_STAY} {more}".split():
        table[int(code, 16)] = True
    return table


_STAY_IN_PATH, _STAY_IN_QUERY = _escapes("2F"), _escapes("26 2B 3D 3B")


def joined(hrefs: pa.Array, bases: pa.Array, which: I64) -> tuple[pa.Array, Mask]:
    """Return what addresses mean on their pages, and for which of them that is plainly right.

    Args:
        hrefs: string array of the addresses as they stand in the pages, without nulls.
        bases: string array of normalised URLs: of the pages, or of their ``<base>``.
        which: position in ``bases`` for each address; -1 for an absolute one.
    """
    data, offsets = binary_buffers(hrefs)
    base, base_offsets = binary_buffers(bases)
    longest = int(np.max(np.diff(base_offsets), initial=0))
    # a space becomes three bytes, and an odd address has one more
    out = np.empty(3 * int(offsets[-1] - offsets[0]) + (longest + 1) * len(hrefs), np.uint8)
    normal = np.empty(len(hrefs), np.bool_)
    ends = _join((data, offsets), (base, base_offsets), which, out, normal)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]].tobytes())]
    return pa.Array.from_buffers(pa.string(), len(hrefs), buffers), normal


@numba.njit(cache=True, nogil=True)
def _join(hrefs: tuple[U8, I64], bases: tuple[U8, I64], which: I64, out: U8, normal: Mask) -> I32:
    """Write every address, and whether it is plainly normal; return where each ends (from 0)."""
    data, offsets = hrefs
    base, base_offsets = bases
    source, target = address_of(data), address_of(out)
    prefix = address_of(base)
    ends = np.zeros(offsets.size, np.int32)
    size = 0
    for i in range(offsets.size - 1):
        at, end = offsets[i], offsets[i + 1]
        while at < end and data[at] <= _SPACE:
            at += 1
        while at < end and data[end - 1] <= _SPACE:
            end -= 1
        begin = size
        if at < end and data[at] == _H and _is_normal(source + at, source + end):
            size += copy(source + at, target + size, end - at)
            ends[i + 1], normal[i] = size, True
            continue
        if which[i] >= 0:
            first, last = base_offsets[which[i]], base_offsets[which[i] + 1]
            missing = _left_out(data, at, end, base, first, last)
            size += copy(prefix + first, target + size, missing)
        size = _write(data, at, end, out, begin, size)
        ends[i + 1], normal[i] = size, _is_normal(target + begin, target + size)
    return ends


@numba.njit(cache=True)
def _left_out(data: U8, at: int, end: int, base: U8, first: int, last: int) -> int:
    """Return how much of the page's URL stands before an address: scheme, origin, folder or none.

    What begins otherwise (``?``, ``#``, another scheme) is left as it is: no normal URL.
    """
    if at == end or data[at] == _QUERY or data[at] == _FRAGMENT:
        return 0
    if data[at] == _SLASH:
        slashes = 1 if at + 1 < end and data[at + 1] == _SLASH else 3
        return _nth_slash(base, first, last, slashes) - first
    for k in range(at, end):
        if data[k] == _COLON:
            return 0
        if data[k] == _SLASH:
            break
    folder = first
    for k in range(first, last):
        if base[k] == _QUERY:
            break
        if base[k] == _SLASH:
            folder = k
    return folder + 1 - first


@numba.njit(cache=True, inline="always")
def _nth_slash(url: U8, at: int, end: int, nth: int) -> int:
    """Return where a slash stands, counted from 1; the end if there are not so many."""
    while at < end:
        nth -= url[at] == _SLASH
        if nth == 0:
            return at
        at += 1
    return end


@numba.njit(cache=True)
def _write(data: U8, at: int, end: int, out: U8, begin: int, size: int) -> int:
    """Write an address behind the prefix in ``out[begin:size]``; return where it ends."""
    path = _nth_slash(out, begin, size, 3)
    in_path, in_query, odd = path < size, False, False
    slashes = 0
    if not in_path:
        for k in range(begin, size):
            slashes += out[k] == _SLASH
    segment = size
    while at < end and data[at] != _FRAGMENT:
        byte = data[at]
        if _KINDS[byte] == _PLAIN:
            out[size] = byte
            size += 1
        elif in_path and not in_query and byte in (_SLASH, _QUERY):
            size, folded = _fold(out, path, segment, size)
            if byte == _QUERY:
                in_query = True
            if byte == _QUERY or not folded:
                out[size] = byte
                size += 1
            segment = size
        elif byte == _PERCENT and in_path:
            written = _write_escape(data, at, end, out, size, _IN_QUERY if in_query else _IN_PATH)
            odd |= written == size
            at += 0 if written == size else 2
            size = written
        elif byte == _SPACE and in_path and not in_query:
            out[size], out[size + 1], out[size + 2] = _PERCENT, 50, 48
            size += 3
        else:
            odd |= byte < _SPACE or byte == _BACKSLASH
            out[size] = byte
            size += 1
            if byte == _SLASH and not in_path:
                slashes += 1
                in_path = slashes == 3
                path, segment = size - 1, size
        at += 1
    if in_path and not in_query:
        size, _ = _fold(out, path, segment, size)
    if odd:  # what is odd may have been folded away: see to it that this is no URL
        out[size] = _SPACE
        size += 1
    return size


@numba.njit(cache=True, inline="always")
def _fold(out: U8, path: int, segment: int, size: int) -> tuple[int, bool]:
    """Take the last segment of a path away if it is a dot, two dots with the one before them.

    Return where the path ends now, with the slash before the segment, and whether it was.
    """
    dots = size - segment
    if not 1 <= dots <= 2 or out[segment] != _DOT or out[size - 1] != _DOT:
        return size, False
    size = segment
    if dots == 2 and size - 1 > path:
        size -= 1
        while out[size - 1] != _SLASH:
            size -= 1
    return size, True


@numba.njit(cache=True, inline="always")
def _write_escape(data: U8, at: int, end: int, out: U8, size: int, plain: U8) -> int:
    """Write what an escape stands for if it needs none, else in capitals.

    Nothing is written if it is none, or a dot that may make a dot segment.
    """
    if at + 2 >= end:
        return size
    high, low = _digit(data[at + 1]), _digit(data[at + 2])
    if high < 0 or low < 0 or (high * 16 + low == _DOT and plain[_DOT] == 0):
        return size
    character = plain[high * 16 + low]
    if character != 0:
        out[size] = character
        return size + 1
    out[size], out[size + 1], out[size + 2] = _PERCENT, _HEX[high], _HEX[low]
    return size + 3


@numba.njit(cache=True, inline="always")
def _digit(byte: np.uint8) -> int:
    """Return a hexadecimal digit's number, -1 if it is none."""
    if 48 <= byte <= 57:
        return int(byte) - 48
    return int(byte | 32) - 87 if 97 <= byte | 32 <= 102 else -1


@numba.njit(cache=True)
def _is_normal(at: int, end: int) -> bool:
    """Return whether a URL is normal: plain host, no port, dots within names, known escapes.

    It stands between two addresses.
    """
    at = _end_of_scheme(at, end)
    if at == 0:
        return False
    at = _end_of_host(at, end)
    if at == 0:
        return False
    in_query = False
    while at < end:
        byte = byte_at(at)
        kind = _KINDS[byte]
        if kind == _PLAIN:
            at += 1
            continue
        if byte == _PERCENT:
            if not _stays(at, end, _STAY_IN_QUERY if in_query else _STAY_IN_PATH):
                return False
            at += 2
        elif kind == 0:
            return False
        elif not in_query:
            if byte == _QUERY:
                in_query = True
                if at + 1 == end:
                    return False
            elif byte == _DOT and byte_at(at - 1) in (_SLASH, _DOT):
                return False
        at += 1
    return True


@numba.njit(cache=True, inline="always")
def _end_of_scheme(at: int, end: int) -> int:
    """Return the address behind ``http://`` or ``https://``; 0 if a URL begins otherwise."""
    if end - at < 8:
        return 0
    first = eight_at(at)
    if first == _HTTPS:
        return at + 8
    return at + 7 if first & _SEVEN == _HTTP else 0


@numba.njit(cache=True, inline="always")
def _end_of_host(at: int, end: int) -> int:
    """Return the address where the path of a URL with a plain host begins; 0 if it has none."""
    part, letters, dots = 0, True, 0  # of the host's last part: its length, whether of letters only
    while at < end and byte_at(at) != _SLASH:
        byte = byte_at(at)
        if byte in (_DOT, _HYPHEN):
            if part == 0:
                return 0
            dots = 0 if byte == _HYPHEN else 1
            part, letters = 0, True
        elif 97 <= byte <= 122:
            part += 1
        elif 48 <= byte <= 57:
            part, letters = part + 1, False
        else:
            return 0
        at += 1
    return at if at < end and dots and letters and part > 1 else 0


@numba.njit(cache=True, inline="always")
def _stays(at: int, end: int, stay: Mask) -> bool:
    """Return whether an escape in capitals begins at an address that must stay."""
    if at + 2 >= end or byte_at(at + 1) > 70 or byte_at(at + 2) > 70:
        return False
    high, low = _digit(byte_at(at + 1)), _digit(byte_at(at + 2))
    return high >= 0 and low >= 0 and stay[high * 16 + low]
