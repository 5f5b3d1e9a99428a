"""Files that go to a real S3 server, in one piece or in parts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.retryhandler
import pytest

from wit_builder import storage, uploads
from wit_builder.errors import StorageError

pytestmark = pytest.mark.s3


@pytest.fixture
def part_bytes(monkeypatch: pytest.MonkeyPatch) -> int:
    """The smallest parts that S3 allows."""
    monkeypatch.setattr(uploads, "PART_BYTES", 5 << 20)
    return 5 << 20


def publish(url: str, data: bytes) -> None:
    with storage.publish(url) as path:
        path.write_bytes(data)


def call(url: str, method: str, **arguments: Any) -> Any:
    fs, path = storage.filesystem(url)
    bucket, key, _ = fs.split_path(path)
    if method == "list_multipart_uploads":
        arguments["Prefix"] = key
    else:
        arguments["Key"] = key
    return fs.call_s3(method, Bucket=bucket, **arguments)


@pytest.mark.parametrize("more", [-1, 0, 1, (12 << 20) + 1])
def test_what_is_published_is_what_arrives(s3_folder: str, part_bytes: int, more: int) -> None:
    """A file of one part, or of several, has its bytes and its size."""
    data = os.urandom(part_bytes + more)
    publish(f"{s3_folder}/x", data)
    assert storage.read_bytes(f"{s3_folder}/x") == data
    is_in_parts = "-" in call(f"{s3_folder}/x", "head_object")["ETag"]
    assert is_in_parts == (more > 0)


def test_a_part_that_changes_on_its_way_is_refused(
    s3_folder: str, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server compares what comes with the digest; nothing appears, no part is left."""
    body = uploads._body

    async def damaged(local: Path, start: int, length: int) -> dict[str, Any]:
        sent = await body(local, start, length)
        return sent | {"Body": b"?" + sent["Body"][1:]} if start else sent

    monkeypatch.setattr(uploads, "_body", damaged)
    # it sends a refused part four times more, without the seconds in between that it draws
    monkeypatch.setattr(botocore.retryhandler, "random", SimpleNamespace(random=lambda: 0.0))
    with pytest.raises(StorageError, match="cannot write"):
        publish(f"{s3_folder}/x", os.urandom(3 * part_bytes))
    assert not storage.exists(f"{s3_folder}/x")
    assert not call(f"{s3_folder}/x", "list_multipart_uploads").get("Uploads")


def test_a_failed_upload_leaves_what_was_there(
    s3_folder: str, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object stays as it was until the whole of its successor is there."""
    publish(f"{s3_folder}/x", b"before")

    async def never(local: Path, start: int, length: int) -> dict[str, Any]:
        del local, length
        await asyncio.sleep(0)
        raise OSError(f"nothing to send from byte {start}")

    monkeypatch.setattr(uploads, "_body", never)
    with pytest.raises(StorageError, match="nothing to send from byte 0"):
        publish(f"{s3_folder}/x", bytes(3 * part_bytes))
    assert storage.read_bytes(f"{s3_folder}/x") == b"before"
    assert not call(f"{s3_folder}/x", "list_multipart_uploads").get("Uploads")


def test_fewer_bytes_than_were_sent_are_noticed(
    s3_folder: str, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object of another size than its file is an error."""
    fs, _ = storage.filesystem(f"{s3_folder}/x")
    monkeypatch.setattr(fs, "size", lambda _path: 7)
    with pytest.raises(StorageError, match="7 bytes arrived"):
        publish(f"{s3_folder}/x", bytes(2 * part_bytes))
