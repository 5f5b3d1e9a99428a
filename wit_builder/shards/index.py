"""Make a data set of WebDataset shards that are there already: ``wit index``.

Every shard is read once (``survey``), a unit each, and left as and where it is. What comes of it is
published beside, as for our own shards: manifest, block table, ``sizes.json``, ``dataset.json``,
which says where the shards are. Nothing but that place depends on where all this stands.

``DIR/.index`` keeps what was found of each shard, so that starting again does only what is missing
or has changed.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import NamedTuple

import msgspec
from msgspec.structs import asdict, replace

from wit_builder import lock, remote, storage
from wit_builder.errors import GoneError, ShardFormatError, StorageError
from wit_builder.progress import Observer
from wit_builder.recipe import digest
from wit_builder.runners import Runner
from wit_builder.shards import layout
from wit_builder.shards.faults import Fault
from wit_builder.shards.layout import MAX_BLOCK_BYTES, Foreign
from wit_builder.shards.manifest import publish_indexed
from wit_builder.shards.read import expand
from wit_builder.shards.survey import MAX_SAMPLE_BYTES, Survey, survey
from wit_builder.units import Done, Run, Stage, Unit

WORK = ".index"
"""Folder, in the data set's, of what was found shard by shard."""

_LOOK_UPS = 16
_READ_AT_ONCE = 1000
_OPENING_BYTES = 8 << 20
_VERSION = 1
"""Raised when the same shard would be cut otherwise."""
_COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst|lz4))$", re.IGNORECASE)


class Indexed(msgspec.Struct, frozen=True):
    """What was indexed.

    Attributes:
        shards, samples, bytes: of the data set.
        counts: what was left out, and why; see ``survey.Survey``.
        missing: places of shards that were to be there and are not.
        faults: the first of each shard.
    """

    shards: int
    samples: int
    bytes: int
    counts: dict[str, int]
    missing: list[str]
    faults: list[Fault]


class ShardJob(msgspec.Struct, frozen=True):
    """One shard: where it is, what the manifest calls it, and where its survey goes."""

    place: str
    name: str
    foreign: Foreign
    out: str


class _Shard(NamedTuple):
    place: str
    identity: str
    """Changes when the shard does."""


class Asked(msgspec.Struct, frozen=True):
    """What to index.

    Attributes:
        patterns: of tars, local or remote: with braces (``{00000..00331}``) or ``*``, or folders.
        foreign: which members are pictures and captions; its ``root`` is found out.
        skip_missing: leave out shards that are not there.
    """

    patterns: list[str]
    foreign: Foreign
    skip_missing: bool = False


def members(image: str, caption: str) -> Foreign:
    """Return which members are meant by ``jpg,png`` and ``txt``, or ``json:KEY``.

    Raises:
        ShardFormatError: one of them names nothing.
    """
    endings, _, key = caption.partition(":")
    pictures, captions = _endings(image), _endings(endings)
    if not pictures or not captions or (":" in caption and not key):
        raise ShardFormatError(
            "nothing is named",
            where=f"--caption {caption}" if pictures else f"--image {image}",
            fix="write endings, e.g. --image jpg,png --caption txt, or --caption json:KEY",
        )
    return Foreign(root="", image=pictures, caption=captions, caption_key=key)


def _endings(text: str) -> tuple[str, ...]:
    named = (ending.strip().lstrip(".").lower() for ending in text.split(","))
    return tuple(ending for ending in named if ending)


