"""Registrable domains: the unit that politeness is owed to."""

from __future__ import annotations

import functools
import ipaddress

from publicsuffixlist import PublicSuffixList


@functools.lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    # With the private section: two customers of one hosting domain are two domains.
    return PublicSuffixList(only_icann=False)


@functools.lru_cache(maxsize=1 << 16)
def registrable(host: str) -> str:
    """Return the registrable domain of a host name, lower case; an IP literal is its own.

    A host that is itself a public suffix is its own too. The bundled public-suffix list is used
    with its private section.
    """
    name = host.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return str(_suffixes().privatesuffix(name) or name)
