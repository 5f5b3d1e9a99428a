"""One process at a time in a run's folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from wit_builder import storage
from wit_builder.errors import StorageError


@contextlib.contextmanager
def alone(root: str) -> Iterator[None]:
    """Hold a local folder for this process; the hold ends with it, however it ends.

    A bucket has no such thing: there, starting twice is the user's to avoid.

    Raises:
        StorageError: another process holds it, or it cannot be written to.
    """
    if storage.is_remote(root):
        yield
        return
    folder = Path(storage.filesystem(root)[1])
    with storage.translated(root, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        _hold(descriptor, root)
        yield
    finally:
        os.close(descriptor)


def _hold(descriptor: int, root: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(
            "another wit is at work in this folder", where=root, fix="wait for it, or stop it"
        ) from error
    except OSError:  # a file system without locks: there it is as with a bucket
        return
