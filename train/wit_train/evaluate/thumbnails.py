"""Small pictures that a page carries inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import cv2
import numpy as np

from wit_train.decode import pixels
from wit_train.resize import Pixels

SIDE = 160
"""Pixels of the longer side at most: twice what a page shows, for fine screens."""

MAX_BYTES = 10_000
"""Of a thumbnail's JPEG, unless the lowest quality is larger: keeps a page of hundreds small."""

Pictures = Callable[[Collection[int]], dict[int, bytes]]
"""Gives the encoded pictures at some places of a test set; what cannot be read is missing."""

_QUALITIES = (85, 70, 50, 30)


class Shown(NamedTuple):
    """A thumbnail's data URI, or why there is none."""

    uri: str | None
    said: str


def thumbnails(places: Iterable[int], pictures: Pictures) -> dict[int, Shown]:
    """Return the thumbnail at each place of a test set; all pictures are asked for at once."""
    wanted = sorted({int(place) for place in places})
    data = pictures(wanted) if wanted else {}
    return {
        place: Shown(thumbnail(data[place]), "does not decode")
        if place in data
        else Shown(None, "cannot be read")
        for place in wanted
    }


def thumbnail(data: bytes) -> str | None:
    """Return the data URI of a small JPEG of an encoded picture, or None where none decodes.

    It shows what the model saw: EXIF orientation and transparency are ignored. Never enlarged.
    """
    picture = pixels(data)
    return None if picture is None else _uri(_small(picture))


def _small(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale == 1:
        return picture
    return cv2.resize(picture, to, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _uri(picture: Pixels) -> str:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    encoded = b""
    for quality in _QUALITIES:
        options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        encoded = cv2.imencode(".jpg", bgr, options)[1].tobytes()
        if len(encoded) <= MAX_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
