"""Which licence a page links to."""

from __future__ import annotations

import re
from collections.abc import Iterable

from wit_builder.crawl.urls import BadUrlError, resolve

CREATIVE_COMMONS = re.compile(r"creativecommons\.org/(licenses|publicdomain)/", re.IGNORECASE)


def license_of(links: Iterable[tuple[str, str]], base: str) -> str | None:
    """Return the URL of the first link that says it is to the licence (``rel=license``).

    Without one it is the first to Creative Commons' licences; without that, None.

    Args:
        links: ``rel`` and ``href`` of a page's links, in order.
        base: normalised URL that they are relative to.
    """
    found = None
    for rel, href in links:
        stated = "license" in rel.lower().split()
        if not stated and (found or not CREATIVE_COMMONS.search(href)):
            continue
        try:
            found = resolve(href, base)
        except BadUrlError:
            continue
        if stated:
            break
    return found
