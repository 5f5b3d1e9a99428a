"""Where a block's pictures and captions are: what a stream knows of a block beside its bytes.

Imported by the processes that decode: numpy and msgspec are all it needs.

A *slot* of our own shards is a sample. Of shards of others it is a sample with a picture and a
caption (by the extensions of ``layout.Foreign``), neither of them empty: then what has no pair in
it is no part of the order of training, as in open_clip's loader. Names alone decide that, so that
``wit index`` and whoever streams count the same.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from wit_builder.errors import ShardFormatError
from wit_builder.shards import foreign as dialects
from wit_builder.shards.layout import MEMBERS, Foreign
from wit_builder.shards.tar import BLOCK, Member

REMOVED = -1
"""Size of the image of a sample that was removed: its bytes are zero."""

Bytes = bytes | bytearray | memoryview
Place = tuple[int, int, int, int]
"""Of a slot: image offset, image size, caption offset, caption size."""


def index(data: Bytes, foreign: Foreign | None) -> npt.NDArray[np.int64]:
    """Return int64 [slots, 4]: image offset and size, caption offset and size, of each slot.

    Offsets are bytes from the block's start. The size of a removed image is ``REMOVED``. The bytes
    are to be those of the block table (its xxh3): whoever has them need not look at names again.

    Args:
        data: a whole block.
        foreign: what ``dataset.json`` says of shards of others; None for our own.

    Raises:
        ShardFormatError: of our own shards: not whole samples.
    """
    view = memoryview(data)
    found = list(_own(view) if foreign is None else _foreign(view, foreign))
    places = np.array(found, np.int64).reshape(len(found), 4)
    for row, (at, size, *_) in enumerate(found):
        # a picture's first byte is never zero; so this costs 0.1 us a sample
        if size > 0 and view[at] == 0 and not any(view[at : at + size]):
            places[row, 1] = REMOVED
    return places


def caption_of(data: Bytes, foreign: Foreign | None) -> str:
    """Return the caption in a member's bytes; empty where there is none that can be read.

    Bytes that are not UTF-8 become U+FFFD. In JSON the caption is the string under the data set's
    key; JSON that is broken, or has no string there, gives an empty caption.
    """
    if foreign is None or not foreign.caption_key:
        return bytes(data).decode(errors="replace")
    try:
        document: Any = _json(bytes(data))
    except (ValueError, RecursionError):
        return ""
    caption = document.get(foreign.caption_key) if isinstance(document, dict) else None
    return caption if isinstance(caption, str) else ""


def _json(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:  # Python writes NaN for a missing number
        return json.loads(data)


# --- our own ----------------------------------------------------------------


def _own(view: memoryview) -> Iterator[Place]:
    """Yield the places of our own samples: ``shards.tar`` has one layout, members one order."""
    at, end = 0, len(view)
    try:
        while at < end:  # 2 us a sample, measured
            picture, picture_size = at + BLOCK, _octal(view, at)
            at = picture + -(-picture_size // BLOCK) * BLOCK
            caption, caption_size = at + BLOCK, _octal(view, at)
            at = caption + -(-caption_size // BLOCK) * BLOCK
            metadata_size = _octal(view, at)
            at += BLOCK + -(-metadata_size // BLOCK) * BLOCK
            yield picture, picture_size, caption, caption_size
    except ValueError as error:
        raise _not_whole(at) from error
    if at != end:
        raise _not_whole(end)


def _octal(view: memoryview, at: int) -> int:
    return int(bytes(view[at + 124 : at + 135]), 8)


def _not_whole(at: int) -> ShardFormatError:
    return ShardFormatError(
        f"not whole samples of {', '.join(MEMBERS)}",
        where=f"byte {at} of a block",
        fix="run `wit verify` on the data set",
    )


# --- those of others --------------------------------------------------------


class Found(NamedTuple):
    """A sample of a WebDataset tar: neighbouring members with one key.

    ``start`` is where its first header is, extension headers included; ``end`` where its last
    member ends, padding included. Members are by ending, in lower case; of several with one ending
    the first counts, and ``repeated`` tells of others.
    """

    key: str
    start: int
    end: int
    members: dict[str, Member]
    repeated: int = 0


def grouped(entries: Iterable[tuple[int, Member]]) -> Iterator[Found]:
    """Yield the samples of a tar's files, in order.

    As in WebDataset, a key is the path up to the first dot of the file name, the ending all after
    it; files without either, and such as ``__meta.json``, are no sample's.

    Args:
        entries: where each file's first header is, and the file.
    """
    key, start, end, members, repeated = "", 0, 0, dict[str, Member](), 0
    for at, member in entries:
        found, ending = split(member.name)
        if not found:
            continue
        if found != key:
            if key:
                yield Found(key, start, end, members, repeated)
            key, start, members, repeated = found, at, {}, 0
        repeated += ending in members
        members.setdefault(ending, member)
        end = member.end
    if key:
        yield Found(key, start, end, members, repeated)


def split(name: str) -> tuple[str, str]:
    """Return the key and the ending (lower case) of a file's name; no key where it has none."""
    slash = name.rfind("/") + 1
    dot = name.find(".", slash)
    if dot <= slash or name.startswith("__", slash):
        return "", ""
    return name[:dot], name[dot + 1 :].lower()


