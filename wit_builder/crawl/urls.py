"""URLs in pages: resolved as a browser does, then normalised (``web.urls``)."""

from __future__ import annotations

import re

from yarl import URL

from wit_builder.web.urls import MAX_URL_CHARS, NORMAL, BadUrlError, normalise

__all__ = ["CONTROLS", "DATA_URI", "MAX_URL_CHARS", "BadUrlError", "normalise", "resolve"]

DATA_URI = "data: URI"
"""Why the most frequent of refused ones is."""

_WEB = re.compile(r"(https?):", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_IGNORED = str.maketrans("", "", "\t\n\r")
CONTROLS = "".join(map(chr, range(0x21)))
"""What is no part of a URL at its ends."""


def resolve(href: str, page_url: str) -> str:
    """Return the normalised URL that an attribute's value means on a page.

    Args:
        href: the value as it stands in the page.
        page_url: the page's URL, or that of its ``<base>``, normalised.

    Raises:
        BadUrlError: it is refused.
    """
    if len(href) <= MAX_URL_CHARS // 2 and NORMAL.fullmatch(short := _absolute(href, page_url)):
        return short
    value = href.strip(CONTROLS)
    if value[:5].lower() == "data:":
        raise BadUrlError(DATA_URI)
    if len(value) > MAX_URL_CHARS:
        raise BadUrlError("too long")
    if not value:
        raise BadUrlError("empty")
    return normalise(_join(value.translate(_IGNORED), page_url))


def _absolute(href: str, page_url: str) -> str:
    """Return the value with what a leading slash or two stand for; a short cut for plain cases."""
    if href[:2] == "//":
        return page_url[: page_url.index("/")] + href
    if href[:1] == "/":
        return page_url[: page_url.index("/", 8)] + href
    return href


def _join(value: str, page_url: str) -> str:
    """Return an absolute URL; before a query, a backslash is a slash, as browsers read it."""
    cut = min((at for at in (value.find("?"), value.find("#")) if at >= 0), default=len(value))
    path = _as_browsers(value[:cut].replace("\\", "/"), page_url)
    try:
        # not urllib's urljoin: it takes empty segments out of relative paths, which browsers keep
        return str(URL(page_url).join(URL(path + value[cut:])))
    except (ValueError, TypeError) as error:
        raise BadUrlError("malformed") from error


def _as_browsers(path: str, page_url: str) -> str:
    """Return an address without what browsers forgive: slashes too many or few, a colon in a name.

    (WHATWG URL, "scheme state" to "special authority ignore slashes state".)
    """
    if path.startswith("//"):
        return "//" + path.lstrip("/")
    if scheme := _WEB.match(path):
        rest = path[scheme.end() :]
        slashes = len(rest) - len(rest.lstrip("/"))
        if slashes < 2 and page_url.startswith(scheme[1].lower() + "://"):
            return rest
        return f"{scheme[1]}://{rest.lstrip('/')}"
    first = path.partition("/")[0]
    return f"./{path}" if ":" in first and not _SCHEME.match(first) else path
