r"""Wikimedia's page view files, summed per title of one Wikipedia.

Two kinds of line are read, told apart by their shape:

* Hourly, four fields (https://wikitech.wikimedia.org/wiki/Analytics/Data_Lake/Traffic/Pageviews):
  ``domain_code page_title count_views total_response_size``, as ``en.m Main_Page 30 0``. The domain
  code of the English Wikipedia is ``en``, of its mobile sites ``en.m`` and ``en.zero``; a further
  suffix is another project (``en.m.b``: Wikibooks). The older ``pagecounts`` files have the same.
* Daily and monthly, "complete" (https://dumps.wikimedia.org/other/pageview_complete/readme.html):
  ``wiki_code article_title page_id access total hourly_counts``, as
  ``en.wikipedia Main_Page 15580374 mobile-web 500 A50B450``. The access is ``desktop``,
  ``mobile-web`` or ``mobile-app``; the page id is ``null`` where none is known, and may be missing.
  These files were written as CSV: a title with a quotation mark stands in quotation marks, and its
  own are escaped (``"\"Heroes\"_(song)"``). In hourly files it stands as it is.

A line of another shape, without a number where one belongs, or (of the wanted Wikipedia) that is
not UTF-8, is malformed: a few are counted, many are an error. Titles get their form from
``title_form``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import msgspec
import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.errors import QueryListError
from wit_builder.queries import compressed
from wit_builder.queries.title_form import NO_PAGE, SLACK, is_utf8, strings, upper_case, write
from wit_builder.queries.views import VIEWS, publish
from wit_builder.units import Done

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

Access = Literal["all", "desktop", "mobile"]

MAX_MALFORMED_PERCENT: Final = 1
"""Of a file's lines, or of a hundred if there are fewer."""

_MAX_LINE_BYTES = 16 << 20
_SHORTEST_LINE = len(b"a  1 0\n")
_MAX_DIGITS = 12  # so that no sum of a file passes an int64
_EXAMPLE_CHARS = 80
_FIX = "give Wikimedia's hourly pageviews or daily or monthly pageview_complete files"
_SPACE, _NEWLINE = np.uint8(ord(" ")), np.uint8(ord("\n"))
_QUOTE, _BACKSLASH, _ZERO = np.uint8(ord('"')), np.uint8(ord("\\")), np.uint8(ord("0"))

_LINES, _OURS, _MALFORMED, _NO_TITLE, _BAD_LINE, _BAD_START, _BAD_END = range(7)
"""Places in the tally: four counts, then the number and the bytes of the first malformed line."""

_M, _ZERO_RATED, _WIKIPEDIA, _DESKTOP_SITE, _MOBILE_SITE, _MOBILE_APP = (
    np.frombuffer(word, np.uint8)
    for word in (b".m", b".zero", b".wikipedia", b"desktop", b"mobile-web", b"mobile-app")
)
_BAD, _ELSEWHERE, _DESKTOP, _MOBILE = -1, 0, 1, 2


class ViewsJob(msgspec.Struct, frozen=True):
    """Sum one page view file.

    Attributes:
        place: the file; ``.gz`` and ``.bz2`` are decompressed.
        language: code of the Wikipedia: "en", "zh-min-nan".
        access: which visits count.
        buckets: of the exchange.
        out: place of the exchange file (``VIEWS`` by title).
    """

    place: str
    language: str
    access: Access
    buckets: int
    out: str


def run_views(job: ViewsJob) -> Done:
    """Publish a file's views per title; memory does not grow with the file.

    Rows are in the order of the file (see ``views.publish``). Counted are ``lines``,
    ``lines_of_project`` (of the wanted Wikipedia and access), ``malformed``, ``no_title`` (of the
    lines of the project, those whose title no page can have) and ``views``.

    Raises:
        QueryListError: not there, empty, cut short, damaged, or not such a file.
    """
    reader = _Reader(job)
    outputs = publish(reader.tables(), job.buckets, job.out)
    tally = reader.tally
    names = ("lines", "lines_of_project", "malformed", "no_title")
    counts = {name: int(count) for name, count in zip(names, tally, strict=False)}
    return Done(outputs, {**counts, "views": reader.views})