def place_of(members: dict[str, Member], foreign: Foreign) -> Place | None:
    """Return where a sample's picture and caption are; None where one is missing or empty."""
    picture = _first(members, foreign.image)
    caption = _first(members, foreign.caption)
    if picture is None or caption is None:
        return None
    return picture.offset, picture.size, caption.offset, caption.size


def _first(members: dict[str, Member], endings: Iterable[str]) -> Member | None:
    """Return the member with the first of the endings that is there and not empty."""
    for ending in endings:
        member = members.get(ending)
        if member is not None and member.size:
            return member
    return None


def slots_in(data: Bytes, foreign: Foreign) -> Iterator[Found]:
    """Yield the samples of a block, or of any part of a tar, that are slots."""
    view = memoryview(data)
    entries = _usual(view)
    if entries is None:
        walked = dialects.entries(io.BytesIO(view), len(view))
        entries = [e for e in walked if not isinstance(e, dialects.Fault)]
    return (sample for sample in grouped(entries) if place_of(sample.members, foreign))


def _foreign(view: memoryview, foreign: Foreign) -> Iterator[Place]:
    places = (place_of(sample.members, foreign) for sample in slots_in(view, foreign))
    return (place for place in places if place)


_MAGIC = {b"ustar\0", b"ustar "}  # POSIX, GNU
_HEADER = struct.Struct("100s24x12s12x8s1s100x6s82xc")
"""Name, size, checksum, kind, magic, first byte of the prefix; at 0, 124, 148, 156, 257, 345."""


def _usual(view: memoryview) -> list[tuple[int, Member]] | None:
    """Return what ``dialects.entries`` finds, if there is nothing but usual headers; else None.

    Usual is what img2dataset and webdataset write: ustar with or without PAX headers, these for the
    time only. 7 us a sample of three members, 12 with PAX headers, where any dialect takes 21 and
    39, measured: half of that is for checksums, which here are one sum for all.
    """
    if len(view) % BLOCK:
        return None
    found: list[tuple[int, Member]] = []
    heads: list[int] = []
    stated: list[int] = []
    at = start = 0
    try:
        while at < len(view):
            name, size, checksum, kind, magic, prefix = _HEADER.unpack_from(view, at)
            if magic not in _MAGIC or prefix != b"\0" or b"/\0" in name:
                return None
            heads.append(at)
            stated.append(int(checksum.strip(b"\0 "), 8))
            digits = size.rstrip(b"\0 ")
            if not digits.isdigit():
                return None
            data, length = at + BLOCK, int(digits, 8)
            at = data - -length // BLOCK * BLOCK
            if kind == b"x":
                told = bytes(view[data : data + length])
                if b" path=" in told or b" size=" in told or at > len(view):
                    return None
                continue
            if kind not in b"0\0":
                return None
            found.append((start, Member(dialects.text(name.partition(b"\0")[0]), data, length)))
            start = at
    except ValueError:  # not octal: sizes of base 256, or damage
        return None
    return found if at == len(view) and _are_sound(view, heads, stated) else None


def _are_sound(view: memoryview, heads: list[int], stated: list[int]) -> bool:
    """Return whether headers have the checksums they state: the sums of their bytes.

    The checksum's own bytes count as spaces.
    """
    blocks = np.frombuffer(view, np.uint8).reshape(-1, BLOCK)[np.array(heads, np.int64) // BLOCK]
    sums = blocks.sum(1, np.int64) - blocks[:, 148:156].sum(1, np.int64) + 8 * 0x20
    return bool((sums == np.array(stated, np.int64)).all())
