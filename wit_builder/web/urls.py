"""Normal form of URLs: as they are stored, asked for, and listed.

Through ``yarl``, which the client asks with, so a stored URL is asked for exactly as it is stored:

* scheme and host in lower case, an international host name in its ASCII form;
* default port and fragment dropped, an empty path is ``/``, dot segments resolved;
* what may not stand in a URL percent-encoded as UTF-8, escapes in upper case;
* escapes undone of what may stand there as it is: of letters and digits, as RFC 3986 has it
  (section 6.2.2.2), but also of ``,``, ``;``, ``@`` and the like, which browsers leave alone.

Refused: schemes other than http and https (``data:`` above all), credentials, no host, and more
than ``MAX_URL_CHARS`` characters.
"""

from __future__ import annotations

import re

from yarl import URL

MAX_URL_CHARS = 4096

# Plain host, no port, no escape, no dot segment.
_CHARS = "A-Za-z0-9_~!$&'()*+,;=:@-"
NORMAL = re.compile(
    r"https?://[a-z0-9]+(?:[.-][a-z0-9]+)*\.[a-z]{2,}/"
    rf"(?!\.)[{_CHARS}]*+(?:[./](?!\.)[{_CHARS}]*+)*+(?:\?[./?{_CHARS}]++)?"
)
"""What matches in full is in normal form already, as most of the web's URLs are."""
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")


class BadUrlError(ValueError):
    """A URL that is refused; the message, which never quotes it, says why."""


def normalise(url: str) -> str:
    """Return an absolute URL in normal form; normalising again changes nothing.

    Raises:
        BadUrlError: it is refused.
    """
    try:
        parsed = URL(url).with_fragment(None)
        normal = str(
            parsed if parsed.raw_query_string else parsed.with_path(parsed.raw_path, encoded=True)
        )
    except (ValueError, TypeError) as error:
        raise BadUrlError("malformed") from error
    if parsed.scheme not in {"http", "https"}:
        raise BadUrlError(f"scheme {parsed.scheme[:20] or 'missing'}")
    if "@" in parsed.raw_authority:
        raise BadUrlError("credentials")
    if not _HOST.fullmatch(parsed.raw_host or ""):
        raise BadUrlError("no host, or an impossible one")
    if len(normal) > MAX_URL_CHARS:
        raise BadUrlError("too long")
    return normal
