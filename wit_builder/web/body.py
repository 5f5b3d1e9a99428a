"""A response's body, capped on the wire and once more after decompression."""

from __future__ import annotations

import asyncio
import zlib

import aiohttp

from wit_builder.tables import Reason
from wit_builder.web.answer import Refusal
from wit_builder.web.room import FREE_BYTES, Hold

_CHUNKS = 1024
_PLAIN = {"", "identity"}
_AT_ONCE_BYTES = 64 << 10
"""What is decompressed by the event loop itself; more would hold up all other requests."""
_MEMBERS = 64  # each costs a copy of what follows it
_ANY_ZLIB = zlib.MAX_WBITS | 32  # a gzip or zlib header, told apart by itself


async def read(
    response: aiohttp.ClientResponse, most: int, hold: Hold, *, cut: bool
) -> bytes | Refusal:
    """Return the body, decompressed, or why there is none.

    Args:
        response: opened with ``auto_decompress=False``.
        most: bytes allowed, compressed as well as decompressed.
        hold: grows to what is announced; where nothing is, to ``most`` once there is more than
            a request holds freely.
        cut: return the first ``most`` bytes of a larger body instead of refusing it.
    """
    announced = response.content_length
    if announced is not None and announced > most and not cut:
        return Refusal(Reason.BODY_TOO_LARGE, f"{announced} bytes announced")
    await hold.grow(min(announced or 0, most))
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        if len(chunks) == _CHUNKS:  # of a server that sends a byte at a time
            chunks = [b"".join(chunks)]
        chunks.append(chunk)
        size += len(chunk)
        if announced is None and size > FREE_BYTES:
            await hold.grow(most)
        if size > most:
            if not cut:
                return Refusal(Reason.BODY_TOO_LARGE, f"more than {most} bytes")
            chunks[-1] = chunk[: len(chunk) - (size - most)]
            break
    raw = b"".join(chunks)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in _PLAIN or len(raw) < _AT_ONCE_BYTES:
        return decompress(raw, encoding, most, cut=cut)
    return await asyncio.to_thread(decompress, raw, encoding, most, cut=cut)


def decompress(raw: bytes, encoding: str, most: int, *, cut: bool = False) -> bytes | Refusal:
    """Return the decoded body; never more than ``most + 1`` bytes are made on the way."""
    if encoding in _PLAIN:
        return raw
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        return Refusal(
            Reason.BODY_INCOMPLETE, f"unknown content encoding {encoding[:40]}", final=True
        )
    try:
        out, ended = _inflate(raw, most + 1)
    except zlib.error as error:
        return Refusal(Reason.BODY_INCOMPLETE, f"{encoding}: {error}", final=True)
    if len(out) > most and not cut:
        return Refusal(Reason.BODY_TOO_LARGE, f"more than {most} bytes once decompressed")
    if not ended and not cut:
        return Refusal(Reason.BODY_INCOMPLETE, f"{encoding} ends early")
    return out[:most]


def _inflate(raw: bytes, most: int) -> tuple[bytes, bool]:
    """Return at most ``most`` bytes of all members of a stream, and whether it came to its end."""
    # Some servers send "deflate" without the zlib header that RFC 9110, section 8.4.1.2 asks for.
    headless = raw[:1] and raw[0] & 0x0F != 8 and raw[:2] != b"\x1f\x8b"
    out = bytearray()
    for _ in range(_MEMBERS):
        if not raw or len(out) >= most:
            return bytes(out), True
        member = zlib.decompressobj(-zlib.MAX_WBITS if headless else _ANY_ZLIB)
        out += member.decompress(raw, most - len(out))
        if not member.eof:
            return bytes(out), False
        raw = member.unused_data.lstrip(b"\0")
    raise zlib.error(f"more than {_MEMBERS} members")
