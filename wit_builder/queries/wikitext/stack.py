"""What opens and closes.

Text is written to the output as it comes. A template, table, note or link that opens puts a *frame*
on the stack: its kind, and where in the output its content begins. When it closes, the output goes
back to there: the content is dropped, or of a link its label is moved to there. What is never
closed just stays in the output, as MediaWiki shows it as text.
"""

from __future__ import annotations

from wit_builder.queries.wikitext.scan import (
    DEPTH,
    HIDDEN,
    LANGUAGE,
    LINK,
    OUT,
    SPACE,
    Scan,
    keep,
    step,
    write,
)

KIND, START, FIRST_BAR, LAST_BAR = range(4)
"""Columns of a frame. Bars are places in the output, of a link only; -1: none."""

MAX_DEPTH = 10_000
"""So many open frames are taken for never closed, all of them; MediaWiki allows 100 templates."""


@step
def open_frame(scan: Scan, kind: int) -> None:
    """Put a frame on the stack."""
    if scan.now[DEPTH] == MAX_DEPTH:
        scan.now[DEPTH] = 0
        scan.open[:] = 0
    frame = scan.now[DEPTH]
    scan.frames[frame, KIND] = kind
    scan.frames[frame, START] = scan.now[OUT]
    scan.frames[frame, FIRST_BAR] = -1
    scan.frames[frame, LAST_BAR] = -1
    scan.open[kind] += 1
    scan.now[DEPTH] += 1


@step
def top(scan: Scan) -> int:
    """Return the kind of the innermost frame, or -1."""
    depth = scan.now[DEPTH]
    return scan.frames[depth - 1, KIND] if depth else -1


@step
def forget(scan: Scan) -> int:
    """Take the innermost frame off the stack and return its place there; its content stays."""
    scan.open[top(scan)] -= 1
    scan.now[DEPTH] -= 1
    return scan.now[DEPTH]


@step
def close_frame(scan: Scan, kind: int) -> None:
    """Drop a table, template or note, unless something of a higher kind was opened in it."""
    if not scan.open[kind]:
        return
    while top(scan) < kind:
        forget(scan)
    if top(scan) == kind:
        scan.now[OUT] = scan.frames[forget(scan), START]
        write(scan, SPACE)


@step
def close_link(scan: Scan) -> None:
    """Leave of the innermost frame, if a link, what it shows: label, else target, or nothing."""
    kind = top(scan)
    if not 0 <= kind <= LINK:
        return
    frame = forget(scan)
    start, bar = scan.frames[frame, START], scan.frames[frame, LAST_BAR]
    if kind == HIDDEN or (kind == LANGUAGE and bar < 0):
        scan.now[OUT] = start
        write(scan, SPACE)
    elif bar >= 0 and bar + 1 == scan.now[OUT]:
        scan.now[OUT] = scan.frames[frame, FIRST_BAR]
    elif bar >= 0:
        _move_label(scan, bar + 1, start)


@step
def _move_label(scan: Scan, label: int, start: int) -> None:
    """Move the end of the output to where it replaces the target; once, as links do not nest."""
    for at in range(label, scan.now[OUT]):
        scan.out[start + at - label] = scan.out[at]
    scan.now[OUT] -= label - start


@step
def bar(scan: Scan, at: int) -> int:
    """Note where a link, if one is innermost, has a bar; the bar stays until the link closes."""
    if 0 <= top(scan) <= LINK:
        frame = scan.now[DEPTH] - 1
        scan.frames[frame, LAST_BAR] = scan.now[OUT]
        if scan.frames[frame, FIRST_BAR] < 0:
            scan.frames[frame, FIRST_BAR] = scan.now[OUT]
    return keep(scan, at)


@step
def end_target(scan: Scan) -> None:
    """Take a link whose target a line ends in for no link."""
    if LANGUAGE <= top(scan) <= LINK and scan.frames[scan.now[DEPTH] - 1, LAST_BAR] < 0:
        forget(scan)
