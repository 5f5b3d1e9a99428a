"""What units under way write down now and then, so that people see how they get on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

import msgspec

from wit_builder import storage
from wit_builder.errors import StorageError

EVERY_S = 5.0
"""Seconds between two looks, and between two of a unit's notes."""
_SUFFIX = ".now.json"


def place(root: str, generation: str, stage: str, unit: str) -> str:
    """Return where a unit may write down its counts so far; beside its marker."""
    return storage.join(root, "units", generation, stage, unit + _SUFFIX)


def tell(note: str, counts: dict[str, int]) -> None:
    """Write down a unit's counts so far.

    Raises:
        StorageError: disk full, no permission, bucket unreachable.
    """
    storage.publish_bytes(note, msgspec.json.encode(counts))


def told(folder: str, units: Iterable[str]) -> list[dict[str, int]]:
    """Return what units have written down, of those that have.

    Raises:
        StorageError: no permission, bucket unreachable.
    """
    notes = storage.read_many(storage.join(folder, unit + _SUFFIX) for unit in units)
    return [msgspec.json.decode(data, type=dict[str, int]) for data in notes.values()]


@contextlib.contextmanager
def watching(look: Callable[[], None]) -> Iterator[None]:
    """Have somebody look every few seconds meanwhile; storage that fails is looked at again."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            with contextlib.suppress(StorageError):
                look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
