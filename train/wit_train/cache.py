"""Blocks kept on local disk, for all processes of a node, up to a size.

    FOLDER/used                  the books: bytes of all entries, at least (8 bytes, little-endian);
                                 locked while it is changed, and while entries are removed
    FOLDER/DATASET/BLOCK-XXH3    an entry: a block's bytes
    FOLDER/DATASET/.NAME.*.part  one that is being written, by a process that holds a lock on it

An entry appears by a rename, whole; its space is booked before it is written, so what a killed
process leaves makes the books too high, never too low. Counting anew puts them right: when a cache
is opened, and when it is full. Then the entries that were not read for the longest time go.
Whoever reads an entry checks its digest, so nothing is synced to disk.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from wit_builder.errors import StorageError

_KEPT_SHARE = 0.9
_LOG = logging.getLogger(__name__)

Name = tuple[str, str]
"""Of an entry: of its data set, and of its block."""


class _Entry(NamedTuple):
    used_at_ns: int
    path: str
    size: int


class Cache:
    """Entries in a folder; used by many threads and processes at once."""

    def __init__(self, folder: str, size_bytes: int) -> None:
        """Open or make a cache, and clear away what killed processes left.

        Args:
            folder: on a local disk; used for nothing else.
            size_bytes: the most that all entries together may take.

        Raises:
            StorageError: the folder cannot be written.
        """
        self._folder, self._size = Path(folder), size_bytes
        self._writes = True
        self._threads = threading.Lock()  # flock is between processes; a descriptor is one holder
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._used = os.open(self._folder / "used", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            with self._locked():
                self._make_room(0)
        except OSError as error:
            raise StorageError(
                f"cannot keep a cache here: {error.strerror}",
                where=folder,
                fix="name a folder on a local disk that can be written, or set no cache",
            ) from error

    def read(self, name: Name, into: memoryview) -> bool:
        """Return whether there is an entry of that length, and fill ``into`` with it."""
        path = self._folder.joinpath(*name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            self._give_up(error)
            return False
        try:
            os.utime(descriptor)
            return os.fstat(descriptor).st_size == len(into) == os.preadv(descriptor, [into], 0)
        except OSError as error:
            self._give_up(error)
            return False
        finally:
            os.close(descriptor)

    def write(self, name: Name, data: memoryview) -> None:
        """Keep an entry. A disk that is full or fails ends the keeping, and nothing else."""
        if not self._writes or len(data) > self._size:
            return
        try:
            path = self._folder.joinpath(*name)
            path.parent.mkdir(exist_ok=True)
            with self._locked():
                if not self._book(len(data)):
                    return
                part, descriptor = _begun(path, len(data))
            try:
                _fill(descriptor, data)
                with self._locked():  # else whoever counts could miss it between its two names
                    part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            self._give_up(error)

    def drop(self, name: Name) -> None:
        """Remove an entry, which was damaged; its space is free from the next count on."""
        with suppress(OSError):
            self._folder.joinpath(*name).unlink(missing_ok=True)

    def _book(self, size: int) -> bool:
        """Add to the books, if there is room, or can be made; return whether there is."""
        used = int.from_bytes(os.pread(self._used, 8, 0), "little")
        if used + size > self._size:
            used = self._make_room(size)
        fits = used + size <= self._size  # not, if other processes are writing as much
        if fits:
            self._set_used(used + size)
        return fits

    def _make_room(self, size: int) -> int:
        """Count anew, and remove entries until there is room for more; return the bytes in use."""
        entries, used = self._counted()
        if used + size > self._size:
            for entry in sorted(entries):
                if used + size <= self._size * _KEPT_SHARE:
                    break
                with suppress(FileNotFoundError):
                    Path(entry.path).unlink()
                used -= entry.size
        self._set_used(used)
        return used

    def _set_used(self, used: int) -> None:
        os.pwrite(self._used, used.to_bytes(8, "little"), 0)

    def _counted(self) -> tuple[list[_Entry], int]:
        """Return the entries, and the bytes in use, unfinished ones included."""
        entries, unfinished = list[_Entry](), 0
        for folder in self._folder.iterdir():
            if not folder.is_dir():
                continue
            for file in os.scandir(folder):
                with suppress(FileNotFoundError):
                    about = file.stat()
                    if not file.name.endswith(".part"):
                        entries.append(_Entry(about.st_mtime_ns, file.path, about.st_size))
                    elif not _was_left(Path(file.path)):
                        unfinished += about.st_size
        return entries, unfinished + sum(entry.size for entry in entries)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._threads:
            fcntl.flock(self._used, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._used, fcntl.LOCK_UN)

    def _give_up(self, error: OSError) -> None:
        """Write no more, and say so once."""
        if self._writes:
            self._writes = False
            _LOG.warning("no more is cached in %s: %s", self._folder, error.strerror)


def _begun(path: Path, size: int) -> tuple[Path, int]:
    """Return an unfinished entry of its full size, and its descriptor, which holds a lock on it."""
    descriptor, part = tempfile.mkstemp(".part", f".{path.name}.", path.parent)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.ftruncate(descriptor, size)  # so that whoever counts, counts all of it
    return Path(part), descriptor


def _fill(descriptor: int, data: memoryview) -> None:
    at = 0
    while at < len(data):
        at += os.pwrite(descriptor, data[at:], at)


def _was_left(part: Path) -> bool:
    """Remove an unfinished entry that no process writes any more; return whether it was one."""
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
