"""A remote file, asked for by ranges, patiently, and believed only if it is the same file still.

What runs here runs on fsspec's event loop, so that it can be cancelled at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import aiohttp
import fsspec.asyn

import wit_builder
from wit_builder import storage
from wit_builder.errors import StorageError

TRIES = 6
"""How often a range is asked for before the file is given up."""

FIRST_DELAY_S = 1.0
"""The longest wait before the second try, in seconds; before each further try twice as long."""

LONGEST_DELAY_S = 60.0
"""No wait is longer, whatever ``Retry-After`` says."""

T = TypeVar("T")

_AGENT = f"wit-builder/{wit_builder.__version__}"  # web.agent's, which stands above this room
_TIMEOUT = aiohttp.ClientTimeout(total=900, sock_connect=30, sock_read=60)
_CHUNK_BYTES = 256 << 10
_BUFFER_BYTES = 1 << 20  # aiohttp's default of 64 KiB stops and starts the socket too often
_DOWNLOAD = "download the file first, and give its local path"


class About(NamedTuple):
    """A file's size in bytes, and what changes when the file does."""

    size: int
    stamps: frozenset[str]


class Source(Protocol):
    """A remote file, asked on fsspec's event loop."""

    url: str
    loop: asyncio.AbstractEventLoop

    async def about(self, whole_bytes: int) -> About:
        """Return its size and stamps; a server without ranges may serve ``whole_bytes``."""

    async def read(self, start: int, end: int, about: About) -> bytes | bytearray:
        """Return the bytes of ``[start, end)``, of the file that this is about."""


def source(url: str) -> Source:
    """Return the file of a URL, which is not asked for yet.

    Raises:
        StorageError: unknown protocol, or credentials in the URL.
    """
    fs, path = storage.filesystem(url)
    if url.startswith(("http://", "https://")):
        return _Http(url, fs)
    if url.startswith(("s3://", "s3a://")):
        return _S3(url, fs, path)
    return _Other(url, fs, path)


class _Other:
    """A file of any of fsspec's file systems; of a change, only one of length is noticed."""

    def __init__(self, url: str, fs: Any, path: str) -> None:
        self.url, self._fs, self._path = url, fs, path
        self.loop: asyncio.AbstractEventLoop = (
            fs.loop if fs.async_impl else fsspec.asyn.get_loop()  # some file systems block
        )

    async def about(self, whole_bytes: int) -> About:
        del whole_bytes
        info = await self._call("info", self._path)
        if info["type"] == "directory":
            raise IsADirectoryError(self.url)
        if info.get("size") is None:
            raise _no_size(self.url)
        return About(info["size"], _stamps(info))

    async def read(self, start: int, end: int, about: About) -> bytes | bytearray:
        del about
        data: bytes = await self._call("cat_file", self._path, start=start, end=end)
        if len(data) != end - start:
            raise _AnswerError(f"{len(data)} bytes came, not {end - start}")
        return data

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        if self._fs.async_impl:
            return await getattr(self._fs, f"_{name}")(*args, **options)
        return await asyncio.to_thread(getattr(self._fs, name), *args, **options)


class _S3(_Other):
    """An object in a bucket. Its client tries again on its own, too, but not for every reason."""

    async def read(self, start: int, end: int, about: About) -> bytearray:
        bucket, key, _ = self._fs.split_path(self._path)
        asked = f"bytes={start}-{end - 1}"
        reply = await self._call("call_s3", "get_object", Bucket=bucket, Key=key, Range=asked)
        async with reply["Body"] as body:
            part = _part(reply.get("ContentRange"), reply.get("ContentLength"))
            _check(_Wanted(self.url, start, end, about), part, _stamps(reply))
            return await _exactly(body.iter_chunks(_CHUNK_BYTES), end - start)


class _Http:
    """A file on a web server."""

    def __init__(self, url: str, fs: Any) -> None:
        self.url, self._fs = url, fs
        self.loop: asyncio.AbstractEventLoop = fs.loop

    async def about(self, whole_bytes: int) -> About:
        async with self._asked(0, 1) as answer:
            if answer.status == 416 and answer.headers.get("Content-Range") == "bytes */0":
                return About(0, frozenset())
            size = self._part(answer).size
            if size is None:
                raise _no_size(self.url)
            if answer.status == 200 and size > whole_bytes:
                raise _no_ranges(self.url)
            return About(size, _stamps(answer.headers))

    async def read(self, start: int, end: int, about: About) -> bytearray:
        async with self._asked(start, end) as answer:
            part = self._part(answer)
            _check(_Wanted(self.url, start, end, about), part, _stamps(answer.headers))
            return await _exactly(answer.content.iter_any(), end - start)

    def _part(self, answer: aiohttp.ClientResponse) -> _Part:
        _refuse_status(answer, self.url)
        stated = answer.headers.get("Content-Range", "none") if answer.status == 206 else None
        return _part(stated, answer.content_length)

    @contextlib.asynccontextmanager
    async def _asked(self, start: int, end: int) -> AsyncIterator[aiohttp.ClientResponse]:
        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)  # of fsspec's own configuration: a proxy, headers
        headers = {
            "User-Agent": _AGENT,
            **options.pop("headers", {}),
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{end - 1}",
        }
        options["timeout"] = _TIMEOUT
        options["read_bufsize"] = _BUFFER_BYTES
        # some servers call a .gz file's own compression an encoding of the transfer
        options["auto_decompress"] = False
        url = self._fs.encode_url(self.url)
        async with session.get(url, headers=headers, **options) as answer:
            yield answer


class _Wanted(NamedTuple):
    """The bytes ``[start, end)`` of a file that was known before."""

    url: str
    start: int
    end: int
    about: About


