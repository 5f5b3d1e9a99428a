"""What img2dataset's free words on a failure mean: the closed table of its ``error_message``s.

It keeps the text of whatever Python, urllib or OpenCV raised. The first row that is found in it
counts. What no row tells is a failed connection, or a body that is no picture.
"""

from __future__ import annotations

import re

from wit_builder.tables import Reason

SUCCESS, NOT_DOWNLOADED, NOT_RESIZED = "success", "failed_to_download", "failed_to_resize"
"""The values of the column ``status``."""

_DOWNLOADING = [
    (r"X-Robots-Tag", Reason.OPT_OUT_IMAGE),
    (r"HTTP Error 429\b", Reason.RATE_LIMITED),
    (r"HTTP Error 30\d\b", Reason.REDIRECT_LOOP),
    (r"HTTP Error 4\d\d\b", Reason.HTTP_4XX),
    (r"HTTP Error 5\d\d\b", Reason.HTTP_5XX),
    (r"hash mismatch|IncompleteRead|reset by peer|Remote end closed", Reason.BODY_INCOMPLETE),
    (r"timed out", Reason.DEADLINE),
    (r"not known|No address|Temporary failure in name|nodename nor", Reason.DNS_FAILED),
    (r"CERTIFICATE|SSL|TLS", Reason.TLS_FAILED),
    (r"unknown url type|unsupported URL|no host given", Reason.BAD_URL),
    (r"URL can't contain|nonnumeric port|codec can't encode", Reason.BAD_URL),
]
_RESIZING = [
    (r"image too small", Reason.IMAGE_TOO_SMALL),
    (r"image area too large|validateInputImageSize", Reason.IMAGE_TOO_LARGE),
    (r"aspect ratio too large", Reason.IMAGE_ASPECT),
]

_OF_PICTURES = {
    Reason.NOT_AN_IMAGE,
    Reason.IMAGE_TRUNCATED,
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_TOO_SMALL,
    Reason.IMAGE_ASPECT,
}


def reason_of(status: str, message: str) -> Reason:
    """Return the reason that a row of a failure tells, by its status and its words."""
    rows = _RESIZING if status == NOT_RESIZED else _DOWNLOADING
    other = Reason.NOT_AN_IMAGE if status == NOT_RESIZED else Reason.CONNECT_FAILED
    return next((reason for words, reason in rows if re.search(words, message)), other)


def status_of(reason: Reason | None) -> str:
    """Return img2dataset's status of a pair that was asked for; None is no reason: it is alive."""
    if reason is None:
        return SUCCESS
    return NOT_RESIZED if reason in _OF_PICTURES else NOT_DOWNLOADED
