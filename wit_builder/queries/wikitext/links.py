"""Links in double brackets, and addresses with brackets or without."""

from __future__ import annotations

from wit_builder.queries.wikitext.scan import (
    BAR,
    BEGIN,
    COLON,
    DASH,
    HIDDEN,
    LANGUAGE,
    LINK,
    OUT,
    SLASH,
    SPACE,
    U8,
    UNDERSCORE,
    Scan,
    byte_at,
    code_point,
    flags,
    is_letter,
    is_wide_blank,
    joined,
    keep,
    lower_at,
    past_run,
    step,
    which,
    write,
)
from wit_builder.queries.wikitext.stack import close_link, open_frame, top

_SCHEMES, _SCHEME_STARTS = joined([b"http", b"https", b"ftp"])
_LONGEST_SCHEME = 5

_ENDS_ADDRESS = flags(' \t\r\v\f\n[]<>"{}')
"""MediaWiki's ``Parser::EXT_LINK_URL_CLASS``, and braces: a template may end within an address."""


@step
def open_link(scan: Scan, at: int, end: int) -> int:
    """Open a link. As links do not nest, one whose label this stands in shows what it has.

    The caption of a file may have links, and a link may show a file.
    """
    data = scan.data
    name = _past_blanks(data, at + 2, end)
    kind = LINK
    if byte_at(data, name, end) == COLON:
        at = past_run(data, name, end) - 2
    elif _is_hidden(scan, name, end):
        kind = HIDDEN
    elif _is_language(data, name, end):
        kind = LANGUAGE
    if kind != HIDDEN and LANGUAGE <= top(scan) <= LINK:
        close_link(scan)
    open_frame(scan, kind)
    return at + 2


@step
def _is_hidden(scan: Scan, at: int, end: int) -> bool:
    for name in range(scan.hidden.shape[0]):  # noqa: SIM110 - numba compiles no generator
        if _has_prefix(scan, name, at, end):
            return True
    return False


@step
def _has_prefix(scan: Scan, name: int, at: int, end: int) -> bool:
    """Return whether a name of ``hidden`` and a colon stand here."""
    data, letter = scan.data, 0
    while scan.hidden[name, letter, 0]:
        if scan.hidden[name, letter, 0] == SPACE:
            after = _past_blanks(data, at, end)
            if after == at:
                return False
        else:
            code, after = code_point(data, at, end)
            if code != scan.hidden[name, letter, 0] and code != scan.hidden[name, letter, 1]:
                return False
        at = after
        letter += 1
    return byte_at(data, _past_blanks(data, at, end), end) == COLON


@step
def _is_language(data: U8, at: int, end: int) -> bool:
    """Return whether ``de:`` or ``zh-min-nan:`` stands here: two or three letters, then words."""
    first = at
    while is_letter(byte_at(data, at, end)):
        at += 1
    if not 2 <= at - first <= 3:
        return False
    while byte_at(data, at, end) == DASH and is_letter(byte_at(data, at + 1, end)):
        at += 1
        while is_letter(byte_at(data, at, end)):
            at += 1
    return byte_at(data, at, end) == COLON


@step
def _past_blanks(data: U8, at: int, end: int) -> int:
    """Return the end of the run of what titles have for a blank (``MediaWikiTitleCodec``)."""
    while at < end:
        code, after = code_point(data, at, end)
        if code not in (9, SPACE, UNDERSCORE) and not is_wide_blank(code):
            break
        at = after
    return at


@step
def bracket(scan: Scan, at: int, end: int) -> int:
    """Drop ``[URL``, so that the label stays; keep any other bracket."""
    data, after = scan.data, at + 1
    while after - at <= _LONGEST_SCHEME + 1 and is_letter(lower_at(data, after, end)):
        after += 1
    if after > at + 1:
        if byte_at(data, after, end) != COLON or not _is_scheme(data, at + 1, after):
            return keep(scan, at)
        after += 1
    if byte_at(data, after, end) != SLASH or byte_at(data, after + 1, end) != SLASH:
        return keep(scan, at)
    return _past_address(data, after + 2, end, bar_ends=False)


@step
def bare_address(scan: Scan, at: int, end: int) -> int:
    """Put a space for a URL whose scheme ends with the colon at ``at``."""
    data, first = scan.data, at
    if byte_at(data, at + 1, end) != SLASH or byte_at(data, at + 2, end) != SLASH:
        return keep(scan, at)
    earliest = max(at - _LONGEST_SCHEME - 1, scan.now[BEGIN])
    while first > earliest and is_letter(lower_at(data, first - 1, end)):
        first -= 1
    if not _is_scheme(data, first, at):
        return keep(scan, at)
    # Markup never ends with a letter, so these letters were just copied to the output.
    scan.now[OUT] -= at - first
    write(scan, SPACE)
    return _past_address(data, at + 3, end, bar_ends=True)


@step
def _is_scheme(data: U8, at: int, end: int) -> bool:
    return which(data, at, end, (_SCHEMES, _SCHEME_STARTS)) >= 0


@step
def _past_address(data: U8, at: int, end: int, bar_ends: bool) -> int:  # noqa: FBT001 - numba
    """Return the end of a URL; without brackets, ``[[URL|label]]``, the bar is not of it."""
    while at < end and not _ENDS_ADDRESS[data[at]] and not (bar_ends and data[at] == BAR):
        code, after = code_point(data, at, end)
        if is_wide_blank(code):
            break
        at = after
    return at
