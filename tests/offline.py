"""A machine without a network."""

from __future__ import annotations

import socket

import pytest


def unplug(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make any attempt to connect, or to look up a name, an error."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("wit_builder.fetch.run.Client", refuse)
