"""WebP files: what their header says (RFC 9649, sections 2 and 3.7)."""

from __future__ import annotations

from wit_builder.fetch.resize import Size

_NOT_PIXELS = 0b1110  # flags of an extended file: EXIF, XMP, animation


def plain(webp: bytes) -> Size | None:
    """Return the size of a WebP file that is one picture and says nothing of how to turn it.

    None for any other, and for a file that is cut short or damaged in its header: Pillow tells
    what these are, and takes 2 ms for it, as it makes itself ready to decode an animation.
    """
    if webp[:4] != b"RIFF" or webp[8:12] != b"WEBP" or len(webp) < 8 + _number(webp[4:8]):
        return None
    if webp[12:16] == b"VP8X" and len(webp) >= 30 and not webp[20] & _NOT_PIXELS:
        return 1 + _number(webp[24:27]), 1 + _number(webp[27:30])
    if webp[12:16] == b"VP8L" and webp[20:21] == b"\x2f":
        sides = _number(webp[21:25])
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    if webp[12:16] == b"VP8 " and webp[23:26] == b"\x9d\x01\x2a":
        return _number(webp[26:28]) & 0x3FFF, _number(webp[28:30]) & 0x3FFF
    return None


def _number(little_endian: bytes) -> int:
    return int.from_bytes(little_endian, "little")
