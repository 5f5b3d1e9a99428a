"""Files and buckets through fsspec; what is published appears whole or not at all.

A place is a plain string: a local path, or a URL such as ``s3://bucket/prefix/name``. Credentials
come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, profiles); a URL that
carries them is refused, so that no secret can reach a log or a recipe on disk.

Local publishing writes ``.NAME.HOST.PID.part`` beside the target, syncs it and renames it. Remote
publishing uploads a finished local file, large ones in parts with digests (``uploads``); object
stores show an object only once it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import xxhash

from wit_builder import uploads
from wit_builder.errors import GoneError, MissingPartError, StorageError

_COPY_BYTES = 8 << 20


class Published(msgspec.Struct, frozen=True):
    """A file as it was published: its place, size in bytes, and xxh3-64 hex digest."""

    url: str
    size_bytes: int
    xxh3: str


def is_remote(url: str) -> bool:
    """Return whether the place is a URL of a remote file system, not a local path."""
    return "://" in url and not url.startswith(("file://", "local://"))


def join(base: str, *parts: str) -> str:
    """Return the place below ``base``, with single slashes between its parts."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def name_of(url: str) -> str:
    """Return the last part of a place."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def redact(url: str) -> str:
    """Return the place with credentials and query strings (signed URLs) blanked out."""
    return re.sub(r"\?.*", "?...", redact_credentials(url))


def redact_credentials(url: str) -> str:
    """Return the URL with user name and password blanked out."""
    return re.sub(r"://[^/?#]*@", "://***@", url)


def refuse_credentials(url: str) -> None:
    """Refuse a URL that carries a user name, a password, or a query, which may be a signature.

    Raises:
        StorageError: it does.
    """
    if is_remote(url) and re.search(r"\?.*=", url):
        raise StorageError(
            "a URL must not carry a query, which may be a secret",
            where=redact(url),
            fix="download the file, or give credentials in the environment",
        )
    if is_remote(url) and "@" in urlsplit(url).netloc:
        raise StorageError(
            "a URL must not carry credentials",
            where=redact(url),
            fix="put them in the environment (AWS_ACCESS_KEY_ID, ...) or a profile",
        )


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a place, and its path in it.

    Raises:
        StorageError: unknown protocol, or credentials in the URL.
        MissingPartError: the protocol needs a package that is not installed.
    """
    refuse_credentials(url)
    options: dict[str, Any] = {"use_listings_cache": False} if is_remote(url) else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise MissingPartError(
            "reading this place needs a package that is not installed",
            where=redact(url),
            fix="pip install 'wit-builder[s3]'" if url.startswith("s3") else str(error),
        ) from error
    except ValueError as error:
        raise StorageError("unknown kind of place", where=redact(url), fix=str(error)) from error
    return fs, path


_ADVICE: dict[type[BaseException], tuple[str, str]] = {
    FileNotFoundError: ("no such file", "check the path; is an earlier stage missing?"),
    PermissionError: ("permission denied", "check rights or credentials"),
    IsADirectoryError: ("a folder stands where a file is needed", "name a file"),
    NotADirectoryError: ("a file stands where a folder is needed", "name a folder"),
}


@contextlib.contextmanager
def translated(url: str, doing: str) -> Iterator[None]:
    """Turn what a file system raises into one ``StorageError`` that names the place and the fix."""
    try:
        yield
    except OSError as error:
        raise _translate(error, url, doing) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in {"botocore", "aiobotocore", "aiohttp"}:
            raise
        raise StorageError(
            f"cannot {doing}: {_plain(error)}",
            where=redact(url),
            fix="check endpoint, bucket and credentials (AWS_* in the environment)",
        ) from error


def _translate(error: OSError, url: str, doing: str) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"cannot {doing}: the disk is full", where=redact(url), fix="free space and start again"
        )
    for kind, (what, fix) in _ADVICE.items():
        if isinstance(error, kind):
            raised = GoneError if kind is FileNotFoundError else StorageError
            return raised(f"cannot {doing}: {what}", where=redact(url), fix=fix)
    return StorageError(
        f"cannot {doing}: {_plain(error)}",
        where=redact(url),
        fix="check the place, then start again",
    )


