"""What img2dataset asks the web with when we run it: our manners under its ``urlopen``.

img2dataset asks by ``urllib.request.urlopen``, with a browser's user agent, follows redirects
anywhere, and reads without end. ``Transport`` takes the place of urllib's opener, for which urllib
has ``install_opener``; img2dataset itself is not changed. A request that must not go on ends in an
``EndedError``, whose text img2dataset keeps in its table (``error_message``), where ``ended``
finds it again.

It runs in img2dataset's threads, in img2dataset's process: see ``main``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import http.client
import io
import socket
import ssl
import threading
import urllib.request
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec
from PIL import Image

from wit_builder.fetch.img2dataset.turns import Domain, Ended, EndedError, Manners, refused
from wit_builder.tables import Reason
from wit_builder.web.addresses import AddressRefusedError, Loopback, is_public
from wit_builder.web.body import decompress
from wit_builder.web.domains import registrable
from wit_builder.web.optouts import opt_outs
from wit_builder.web.retry_after import retry_after_s

_ACCEPT = {"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity", "Connection": "close"}
_REDIRECTS = {301, 302, 303, 307, 308}
_OUR_OWN_FAULT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")


class Note(msgspec.Struct, frozen=True):
    """What img2dataset's table does not tell of a body that it got."""

    url: str
    status: int
    size_bytes: int
    md5: str
    mime: str | None


class Body:
    """A response as img2dataset uses it: its headers, and its bytes, read already."""

    def __init__(self, headers: http.client.HTTPMessage, data: bytes) -> None:
        self.headers = headers
        self._data = data

    def read(self) -> bytes:
        """Return all of it."""
        return self._data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Transport(urllib.request.OpenerDirector):
    """Asks for one URL at a time and thread, without following redirects.

    Raises, from ``open``:
        EndedError: there is no body, and why.
    """

    def __init__(self, manners: Manners) -> None:
        super().__init__()
        self._manners = manners
        self._loopback = Loopback(manners.loopback)
        self._domains = {name: Domain(manners, limit) for name, limit in manners.domains.items()}
        self._noting = threading.Lock()

    def open(self, fullurl: Any, data: object = None, timeout: object = None) -> Any:  # noqa: ARG002 - urllib's signature
        """Return the ``Body`` that a request gets, in its domain's turn."""
        url: str = fullurl.full_url
        domain = self._domains[registrable(urlsplit(url).hostname or "")]
        with domain.turn():
            try:
                body = self._ask(url)
            except EndedError as error:
                domain.heed(error.ended)
                raise
        domain.heed(None)
        return body

    def _ask(self, url: str) -> Body:
        parts = urlsplit(url)
        connection = (_Https if parts.scheme == "https" else _Http)(
            parts.hostname or "", parts.port, timeout=self._manners.deadline_s
        )
        connection.loopback = self._loopback
        alarm = threading.Timer(self._manners.deadline_s, connection.give_up)
        alarm.start()
        response: http.client.HTTPResponse | None = None
        try:
            path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            agent = {"User-Agent": self._manners.agent}
            connection.request("GET", path, headers=agent | _ACCEPT)
            response = connection.getresponse()
            return self._take(url, response)
        except (EndedError, OSError, http.client.HTTPException, ValueError) as error:
            if connection.late or isinstance(error, TimeoutError):
                raise refused(Reason.DEADLINE, f"beyond {self._manners.deadline_s:g} s") from error
            raise _failure(error, response) from error
        finally:
            alarm.cancel()
            connection.close()

    def _take(self, url: str, response: http.client.HTTPResponse) -> Body:
        status = response.status
        onward = response.getheader("Location") if status in _REDIRECTS else None
        seen = opt_outs(response.getheaders())
        if onward is not None and not seen:
            raise EndedError(Ended(None, status=status, onward=onward))
        if seen and status < 400:
            raise EndedError(Ended(Reason.OPT_OUT_IMAGE, ", ".join(seen), status, seen))
        _refuse_status(status, response)
        data = self._read(response)
        self._note(url, status, data)
        return Body(response.headers, data)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        most, status = self._manners.max_body_bytes, response.status
        announced = response.length
        if announced is not None and announced > most:
            raise refused(Reason.BODY_TOO_LARGE, f"{announced} bytes announced", status)
        raw = response.read(most + 1)
        if len(raw) > most:
            raise refused(Reason.BODY_TOO_LARGE, f"more than {most} bytes", status)
        if response.length:  # of what was announced, what did not come
            raise refused(Reason.BODY_INCOMPLETE, f"{response.length} bytes missing", status)
        encoding = (response.getheader("Content-Encoding") or "").strip().lower()
        data = decompress(raw, encoding, most)
        if isinstance(data, bytes):
            return data
        raise refused(data.reason, data.detail, status)

    def _note(self, url: str, status: int, data: bytes) -> None:
        """Write down what is seen of a body; one whose header claims too many pixels ends here."""
        mime, pixels = _header(data)
        if pixels > self._manners.max_pixels:
            raise refused(Reason.IMAGE_TOO_LARGE, f"{pixels} pixels", status)
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        line = msgspec.json.encode(Note(url, status, len(data), md5, mime)) + b"\n"
        with self._noting, Path(self._manners.notes).open("ab") as notes:
            notes.write(line)


