"""Remote files: what may pass and what lasts, and how long to wait in between."""

from __future__ import annotations

import asyncio
import errno
import importlib
from typing import Any

import aiohttp
import fsspec
import pytest
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error

from wit_builder import ranges, remote
from wit_builder.errors import StorageError

botocore: Any = importlib.import_module("botocore.exceptions")  # it has no types


def said_by_s3(code: str) -> Exception:
    """Return what s3fs makes of an error code."""
    translated = translate_boto_error(botocore.ClientError({"Error": {"Code": code}}, "GetObject"))
    assert isinstance(translated, OSError)
    return translated


PASSING = [
    *map(said_by_s3, ["SlowDown", "503", "InternalError", "RequestTimeout", "502", "Throttling"]),
    FSTimeoutError(),
    TimeoutError(),
    ConnectionResetError(),
    OSError(errno.ENETUNREACH, "no route"),
    aiohttp.ClientPayloadError("not enough data"),
    aiohttp.ServerDisconnectedError(),
    botocore.EndpointConnectionError(endpoint_url="http://a.test"),
    botocore.ReadTimeoutError(endpoint_url="http://a.test"),
    botocore.ConnectionClosedError(endpoint_url="http://a.test"),
    botocore.ResponseStreamingError(error="reset"),
    botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2),
]
LASTING = [
    *map(said_by_s3, ["NoSuchKey", "NoSuchBucket", "AccessDenied", "InvalidRange", "403"]),
    botocore.NoCredentialsError(),
    aiohttp.InvalidURL("a"),
    IsADirectoryError(),
    ZeroDivisionError(),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    """Timeouts, broken connections and servers that are busy."""
    assert remote._may_pass(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_what_lasts_is_not_tried_again(error: Exception) -> None:
    """What is missing, forbidden or asked for wrongly; and our own faults."""
    assert not remote._may_pass(error)


def test_waiting_doubles_and_heeds_the_server_within_bounds() -> None:
    """Each wait is random between half of a bound and that bound, which doubles."""
    for tried in range(1, remote.TRIES):
        bound = remote.FIRST_DELAY_S * 2 ** (tried - 1)
        assert bound / 2 <= remote._delay_s(tried, OSError()) <= bound
    assert remote._delay_s(1, remote._AnswerError("busy", wait_s=20)) == 20
    assert remote._delay_s(1, remote._AnswerError("busy", wait_s=7200)) == remote.LONGEST_DELAY_S


def test_a_secret_in_a_cause_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect to a signed URL that fails is told without the signature."""
    monkeypatch.setattr(remote, "FIRST_DELAY_S", 0)

    async def failing() -> None:
        raise aiohttp.ClientError("at https://b.test/x?X-Amz-Signature=hush")

    with pytest.raises(StorageError, match="tried 6 times: at https") as caught:
        asyncio.run(remote.patiently(failing, "https://a.test/x"))
    assert "hush" not in str(caught.value)


def test_our_own_faults_are_not_disguised() -> None:
    """What is no failure of a file system is raised as it is."""

    async def faulty() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(remote.patiently(faulty, "https://a.test/x"))


def test_any_file_system_of_fsspec_is_read() -> None:
    """Also one that knows nothing of event loops; a folder in it is no file."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/folder/x", b"0123456789")
    with ranges.open_ranges("memory://folder/x", block_bytes=3) as stream:
        assert stream.read() == b"0123456789"
    with pytest.raises(StorageError, match="a folder stands"):
        ranges.open_ranges("memory://folder")
    memory.rm("/folder", recursive=True)
