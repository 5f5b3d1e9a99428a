"""Which addresses may be connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.tables import Reason
from wit_builder.web.addresses import AddressRefusedError, Loopback, Resolver, is_public
from wit_builder.web.answer import Refusal


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.9.9.9",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1",
        "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16",
        "::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1", "2001:db8::1", "fe80::1", "fe80::1%eth0",
        "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "localhost", "",
    ],
)  # fmt: skip
def test_not_public(address):
    """Private, local, shared, reserved, metadata and multicast addresses are not public."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "172.32.0.1", "192.0.1.1", "::ffff:1.1.1.1", "64:ff9b::101:101",
     "2606:4700::1111", "2a00:1450:4001::200e"],
)  # fmt: skip
def test_public(address):
    """Public unicast is public, in mapped and translated forms too."""
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_a_v4_address_is_judged_the_same_inside_v6(address):
    """No wrapping of a v4 address changes what it is."""
    number = int(address)
    wrapped = [0xFFFF << 32 | number, (0x64FF9B << 96) | number, 0x2002 << 112 | number << 80]
    assert {is_public(str(ipaddress.IPv6Address(w))) for w in wrapped} == {is_public(str(address))}


def test_the_second_look_up_is_checked_as_the_first(monkeypatch):
    """A name that changes to a private address is refused when its entry is asked for anew."""
    monkeypatch.setattr("wit_builder.web.addresses.DNS_KEPT_S", 0.0)
    answers = [["1.1.1.1"], ["127.0.0.1"]]

    async def lookup(_: str) -> list[str]:
        return answers.pop(0)

    async def go() -> None:
        resolver = Resolver(Loopback({}), lookup=lookup)
        assert await resolver.addresses("rebound.example") == ["1.1.1.1"]
        with pytest.raises(AddressRefusedError, match=r"127\.0\.0\.1"):
            await resolver.resolve("rebound.example", 80)

    asyncio.run(go())


def test_the_checked_answer_is_the_one_connected_to():
    """Between the gate's question and the connection nothing is looked up again."""
    asked = []

    async def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["1.1.1.1", "2606:4700::1111"]

    async def go() -> None:
        resolver = Resolver(Loopback({}), lookup=lookup)
        await asyncio.gather(*(resolver.addresses("a.example") for _ in range(5)))
        found = await resolver.resolve("A.example.", 80)
        assert [(r["host"], r["port"]) for r in found] == [("1.1.1.1", 80), ("2606:4700::1111", 80)]

    asyncio.run(go())
    assert asked == ["a.example"]


def test_no_socket_for_a_private_address():
    """Where a private address gets past all else, no socket is made for it."""
    resolver_of = [Loopback({}), Loopback({"*.test": "127.0.0.1:8080"})]
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    for loopback in resolver_of:
        with pytest.raises(AddressRefusedError):
            Resolver(loopback).make_socket((*info, ("127.0.0.1", 22)))
    Resolver(resolver_of[1]).make_socket((*info, ("127.0.0.1", 8080))).close()


def test_a_literal_cannot_be_mapped():
    """An IP literal is judged as itself, whatever the loopback map says."""
    resolver = Resolver(Loopback({"*": "127.0.0.1:8080"}))
    refused = asyncio.run(resolver.addresses("127.0.0.1"))
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.PRIVATE_ADDRESS
