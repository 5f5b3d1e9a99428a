"""The open elements of a page and its formatting, kept in numbers as an HTML parser keeps them.

Two arrays of int64 are the stack of open elements and the list of active formatting elements of
WHATWG HTML, 13.2.4.2 and 13.2.4.3; a third one counts. They never hold less than the parser's: an
end tag closes only what it closes for sure. ``nesting`` feeds them the tags of a page.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

MAX_OPEN = 1 << 15
"""How many fit; more cost ``nesting.MAX_STEPS`` before they are all open."""

# What the scan has to know about an element, as bits.
_FLAT = 1  # never open, or closed by the next of its kind
FORMATTING = 2
_SPECIAL = 4  # ordinary end tags do not reach beyond it
_BARRIER = 8  # none do
_MARKER = 16  # formatting opened inside ends with it
RAW = 32  # text up to its end tag
FOREIGN = 64
_BREAKOUT = 128  # ends foreign content
_CELL = 256  # a barrier, but for the next of its kind and what is around it
_TABLE = 512
_ROW = 1024
MERGED = 2048
PLAINTEXT = 4096
_TEMPLATE = 8192
SINGLE = 16384  # the next one ends it
EMPTY = 32768  # of a tag: it closes itself, where that means something

_KIND_BITS = {
    "area base basefont bgsound col frame input keygen link meta param source track wbr": _FLAT,
    "br embed hr img image li dd dt p": _FLAT | _BREAKOUT,
    "option": _FLAT,
    "a": FORMATTING | SINGLE,
    "nobr": FORMATTING | SINGLE | _BREAKOUT,
    "font": FORMATTING,
    "b big code em i s small strike strong tt u": FORMATTING | _BREAKOUT,
    "address article aside blockquote button center details dir div dl fieldset figcaption figure "
    "footer form frameset h1 h2 h3 h4 h5 h6 header hgroup listing main menu nav noscript ol pre "
    "search section select summary ul dialog": _SPECIAL,
    "html body": _FLAT | MERGED,
    "head": _FLAT,
    "script style textarea title xmp iframe noembed noframes": RAW,
    "plaintext": _SPECIAL | PLAINTEXT,
    "svg math": _BARRIER | FOREIGN,
    "foreignobject desc mi mo mn ms mtext annotation-xml": _BARRIER,
    "applet marquee object": _SPECIAL | _BARRIER | _MARKER,
    "template": _SPECIAL | _BARRIER | _MARKER | _TEMPLATE,
    "table": _SPECIAL | _BARRIER | _TABLE,
    "td th caption": _SPECIAL | _BARRIER | _MARKER | _CELL,
    "tr tbody thead tfoot colgroup": _FLAT | _ROW,
}
_BREAKS_OUT = (
    "blockquote center div dl h1 h2 h3 h4 h5 h6 head body listing menu ol pre ruby span sub sup "
    "table ul var"
)
_SLOTS = 1 << 16
_IN_FOREIGN = _BARRIER | FOREIGN  # all that an element's name means there


def name_hash(name: str) -> int:
    """Return FNV-1a of a name; the scan makes the same from a tag."""
    value = FNV_START
    for byte in name.encode():
        value = (value ^ byte) * FNV_PRIME % 2**64
    return value


FNV_START, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def _tables() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return names and kinds by the low bits of a name's hash; which two bytes begin what counts.

    What counts at a glance is what may be formatting, ``<html>`` and ``<body>``. Not ``<a>`` nor
    ``<nobr>``: the next one ends them.
    """
    kinds: dict[str, int] = {}
    for names, bits in _KIND_BITS.items():
        kinds |= dict.fromkeys(names.split(), bits)
    for name in _BREAKS_OUT.split():
        kinds[name] = kinds.get(name, 0) | _BREAKOUT
    hashes, bits_of = np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.int64)
    starts = np.zeros(1 << 16, np.bool_)
    for name, bits in kinds.items():
        slot = name_hash(name) % _SLOTS
        assert not hashes[slot], name
        hashes[slot], bits_of[slot] = name_hash(name), bits
        if bits & (FORMATTING | MERGED) and not bits & SINGLE:
            for first in {name[0], name[0].upper()}:
                for second in {name[1], name[1].upper()} if name[1:] else " \t\n\r\f/>":
                    starts[ord(first) | ord(second) << 8] = True
    return hashes, bits_of, starts


