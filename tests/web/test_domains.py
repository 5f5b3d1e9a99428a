"""Registrable domains."""

from __future__ import annotations

import pytest

from wit_builder.web.domains import registrable


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("www.example.com", "example.com"),
        ("WWW.Example.COM.", "example.com"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("somebody.github.io", "somebody.github.io"),  # the list's private section
        ("x.somebody.github.io", "somebody.github.io"),
        ("github.io", "github.io"),
        ("x.y.test", "y.test"),
        ("localhost", "localhost"),
        ("192.0.2.7", "192.0.2.7"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("xn--85x722f.com.cn", "xn--85x722f.com.cn"),
        ("", ""),
    ],
)
def test_registrable(host, expected):
    """The domain that politeness is owed to, for each kind of host."""
    assert registrable(host) == expected
