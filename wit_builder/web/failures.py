"""What an exception of the HTTP client means for the URL that was asked for."""

from __future__ import annotations

import errno
import ssl

import aiohttp

from wit_builder.errors import StorageError
from wit_builder.tables import Reason
from wit_builder.web.addresses import AddressRefusedError
from wit_builder.web.answer import Refusal

_OUR_OWN_FAULT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def refusal_of(error: Exception) -> Refusal:
    """Return the reason for a request that got no response.

    Raises:
        StorageError: the fault is this machine's.
    """
    causes = [error, getattr(error, "os_error", None), error.__cause__]
    if any(isinstance(c, OSError) and c.errno in _OUR_OWN_FAULT for c in causes):
        raise StorageError(
            f"this machine has no room for another connection: {words_of(error)}",
            where="fetch.concurrency",
            fix="lower it, or raise the limit on open files (ulimit -n)",
        ) from error
    refused = next((c for c in causes if isinstance(c, AddressRefusedError)), None)
    if refused is not None:
        return Refusal(Reason.PRIVATE_ADDRESS, words_of(refused))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Refusal(Reason.DNS_FAILED, words_of(error))
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError | ssl.CertificateError):
        return Refusal(Reason.TLS_FAILED, words_of(error))
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return Refusal(Reason.BAD_URL, words_of(error))
    return Refusal(Reason.CONNECT_FAILED, words_of(error))


def words_of(error: BaseException) -> str:
    """Return what an error says, in one line of at most 200 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
