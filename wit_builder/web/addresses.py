"""Which addresses may be connected to, and the resolver that answers with no other.

A name is resolved once, all its addresses are checked, and the checked answer is the one that is
connected to: the HTTP client asks this resolver, never the system. The socket factory checks the
very address a socket is made for, so that an IP literal (for which the HTTP client asks no
resolver) cannot pass either.
"""

from __future__ import annotations

import asyncio
import fnmatch
import functools
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from wit_builder.errors import RecipeError
from wit_builder.tables import Reason
from wit_builder.web.answer import Refusal
from wit_builder.web.memory import Memory

logger = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str], Awaitable[list[str]]]

DNS_KEPT_S = 300.0
MISSING_NAME_KEPT_S = 60.0
_LOOKUPS_AT_ONCE = 16
_LOOKUP_S = 15.0

# IANA's special-purpose address registries, written out because what ``ipaddress`` calls global
# differs between Python versions; and one cloud's metadata service that has a public address.
_NOT_PUBLIC_V4 = [
    ipaddress.IPv4Network(network)
    for network in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
    ]
]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = [ipaddress.IPv6Network(n) for n in ("2001::/23", "2001:db8::/32", "3fff::/20")]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return whether an address is public unicast; v4 inside v6 is judged as v4.

    Mapped (``::ffff:10.0.0.1``), 6to4 and NAT64 forms are unpacked. What is no address is not
    public.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    inner = _inner_v4(parsed)
    if inner is not None:
        return not any(inner in network for network in _NOT_PUBLIC_V4)
    return parsed in _GLOBAL_UNICAST and not any(parsed in network for network in _NOT_PUBLIC_V6)


def _inner_v4(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


@functools.lru_cache(maxsize=1 << 14)  # asked several times a request
def is_literal(host: str) -> bool:
    """Return whether a host is written as an IP address."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


class AddressRefusedError(OSError):
    """A connection to an address that is not public was about to be made."""


@functools.lru_cache(maxsize=8)  # once a process, not once a unit
def _say_loudly(hosts: tuple[tuple[str, str], ...]) -> None:
    if hosts:
        logger.warning("loopback map in use, for tests and the demo only: %s", dict(hosts))


class Loopback:
    """Host patterns that stand for ports of this machine: for tests and the demo, and loud.

    Args:
        hosts: shell pattern of host names -> loopback address and port, such as
            ``{"*.test": "127.0.0.1:8080"}``; the first pattern that matches counts.

    Raises:
        RecipeError: a target is not a loopback address with a port.
    """

    def __init__(self, hosts: dict[str, str]) -> None:
        self._hosts = {p.lower(): _loopback_target(t) for p, t in hosts.items()}
        self.targets = frozenset(self._hosts.values())
        _say_loudly(tuple(sorted(hosts.items())))

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def target(self, host: str) -> tuple[str, int] | None:
        """Return the address and port a host stands for, or None; a literal stands for itself."""
        if not self._hosts or is_literal(host):
            return None
        name = host.rstrip(".").lower()
        return next((t for p, t in self._hosts.items() if fnmatch.fnmatchcase(name, p)), None)


def _loopback_target(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    on_loopback = is_literal(host) and ipaddress.ip_address(host).is_loopback
    if not (on_loopback and port.isdecimal()):
        raise RecipeError(
            "a loopback map may only lead to loopback", where=text, fix="write 127.0.0.1:PORT"
        )
    return host, int(port)


class Resolver(AbstractResolver):
    """Resolves names for the gate and for the HTTP client alike, to checked addresses only.

    Args:
        loopback: answered first, with address and port.
        mapped_only: refuse every name the map does not have (no contact is set).
        lookup: name -> addresses; by default the system's resolver.
    """

    def __init__(
        self, loopback: Loopback, *, mapped_only: bool = False, lookup: Lookup | None = None
    ) -> None:
        self._loopback = loopback
        self._mapped_only = mapped_only
        self._lookup = lookup or self._ask_system
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, "lookup")
        self._room = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        self._memory: Memory[str, list[str] | Refusal] = Memory(self._ask)

    async def addresses(self, host: str) -> list[str] | Refusal:
        """Return a host's addresses, every one of them allowed, or why it must not be asked."""
        target = self._loopback.target(host)
        if target is not None:
            return [target[0]]
        if self._mapped_only:
            return Refusal(
                Reason.PRIVATE_ADDRESS, "fetch.contact is not set: only mapped hosts may be asked"
            )
        if is_literal(host):
            return self.literal_refusal(host) or [host.strip("[]")]
        return await self._memory.get(host.rstrip(".").lower())

    def literal_refusal(self, host: str) -> Refusal | None:
        """Return why a host that is an IP address must not be asked; None for other hosts."""
        literal = host.strip("[]")
        return _private(literal) if is_literal(host) and not is_public(literal) else None

    async def _ask(self, host: str) -> tuple[list[str] | Refusal, float]:
        try:
            async with self._room, asyncio.timeout(_LOOKUP_S):
                found = await self._lookup(host)
        except TimeoutError:
            return Refusal(Reason.DNS_FAILED, f"no answer in {_LOOKUP_S:g} s"), 0.0
        except (OSError, UnicodeError) as error:
            final = isinstance(error, UnicodeError) or error.errno in _NO_SUCH_NAME
            detail = str(getattr(error, "strerror", None) or error)
            return Refusal(Reason.DNS_FAILED, detail, final), MISSING_NAME_KEPT_S if final else 0.0
        bad = [address for address in found if not is_public(address)]
        return (_private(bad[0]) if bad else found), DNS_KEPT_S

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - aiohttp's signature
    ) -> list[ResolveResult]:
        """Return what the HTTP client connects to: the addresses that were checked.

        Raises:
            AddressRefusedError: one of them is not public.
            OSError: the name does not resolve.
        """
        found = await self.addresses(host)
        if isinstance(found, Refusal):
            refused = found.reason is Reason.PRIVATE_ADDRESS
            raise (AddressRefusedError if refused else OSError)(found.detail)
        target = self._loopback.target(host)
        return [_result(host, a, target[1] if target else port) for a in found]

    async def close(self) -> None:
        """End look-ups under way."""
        await self._memory.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_system(self, host: str) -> list[str]:
        loop = asyncio.get_running_loop()  # whose own threads are few, and have other work
        ask = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        found = await loop.run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))

    def make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Return a socket for ``(family, type, proto, name, address)``; the client's last step.

        Raises:
            AddressRefusedError: the address is neither public nor a target of the loopback map.
        """
        family, kind, proto, _, address = info
        mapped = tuple(address[:2]) in self._loopback.targets
        if not mapped and (self._mapped_only or not is_public(address[0])):
            raise AddressRefusedError(f"{address[0]} is not a public address")
        return socket.socket(family, kind, proto)


_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


def _private(address: str) -> Refusal:
    return Refusal(Reason.PRIVATE_ADDRESS, f"{address} is not a public address")


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=family,
        proto=socket.IPPROTO_TCP,
        flags=int(socket.AI_NUMERICHOST | socket.AI_NUMERICSERV),
    )