def index(asked: Asked, out: str, runner: Runner, observer: Observer) -> Indexed:
    """Publish the tables of a data set whose shards are those of others.

    Args:
        asked: which shards, and which of their members.
        out: the data set's folder, which may be the one that the shards are in.
        runner: who does the work.
        observer: who is told how it gets on.

    Raises:
        ShardFormatError: no pair in all of the shards; a packed data set is in the way.
        StorageError: nothing to index, shards are missing, or something cannot be written.
        UnitsFailedError: some shards cannot be read, or are no tars.
    """
    out = out.rstrip("/")
    _refuse_packed(out)
    shards, missing = look_up(places_of(asked.patterns), skip_missing=asked.skip_missing)
    root = root_of([shard.place for shard in shards])
    names = [_absolute(shard.place).removeprefix(root.rstrip("/") + "/") for shard in shards]
    foreign = replace(asked.foreign, root="" if root == _absolute(out) else root)
    work = storage.join(out, WORK)
    jobs = [
        ShardJob(s.place, n, foreign, storage.join(work, "surveys", f"{unit_name(n)}.json"))
        for s, n in zip(shards, names, strict=True)
    ]
    units = [
        Unit(unit_name(j.name), [s.identity, j.name], j) for s, j in zip(shards, jobs, strict=True)
    ]
    settings = [_VERSION, MAX_BLOCK_BYTES, MAX_SAMPLE_BYTES, asdict(replace(foreign, root=""))]
    with lock.alone(work):
        Run(work, runner, observer).do(Stage("index", run, units, settings))
        surveys = list(_surveys([job.out for job in jobs]))
        return _publish(out, foreign, surveys, missing)


def run(job: ShardJob) -> Done:
    """Publish the survey of a shard.

    Raises:
        ShardFormatError: no tar.
        StorageError: it cannot be read, or the survey cannot be written.
    """
    found = survey(job.place, job.name, job.foreign)
    published = storage.publish_bytes(job.out, msgspec.json.encode(found))
    return Done([published], {**found.counts, "bytes": found.record.bytes})


def _surveys(urls: list[str]) -> Iterator[Survey]:
    for start in range(0, len(urls), _READ_AT_ONCE):
        some = urls[start : start + _READ_AT_ONCE]
        found = storage.read_many(some)
        yield from (msgspec.json.decode(found[url], type=Survey) for url in some)


def unit_name(name: str) -> str:
    """Return what a shard's unit is called: its file's name, and what tells it from others."""
    stem = re.sub(r"[^\w.-]", "_", storage.name_of(name).removesuffix(".tar"))[:100]
    return f"{stem}-{digest(name)[:12]}"


def _publish(out: str, foreign: Foreign, surveys: list[Survey], missing: list[str]) -> Indexed:
    counts: Counter[str] = Counter()
    for one in surveys:
        counts.update(one.counts)
    samples = counts.pop("samples")
    if not samples:
        raise _no_pair(foreign, surveys, counts)
    if counts["unreadable_captions"] == samples:
        raise ShardFormatError(
            f"no sample has a string under {foreign.caption_key!r} in its JSON",
            where=storage.redact(out),
            fix="name the key of the caption: --caption json:KEY",
        )
    records = [one.record for one in surveys]
    publish_indexed(out, records, foreign)
    return Indexed(
        len(records),
        samples,
        sum(record.bytes for record in records),
        dict(sorted(counts.items())),
        missing,
        [fault for one in surveys for fault in one.faults],
    )


def _no_pair(foreign: Foreign, surveys: list[Survey], counts: Counter[str]) -> ShardFormatError:
    endings = sorted({ending for one in surveys for ending in one.endings})
    there = f"members end in {', '.join(endings[:20])}" if endings else "they are empty"
    lacking = ", ".join(f"{counts[n]:,} {n.replace('_', ' ')}" for n in sorted(counts) if counts[n])
    return ShardFormatError(
        f"no sample with a picture ({', '.join(foreign.image)}) and a caption "
        f"({', '.join(foreign.caption)}) in {len(surveys):,} shards: {there}"
        + (f" ({lacking})" if lacking else ""),
        fix="name the endings: --image jpg,png --caption txt, or --caption json:KEY",
    )


def _refuse_packed(out: str) -> None:
    """Refuse a folder that has a data set which no ``wit index`` made."""
    url = storage.join(out, layout.DATASET)
    if not storage.exists(url):
        return
    try:
        found = msgspec.json.decode(storage.read_bytes(url))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = None
    if not (isinstance(found, dict) and "foreign" in found):
        raise ShardFormatError(
            "there is a data set here already, with an index of its own",
            where=storage.redact(out),
            fix="use it as it is, or name another folder: --out",
        )