def _header(data: bytes) -> tuple[str | None, int]:
    """Return a picture's type and its pixels, as its header says; (None, 0) if it cannot be told.

    Nothing is decoded. Pillow's own limit must be off (``Image.MAX_IMAGE_PIXELS``).
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return image.get_format_mimetype(), image.width * image.height
    except Exception:  # noqa: BLE001 - hostile headers make Pillow raise nearly anything
        return None, 0


def _refuse_status(status: int, response: http.client.HTTPResponse) -> None:
    pause_s = retry_after_s(response.getheader("Retry-After") or "")
    reason, detail = None, str(status)
    if status == 429 or (status == 503 and pause_s is not None):
        raise EndedError(Ended(Reason.RATE_LIMITED, detail, status, pause_s=pause_s))
    if status >= 500:
        reason = Reason.HTTP_5XX
    elif status >= 400:
        reason = Reason.HTTP_4XX
    elif status >= 300:
        reason, detail = Reason.REDIRECT_LOOP, f"{status} that leads nowhere"
    elif status == 206:
        reason, detail = Reason.BODY_INCOMPLETE, "206 to a request for the whole"
    if reason is not None:
        raise refused(reason, detail, status)


def _failure(error: Exception, response: http.client.HTTPResponse | None) -> EndedError:
    """Return the end of a request that got no whole answer."""
    if isinstance(error, EndedError):
        return error
    text = (" ".join(str(error).split()) or type(error).__name__)[:200]
    if isinstance(error, OSError) and error.errno in _OUR_OWN_FAULT:
        return EndedError(Ended(None, fault=text))
    if response is not None:
        return refused(Reason.BODY_INCOMPLETE, text, response.status)
    if isinstance(error, AddressRefusedError):
        return refused(Reason.PRIVATE_ADDRESS, text)
    if isinstance(error, socket.gaierror):
        return refused(Reason.DNS_FAILED, text)
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return refused(Reason.TLS_FAILED, text)
    if isinstance(error, http.client.InvalidURL | ValueError):
        return refused(Reason.BAD_URL, text)
    return refused(Reason.CONNECT_FAILED, text)


class _Http(http.client.HTTPConnection):
    """A connection to checked addresses only, which another thread can end."""

    loopback = Loopback({})
    late = False

    def connect(self) -> None:
        self.sock = self._checked()
        if self.late:
            raise TimeoutError

    def _checked(self) -> socket.socket:
        """Return a socket to the first address that takes it; all must be public.

        The addresses that were checked are those that are connected to.
        """
        mapped = self.loopback.target(self.host)
        if mapped is not None:
            return socket.create_connection(mapped, self.timeout)
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        for address in addresses:
            if not is_public(address):
                raise AddressRefusedError(f"{address} is not a public address")
        for address in addresses[:-1]:
            with contextlib.suppress(OSError):
                return socket.create_connection((address, self.port), self.timeout)
        return socket.create_connection((addresses[-1], self.port), self.timeout)

    def give_up(self) -> None:
        """End what is under way, from the thread of the alarm."""
        self.late = True
        sock = self.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class _Https(_Http):
    """The same over TLS."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        self.sock = _tls().wrap_socket(self.sock, server_hostname=self.host)


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