NAMES, KINDS, STARTS = _tables()
_P, _BR, _TR, _CAPTION, _FORM, _TITLE = (
    int(np.uint64(name_hash(name)).astype(np.int64))
    for name in ["p", "br", "tr", "caption", "form", "title"]
)

# Columns of the open elements and of the formatting, and what is counted.
_NAME, _KIND, _MARK = range(3)
_HASH, _SIZE = 1, 2
OPEN, FORMATS, FORMAT_BYTES, _STALE, _UNSURE = range(5)


@numba.njit(cache=True, nogil=True)
def nearest(opened: npt.NDArray[np.int64], have: npt.NDArray[np.int64], mask: int) -> int:
    """Return the place of the innermost open element of some kind, or -1."""
    at = have[OPEN] - 1
    while at >= 0 and not opened[at, _KIND] & mask:
        at -= 1
    return int(at)


@numba.njit(cache=True, nogil=True)
def start(
    opened: npt.NDArray[np.int64],
    formats: npt.NDArray[np.int64],
    have: npt.NDArray[np.int64],
    name: int,
    kind: int,
) -> None:
    """Open an element, and close what its start tag closes."""
    if _in_foreign(opened, have):
        if not kind & _BREAKOUT:
            have[_UNSURE] |= (kind & FORMATTING) > 0  # some <font> break out
            if not kind & EMPTY or have[_UNSURE]:
                _push(opened, have, name, _BARRIER if name == _TITLE else kind & _IN_FOREIGN)
            return
        _break_out(opened, have)
    if kind & (_CELL | _ROW | _TABLE):
        around = nearest(opened, have, _CELL | _TABLE | _TEMPLATE)
        if around < 0 and not kind & _TABLE:
            return
        if around >= 0 and opened[around, _KIND] & (_TABLE if kind & _TABLE else _CELL):
            _close(opened, formats, have, around)
    if not kind & (_FLAT | RAW):
        _push(opened, have, name, 0 if kind & ~EMPTY == _BARRIER else kind)


@numba.njit(cache=True, nogil=True)
def end(
    opened: npt.NDArray[np.int64],
    formats: npt.NDArray[np.int64],
    have: npt.NDArray[np.int64],
    name: int,
    kind: int,
) -> None:
    """Close what an end tag closes for sure."""
    if name == _TR:
        around = nearest(opened, have, _CELL | _TABLE | _TEMPLATE)
        if around >= 0 and opened[around, _KIND] & _CELL and opened[around, _NAME] != _CAPTION:
            _close(opened, formats, have, around)
        return
    if kind & _FLAT:
        if name in (_P, _BR):
            _break_out(opened, have)
        return
    passed = _CELL if kind & _TABLE else _CELL | _TABLE if kind & _TEMPLATE else 0
    specials = 0
    at = have[OPEN] - 1
    while at >= 0 and opened[at, _NAME] != name:
        inner = opened[at, _KIND]
        specials += (inner & _SPECIAL) > 0
        if inner & _BARRIER and not inner & passed:
            return
        if specials and not kind & (_SPECIAL | FORMATTING):
            return
        at -= 1
    if kind & FORMATTING:
        _end_formatting(opened, formats, have, name, at, specials)
    elif at >= 0 and (name != _FORM or at == have[OPEN] - 1):
        _close(opened, formats, have, at)


@numba.njit(cache=True, nogil=True)
def _in_foreign(opened: npt.NDArray[np.int64], have: npt.NDArray[np.int64]) -> bool:
    at = nearest(opened, have, _BARRIER)
    return at >= 0 and opened[at, _KIND] & FOREIGN > 0