# --- which shards -----------------------------------------------------------


def places_of(patterns: Iterable[str]) -> list[str]:
    """Return the shards that patterns stand for, in their order, each once.

    Raises:
        ShardFormatError: unbalanced braces, or compressed tars.
        StorageError: a folder or pattern without a tar, or what only webdataset understands.
    """
    found = (place for p in patterns for one in _expanded(p) for place in _tars(one))
    return list(dict.fromkeys(found))


def _expanded(pattern: str) -> list[str]:
    if pattern.startswith("pipe:"):
        raise StorageError(
            "a pipe has no places to read at", where=pattern, fix="name files, s3:// or https://"
        )
    return expand(pattern) if "{" in pattern and not storage.exists(pattern) else [pattern]


def _tars(place: str) -> list[str]:
    if _COMPRESSED.search(place):
        raise _compressed(place)
    if place.endswith(".tar"):
        return storage.glob(place)
    names = storage.glob(place) if re.search(r"[*?\[]", place) else storage.list_files(place)
    tars = [name for name in names if name.endswith(".tar")]
    if not tars and (squeezed := [name for name in names if _COMPRESSED.search(name)]):
        raise _compressed(squeezed[0])
    if not tars:
        fix = "name tars, with braces or *, or a folder that can be listed and has some"
        raise StorageError("no tar here", where=storage.redact(place), fix=fix)
    return tars


def _compressed(place: str) -> ShardFormatError:
    return ShardFormatError(
        "a tar that is compressed as a whole: nothing in it can be read by its place",
        where=storage.redact(place),
        fix="decompress it to a .tar",
    )


def look_up(places: list[str], *, skip_missing: bool) -> tuple[list[_Shard], list[str]]:
    """Return the shards that are there, and the places of the others.

    Raises:
        StorageError: some are missing, and are not to be skipped, or all are; or a place cannot be
            looked at.
    """
    with ThreadPoolExecutor(_LOOK_UPS) as threads:
        identities = list(threads.map(identity, places))
    found = [_Shard(p, i) for p, i in zip(places, identities, strict=True) if i is not None]
    missing = [p for p, i in zip(places, identities, strict=True) if i is None]
    if missing and not (skip_missing and found):
        first = ", the first of them this one" if len(missing) > 1 else ""
        raise GoneError(
            f"shards that are missing: {len(missing):,} of {len(places):,}{first}",
            where=storage.redact(missing[0]),
            fix="check the pattern; to leave out those that are not there: --missing skip",
        )
    return found, missing


def identity(place: str) -> str | None:
    """Return a string that changes when a file does; None if it is not there.

    Raises:
        StorageError: it cannot be looked at.
    """
    try:
        if not place.startswith(("http://", "https://")):
            return storage.identity(place)
        source = remote.source(place)  # fsspec calls a web page missing that is forbidden
        asking = remote.patiently(lambda: source.about(_OPENING_BYTES), place)
        about = asyncio.run_coroutine_threadsafe(asking, source.loop).result()
    except GoneError:
        return None
    return f"{storage.name_of(place)}:{about.size}:{'|'.join(sorted(about.stamps))}"


def root_of(places: Sequence[str]) -> str:
    """Return the deepest folder that all places are in, a local one absolute.

    Raises:
        StorageError: there is none.
    """
    folders = [_absolute(place).split("/")[:-1] for place in places]
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    shared = [part for part, *_ in alike]
    least = 3 if storage.is_remote(places[0]) else 1  # scheme, nothing, bucket or host; or nothing
    if len(shared) < least:
        raise StorageError(
            "the shards have no folder in common",
            where=storage.redact(places[0]),
            fix="index those of each bucket on their own, and train on a mixture of them",
        )
    return "/".join(shared) or "/"


def _absolute(place: str) -> str:
    if storage.is_remote(place):
        return place.rstrip("/")
    return os.path.abspath(storage.filesystem(place)[1])  # noqa: PTH100 - links stay links
