"""Ranges of objects in a bucket, fetched by obstore (Rust's object_store).

s3fs says who we are and where the bucket is: endpoint, region, style of address, credentials and
their renewal are those of its client, so what works for tables works for shards. Why obstore
fetches: docs/decisions/0041.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import botocore.credentials
import botocore.exceptions
import botocore.httpsession
import fsspec.asyn
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from wit_builder import storage
from wit_builder.errors import GoneError, StorageError
from wit_train.places import PassingError, may_pass, passing_status

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import ClientConfig, S3Credential

_PIECE_BYTES = 256 << 10
_KEYS_KEPT_S = 60.0
_REQUEST = timedelta(hours=1)  # obstore's own is 30 s; the deadline of a read is kept here
_PASSING_CODES = {
    "ExpiredToken",
    "InternalError",
    "RequestTimeout",
    "SlowDown",
    "TokenRefreshRequired",
}
_NOT_PLAIN = re.compile(r"s3a?://(arn:|[^/]*--x-s3/|.*/(\.\.?)?/)")


def is_plain(url: str) -> bool:
    """Return whether obstore reads it as we ask: no access point, no directory bucket.

    Nor a key with an empty part, ``.`` or ``..``, which are no names to it.
    """
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
        self._account = _Account(url, stall_s)
        self._stall_s = stall_s
        self._closed = False

    def read(self, url: str, offset: int, into: memoryview, until: float) -> int:
        """See ``places.Place``."""
        store, key = self._account.store(), self._account.key(url)
        asked: GetOptions = {"range": (offset, offset + len(into))}
        try:
            answer = obstore.get(store, key, options=asked)
            end = min(offset + len(into), answer.meta["size"])
            if tuple(answer.range) != (offset, end):
                raise PassingError("another range came")
            return self._copied(answer, into[: end - offset], until)
        except (BaseError, FileNotFoundError) as error:
            failure = _Failure.of(error)
            if failure.status == 416:  # the object ends before the range
                return 0
            raise self._refused(failure, url) from error

    def _copied(self, answer: GetResult, into: memoryview, until: float) -> int:
        """Copy an answer in pieces: each is in the CPU's cache, which saves a tenth."""
        at = 0
        for piece in answer.stream(_PIECE_BYTES):
            if self._closed or time.monotonic() > until:
                raise PassingError("")  # the reason is that of the try before
            if at + len(piece) > len(into):
                raise PassingError("more came than the range")
            into[at : at + len(piece)] = memoryview(piece)
            at += len(piece)
        if at < len(into):
            raise PassingError(f"the connection broke after {at} of {len(into)} bytes")
        return at

    def _refused(self, failure: _Failure, url: str) -> Exception:
        """Return the error that a failure is."""
        said, where = failure.said(self._stall_s), storage.redact(url)
        if failure.code == "ExpiredToken":
            self._account.forget()
        if failure.is_passing():
            return PassingError(said)
        if failure.status == 404:
            what = "the bucket is gone" if failure.code == "NoSuchBucket" else "no such shard"
            fix = "check the place; run `wit verify`"
            return GoneError(f"{what}: {said}", where=where, fix=fix)
        if failure.is_elsewhere() and self._account.move():
            return PassingError(said, at_once=True)
        fix = "check credentials, region and the bucket's policy (AWS_* in the environment)"
        if failure.mistrust():
            fix = "name the authority's certificate in AWS_CA_BUNDLE; a server's own has CA:FALSE"
        return StorageError(f"cannot read: {said}", where=where, fix=fix)

    def renew(self) -> None:
        """See ``places.Place``."""
        self._account.forget()

    def close(self) -> None:
        """See ``places.Place``; a connection that is silent keeps its reader for ``stall_s``."""
        self._closed = True
        self._account.forget()


class _Failure(NamedTuple):
    """What obstore's error tells: it has texts only. They may tell more than we want to pass on."""

    text: str
    status: int
    code: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        text = str(error)
        status = re.search(r"status code: ([0-9]{3})", text)
        code = re.search(r"<Code>(\w{1,64})</Code>", text)
        return cls(text, int(status[1]) if status else 0, code[1] if code else "")

    def is_passing(self) -> bool:
        """Return whether another try may go well."""
        if self.status:
            return passing_status(self.status) or self.code in _PASSING_CODES
        return not (self.mistrust() or re.search("BareRedirect|NotPartial", self.text))

    def mistrust(self) -> str:
        """Return why the server's certificate is not trusted; empty if that is not the reason."""
        found = re.search(r"InvalidCertificate\((?:\s*Other\w*\()*\s*(\w+)", self.text)
        return found[1] if found else ""

    def is_elsewhere(self) -> bool:
        """Return whether the bucket may be in another region."""
        return "BareRedirect" in self.text or self.status in {400, 403}

    def said(self, stall_s: float) -> str:
        """Return it in words: the server's status and code, or the cause of a broken connection."""
        if self.status:
            return f"the server answers {self.status} {self.code}".strip()
        if why := self.mistrust():
            return f"the server's certificate is not trusted: {why}"
        if "TimedOut" in self.text:
            return f"nothing came for {stall_s:g} s"
        cause = re.search(r'(?:message|error): "([^"]{1,200})"', self.text)
        first = self.text.partition("\n")[0].rpartition(" - ")[2]
        return cause[1] if cause else storage.redact(first)[:200]