@numba.njit(cache=True, nogil=True)
def _break_out(opened: npt.NDArray[np.int64], have: npt.NDArray[np.int64]) -> None:
    while _in_foreign(opened, have):
        have[OPEN] = nearest(opened, have, _BARRIER)


@numba.njit(cache=True, nogil=True)
def _push(opened: npt.NDArray[np.int64], have: npt.NDArray[np.int64], name: int, kind: int) -> None:
    opened[have[OPEN], _NAME] = name
    opened[have[OPEN], _KIND] = kind
    opened[have[OPEN], _MARK] = have[FORMATS]
    have[OPEN] += 1


@numba.njit(cache=True, nogil=True)
def _close(
    opened: npt.NDArray[np.int64],
    formats: npt.NDArray[np.int64],
    have: npt.NDArray[np.int64],
    place: int,
) -> None:
    """Close an open element and all inside it; formatting ends with it if it is a marker."""
    if nearest(opened, have, _MARKER) > place:
        have[_STALE] = 1  # a marker left behind: from here on no formatting ends
    if opened[place, _KIND] & _MARKER and not have[_STALE]:
        while have[FORMATS] > opened[place, _MARK]:
            have[FORMATS] -= 1
            have[FORMAT_BYTES] -= formats[have[FORMATS], _SIZE]
    have[OPEN] = place


@numba.njit(cache=True, nogil=True)
def _end_formatting(
    opened: npt.NDArray[np.int64],
    formats: npt.NDArray[np.int64],
    have: npt.NDArray[np.int64],
    name: int,
    place: int,
    specials: int,
) -> None:
    """Close a formatting element, wherever in the open elements it is: the adoption agency."""
    if have[_STALE] or specials > 7:  # which comes to the end of its eight rounds
        return
    if place >= 0 and specials == 0:
        have[OPEN] = place
    elif place >= 0:
        opened[place, _NAME] = 0
    marker = nearest(opened, have, _MARKER)
    first = opened[marker, _MARK] if marker >= 0 else 0
    for at in range(have[FORMATS] - 1, first - 1, -1):
        if formats[at, _NAME] == name:
            _forget(formats, have, at)
            return


@numba.njit(cache=True, nogil=True)
def _forget(formats: npt.NDArray[np.int64], have: npt.NDArray[np.int64], place: int) -> None:
    have[FORMATS] -= 1
    have[FORMAT_BYTES] -= formats[place, _SIZE]
    for at in range(place, have[FORMATS]):
        formats[at] = formats[at + 1]


@numba.njit(cache=True, nogil=True)
def note_formatting(
    tag: npt.NDArray[np.uint8],
    opened: npt.NDArray[np.int64],
    formats: npt.NDArray[np.int64],
    have: npt.NDArray[np.int64],
    name: int,
    kind: int,
) -> int:
    """Note formatting to be opened anew, three equals at most; return how many are looked at."""
    whole = np.uint64(FNV_START)
    for byte in tag:
        whole = (whole ^ np.uint64(byte)) * np.uint64(FNV_PRIME)
    marker = nearest(opened, have, _MARKER)
    first = opened[marker, _MARK] if marker >= 0 else 0
    equals, earliest = 0, -1
    for at in range(have[FORMATS] - 1, first - 1, -1):
        single = kind & SINGLE and formats[at, _NAME] == name
        if single or formats[at, _HASH] == np.int64(whole):
            equals += 3 if single else 1
            earliest = at
    looked_at = have[FORMATS] - first
    if equals >= 3 and not have[_STALE]:
        _forget(formats, have, earliest)
    formats[have[FORMATS], _NAME] = name
    formats[have[FORMATS], _HASH] = np.int64(whole)
    formats[have[FORMATS], _SIZE] = tag.size
    have[FORMATS] += 1
    have[FORMAT_BYTES] += tag.size
    return int(looked_at)
