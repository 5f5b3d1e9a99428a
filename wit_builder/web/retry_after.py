"""``Retry-After``, which comes in two forms."""

from __future__ import annotations

import email.utils
import time


def retry_after_s(value: str) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for; None where it is neither of its forms.

    (RFC 9110, section 10.2.3: a number of seconds, or a date.)
    """
    if value.strip().isdecimal():
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a year or zone of twenty digits
        return None
    return max(0.0, when.timestamp() - time.time())