def _plain(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact(" ".join(str(text).split()))[:300]


def exists(url: str) -> bool:
    """Return whether a file or folder is there."""
    fs, path = filesystem(url)
    with translated(url, "look up"):
        return bool(fs.exists(path))


def size_of(url: str) -> int:
    """Return a file's size in bytes.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    fs, path = filesystem(url)
    with translated(url, "look up"):
        return int(fs.size(path))


def identity(url: str) -> str:
    """Return a string that changes when a source file does: name, size, and ETag or mtime.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    fs, path = filesystem(url)
    with translated(url, "look up"):
        info = fs.info(path)
    stamp = info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""
    return f"{name_of(url)}:{info['size']}:{stamp}"


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Return the places of the files directly in a folder, sorted; empty if there is no folder.

    Hidden names (unpublished parts among them) are left out.
    """
    names = (n for n in sizes(folder) if n.endswith(suffix) and not n.startswith("."))
    return sorted(join(folder, n) for n in names)


def sizes(folder: str) -> dict[str, int]:
    """Return the sizes in bytes of the files directly in a folder, by name; empty if none."""
    return {name_of(e["name"]): int(e["size"]) for e in _entries(folder) if e["type"] == "file"}


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders directly in a folder, sorted; empty if there is none."""
    return sorted(name_of(e["name"]) for e in _entries(folder) if e["type"] == "directory")


def _entries(folder: str) -> list[dict[str, Any]]:
    fs, path = filesystem(folder)
    with translated(folder, "list"):
        try:
            return list(fs.ls(path, detail=True))
        except FileNotFoundError:
            return []


def glob(pattern: str) -> list[str]:
    """Return the places matching a shell pattern, sorted; a plain place stands for itself.

    Raises:
        StorageError: nothing matches.
    """
    if not any(c in pattern for c in "*?[") or exists(pattern):
        return [pattern]
    fs, path = filesystem(pattern)
    with translated(pattern, "list"):
        found = [str(p) for p in fs.glob(path)]
    if not found:
        raise StorageError("nothing matches", where=redact(pattern), fix="check the pattern")
    return sorted(fs.unstrip_protocol(p) if is_remote(pattern) else p for p in found)


def open_read(url: str, block_bytes: int = 4 << 20) -> IO[bytes]:
    """Return a readable, seekable binary stream of a file; the caller closes it.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    fs, path = filesystem(url)
    with translated(url, "read"):
        stream: IO[bytes] = fs.open(path, "rb", block_size=block_bytes)
        return stream


def read_bytes(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return a file's bytes, or those of ``[start, end)``.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    fs, path = filesystem(url)
    with translated(url, "read"):
        return bytes(fs.cat_file(path, start=start, end=end))


def read_many(urls: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes of those files that exist, by place; remote ones are read concurrently."""
    wanted = list(urls)
    if not wanted:
        return {}
    fs, _ = filesystem(wanted[0])
    # not fs.cat: it takes brackets in a path for a pattern
    found = fs.cat_ranges([filesystem(u)[1] for u in wanted], None, None, on_error="return")
    out: dict[str, bytes] = {}
    for url, content in zip(wanted, found, strict=True):
        if isinstance(content, bytes):
            out[url] = content
        elif not isinstance(content, FileNotFoundError):
            with translated(url, "read"):
                raise content
    return out


@contextlib.contextmanager
def publish(url: str) -> Iterator[Path]:
    """Give a temporary local file to write to; publish it under its name on a clean exit.

    On any error the temporary file is removed and nothing appears. An existing file is replaced.

    Raises:
        StorageError: disk full, no permission, bucket unreachable.
    """
    fs, path = filesystem(url)
    if is_remote(url):
        with tempfile.TemporaryDirectory(prefix="wit-") as folder:
            part = Path(folder) / name_of(url)
            with translated(url, "write"):
                yield part
                uploads.upload(fs, part, path)
        return
    target = Path(path)
    part = target.parent / f".{target.name}.{socket.gethostname()}.{os.getpid()}.part"
    with translated(url, "write"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            _sync(part)
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_file(path: Path) -> str:
    """Return the xxh3-64 hex digest of a local file."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as stream:
        while chunk := stream.read(_COPY_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def publishing(url: str, into: list[Published]) -> Iterator[Path]:
    """Do as ``publish``, and append what was published to ``into``."""
    with publish(url) as path:
        yield path
        record = Published(url, path.stat().st_size, digest_file(path))
    into.append(record)


def publish_bytes(url: str, data: bytes) -> Published:
    """Publish bytes under a name, atomically.

    Raises:
        StorageError: disk full, no permission, bucket unreachable.
    """
    done: list[Published] = []
    with publishing(url, done) as path:
        path.write_bytes(data)
    return done[0]


def write_parquet(url: str, table: pa.Table, group_rows: int | None = None) -> Published:
    """Publish a table as parquet (zstd); the same table (and rows a group) gives the same bytes.

    Raises:
        StorageError: disk full, no permission, bucket unreachable.
    """
    done: list[Published] = []
    with publishing(url, done) as path:
        pq.write_table(table, path, row_group_size=group_rows, compression="zstd")
    return done[0]


@contextlib.contextmanager
def parquet_writer(
    url: str, schema: pa.Schema, published: list[Published]
) -> Iterator[pq.ParquetWriter]:
    """Give a writer of parquet (zstd), a row group a table; publish the file on a clean exit.

    On any error nothing appears.

    Raises:
        StorageError: disk full, no permission, bucket unreachable.
    """
    with (
        publishing(url, published) as path,
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        yield writer


@contextlib.contextmanager
def open_arrow(url: str) -> Iterator[pa.NativeFile]:
    """Give a file for Arrow to read; nothing of it may be read with threads if it is remote.

    A local file has no Python in it: should one of Arrow's threads be the last to let go of a
    Python object, while the interpreter ends, the process would abort.

    Raises:
        StorageError: it is not there, or what is read of it is damaged.
    """
    with translated(url, "read"):
        try:
            if is_remote(url):
                with open_read(url) as stream:
                    yield pa.PythonFile(stream, mode="r")
            else:
                with pa.OSFile(filesystem(url)[1]) as file:
                    yield file
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StorageError(
                f"not a readable Arrow or parquet file: {_plain(error)}",
                where=redact(url),
                fix="remove it and start again: its unit will be done anew",
            ) from error


def read_parquet(url: str, columns: list[str] | None = None) -> pa.Table:
    """Return a parquet file's table, or some of its columns.

    Raises:
        StorageError: not there, not readable, not parquet, or without one of the columns.
    """
    with open_arrow(url) as file:
        table = pq.ParquetFile(file).read(columns=columns, use_threads=not is_remote(url))
    _refuse_missing(columns or [], table.column_names, url)
    return table


def _refuse_missing(columns: list[str], names: list[str], url: str) -> None:
    if missing := set(columns) - set(names):
        raise StorageError(
            f"the table has no column {', '.join(sorted(missing))}",
            where=redact(url),
            fix="is it of another kind, or of another version of this program?",
        )


def parquet_batches(
    url: str, columns: list[str], batch_rows: int = 1 << 18
) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a parquet file, so many rows at a time.

    Raises:
        StorageError: not there, not readable, not parquet, or without one of the columns.
    """
    with open_arrow(url) as file:
        parquet = pq.ParquetFile(file)
        _refuse_missing(columns, parquet.schema_arrow.names, url)
        yield from parquet.iter_batches(batch_rows, columns=columns, use_threads=False)


def read_batches(url: str) -> Iterator[pa.Table]:
    """Yield an Arrow IPC file's record batches in order, one in memory at a time.

    Raises:
        StorageError: not there, not readable, or not an Arrow IPC file.
    """
    with open_arrow(url) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(i)])


def remove(url: str) -> None:
    """Remove a file, or a folder with all in it; nothing there is fine.

    Raises:
        StorageError: no permission, bucket unreachable.
    """
    fs, path = filesystem(url)
    with translated(url, "remove"), contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)