class _Out(NamedTuple):
    """Where the kernel writes: bytes of titles, where each ends (after a 0), and its views."""

    data: U8
    ends: I64
    views: I64


class _Reader:
    """One file: iterate over ``tables()`` once; ``tally`` and ``views`` then tell what was read."""

    def __init__(self, job: ViewsJob) -> None:
        self._job = job
        self.tally = np.zeros(7, np.int64)
        self.views = 0
        self._example = ""

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of some lines at a time, as ``VIEWS``; neighbours of a title are summed.

        Raises:
            QueryListError: not there, empty, cut short, damaged, or not such a file.
        """
        language = np.frombuffer(self._job.language.encode(), np.uint8)
        upper = upper_case()
        wanted = (self._job.access != "mobile", self._job.access != "desktop")
        out = _room_for(0)
        for block in _blocks(self._job.place):
            if block.size // _SHORTEST_LINE >= out.views.size:
                out = _room_for(block.size)
            rows = _parse(block, language, wanted, upper, out, self.tally)
            self._keep_example(block)
            self.views += int(out.views[:rows].sum())
            titles = strings(out.data, out.ends[: rows + 1])
            yield pa.table([titles, pa.array(out.views[:rows].copy())], schema=VIEWS)
        self._judge()

    def _keep_example(self, block: U8) -> None:
        if self.tally[_MALFORMED] and not self._example:
            line = block[self.tally[_BAD_START] : self.tally[_BAD_END]][: 4 * _EXAMPLE_CHARS]
            self._example = repr(line.tobytes().decode(errors="replace")[:_EXAMPLE_CHARS])

    def _judge(self) -> None:
        lines, malformed = int(self.tally[_LINES]), int(self.tally[_MALFORMED])
        if not lines:
            raise QueryListError("the page view file is empty", where=self._job.place, fix=_FIX)
        if malformed == lines or malformed * 100 > max(lines, 100) * MAX_MALFORMED_PERCENT:
            raise QueryListError(
                f"{malformed:,} of {lines:,} lines are no page view counts, first {self._example}",
                where=f"{self._job.place}, line {self.tally[_BAD_LINE]}",
                fix=_FIX,
            )


def _room_for(size: int) -> _Out:
    """Return room for what a block of so many bytes can hold."""
    rows = size // _SHORTEST_LINE + 1
    data = np.empty(size + SLACK * rows, np.uint8)
    return _Out(data, np.zeros(rows + 1, np.int64), np.empty(rows, np.int64))


def _blocks(place: str) -> Iterator[U8]:
    """Yield a file's bytes in whole lines, each with its line break; the arrays are writable."""
    rest = bytearray()
    for chunk in compressed.chunks(
        place, "a page view file", "check queries.wikipedia.pageviews in the recipe"
    ):
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield np.frombuffer(rest + chunk[:cut], np.uint8)
            rest = bytearray(chunk[cut:])
        elif len(rest) + len(chunk) > _MAX_LINE_BYTES:
            what = f"a line of over {_MAX_LINE_BYTES >> 20} MiB: no page view file"
            raise QueryListError(what, where=place, fix=_FIX)
        else:
            rest += chunk
    if rest:
        yield np.frombuffer(rest + b"\n", np.uint8)


@numba.njit(cache=True, nogil=True)
def _parse(
    block: U8, language: U8, wanted: tuple[bool, bool], upper: U32, out: _Out, tally: I64
) -> int:
    """Read the lines of a block (which is written to); return how many rows they gave."""
    marks = np.empty(block.size + 1, np.int32)
    _mark(block, marks)
    rows = start = mark = 0
    while start < block.size:
        fields = 1
        while block[marks[mark + fields - 1]] != _NEWLINE:
            fields += 1
        end = marks[mark + fields - 1]
        tally[_LINES] += 1
        views, access = _counted(block, start, marks, (mark, fields), language)
        if access > _ELSEWHERE and wanted[access - _DESKTOP]:
            first, last = marks[mark] + 1, marks[mark + 1]
            if is_utf8(block, first, last):
                tally[_OURS] += 1
                if fields > 4:
                    last = _unquote(block, first, last)
                title = write(block, (first, last), upper, out.data, out.ends[rows])
                tally[_NO_TITLE] += title == NO_PAGE
                if title != NO_PAGE:
                    rows = _add(out, rows, title, views)
            else:
                access = _BAD
        if access == _BAD:
            if tally[_MALFORMED] == 0:
                tally[_BAD_LINE], tally[_BAD_START], tally[_BAD_END] = tally[_LINES], start, end
            tally[_MALFORMED] += 1
        start = end + 1
        mark += fields
    return rows


