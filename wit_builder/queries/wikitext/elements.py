"""Comments and tags."""

from __future__ import annotations

from wit_builder.queries.wikitext.entities import entity
from wit_builder.queries.wikitext.scan import (
    AMPERSAND,
    BLANK,
    DASH,
    EXCLAMATION,
    GREATER,
    LESS,
    NEWLINE,
    NOTE,
    SLASH,
    SPACE,
    U8,
    Scan,
    byte_at,
    is_letter,
    is_name,
    joined,
    keep,
    lower_at,
    step,
    which,
    write,
)
from wit_builder.queries.wikitext.stack import close_frame, open_frame

_BREAKING = (
    *("blockquote", "br", "center", "dd", "div", "dl", "dt", "hr", "li", "ol", "p", "poem", "pre"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "td", "th", "tr", "ul"),
)
"""Elements that end the line they stand in."""

_DROPPED = (
    *("ce", "chem", "gallery", "graph", "hiero", "imagemap", "inputbox", "mapframe", "maplink"),
    *("math", "score", "source", "syntaxhighlight", "templatedata", "timeline"),
)
"""Elements whose content is neither wikitext nor prose."""

_REF, _NOWIKI, _FIRST_BREAKING, _FIRST_DROPPED = 0, 1, 2, 2 + len(_BREAKING)
_NAMES, _STARTS = joined([name.encode() for name in ("ref", "nowiki", *_BREAKING, *_DROPPED)])
_COMMENT = len(_STARTS) - 1

ENDINGS = _COMMENT + 1
"""Length of ``Scan.missing``."""


@step
def angle(scan: Scan, at: int, end: int) -> int:
    """Take a comment or a tag; keep any other angle."""
    data = scan.data
    if byte_at(data, at + 1, end) == EXCLAMATION:
        return _comment(scan, at, end)
    closing = byte_at(data, at + 1, end) == SLASH
    name = at + 2 if closing else at + 1
    if not is_letter(lower_at(data, name, end)):
        return keep(scan, at)
    last = name
    while last < end and data[last] != GREATER and data[last] != LESS:
        last += 1
    if byte_at(data, last, end) != GREATER:
        return keep(scan, at)
    after_name = name
    while is_name(lower_at(data, after_name, end)):
        after_name += 1
    element = which(data, name, after_name, (_NAMES, _STARTS))
    if _FIRST_BREAKING <= element < _FIRST_DROPPED:
        write(scan, NEWLINE)
    elif closing and element == _REF:
        close_frame(scan, NOTE)
    elif not closing and element >= 0 and data[last - 1] != SLASH:
        return _open_element(scan, element, last + 1, end)
    return last + 1


@step
def _open_element(scan: Scan, element: int, at: int, end: int) -> int:
    """Open a note; drop other content up to its end tag, if there is one; of nowiki it is text."""
    if element == _REF:
        open_frame(scan, NOTE)
        return at
    if element != _NOWIKI:
        write(scan, SPACE)
    last = at
    while last < end and not scan.missing[element]:
        after = _past_end_tag(scan.data, element, last, end)
        if after > last:
            if element == _NOWIKI:
                _literally(scan, at, last)
            return after
        last += 1
    scan.missing[element] = True
    return at


@step
def _past_end_tag(data: U8, element: int, at: int, end: int) -> int:
    """Return the end of the element's end tag if it stands here, else ``at``."""
    if data[at] != LESS or byte_at(data, at + 1, end) != SLASH:
        return at
    after = at + 2
    for letter in range(_STARTS[element], _STARTS[element + 1]):
        if lower_at(data, after, end) != _NAMES[letter]:
            return at
        after += 1
    while after < end and (BLANK[data[after]] or data[after] == NEWLINE):
        after += 1
    return after + 1 if byte_at(data, after, end) == GREATER else at


@step
def _literally(scan: Scan, at: int, end: int) -> None:
    """Copy text in which nothing but an entity is markup."""
    while at < end:
        at = entity(scan, at, end) if scan.data[at] == AMPERSAND else keep(scan, at)


@step
def _comment(scan: Scan, at: int, end: int) -> int:
    """Drop a comment, or what looks like the beginning of one that never ends."""
    data = scan.data
    if byte_at(data, at + 2, end) != DASH or byte_at(data, at + 3, end) != DASH:
        return keep(scan, at)
    last = at + 4
    while last + 2 < end and not scan.missing[_COMMENT]:
        if data[last] == DASH and data[last + 1] == DASH and data[last + 2] == GREATER:
            return last + 3
        last += 1
    scan.missing[_COMMENT] = True
    return at + 4
