"""Where the machines of a run meet: looked at before anybody waits there.

One of them, the one that has the address, serves torch's store of keys and values; the others call
it. Several runs may meet at one place.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import threading
import time
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented there

from wit_builder.errors import TrainingError

_LOOPBACK = "127.0.0.1"
_ANSWER_S = 10.0
_CALL_S = 5.0
_AGAIN_S = 1.0
_UNREACHABLE_S = 30.0
"""A machine that starts now may have no network yet."""


class Meeting(NamedTuple):
    """A place that was looked at.

    Attributes:
        host: its name or address.
        port: there; 0: any that is free.
        is_host: whether this process is to serve it.
        own_address: of this machine, as the others see it.
    """

    host: str
    port: int
    is_host: bool
    own_address: str


def find(rendezvous: str, most: int, patience_s: float) -> Meeting:
    """Return where to meet, when it can be served from here, or somebody serves it.

    Args:
        rendezvous: HOST:PORT; may be empty with one machine.
        most: machines.
        patience_s: to wait for a machine that refuses: it may not have begun yet.

    Raises:
        TrainingError: no such host, nobody answers there, or another program does.
    """
    if not rendezvous:
        return Meeting(_LOOPBACK, 0, is_host=True, own_address=_LOOPBACK)
    host, port = _parsed(rendezvous)
    address = _address_of(host, rendezvous)
    if not _is_ours(address):
        _call(address, port, rendezvous, patience_s)
        return Meeting(host, port, is_host=False, own_address=_own_address(address))
    free = _is_free(port, rendezvous)
    if not free and not _is_store(address, port):
        raise TrainingError(
            "another program has the port", where=rendezvous, fix="choose another port"
        )
    return Meeting(host, port, is_host=free, own_address=_seen_by_others(host, address, most))


def _parsed(rendezvous: str) -> tuple[str, int]:
    host, _, port = rendezvous.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise TrainingError(
            f"{rendezvous!r} is not HOST:PORT", where="--rendezvous", fix="such as node-1:29400"
        )
    return host.strip("[]"), int(port)


def _address_of(host: str, rendezvous: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TrainingError(
            f"no such host: {getattr(error, 'strerror', None) or error}",
            where=rendezvous,
            fix="give --rendezvous a name or an address that all machines know",
        ) from error
    # torch's store and gloo are surest with IPv4
    found.sort(key=lambda one: one[0] != socket.AF_INET)
    return str(found[0][4][0])


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _is_ours(address: str) -> bool:
    with socket.socket(_family(address)) as door:
        try:
            door.bind((address, 0))
        except OSError:
            return False
    return True


def _is_free(port: int, rendezvous: str) -> bool:
    """Return whether nobody listens at a port of this machine."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise TrainingError(
            f"the port cannot be opened: {error.strerror}",
            where=rendezvous,
            fix="choose another port",
        ) from error
    return True


def _is_store(address: str, port: int) -> bool:
    """Return whether torch's store answers."""
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(RuntimeError, ValueError):
            TCPStore(address, port, is_master=False, timeout=timedelta(seconds=_ANSWER_S))
            answered.set()

    # before a server that accepts and is silent it waits for ever, whatever its timeout
    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(_ANSWER_S)


def _call(address: str, port: int, rendezvous: str, patience_s: float) -> None:
    """Return when a store answers.

    Raises:
        TrainingError: nobody does, or somebody else.
    """
    began, told = time.monotonic(), False
    while True:
        try:
            socket.create_connection((address, port), _CALL_S).close()
            break
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            limit_s = patience_s if refused else min(patience_s, _UNREACHABLE_S)
            why = error.strerror or str(error)
        if time.monotonic() - began > limit_s:
            raise TrainingError(
                f"nobody answers: {why}",
                where=rendezvous,
                fix="start wit train on the machine that has this address, too; look at firewalls",
            )
        if not told:
            sys.stderr.write(f"waiting for {rendezvous} ({why})\n")
            told = True
        time.sleep(_AGAIN_S)
    if not _is_store(address, port):
        raise TrainingError(
            "who answers is not wit train", where=rendezvous, fix="choose another port"
        )


def _own_address(other: str) -> str:
    """Return the address of this machine that leads to another."""
    with socket.socket(_family(other), socket.SOCK_DGRAM) as way:
        way.connect((other, 9))  # sends nothing
        return str(way.getsockname()[0])


def _seen_by_others(host: str, address: str, most: int) -> str:
    """Return our address; not that of loopback, which /etc/hosts often gives a machine's name."""
    if most == 1 or not address.startswith("127.") or host in (address, "localhost"):
        return address
    with contextlib.suppress(OSError):  # no network at all
        return _own_address("192.0.2.1")
    return address