class _AnswerError(OSError):
    """An answer that is not what was asked for.

    Args:
        what: what came instead.
        passing: it may be another one the next time.
        wait_s: how long the server asks to be left alone.
    """

    def __init__(self, what: str, *, passing: bool = True, wait_s: float = 0) -> None:
        super().__init__(what)
        self.passing, self.wait_s = passing, wait_s


def _refuse_status(answer: aiohttp.ClientResponse, url: str) -> None:
    status = answer.status
    if status in {404, 410}:
        raise FileNotFoundError(url)
    if status in {401, 403}:
        raise PermissionError(url)
    if status not in {200, 206}:
        wait = answer.headers.get("Retry-After", "")
        raise _AnswerError(
            f"the server answered {status} {answer.reason or ''}".strip(),
            passing=status in {408, 425, 429} or status >= 500,
            wait_s=int(wait) if re.fullmatch("[0-9]{1,9}", wait) else 0,
        )


class _Part(NamedTuple):
    """What an answer says it is: bytes ``first`` to ``last`` of a file of ``size`` bytes."""

    first: int
    last: int
    size: int | None
    is_range: bool


def _part(content_range: str | None, length: int | None) -> _Part:
    """Return what an answer is; without a range it is the whole file (RFC 9110, section 14.2)."""
    if content_range is None:
        return _Part(0, (length or 0) - 1, length, is_range=False)
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", content_range)
    if not found:
        raise _AnswerError(f"a range was asked for, this came: {content_range[:100]}")
    first, last, size = found.groups()
    return _Part(int(first), int(last), None if size == "*" else int(size), is_range=True)


def _check(wanted: _Wanted, part: _Part, stamps: frozenset[str]) -> None:
    """Refuse what is not the range that was asked for, or is of a file that changed."""
    known = wanted.about
    changed = bool(stamps and known.stamps) and stamps.isdisjoint(known.stamps)
    if changed or (part.is_range and part.size not in {known.size, None}):
        raise StorageError(
            "the file has changed while it was read",
            where=f"{storage.redact(wanted.url)}, byte {wanted.start}",
            fix="start again once it is written",
        )
    if (part.first, part.last) != (wanted.start, wanted.end - 1):
        if not part.is_range:
            raise _no_ranges(wanted.url)
        raise _AnswerError(f"another range came: bytes {part.first} to {part.last}")


def _stamps(told: Mapping[str, Any]) -> frozenset[str]:
    """Return an answer's stamps: servers behind one name may differ in ETag, hardly in both.

    What a bucket calls ``LastModified`` is left out: there the ETag can be relied on.
    """
    return frozenset(str(told[name]) for name in ("ETag", "Last-Modified") if told.get(name))


async def _exactly(chunks: AsyncIterator[bytes], size: int) -> bytearray:
    """Return a body of that size; read no further if there is more."""
    data, at = bytearray(size), 0
    async for chunk in chunks:
        if at + len(chunk) > size:
            raise _AnswerError(f"more than {size} bytes came")
        data[at : at + len(chunk)] = chunk
        at += len(chunk)
    if at < size:
        raise _AnswerError(f"{at} bytes came, not {size}")
    return data


def _no_ranges(url: str) -> StorageError:
    what = "the server does not serve ranges of a file"
    return StorageError(what, where=storage.redact(url), fix=_DOWNLOAD)


def _no_size(url: str) -> StorageError:
    what = "the server does not tell the size of the file"
    return StorageError(what, where=storage.redact(url), fix=_DOWNLOAD)


async def patiently(ask: Callable[[], Awaitable[T]], place: str) -> T:
    """Return what asking gives, in the end; in between, wait, ever longer.

    Raises:
        GoneError: it is not there.
        StorageError: asking again cannot help, or did not help.
    """
    tried = 0
    while True:
        tried += 1
        try:
            return await ask()
        except StorageError:
            raise
        except Exception as error:
            with storage.translated(place, "read"):
                if not _may_pass(error):
                    raise
            if tried >= TRIES:
                raise StorageError(
                    f"cannot read, tried {TRIES} times: {_plain(error)}",
                    where=storage.redact(place),
                    fix="check the network, then start again: what is done stays done",
                ) from error
            delay_s = _delay_s(tried, error)
        await asyncio.sleep(delay_s)


def _delay_s(tried: int, error: Exception) -> float:
    """Return how long to wait: doubling, random, so that many workers do not come back at once."""
    longest = FIRST_DELAY_S * 2 ** (tried - 1)
    asked = getattr(error, "wait_s", 0)
    return min(LONGEST_DELAY_S, max(asked, longest * random.uniform(0.5, 1)))


_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_LASTING_WEB = (
    aiohttp.InvalidURL,
    aiohttp.TooManyRedirects,
    aiohttp.ClientConnectorCertificateError,
)
_LASTING_ERRNO = {
    errno.EINVAL,
    errno.ENAMETOOLONG,
    errno.ENOSYS,
    errno.EMSGSIZE,
    errno.EREMCHG,
}
"""What s3fs makes of codes that mean the request is wrong, not the time."""

_PASSING_BOTO = {"HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseParserError"}
"""Classes of botocore, which is an optional part."""


def _may_pass(error: Exception) -> bool:
    """Return whether asking again can help."""
    if isinstance(error, _AnswerError):
        return error.passing
    if isinstance(error, (*_LASTING, *_LASTING_WEB)):
        return False
    if isinstance(error, aiohttp.ClientError):
        return True
    if isinstance(error, OSError):
        return error.errno not in _LASTING_ERRNO
    return any(kind.__name__ in _PASSING_BOTO for kind in type(error).__mro__)


def _plain(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return storage.redact(text)[:300]
