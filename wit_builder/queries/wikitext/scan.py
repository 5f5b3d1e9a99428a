"""What the steps of the pass share: its state, and bytes and code points of a page.

A step is a function of a ``Scan``, the place ``at`` of a byte and the ``end`` of the page. It
writes what there is to write and returns where to go on. No step writes more bytes than it reads,
so the output never overtakes the input. Time is linear: a step looks ahead no further than the next
byte that could begin another such step, and a search that failed is not made again in that page.

Numba's cache knows only the file of the function that is called from Python: after a change here or
in a module beside this one, touch ``pages.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Names = tuple[U8, I64]
"""Bytes of some names, and where each begins (and the last ends)."""

# numba's stubs leave the private option _nrt out.
step = numba.njit(_nrt=False, forceinline=True)  # type: ignore[call-overload]
"""Compiles a step. Steps allocate nothing, so they go without numba's reference counts, which would
make the pass five times slower; calls that are not inlined, by a third."""

HIDDEN, LANGUAGE, LINK, TABLE, TEMPLATE, NOTE = range(6)
"""Kinds of frames. What closes closes over all of a lower kind that was left open in it."""

OUT, DEPTH, BEGIN = range(3)
"""Columns of ``Scan.now``: length of the output, number of frames, where the page begins."""


class Scan(NamedTuple):
    """The state of the pass.

    Attributes:
        data: bytes of the column, valid UTF-8.
        out: the output, as long as the input.
        hidden: prefixes of links that show nothing: name, letter, case; code points, a zero ends a
            name.
        now: ``OUT``, ``DEPTH`` and ``BEGIN``.
        frames: the stack, see ``stack``.
        open: how many frames there are of each kind.
        missing: for each element (last: comments), that the rest of the page has no end of one.
    """

    data: U8
    out: U8
    hidden: I64
    now: I64
    frames: I64
    open: I64
    missing: npt.NDArray[np.bool_]


NEWLINE, SPACE, UNDERSCORE, APOSTROPHE = ord("\n"), ord(" "), ord("_"), ord("'")
AMPERSAND, HASH, COLON, SEMICOLON = ord("&"), ord("#"), ord(":"), ord(";")
LESS, GREATER, EXCLAMATION, SLASH = ord("<"), ord(">"), ord("!"), ord("/")
DASH, EQUALS, BAR = ord("-"), ord("="), ord("|")
BRACKET, END_BRACKET, BRACE, END_BRACE = ord("["), ord("]"), ord("{"), ord("}")


def flags(members: str) -> npt.NDArray[np.bool_]:
    """Return, for each byte, whether it is one of these."""
    table = np.zeros(256, np.bool_)
    table[list(members.encode())] = True
    return table


BLANK = flags(" \t\r\v\f")


def joined(pieces: list[bytes]) -> Names:
    """Return pieces as the kernels read them."""
    sizes = [0, *map(len, pieces)]
    return np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(sizes, dtype=np.int64)


@step
def byte_at(data: U8, at: int, end: int) -> int:
    """Return a byte of the page, or 0 past its end."""
    return np.int64(data[at]) if at < end else np.int64(0)  # type: ignore[return-value]


@step
def lower_at(data: U8, at: int, end: int) -> int:
    """Return a byte of the page, a capital letter of ASCII as a small one, or 0 past its end."""
    byte = byte_at(data, at, end)
    return byte + 32 if 65 <= byte <= 90 else byte


@step
def is_letter(lower: int) -> bool:
    """Return whether a byte is a small letter of ASCII."""
    return 97 <= lower <= 122


@step
def is_name(lower: int) -> bool:
    """Return whether a byte is a small letter or digit of ASCII."""
    return 97 <= lower <= 122 or 48 <= lower <= 57


@step
def code_point(data: U8, at: int, end: int) -> tuple[int, int]:
    """Return the code point at ``at`` and where the next one is (RFC 3629)."""
    first = byte_at(data, at, end)
    if first < 0x80:
        return first, at + 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    code = first & (0x7F >> size)
    for i in range(1, size):
        code = code << 6 | byte_at(data, at + i, end) & 0x3F
    return code, at + size


@step
def is_wide_blank(code: int) -> bool:
    """Return whether a code point is a space beyond ASCII, or a mark of direction."""
    if code < 0x2000:
        return code in (0xA0, 0x1680)
    return (
        code <= 0x200A
        or 0x200E <= code <= 0x200F
        or 0x2028 <= code <= 0x202F
        or code in (0x205F, 0x3000)
    )


@step
def past_run(data: U8, at: int, end: int) -> int:
    """Return the end of the run of equal bytes at ``at``."""
    byte = data[at]
    while at < end and data[at] == byte:
        at += 1
    return at


@step
def which(data: U8, at: int, end: int, names: Names) -> int:
    """Return which of the names, in small letters, is spelled here, in any case; else -1."""
    spelled, starts = names
    size = end - at
    for name in range(starts.size - 1):
        first = starts[name]
        if starts[name + 1] - first == size:
            same = 0
            while same < size and lower_at(data, at + same, end) == spelled[first + same]:
                same += 1
            if same == size:
                return name
    return -1


@step
def write(scan: Scan, byte: int) -> None:
    """Append a byte to the output."""
    scan.out[scan.now[OUT]] = byte
    scan.now[OUT] += 1


@step
def keep(scan: Scan, at: int) -> int:
    """Copy a byte that turned out to be text."""
    write(scan, scan.data[at])
    return at + 1
