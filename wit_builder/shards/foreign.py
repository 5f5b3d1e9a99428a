"""Walk a tar that somebody else wrote: any dialect in use, and past what is damaged in it.

``tar.walk`` holds our own shards to the one layout they may have. Here are POSIX ustar, PAX and GNU
headers, old ones without a magic number, and whatever kinds of entry stand between the files.
Layouts: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from wit_builder.shards.tar import BLOCK, Member

_FILES = {b"0", b"\0", b"7"}
_WITHOUT_DATA = {b"1", b"2", b"3", b"4", b"5", b"6"}  # links, devices, folders, pipes
_LONG_NAME, _PAX = b"L", {b"x", b"X"}
_EXTENSIONS = {_LONG_NAME, b"K", b"g", *_PAX}  # of the next entry's name, its link, all, the next
_MAX_EXTENSION_BYTES = 1 << 20
_SCAN_BYTES = 1 << 16


class Stream(Protocol):
    """What is read from: bytes at a place."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to so many bytes; fewer only at the end."""

    def seek(self, at: int, whence: int = 0, /) -> int:
        """Go to a place."""


class Fault(NamedTuple):
    """Something in a tar that is not what it should be: what it is, and where."""

    what: str
    offset: int


class _Entry(NamedTuple):
    kind: bytes
    name: bytes
    size: int
    """Of its data; links and folders have none, whatever their header says."""


class _DamagedError(ValueError):
    """These bytes are no header, or one that cannot be followed."""


def walk(stream: Stream, size: int) -> Iterator[Member | Fault]:
    """Yield the files of a tar, and its faults, in order, as ``entries`` does.

    At each member the stream stands at its first byte.
    """
    for found in entries(stream, size):
        yield found if isinstance(found, Fault) else found[1]


def entries(stream: Stream, size: int) -> Iterator[tuple[int, Member] | Fault]:
    """Yield the files of a tar, and its faults, in order; each fault costs no more than itself.

    Of a file come the place of its first header (extension headers included) and the member.

    After a fault it goes on at the next 512-byte block that is a sound header. Concatenated tars
    are read to the last, with a fault where one ends. At each member the stream stands at its first
    byte; the caller may read from there, or elsewhere. No place is returned to, but for finding a
    header again.

    Args:
        stream: the tar.
        size: its size in bytes.
    """
    at, start, told = 0, 0, dict[str, bytes]()  # what extension headers said of the entry to come
    while at < size:
        stream.seek(at)
        try:
            entry = _entry(stream, at, told)
            if entry is None:
                return
            _refuse_longer(entry, size - at - BLOCK)
            if entry.kind in _EXTENSIONS:
                told |= _extension(stream, entry)
        except _DamagedError as fault:
            yield Fault(str(fault), at)
            resumed = _next_header(stream, at + BLOCK)
            if resumed is None:
                return
            at, start, told = resumed, resumed, {}
            continue
        member = Member(text(entry.name), at + BLOCK, entry.size)
        if entry.kind in _FILES and not member.name.endswith("/"):
            yield start, member
        at = member.end
        if entry.kind not in _EXTENSIONS:
            start, told = at, {}
    yield Fault("the end is missing: cut short between two entries", at)


def _entry(stream: Stream, at: int, told: dict[str, bytes]) -> _Entry | None:
    """Return what a header and the extensions before it say; None at the end of the tar."""
    head = stream.read(BLOCK)
    if not _is_sound(head):
        if len(head) < BLOCK or any(head):
            raise _DamagedError("the end is missing" if len(head) < BLOCK else "no sound header")
        if _next_header(stream, at + BLOCK) is None:
            return None
        raise _DamagedError("zeros, and entries behind them")
    kind = head[156:157]
    if kind in _EXTENSIONS:
        return _Entry(kind, _name(head), _size(head[124:136]))
    size = _number(told["size"], 10) if "size" in told else _size(head[124:136])
    return _Entry(kind, told.get("path") or _name(head), 0 if kind in _WITHOUT_DATA else size)


def _refuse_longer(entry: _Entry, left: int) -> None:
    if entry.size > left:
        raise _DamagedError(f"{text(entry.name)} is cut short")


def _is_sound(head: bytes) -> bool:
    """Return whether a block's checksum is right: the sum of its bytes, its own taken as spaces."""
    try:
        stated = int(head[148:156].strip(b"\0 "), 8)
    except ValueError:
        return False
    own = head[148:156]
    total = sum(head) - sum(own) + 8 * 0x20  # 2 us, a tenth of what a sample takes
    # Some old tars added the bytes up as signed ones.
    return len(head) == BLOCK and (stated == total or stated == total - 256 * _high(head))


def _high(head: bytes) -> int:
    return sum(byte >> 7 for byte in head[:148] + head[156:])


def _size(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: base 256, for 8 GiB and more
        size = int.from_bytes(field, "big") & ((1 << 95) - 1)
        if field[0] & 0x40:
            raise _DamagedError("a size below zero")
        return size
    return _number(field.partition(b"\0")[0].strip() or b"0", 8)


def _number(digits: bytes, base: int) -> int:
    if not digits.isdigit():
        raise _DamagedError("an unreadable size")
    try:
        return int(digits, base)
    except ValueError as error:
        raise _DamagedError("an unreadable size") from error


def _name(head: bytes) -> bytes:
    name = head[:100].partition(b"\0")[0]
    posix = head[257:263] == b"ustar\0"  # GNU keeps times where POSIX has the prefix
    prefix = head[345:500].partition(b"\0")[0] if posix else b""
    return prefix + b"/" + name if prefix else name


def text(name: bytes) -> str:
    """Return a file's name as text; bytes that are not UTF-8 become escapes."""
    return name.decode(errors="backslashreplace")


def _extension(stream: Stream, entry: _Entry) -> dict[str, bytes]:
    """Return what an extension header says of the name and size of the entry after it."""
    if entry.kind != _LONG_NAME and entry.kind not in _PAX:
        return {}
    if entry.size > _MAX_EXTENSION_BYTES:
        raise _DamagedError(f"an extension header of {entry.size} bytes")
    data = stream.read(entry.size)
    return {"path": data.rstrip(b"\0")} if entry.kind == _LONG_NAME else _pax(data)


def _pax(data: bytes) -> dict[str, bytes]:
    """Return the records of a PAX header: ``LENGTH KEY=VALUE`` and a line feed each."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        length, space, _ = data[at : at + 20].partition(b" ")
        end = at + (int(length) if length.isdigit() else 0)
        if not space or end <= at + len(length) or end > len(data):
            raise _DamagedError("a PAX header with unreadable records")
        key, _, value = data[at + len(length) + 1 : end - 1].partition(b"=")
        records[text(key)] = value
        at = end
    return {key: records[key] for key in ("path", "size") if key in records}


def _next_header(stream: Stream, at: int) -> int | None:
    """Return where the next sound header stands, from a place on; None if there is none."""
    stream.seek(at)
    while chunk := stream.read(_SCAN_BYTES):
        if any(chunk):
            for start in range(0, len(chunk), BLOCK):
                if _is_sound(chunk[start : start + BLOCK]):
                    return at + start
        at += len(chunk)
    return None
