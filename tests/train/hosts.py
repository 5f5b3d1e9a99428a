"""Machines with addresses of their own, on this one: network namespaces on a bridge."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple


class Node(NamedTuple):
    """Where an agent lives: its address, its device, and what a command there begins with."""

    address: str
    device: str
    prefix: list[str]
    caller: str
    """The address from which it calls the server."""


class Network(NamedTuple):
    """The server's address, and the agents' nodes."""

    server: str
    nodes: list[Node]


def ip(words: str) -> None:
    """Change the machine's network, as the command of that name does."""
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


def has_namespaces() -> bool:
    """Return whether this process may make network namespaces."""
    if not shutil.which("ip") or not shutil.which("unshare"):
        return False
    return (
        subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode
        == 0
    )


_COUNT = itertools.count()


@contextlib.contextmanager
def two_nodes() -> Iterator[Network]:
    """Two nodes, each with a network of its own, on a bridge; or else addresses on loopback."""
    if not has_namespaces():
        yield Network("127.0.0.1", [Node(f"127.0.0.{n}", "lo", [], "127.0.0.1") for n in (2, 3)])
        return
    # 198.18.0.0/15 is for tests (RFC 2544)
    # the kernel takes its time to forget a pair of devices: each network has names of its own
    process, count = os.getpid(), next(_COUNT)
    tag, net = f"w{process}x{count}", f"198.18.{(7 * process + count) % 256}"
    nodes = []
    with ExitStack() as stack:
        ip(f"link add {tag} type bridge")
        stack.callback(ip, f"link del {tag}")
        ip(f"addr add {net}.1/24 dev {tag}")
        ip(f"link set {tag} up")
        for number in (2, 3):
            name = f"{tag}-{number}"
            ip(f"netns add {name}")
            stack.callback(ip, f"netns del {name}")
            ip(f"link add {name} type veth peer name eth0 netns {name}")
            ip(f"link set {name} master {tag} up")
            ip(f"-n {name} addr add {net}.{number}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
            address = f"{net}.{number}"
            nodes.append(Node(address, "eth0", ["ip", "netns", "exec", name], address))
        yield Network(f"{net}.1", nodes)
