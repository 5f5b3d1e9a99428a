"""Candidates from tar shards that have their pictures already: one unit a shard.

Headers and small members are read; of a picture only where it stands (``picture_at``), so that the
fetch takes it from there and asks nobody. A sample is WebDataset's: neighbouring members with one
key, which is the path up to the first dot of the file name. Members without a dot are no sample's.

A picture whose URL is not known is called ``wds:FOLDER/SHARD/KEY``, by the place of its shard. A
sample whose text or metadata is nothing but zero bytes was removed (``shards/README.md``, "Removed
samples"), and is left out.

In memory are one sample, and one batch of rows.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import quote

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from wit_builder import storage
from wit_builder.crawl.candidates import Collector, Output, Piece, collecting, done
from wit_builder.crawl.columns import normalise_urls
from wit_builder.crawl.urls import MAX_URL_CHARS
from wit_builder.errors import ArchiveError, GoneError
from wit_builder.ranges import open_ranges
from wit_builder.recipe import digest
from wit_builder.sections import WebDatasetSource
from wit_builder.shards import foreign
from wit_builder.shards.foreign import Fault, Stream
from wit_builder.shards.read import expand
from wit_builder.shards.tar import Member
from wit_builder.storage import Published
from wit_builder.tables import FOUND, Reason, TextFrom
from wit_builder.units import Done

NAMELESS = "wds:"
"""How the URL begins that a picture without one is given."""

_BATCH_ROWS = 1 << 13
_BATCH_CHARS = 8 << 20
_MAX_SMALL_BYTES = 4 << 20
_MAX_TEXTS = 1000
"""Texts of a sample that make pairs; 4 MiB of metadata may hold a million."""
_LOOK_UPS = 16


class ShardJob(msgspec.Struct, frozen=True):
    """One shard, what it is called in the names of its pictures, and where its candidates go."""

    place: str
    shard: str
    source: WebDatasetSource
    output: Output


def pieces(source: WebDatasetSource) -> list[Piece]:
    """Return a piece for every shard of a source, in the order of its paths.

    A shard that several paths name is read once.

    Raises:
        ShardFormatError: a pattern's braces are unbalanced.
        StorageError: a shard is not there, or a pattern matches nothing.
    """
    named = (place for path in source.paths for place in _expanded(path))
    places = list(dict.fromkeys(place for name in named for place in storage.glob(name)))
    with ThreadPoolExecutor(_LOOK_UPS) as threads:
        identities = list(threads.map(storage.identity, places))
    reading = replace(source, paths=["*"])  # what is read of a shard does not depend on the others
    made = []
    for place, shard, identity in zip(places, _names(places), identities, strict=True):
        job = partial(ShardJob, place, shard, reading)
        made.append(Piece("webdataset", place, [identity, shard, digest(reading)], job))
    return made


def _expanded(path: str) -> list[str]:
    return expand(path) if "{" in path and not storage.exists(path) else [path]


def _names(places: list[str]) -> list[str]:
    """Return what to call each shard: its folder's name and its own.

    Other shards do not matter, so that a name stays when some are added; but of shards that would
    have one name, each gets as many more folders as tell them apart.
    """
    parts = [_parts(place) for place in places]
    names, taken = ["/".join(some[-2:]) for some in parts], 2
    while taken < max(map(len, parts), default=0):
        repeated = {name for name, count in Counter(names).items() if count > 1}
        if not repeated:
            break
        taken += 1
        names = [
            "/".join(some[-taken:]) if name in repeated else name
            for some, name in zip(parts, names, strict=True)
        ]
    return names


def _parts(place: str) -> list[str]:
    """Return folders and name of a place: what signs a URL is no part, or comes before them all."""
    query = ""
    if place.startswith(("http://", "https://")):
        place, _, query = place.partition("?")
        scheme, _, rest = place.partition("://")
        host, slash, path = rest.partition("/")
        place = f"{scheme}:/{host.rpartition('@')[2]}{slash}{path}"
    return [part for part in [query, *place.split("/")] if part not in ("", ".")]


def run(job: ShardJob) -> Done:
    """Write the candidates of one shard; what is broken in it is rejected, all else is kept.

    Counts ``pages`` (samples), ``candidates``, ``repeated`` (the same pair again) and
    ``rejected:REASON``.

    Raises:
        ArchiveError: there is no member of a tar in it.
        StorageError: it cannot be read, or the output cannot be written.
    """
    published: list[Published] = []
    with collecting(job.output, published) as collector:
        _Shard(job, collector).collect()
    return done(collector, published)


class Sample(NamedTuple):
    """Members with one key: pictures by where they stand, small ones by their bytes."""

    key: str
    pictures: dict[str, Member]
    small: dict[str, bytes]

    @property
    def removed(self) -> bool:
        """Whether it was taken out: its slot is there, its bytes are zero."""
        return any(data and not any(data) for data in self.small.values())


def samples(
    stream: Stream, size: int, pictures: Iterable[str], small: Iterable[str]
) -> Iterator[Sample | Fault]:
    """Yield the samples of a shard, and what is wrong with it, in order.

    A sample comes when the header behind it has been read. The stream may be moved between two.

    Args:
        stream: the tar.
        size: its size in bytes.
        pictures: endings of members whose place is wanted, in lower case.
        small: endings of members whose bytes are wanted, in lower case.
    """
    pictures, small = set(pictures), set(small)
    sample: Sample | None = None
    for found in foreign.walk(stream, size):  # a sample of three members: 30 us, measured
        if isinstance(found, Fault):
            yield found
            continue
        key, ending = _split(found.name)
        if not key:
            continue
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key, {}, {})
        if ending in sample.small or ending in sample.pictures:
            yield Fault(f"{key}.{ending} again", found.offset)
        elif ending in pictures:
            if found.size:
                sample.pictures[ending] = found
        elif ending in small:
            if found.size > _MAX_SMALL_BYTES:
                yield Fault(f"{key}.{ending} has {found.size} bytes", found.offset)
            else:
                stream.seek(found.offset)  # who took the sample before may have read its picture
                data = stream.read(found.size)
                if len(data) == found.size:
                    sample.small[ending] = data
                else:  # the shard shrank after its size was asked for
                    yield Fault(f"{key}.{ending} is cut short", found.offset)
    if sample is not None:
        yield sample


def _split(name: str) -> tuple[str, str]:
    """Return key and ending of a member's name; no key where it is no sample's."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, dot, ending = file.partition(".")
    return (folder + slash + stem if stem and dot else "", ending.lower())


