"""A finished local file becomes an object in a bucket: in parts, each with a digest.

An S3 server refuses a part whose bytes do not have the MD5 that was sent with it, so damage on the
way is noticed there. The object appears once all parts are there, with the size of the file; an
upload that fails is aborted, and leaves nothing that is seen or paid for. (One that is killed
leaves parts that nobody sees; a rule of the bucket for incomplete uploads removes those.)
"""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

PART_BYTES = 16 << 20
"""A larger file goes in parts of so many bytes; of larger ones, if it has more than 10,000."""

_MAX_PARTS = 10_000
_AT_ONCE = 4
"""Parts that are in memory and under way."""


def upload(fs: Any, local: Path, path: str) -> None:
    """Let a file of an fsspec file system have a local file's bytes, whole or not at all.

    Raises:
        OSError: it does not arrive, or not whole; or whatever else the file system raises.
    """
    size = local.stat().st_size
    if "s3" not in fs.protocol:
        fs.put_file(str(local), path)
    else:
        sending = asyncio.run_coroutine_threadsafe(_S3(fs, path).send(local, size), fs.loop)
        try:
            sending.result()
        finally:
            sending.cancel()  # nothing, unless interrupted
        if size <= PART_BYTES:
            return  # one request, and the server has seen its digest
    if (found := fs.size(path)) != size:
        raise OSError(f"{found} bytes arrived, not {size}")


class _S3:
    """An object, by the requests that make it."""

    def __init__(self, fs: Any, path: str) -> None:
        bucket, key, _ = fs.split_path(path)
        self._call = fs._call_s3  # noqa: SLF001 - its public twin blocks, and must not run here
        self._place = {"Bucket": bucket, "Key": key}

    async def send(self, local: Path, size: int) -> None:
        if size <= PART_BYTES:
            await self._call("put_object", **self._place, **await _body(local, 0, size))
            return
        begun = await self._call("create_multipart_upload", **self._place)
        upload = {**self._place, "UploadId": begun["UploadId"]}
        try:
            parts = {"Parts": await self._parts(local, size, upload)}
            await self._call("complete_multipart_upload", **upload, MultipartUpload=parts)
        except BaseException:
            await self._call("abort_multipart_upload", **upload)
            raise

    async def _parts(self, local: Path, size: int, upload: dict[str, str]) -> list[dict[str, Any]]:
        part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))
        room = asyncio.Semaphore(_AT_ONCE)

        async def send(number: int, start: int) -> dict[str, Any]:
            async with room:
                body = await _body(local, start, part_bytes)
                sent = await self._call("upload_part", **upload, PartNumber=number, **body)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        try:
            async with asyncio.TaskGroup() as sending:
                starts = enumerate(range(0, size, part_bytes), 1)
                tasks = [sending.create_task(send(number, start)) for number, start in starts]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


async def _body(local: Path, start: int, length: int) -> dict[str, Any]:
    """Return some of a file's bytes, and their MD5, as a request's arguments."""

    def read() -> dict[str, Any]:
        with local.open("rb") as file:
            file.seek(start)
            data = file.read(length)
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        return {"Body": data, "ContentMD5": b64encode(digest).decode()}

    return await asyncio.to_thread(read)