@numba.njit(cache=True, nogil=True)
def _mark(block: U8, marks: I32) -> None:
    """Fill in where fields end: at every space and line break.

    Without branches, so that the processor has none to guess: half the time of looking for them.
    """
    count = 0
    for at in range(block.size):
        marks[count] = at
        count += int(block[at] == _SPACE) | int(block[at] == _NEWLINE)


@numba.njit(cache=True, nogil=True, inline="always")
def _counted(
    block: U8, start: int, marks: I32, line: tuple[int, int], language: U8
) -> tuple[int, int]:
    """Return a line's views, and whose they are: ``_DESKTOP``, ``_MOBILE``, other, or ``_BAD``.

    Args:
        block: bytes, and
        start: where the line begins there.
        marks: where fields end.
        line: the first of its marks, and how many fields it has.
        language: of the wanted Wikipedia.
    """
    mark, fields = line
    code = marks[mark]
    suffix = start + language.size
    ours = suffix <= code and _is(block, start, suffix, language)
    if fields == 4:
        views = _number(block, marks[mark + 1] + 1, marks[mark + 2])
        if views < 0 or _number(block, marks[mark + 2] + 1, marks[mark + 3]) < 0:
            return 0, _BAD
        if not ours:
            return 0, _ELSEWHERE
        if suffix == code:
            return views, _DESKTOP
        mobile = _is(block, suffix, code, _M) or _is(block, suffix, code, _ZERO_RATED)
        return views, _MOBILE if mobile else _ELSEWHERE
    if fields not in (5, 6):
        return 0, _BAD
    last = mark + fields - 1
    before, after = marks[last - 3] + 1, marks[last - 2]
    views = _number(block, after + 1, marks[last - 1])
    desktop = _is(block, before, after, _DESKTOP_SITE)
    mobile = _is(block, before, after, _MOBILE_SITE) or _is(block, before, after, _MOBILE_APP)
    if views < 0 or not (desktop or mobile):
        return 0, _BAD
    if not ours or not _is(block, suffix, code, _WIKIPEDIA):
        return 0, _ELSEWHERE
    return views, _DESKTOP if desktop else _MOBILE


@numba.njit(cache=True, nogil=True)
def _is(block: U8, start: int, end: int, word: U8) -> bool:
    if end - start != word.size:
        return False
    for i in range(word.size):  # noqa: SIM110 - numba inlines no generators
        if block[start + i] != word[i]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def _number(block: U8, start: int, end: int) -> int:
    """Return a field's number, or -1 if it is none."""
    if start == end or end - start > _MAX_DIGITS:
        return -1
    value = 0
    for i in range(start, end):
        digit = int(block[i]) - int(_ZERO)
        if digit < 0 or digit > 9:
            return -1
        value = 10 * value + digit
    return value


@numba.njit(cache=True, nogil=True)
def _unquote(block: U8, start: int, end: int) -> int:
    """Undo the quoting of a CSV field, in its place; return where it then ends."""
    if end - start < 2 or block[start] != _QUOTE or block[end - 1] != _QUOTE:
        return end
    to = start
    at = start + 1
    while at < end - 1:
        if block[at] == _BACKSLASH and at + 2 < end and block[at + 1] in (_QUOTE, _BACKSLASH):
            at += 1
        block[to] = block[at]
        to += 1
        at += 1
    return to


@numba.njit(cache=True, nogil=True)
def _add(out: _Out, rows: int, end: int, views: int) -> int:
    """Keep the title written last; if the one before is the same, add to that."""
    begin = out.ends[rows]
    if rows > 0 and begin - out.ends[rows - 1] == end - begin:
        before = out.ends[rows - 1]
        same = True
        for i in range(end - begin):
            if out.data[before + i] != out.data[begin + i]:
                same = False
                break
        if same:
            out.views[rows - 1] += views
            return rows
    out.ends[rows + 1] = end
    out.views[rows] = views
    return rows + 1
