"""Which web archives a source names: one by one, by patterns or listings, or a sample of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import xxhash

from wit_builder import storage
from wit_builder.errors import ArchiveError
from wit_builder.hashing import label_seed
from wit_builder.ranges import open_ranges
from wit_builder.sections import ArchiveSource


class Archive(NamedTuple):
    """A web archive to read, and what tells one version of it from the next."""

    place: str
    identity: str


def archives(source: ArchiveSource) -> list[Archive]:
    """Return the archives that a source names, each once, in order.

    Those of a listing are taken not to change, and are not looked up: there may be 100,000.

    Raises:
        ArchiveError: a listing has no paths, or the sample is empty.
        StorageError: a file or a listing is not there, or a pattern matches nothing.
    """
    found = dict(_named(source))
    seed = label_seed(source.sample_seed, "sample")
    below = source.sample * 2**64
    chosen = [p for p in found if _place(p, seed) < below]
    if not chosen:
        raise ArchiveError(
            f"the sample of {len(found)} archives is empty",
            where="crawl.sources sample",
            fix="raise it, or choose another sample_seed",
        )
    return [Archive(place, found[place] or _identity(place)) for place in chosen]


def _identity(place: str) -> str:
    """Return what tells one version of a file from the next.

    Of a web server's file it is its size alone, asked for as it will be read: fsspec takes any
    failure there for a missing file.
    """
    if not place.startswith(("http://", "https://")):
        return storage.identity(place)
    with open_ranges(place, ahead=0) as stream:
        return f"{storage.name_of(place)}:{stream.size}"


def _place(path: str, seed: int) -> int:
    return xxhash.xxh64_intdigest(storage.name_of(path).encode(), seed)


def _named(source: ArchiveSource) -> Iterator[tuple[str, str]]:
    """Yield places with their identities, empty where it must be looked up."""
    for pattern in source.paths:
        yield from ((place, "") for place in storage.glob(pattern))
    for listing in source.listings:
        for path in _listed(listing):
            yield storage.join(source.base, path), path


def _listed(listing: str) -> list[str]:
    data = storage.read_bytes(listing)
    try:
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ArchiveError(
            "not a listing of paths", where=storage.redact(listing), fix="download it again"
        ) from error
    paths = [line.strip() for line in text.splitlines() if line.strip()]
    if not paths or any("\0" in path or "<" in path for path in paths):
        raise ArchiveError(
            "not a listing of paths, one a line",
            where=storage.redact(listing),
            fix="give one such as Common Crawl's wat.paths.gz",
        )
    return paths
