"""Ranges of objects in a bucket, received straight into memory that is given.

s3fs says who we are and where the bucket is: endpoint, region, style of address, credentials and
their renewal are those of its client, so what works for tables works for shards. botocore signs, as
it does for s3fs. The requests are the standard library's, whose answers can be read into a buffer:
no client that returns bytes was as cheap (docs/decisions/0041).
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import botocore.httpsession
import fsspec.asyn

from wit_builder import storage
from wit_builder.errors import GoneError, StorageError
from wit_train.places import PassingError, may_pass, passing_status

_PIECE_BYTES = 256 << 10
_SAID_BYTES = 16 << 10
_KEYS_KEPT_S = 60.0
_LONGEST_WAIT_S = 60.0
_PASSING_CODES = {
    "ExpiredToken",
    "InternalError",
    "RequestTimeout",
    "SlowDown",
    "TokenRefreshRequired",
}
_NOT_PLAIN = re.compile(r"s3a?://(arn:|[^/]*--x-s3/)")


def is_plain(url: str) -> bool:
    """Return whether it is in an ordinary bucket: no access point, no directory bucket."""
    return not _NOT_PLAIN.match(url)


class Bucket:
    """A bucket, asked for ranges; connections are kept and used again."""

    def __init__(self, url: str, stall_s: float) -> None:
        """Find out where the bucket is; nothing of it is read.

        Args:
            url: of any object in it.
            stall_s: how long a connection may deliver nothing, in seconds.

        Raises:
            StorageError: there are no credentials for it.
            MissingPartError: s3fs is not installed.
        """
        self._account = _Account(url)
        self._connections = _Connections(self._account.context, stall_s)

    def read(self, url: str, offset: int, into: memoryview, until: float) -> int:
        """See ``places.Place``."""
        request = self._account.request(url, offset, len(into))
        with self._connections.one(request.host) as connection:
            answer = connection.ask(request, until)
            if answer.status == 206:
                return self._receive(connection, answer, _Wanted(offset, into, until))
            if answer.status == 416:
                answer.read(_SAID_BYTES)
                return 0
            raise self._refused(answer, url)

    def _receive(self, connection: _Connection, answer: HTTPResponse, wanted: _Wanted) -> int:
        count = _count(answer, wanted)
        at = 0
        while at < count:
            connection.allow(wanted.until)
            got = answer.readinto(wanted.into[at : min(at + _PIECE_BYTES, count)])
            if not got:
                raise PassingError(f"the connection broke after {at} of {count} bytes")
            at += got
        return count

    def _refused(self, answer: HTTPResponse, url: str) -> Exception:
        """Return the error that an answer is; of what the server says, only its code is told."""
        found = re.search(rb"<Code>(\w{1,64})</Code>", answer.read(_SAID_BYTES))
        code = found[1].decode() if found else answer.reason[:64]
        said = f"the server answers {answer.status} {code}".strip()
        if self._account.move(answer.headers.get("x-amz-bucket-region")):
            return PassingError(said, at_once=True)
        if code == "ExpiredToken":
            self._account.forget_keys()
        if passing_status(answer.status) or code in _PASSING_CODES:
            return PassingError(said, wait_s=_seconds(answer.headers.get("Retry-After")))
        where = storage.redact(url)
        if answer.status == 404:
            what = "the bucket is gone" if code == "NoSuchBucket" else "there is no such shard"
            return GoneError(
                f"{what}: {said}", where=where, fix="check the place; run `wit verify`"
            )
        fix = "check credentials, region and the bucket's policy (AWS_* in the environment)"
        return StorageError(f"cannot read: {said}", where=where, fix=fix)

    def renew(self) -> None:
        """See ``places.Place``."""
        self._connections.drop_idle()

    def close(self) -> None:
        """See ``places.Place``."""
        self._connections.close()


class _Wanted(NamedTuple):
    """A range: its first byte, where its bytes go, and when to give up."""

    offset: int
    into: memoryview
    until: float


def _count(answer: HTTPResponse, wanted: _Wanted) -> int:
    """Return how many bytes of the range an answer has (RFC 9110, section 14.4)."""
    told = answer.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", told)
    if not found or int(found[1]) != wanted.offset:
        raise PassingError(f"another range came: {told[:100]}")
    end = int(found[2]) + 1
    count = end - wanted.offset
    at_end = count < len(wanted.into) and found[3] == str(end)
    if not (count == len(wanted.into) or at_end) or answer.length != count:
        raise PassingError(f"another range came: {told[:100]}")
    return count


def _seconds(retry_after: str | None) -> float:
    known = re.fullmatch("[0-9]{1,9}", retry_after or "")
    return min(float(known[0]), _LONGEST_WAIT_S) if known else 0.0


class _Host(NamedTuple):
    """Whom to ask: ``http`` or ``https``, and the host with its port, if that is not the usual."""

    scheme: str
    name: str


class _Request(NamedTuple):
    """What to ask, and whom."""

    host: _Host
    target: str
    headers: dict[str, str]


class _Account:
    """Who asks, and where the bucket is, by the client of s3fs."""

    def __init__(self, url: str) -> None:
        self._fs, path = storage.filesystem(url)
        self._url = url
        self._bucket, _, _ = self._fs.split_path(path)
        self._lock = threading.Lock()
        self._keys: tuple[float, Any] = 0.0, None
        with _told(url):
            self._client: Any = fsspec.asyn.sync(self._fs.loop, self._fs.set_session)
            self._base = self._where()
        region = self._client.meta.region_name
        self._region = "us-east-1" if region in {None, "aws-global"} else region
        self.context = self._tls()

    def request(self, url: str, offset: int, length: int) -> _Request:
        """Return a signed request for a range."""
        key = self._fs.split_path(storage.filesystem(url)[1])[1]
        full = self._base + quote(key, safe="/~")
        asked = {"Range": f"bytes={offset}-{offset + length - 1}"}
        if payer := self._fs.req_kw.get("RequestPayer"):
            asked["x-amz-request-payer"] = payer
        request = botocore.awsrequest.AWSRequest("GET", full, headers=asked)
        if not self._fs.anon:
            keys = self._current_keys()
            botocore.auth.S3SigV4Auth(keys, "s3", self._region).add_auth(request)
        parts = urlsplit(full)
        return _Request(_Host(parts.scheme, parts.netloc), parts.path, dict(request.headers))

    def move(self, region: str | None) -> bool:
        """Take the bucket to be in another region, as a server says; return whether it is new."""
        with self._lock:
            if not region or region == self._region:
                return False
            with suppress(OSError, botocore.exceptions.BotoCoreError):
                self._fs.exists(self._url)  # so s3fs learns it
            self._base, self._region = self._where(), region
            return True

    def forget_keys(self) -> None:
        """Ask for the credentials anew before the next request: these have run out."""
        self._keys = 0.0, None

    def _where(self) -> str:
        """Return the URL that a key is added to. The signature that comes with it is not used."""
        asked = {"Bucket": self._bucket, "Key": "k"}
        make = self._client.generate_presigned_url
        signed: str = fsspec.asyn.sync(self._fs.loop, make, "get_object", asked)
        return signed.partition("?")[0][:-1]

    def _current_keys(self) -> Any:
        with self._lock:
            until, keys = self._keys
            if time.monotonic() > until:
                keys = self._asked_keys()
                self._keys = time.monotonic() + _KEYS_KEPT_S, keys
            return keys

    def _asked_keys(self) -> Any:
        try:
            with _told(self._url):
                return fsspec.asyn.sync(self._fs.loop, self._found_keys)
        except StorageError as error:
            if may_pass(error):  # such as a service for instances' roles that does not answer
                raise PassingError(error.what) from error
            raise

    async def _found_keys(self) -> Any:
        fs = self._fs
        if fs.key:
            return botocore.credentials.Credentials(fs.key, fs.secret, fs.token)
        found = await fs.session.get_credentials()
        if found is None:
            raise botocore.exceptions.NoCredentialsError
        return await found.get_frozen_credentials()  # renews those that end

    def _tls(self) -> ssl.SSLContext:
        verify = self._fs.client_kwargs.get("verify")
        if verify is None:
            verify = self._fs.session.get_config_variable("ca_bundle") or True
        if verify is False:
            return ssl._create_unverified_context()  # noqa: S323, SLF001 - the user asks s3fs for it
        return ssl.create_default_context(cafile=botocore.httpsession.get_cert_path(verify))


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Say what to do where credentials are missing or cannot be had."""
    try:
        yield
    except botocore.exceptions.NoCredentialsError as error:
        raise StorageError(
            "no credentials for this bucket",
            where=storage.redact(url),
            fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
            "for a public bucket FSSPEC_S3_ANON=true",
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        with storage.translated(url, "read"):
            raise error from None


class _Connection:
    """A connection, which takes one request at a time."""

    def __init__(self, http: HTTPConnection, stall_s: float) -> None:
        self._http, self._stall_s = http, stall_s
        self._answer: HTTPResponse | None = None
        self.served = False

    def ask(self, request: _Request, until: float) -> HTTPResponse:
        """Return the head of the answer."""
        self._answer = None
        self.allow(until)
        self._http.request("GET", request.target, headers=request.headers)
        self._answer = self._http.getresponse()
        return self._answer

    def allow(self, until: float) -> None:
        """Give it some time to deliver more."""
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise PassingError("")  # the reason is that of the try before
        self._http.timeout = min(self._stall_s, left_s)
        if self._http.sock:
            self._http.sock.settimeout(self._http.timeout)

    def is_idle(self) -> bool:
        """Return whether its last answer was read to the end."""
        return self._answer is not None and self._answer.isclosed()

    def end(self) -> None:
        """Wake whoever waits for it."""
        with suppress(OSError):
            if self._http.sock:
                self._http.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it; the server may have."""
        self._http.close()


class _Connections:
    """Connections, kept open for the next request."""

    def __init__(self, context: ssl.SSLContext, stall_s: float) -> None:
        self._context, self._stall_s = context, stall_s
        self._idle: list[tuple[_Host, _Connection]] = []
        self._busy: set[_Connection] = set()
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def one(self, host: _Host) -> Iterator[_Connection]:
        """Give a connection; it is kept if its answer was read to the end.

        Raises:
            PassingError: it broke, stalled, or could not be made.
            StorageError: the server is not who it says.
        """
        connection = self._taken(host)
        try:
            yield connection
        except ssl.SSLCertVerificationError as error:
            what = f"the server's certificate is not trusted: {error.verify_message}"
            fix = "name the authority's certificate in AWS_CA_BUNDLE"
            raise StorageError(what, where=host.name, fix=fix) from error
        except (OSError, HTTPException) as error:
            if connection.served:
                self.drop_idle()  # most likely the server closed them all
            raise PassingError(self._plain(error), at_once=connection.served) from error
        finally:
            self._give_back(host, connection)

    def _taken(self, host: _Host) -> _Connection:
        with self._lock:
            if self._closed:
                raise PassingError("closed")
            kept = next((entry for entry in reversed(self._idle) if entry[0] == host), None)
            if kept:
                self._idle.remove(kept)
            connection = kept[1] if kept else _Connection(self._made(host), self._stall_s)
            self._busy.add(connection)
            return connection

    def _give_back(self, host: _Host, connection: _Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            keep = connection.is_idle() and not self._closed
            if keep:
                connection.served = True
                self._idle.append((host, connection))
        if not keep:
            connection.close()

    def _made(self, host: _Host) -> HTTPConnection:
        """Return a connection, not yet opened; https goes through the proxy of the environment."""
        if host.scheme == "http":
            return HTTPConnection(host.name)
        proxy = urlsplit("" if proxy_bypass(host.name) else getproxies().get("https", ""))
        if not proxy.hostname:
            return HTTPSConnection(host.name, context=self._context)
        through = HTTPSConnection(proxy.hostname, proxy.port, context=self._context)
        secret = proxy.netloc.rpartition("@")[0]
        basic = f"Basic {b64encode(unquote(secret).encode()).decode()}"
        through.set_tunnel(host.name, headers={"Proxy-Authorization": basic} if secret else None)
        return through

    def _plain(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"nothing came for {self._stall_s:g} s"
        return str(getattr(error, "strerror", None) or error or type(error).__name__)

    def drop_idle(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def close(self) -> None:
        """Close them all; whoever waits for one is woken."""
        with self._lock:
            self._closed = True
            for connection in self._busy:
                connection.end()
        self.drop_idle()
