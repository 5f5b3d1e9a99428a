"""JPEG files: what is in their segments (ITU-T T.81, annex B)."""

from __future__ import annotations


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
            end = _end_of_scan(jpeg, end)
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


def _is_metadata(marker: int) -> bool:
    return marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE)


def _end_of_scan(jpeg: bytes, at: int) -> int:
    """Return where the marker after a scan's entropy-coded data stands; it has none but RSTn."""
    while (at := jpeg.find(b"\xff", at)) != -1 and at + 1 < len(jpeg):
        if jpeg[at + 1] not in {0x00, 0xFF} and not 0xD0 <= jpeg[at + 1] <= 0xD7:
            return at
        at += 1 if jpeg[at + 1] == 0xFF else 2
    return len(jpeg)