class _Shard:
    """What is being read of one shard."""

    def __init__(self, job: ShardJob, collector: Collector) -> None:
        self._job, self._source, self._collector = job, job.source, collector
        self._endings = [ending.lower() for ending in job.source.pictures]
        self._rows: list[tuple[str | None, ...]] = []
        self._chars = 0

    def collect(self) -> None:
        """Take all samples of the shard."""
        counts = self._collector.counts
        try:
            for found in self._samples():
                if isinstance(found, Sample):
                    counts["pages"] += 1
                    self._take(found)
                else:
                    self._reject(Reason.BAD_RECORD, f"byte {found.offset}: {found.what}")
        except GoneError as error:
            self._collector.reject(Reason.ARCHIVE_MISSING, str(error), self._job.place)
        self._flush()
        if not counts["pages"] and counts[f"rejected:{Reason.BAD_RECORD}"]:
            raise ArchiveError(
                "there is no sample in it, or it is no tar",
                where=storage.redact(self._job.place),
                fix="shards must be tar files, not compressed as a whole: a picture is read by "
                "its place",
            )

    def _samples(self) -> Iterator[Sample | Fault]:
        """Yield what is in the shard: past pictures it seeks on disk, and reads from afar."""
        place = self._job.place
        small = [ending.lower() for ending in [*self._source.texts, self._source.metadata]]
        opening = open_ranges(place) if storage.is_remote(place) else storage.open_read(place)
        with storage.translated(place, "read"), opening as stream:
            yield from samples(stream, stream.seek(0, io.SEEK_END), self._endings, small)

    def _reject(self, reason: Reason, detail: str) -> None:
        self._collector.reject(reason, f"{self._job.shard}: {detail}", None)

    def _take(self, sample: Sample) -> None:
        if sample.removed:
            self._reject(Reason.PICTURE_MISSING, f"{sample.key} was removed")
            return
        found = (sample.pictures.get(ending) for ending in self._endings)
        picture = next(filter(None, found), None)
        if picture is None:
            # No row: with endings that are not the shard's there would be one for every sample.
            self._collector.counts[f"rejected:{Reason.PICTURE_MISSING}"] += 1
            return
        metadata = self._metadata(sample)
        texts = self._texts(sample, metadata)
        if not texts:
            self._collector.counts[f"rejected:{Reason.NO_TEXT}"] += 1
            return
        self._add(sample.key, picture, texts, metadata)

    def _metadata(self, sample: Sample) -> dict[str, Any]:
        """Return a sample's metadata; of none, or of broken ones, nothing."""
        data = sample.small.get(self._source.metadata.lower())
        if data is None:
            return {}
        try:
            return json_object(data)
        except (ValueError, RecursionError) as error:
            self._reject(Reason.BAD_RECORD, f"{sample.key}.{self._source.metadata}: {error}")
            return {}

    def _texts(self, sample: Sample, metadata: dict[str, Any]) -> list[str]:
        """Return a sample's distinct texts, white space collapsed, none empty, not too many."""
        found: list[str] = []
        for ending in self._source.texts:
            try:
                found.append(sample.small.get(ending.lower(), b"").decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                self._reject(Reason.BAD_RECORD, f"{sample.key}.{ending}: {error.reason}")
        for key in self._source.text_keys:
            value = metadata.get(key)
            found += [v for v in (value if isinstance(value, list) else [value]) if _is_text(v)]
        collapsed = (" ".join(text.split()) for text in found)
        texts = [text for text in dict.fromkeys(collapsed) if text]
        if len(texts) > _MAX_TEXTS:
            what = f"{sample.key}: {len(texts)} texts, of which {_MAX_TEXTS} are taken"
            self._reject(Reason.BAD_RECORD, what)
        return texts[:_MAX_TEXTS]

    def _add(self, key: str, picture: Member, texts: list[str], metadata: dict[str, Any]) -> None:
        source = self._source
        url, page_url, license_url = (
            value if _is_text(value := metadata.get(name)) else None
            for name in (source.url_key, source.page_url_key, source.license_key)
        )
        name = NAMELESS + quote(f"{self._job.shard}/{key}", safe="/!$&'()*+,;=:@~")
        if url is not None and url.startswith(NAMELESS):  # of a data set made from another
            name, url = url, None
        if len(name) > MAX_URL_CHARS:
            self._reject(
                Reason.BAD_RECORD, f"byte {picture.offset}: a key of {len(key)} characters"
            )
            return
        at = f"{self._job.place}@{picture.offset}+{picture.size}"
        shared = sum(len(value or "") for value in (url, name, page_url, license_url, at))
        for text in texts:
            self._rows.append((url, name, text, page_url, license_url, at))
            self._chars += shared + len(text)
            if len(self._rows) >= _BATCH_ROWS or self._chars >= _BATCH_CHARS:
                self._flush()

    def _flush(self) -> None:
        """Hand on what is held."""
        if not self._rows:
            return
        url, name, text, page_url, license_url, at = (
            pa.array(column, pa.string()) for column in zip(*self._rows, strict=True)
        )
        columns = {
            "url": pc.coalesce(_normal(url), name),
            "text": text,
            "text_from": pa.repeat(TextFrom.GIVEN.value, len(text)),
            "page_url": _normal(page_url),
            "license": _normal(license_url),
            "archive": pa.repeat(self._job.shard, len(text)),
            "found_at": pa.nulls(len(text), FOUND.field("found_at").type),
            "picture_at": at,
        }
        self._collector.add(pa.table(columns, schema=FOUND))
        self._rows, self._chars = [], 0


def json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object; ``NaN``, which Python writes for missing numbers, is let pass.

    Raises:
        ValueError: it is not JSON, not UTF-8, or not an object.
        RecursionError: it is nested too deep.
    """
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError:
        value = json.loads(data)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    if isinstance(value, dict):
        return value
    raise ValueError("not a JSON object")


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _normal(urls: pa.Array) -> pa.Array:
    """Return URLs in normal form; null where there was none, or one that is refused."""
    normal, _ = normalise_urls(urls.drop_null())
    return pc.replace_with_mask(urls, urls.is_valid(), normal)
