"""The loop over pages, and the lines of a page."""

from __future__ import annotations

import numba
import numpy as np

from wit_builder.queries.wikitext.elements import ENDINGS, angle
from wit_builder.queries.wikitext.entities import entity
from wit_builder.queries.wikitext.links import bare_address, bracket, open_link
from wit_builder.queries.wikitext.scan import (
    AMPERSAND,
    APOSTROPHE,
    BAR,
    BEGIN,
    BLANK,
    BRACE,
    BRACKET,
    COLON,
    DASH,
    DEPTH,
    END_BRACE,
    END_BRACKET,
    EQUALS,
    I64,
    LESS,
    NEWLINE,
    OUT,
    SPACE,
    TABLE,
    TEMPLATE,
    U8,
    UNDERSCORE,
    Scan,
    byte_at,
    flags,
    keep,
    past_run,
    step,
)
from wit_builder.queries.wikitext.stack import (
    MAX_DEPTH,
    bar,
    close_frame,
    close_link,
    end_target,
    open_frame,
)

_MARKUP = flags("\n&':<[]_{|}")
_LINE_MARKUP = flags(" \t\r\v\f*#:;=")


@numba.njit(cache=True, nogil=True)
def strip_pages(data: U8, offsets: I64, hidden: I64, out: U8) -> I64:
    """Write the words of every page to ``out``; return where each begins (and the last ends).

    Args:
        data: valid UTF-8.
        offsets: where in ``data`` each page begins, and the last one ends.
        hidden: see ``Scan``.
        out: at least as long as the pages.
    """
    now = np.zeros(3, np.int64)
    frames = np.empty((MAX_DEPTH, 4), np.int64)
    scan = Scan(data, out, hidden, now, frames, np.zeros(6, np.int64), np.zeros(ENDINGS, np.bool_))
    ends = np.zeros(offsets.size, np.int64)
    for page in range(offsets.size - 1):
        now[OUT] = ends[page]
        _strip(scan, offsets[page], offsets[page + 1])
        ends[page + 1] = _tidy(out, ends[page], now[OUT])
    return ends


@step
def _strip(scan: Scan, begin: int, end: int) -> None:
    """Append the text of one page to the output."""
    scan.now[DEPTH] = 0
    scan.now[BEGIN] = begin
    scan.open[:] = 0
    scan.missing[:] = False
    at = _line(scan, begin, end)
    while at < end:
        at = _text(scan, at, end)
        if at < end:
            at = _markup(scan, at, end)


@step
def _text(scan: Scan, at: int, end: int) -> int:
    """Copy up to the next byte that may be markup."""
    data, out, length = scan.data, scan.out, scan.now[OUT]
    while at < end and not _MARKUP[data[at]]:
        out[length] = data[at]
        length += 1
        at += 1
    scan.now[OUT] = length
    return at


@step
def _markup(scan: Scan, at: int, end: int) -> int:
    """Take what begins with a byte of ``_MARKUP``."""
    byte = scan.data[at]
    if byte == NEWLINE:
        return _newline(scan, at, end)
    if byte == BAR:
        return bar(scan, at)
    if byte == LESS:
        return angle(scan, at, end)
    if byte == COLON:
        return bare_address(scan, at, end)
    if byte == AMPERSAND:
        return entity(scan, at, end)
    if byte_at(scan.data, at + 1, end) == byte:
        return _double(scan, at, end)
    return bracket(scan, at, end) if byte == BRACKET else keep(scan, at)


@step
def _double(scan: Scan, at: int, end: int) -> int:
    """Take what begins with a byte of ``_MARKUP`` and the same byte again."""
    byte = scan.data[at]
    if byte == BRACKET:
        return open_link(scan, at, end)
    if byte == APOSTROPHE:
        return past_run(scan.data, at, end)
    if byte == UNDERSCORE:
        return _magic_word(scan, at, end)
    if byte == END_BRACKET:
        close_link(scan)
    elif byte == BRACE:
        open_frame(scan, TEMPLATE)
    else:
        close_frame(scan, TEMPLATE)
    return at + 2


@step
def _magic_word(scan: Scan, at: int, end: int) -> int:
    """Drop ``__WORD__``; beyond ASCII either case will do."""
    data, after = scan.data, at + 2
    while after < end and (65 <= data[after] <= 90 or data[after] >= 0x80):
        after += 1
    ends = byte_at(data, after, end) == UNDERSCORE and byte_at(data, after + 1, end) == UNDERSCORE
    return after + 2 if ends and after > at + 2 else keep(scan, at)


@step
def _newline(scan: Scan, at: int, end: int) -> int:
    end_target(scan)
    return _line(scan, keep(scan, at), end)


@step
def _line(scan: Scan, at: int, end: int) -> int:
    """Open or close a table if the line that begins here does; its end is not indented by colons.

    ``|}}`` ends a template.
    """
    data, mark = scan.data, at
    while mark < end and BLANK[data[mark]]:
        mark += 1
    if byte_at(data, mark, end) == BAR and byte_at(data, mark + 1, end) == END_BRACE:
        if byte_at(data, mark + 2, end) == END_BRACE:
            return at
        close_frame(scan, TABLE)
        return mark + 2
    while mark < end and (BLANK[data[mark]] or data[mark] == COLON):
        mark += 1
    if byte_at(data, mark, end) == BRACE and byte_at(data, mark + 1, end) == BAR:
        open_frame(scan, TABLE)
        return mark + 2
    return at


@step
def _tidy(out: U8, begin: int, end: int) -> int:
    """Rewrite a page in place without markup of lines, empty lines and runs of blanks.

    Returns its new end.
    """
    at, done = begin, begin
    while at < end:
        start = done + 1 if done > begin else begin
        at, length = _tidy_line(out, _past_line_markup(out, at, end), end, start)
        if length > start:
            if done > begin:
                out[done] = NEWLINE
            done = length
    return done


@step
def _tidy_line(out: U8, at: int, end: int, start: int) -> tuple[int, int]:
    """Rewrite a line to ``start``; return where the next one is, and where it ends now."""
    length, after_blank = start, True
    while at < end and out[at] != NEWLINE:
        blank = BLANK[out[at]]
        out[length] = SPACE if blank else out[at]
        length += not (blank and after_blank)  # no branch: every fifth byte would go the other way
        after_blank = blank
        at += 1
    while length > start and (out[length - 1] == EQUALS or out[length - 1] == SPACE):
        length -= 1
    return at + 1, length


@step
def _past_line_markup(out: U8, at: int, end: int) -> int:
    """Return where the text of a line begins: after blanks, list or heading marks, or a rule."""
    while at < end and _LINE_MARKUP[out[at]]:
        at += 1
    text = at
    while text < end and out[text] == DASH:
        text += 1
    return text if text - at >= 4 else at
