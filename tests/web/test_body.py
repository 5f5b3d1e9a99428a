"""Bodies within limits."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wit_builder.tables import Reason
from wit_builder.web.answer import Refusal
from wit_builder.web.body import decompress


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "x-gzip", "deflate", "identity", ""]))
def test_round_trip(data, encoding):
    """What was compressed comes back."""
    packed: dict[str, Any] = {"gzip": gzip.compress, "x-gzip": gzip.compress}
    packed["deflate"] = zlib.compress
    assert decompress(packed.get(encoding, bytes)(data), encoding, 2000) == data


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_bomb(pack):
    """Decompression stops at the cap; cutting keeps what came before it."""
    bomb = pack(b"\0" * (64 << 20))
    encoding = "gzip" if pack is gzip.compress else "deflate"
    refused = decompress(bomb, encoding, 1000)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.BODY_TOO_LARGE
    assert decompress(bomb, encoding, 1000, cut=True) == b"\0" * 1000


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "made-up"]))
def test_any_bytes_are_survived(data, encoding):
    """Whatever a server sends gives bytes or a reason."""
    assert isinstance(decompress(data, encoding, 1000), bytes | Refusal)


def test_ends_early():
    """A compressed body that ends early is incomplete."""
    refused = decompress(gzip.compress(b"x" * 1000)[:-10], "gzip", 10_000)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.BODY_INCOMPLETE


def test_a_gzip_of_very_many_members():
    """A body of a million empty members is given up soon, for each costs a copy of the rest."""
    found = decompress(gzip.compress(b"") * 100_000, "gzip", 1 << 20)
    assert isinstance(found, Refusal)
    assert "more than 64 members" in found.detail
    assert decompress(gzip.compress(b"ab") * 60, "gzip", 1 << 20) == b"ab" * 60