class _Account:
    """Who asks, and where the bucket is, by the client of s3fs."""

    def __init__(self, url: str, stall_s: float) -> None:
        self._fs, path = storage.filesystem(url)
        self._url, self._stall = url, timedelta(seconds=stall_s)
        self._bucket, _, _ = self._fs.split_path(path)
        with _told(url):
            self._client: Any = fsspec.asyn.sync(self._fs.loop, self._fs.set_session)
            self._base = self._where()
        region = self._client.meta.region_name
        self._region = "us-east-1" if region in {None, "aws-global"} else region
        self._lock = threading.Lock()
        self._store: S3Store | None = None
        self._keys: S3Credential | None = None
        self._keys_until = 0.0

    def key(self, url: str) -> str:
        """Return an object's name in the bucket."""
        return str(self._fs.split_path(url)[1])

    def store(self) -> S3Store:
        """Return the client, a new one if the credentials are new."""
        with self._lock:
            if not self._fs.anon and time.monotonic() > self._keys_until:
                keys, before = self._asked_keys(), self._keys
                self._keys, self._keys_until = keys, time.monotonic() + _KEYS_KEPT_S
                self._store = self._store if keys == before else None
            if self._store is None:
                self._store = self._made()
            return self._store

    def forget(self) -> None:
        """Connect and ask for the credentials anew before the next request."""
        with self._lock:
            self._store, self._keys_until = None, 0.0

    def move(self) -> bool:
        """Ask s3fs in which region the bucket is; return whether that is new."""
        with self._lock, suppress(OSError, botocore.exceptions.BotoCoreError):
            answer = self._fs.call_s3("head_bucket", Bucket=self._bucket)["ResponseMetadata"]
            region = answer["HTTPHeaders"].get("x-amz-bucket-region", self._region)
            if region != self._region:
                self._base, self._region, self._store = self._where(), region, None
                return True
        return False

    def _where(self) -> str:
        """Return the URL that a key is added to. The signature that comes with it is not used."""
        asked = {"Bucket": self._bucket, "Key": "k"}
        make = self._client.generate_presigned_url
        signed: str = fsspec.asyn.sync(self._fs.loop, make, "get_object", asked)
        return signed.partition("?")[0].removesuffix("/k")

    def _made(self) -> S3Store:
        """Return a client; what the environment says is said here, too, as obstore reads it."""
        keys = self._keys
        return S3Store(
            self._bucket,
            aws_endpoint_url_s3=self._base,
            virtual_hosted_style_request=True,  # the bucket is in the URL, wherever it stands
            region=self._region,
            skip_signature=bool(self._fs.anon),
            request_payer=bool(self._fs.req_kw.get("RequestPayer")),
            client_options={
                "allow_http": True,
                "timeout": _REQUEST,
                "connect_timeout": self._stall,
                "read_timeout": self._stall,
                **self._tls(),
            },
            retry_config={"max_retries": 0},
            credential_provider=(lambda: keys) if keys else None,
        )

    def _tls(self) -> ClientConfig:
        verify = self._fs.client_kwargs.get("verify")
        if verify is None:
            verify = self._fs.session.get_config_variable("ca_bundle") or True
        if verify is False:
            return {"allow_invalid_certificates": True}
        return {"root_certificate": Path(botocore.httpsession.get_cert_path(verify)).read_bytes()}

    def _asked_keys(self) -> S3Credential:
        try:
            with _told(self._url):
                keys = fsspec.asyn.sync(self._fs.loop, self._found_keys)
        except StorageError as error:
            if may_pass(error):  # such as a service for instances' roles that does not answer
                raise PassingError(error.what) from error
            raise
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": None,  # we ask from time to time
        }

    async def _found_keys(self) -> Any:
        fs = self._fs
        if fs.key:
            return botocore.credentials.Credentials(fs.key, fs.secret, fs.token)
        found = await fs.session.get_credentials()
        if found is None:
            raise botocore.exceptions.NoCredentialsError
        return await found.get_frozen_credentials()  # renews those that end


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
