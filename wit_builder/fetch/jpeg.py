"""JPEG files: what is in their segments (ITU-T T.81, annex B)."""

from __future__ import annotations

import re

# What stands after a scan's entropy-coded data; these have no other marker than RSTn.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def without_metadata(jpeg: bytes) -> bytes:
    """Return a JPEG file without its metadata segments, its pixels untouched.

    EXIF (GPS), XMP, IPTC, ICC profiles, comments and whatever follows the end of the image go.
    JFIF's APP0 and Adobe's APP14 stay, for they say how colours are stored. A file whose structure
    cannot be followed comes back as far as it can.
    """
    out = bytearray(jpeg[:2])
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xD9:
            break
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xDA:
            following = _MARKER.search(jpeg, end)
            end = following.start() if following else len(jpeg)
        if not _is_metadata(marker):
            out += jpeg[at:end]
        at = end
    return bytes(out) + b"\xff\xd9"


def scans(jpeg: bytes, begun: int, components: int, *, progressive: bool) -> int:
    """Return how many passes over its pixels a file asks for, at most.

    ``begun`` is where the data of the first scan starts. One scan that has all components is all
    that is read of a file that is not progressive.
    """
    header = jpeg.rfind(b"\xff\xda", 0, begun)
    if not progressive and jpeg[header + 4] == components:
        return 1
    return 1 + jpeg.count(b"\xff\xda", begun)


def coarse(jpeg: bytes, step: float, loss: float) -> bytes:
    """Return a progressive JPEG without what makes its brightness finer than a loss, or all of it.

    Successive approximation (section G.1.2.2) first tells coefficients but for their last bits,
    and each of these in a further scan. Left out is every scan of the first component's AC
    coefficients that halves a loss no larger than the one allowed.

    Args:
        jpeg: the file; it comes back as it is, if its structure cannot be followed to its end.
        step: how far apart two values of a coefficient are, by that component's quantisation.
        loss: how much smaller than it was a coefficient may become.
    """
    parts, kept, at, first = [], 0, 2, None
    while at + 10 <= len(jpeg) and jpeg[at] == 0xFF:
        marker = jpeg[at + 1]
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == 0xC2:
            first = jpeg[at + 10 : at + 11]
        if marker == 0xDA:
            if (following := _MARKER.search(jpeg, end)) is None:
                return jpeg
            end = following.start()
            components, component, low, before = (jpeg[at + i] for i in (4, 5, 7, 9))
            finer = components == 1 and bytes([component]) == first and low and before >> 4
            if finer and step * (1 << (before >> 4)) <= loss:
                parts.append(jpeg[kept:at])
                kept = end
        if jpeg[end : end + 2] == b"\xff\xd9":
            return b"".join([*parts, jpeg[kept : end + 2]])
        at = end
    return jpeg


def _is_metadata(marker: int) -> bool:
    return marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE)
