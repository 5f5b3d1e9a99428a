"""Whether a picture decodes, to the last row and without a complaint."""

from __future__ import annotations

import io
import warnings

from PIL import Image

OWN = ("JPEG",)
"""The only format of pictures in our own shards."""


def complaint(picture: bytes, formats: tuple[str, ...] | None = None) -> str:
    """Return why a picture does not decode whole; empty if it does.

    Pillow refuses a picture that is cut short; OpenCV, which streams use, fills it up with grey.

    Args:
        picture: the file's bytes.
        formats: the only ones (Pillow's names) that it may have; None: any.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, and of broken EXIF
            with Image.open(io.BytesIO(picture), formats=formats) as opened:
                opened.load()
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever a broken file makes them
        return f"does not decode: {' '.join(str(error).split())[:120] or type(error).__name__}"
    return ""
