"""One shard of a download becomes pairs, sent towards the shards that they will be in.

Every picture is decoded once, so that none is packed that cannot be; a JPEG keeps its pixels and
loses its metadata, what is no JPEG becomes one. In memory is a batch of samples, and what the
exchange holds.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa

from wit_builder import exchange, storage
from wit_builder.adopt.download import Found, Shard, count, read, rows
from wit_builder.crawl.webdataset import NAMELESS
from wit_builder.fetch.image import Picture, Unusable, prepare
from wit_builder.hashing import pair_uid
from wit_builder.pack.plan import places, shard_of
from wit_builder.pack.scatter import CARRIED
from wit_builder.sections import ImageSection
from wit_builder.shards.foreign import Fault
from wit_builder.tables import IMAGES, KEPT, REJECTIONS, Reason, TextFrom, conform
from wit_builder.units import Done
from wit_builder.web.urls import BadUrlError, normalise

STAGE = "adopt"
PAIRS = pa.schema(
    [
        *(IMAGES.field(name) for name in CARRIED),
        KEPT.field("kept_by"),
        pa.field("jpg", pa.large_binary()),
    ]
)
UIDS = pa.schema([IMAGES.field("uid")])
_PLACED = PAIRS.append(pa.field("place", pa.uint64()))

_BATCH_ROWS = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS_FROM = {source.value for source in TextFrom}


class ListJob(msgspec.Struct, frozen=True):
    """A shard of a download, to be counted."""

    shard: Shard


def run_list(job: ListJob) -> Done:
    """Count ``downloaded``: the samples that a shard says it has.

    Raises:
        ShardFormatError: its table cannot be read.
        StorageError: its tar cannot be read.
    """
    return Done([], {"downloaded": count(job.shard)})


class PairsJob(msgspec.Struct, frozen=True):
    """A shard of a download, and where its pairs go.

    Attributes:
        shard: of the download.
        image: what its pictures become.
        seed: decides, with the pairs themselves, where these go.
        shards: of the data set.
        pairs: place of the exchange file of ``PAIRS`` and their places, by shard.
        uids: place of that of ``UIDS``, by shard.
        rejections: place of the table of what is left out.
    """

    shard: Shard
    image: ImageSection
    seed: int
    shards: int
    pairs: str
    uids: str
    rejections: str


def run(job: PairsJob) -> Done:
    """Publish a shard's pairs, grouped by where they go; what is left out is counted, and listed.

    Counts ``pairs`` and ``rejected:REASON``: URLs that img2dataset failed to download, too.

    Raises:
        ShardFormatError: its table cannot be read.
        StorageError: something cannot be read or written.
    """
    taking = _Taking(job)
    outputs: list[storage.Published] = []
    with (
        exchange.scattering(
            job.pairs, _PLACED, job.shards, outputs, kind=exchange.PICTURES
        ) as pairs,
        exchange.scattering(job.uids, UIDS, job.shards, outputs) as uids,
    ):
        for table in taking.tables():
            place = places(table["uid"], job.seed)
            shard = shard_of(place, job.shards)
            pairs.add(table.append_column("place", pa.array(place)), shard)
            uids.add(table.select(["uid"]), shard)
    outputs.append(storage.write_parquet(job.rejections, taking.rejections()))
    return Done(outputs, dict(sorted(taking.counts.items())))


class _LeftOutError(Exception):
    """A sample gives no pair: reason, free words, and its URL if it has one."""

    def __init__(self, reason: Reason, detail: str, url: str | None = None) -> None:
        super().__init__(detail)
        self.why = reason, detail, url


class _Taking:
    """What is being taken from one shard."""

    def __init__(self, job: PairsJob) -> None:
        self._job = job
        self._rejected: list[tuple[Reason, str, str | None]] = []
        self.counts: Counter[str] = Counter(pairs=0)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the pairs, in order, some at a time."""
        expected = self._expected()
        batch: list[dict[str, Any]] = []
        # A row at a time: decoding its picture is a millisecond, all else a twentieth of one.
        for found in read(self._job.shard):
            try:
                batch.append(self._pair(found, expected))
            except _LeftOutError as left:
                self._reject(*left.why)
            if len(batch) == _BATCH_ROWS:
                yield pa.Table.from_pylist(batch, PAIRS)
                batch = []
        yield pa.Table.from_pylist(batch, PAIRS)
        for key, url in (expected or {}).items():
            self._reject(Reason.PICTURE_MISSING, f"{key} is in the table alone", url)

    def _expected(self) -> dict[str, str] | None:
        """Return key and URL of the samples that must be there; None where there is no table."""
        listed = rows(self._job.shard)
        if listed is None:
            return None
        for row in listed:
            if row.reason is not None:
                self._reject(row.reason, row.detail, row.url)
        return {row.key: row.url for row in listed if row.reason is None}

    def _pair(self, found: Found | Fault, expected: dict[str, str] | None) -> dict[str, Any]:
        """Return a sample as a row of ``PAIRS``.

        Raises:
            _LeftOutError: it cannot be one.
        """
        if isinstance(found, Fault):
            raise _LeftOutError(Reason.BAD_RECORD, f"byte {found.offset}: {found.what}")
        key = found.key.rpartition("/")[2]
        if expected is not None and expected.pop(key, None) is None:
            raise _LeftOutError(Reason.BAD_RECORD, f"{key} is not in the table")
        try:
            url, text = _url(found), _text(found)
        except BadUrlError as error:
            raise _LeftOutError(Reason.BAD_URL, f"{key}: {error}") from error
        except UnicodeDecodeError as error:
            raise _LeftOutError(Reason.BAD_RECORD, f"{key}.txt: {error.reason}") from error
        if not text:
            raise _LeftOutError(Reason.NO_TEXT, key, url)
        picture = prepare(found.picture, self._job.image)
        if isinstance(picture, Unusable):
            raise _LeftOutError(picture.reason, f"{key}: {picture.detail}", url)
        self.counts["pairs"] += 1
        return _row(url, text, found, picture)

    def _reject(self, reason: Reason, detail: str, url: str | None) -> None:
        self.counts[f"rejected:{reason}"] += 1
        self._rejected.append((reason, detail, url and storage.redact_credentials(url)))

    def rejections(self) -> pa.Table:
        """Return what was left out (``tables.REJECTIONS``), with the shard's name."""
        name = self._job.shard.name
        made = [
            {
                "uid": None,
                "stage": STAGE,
                "reason": reason.value,
                "detail": f"{name}: {detail}"[:300],
                "url": url or None,
            }
            for reason, detail, url in self._rejected
        ]
        return conform(pa.Table.from_pylist(made, REJECTIONS), REJECTIONS)


def _url(found: Found) -> str:
    """Return the picture's URL in normal form; what was called by a shard's name keeps it.

    Raises:
        BadUrlError: there is none, or it is refused.
    """
    url = found.metadata.get("url")
    if not isinstance(url, str):
        raise BadUrlError("no URL")
    return url if url.startswith(NAMELESS) else normalise(url.strip())


def _text(found: Found) -> str:
    """Return a sample's text, white space collapsed: its own member's, else its metadata's.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    caption = found.metadata.get("caption")
    said = caption if isinstance(caption, str) else ""
    return " ".join((found.text.decode("utf-8-sig") if found.text else said).split())


def _row(url: str, text: str, found: Found, picture: Picture) -> dict[str, Any]:
    metadata = found.metadata
    text_from = metadata.get("text_from")
    sha256 = metadata.get("sha256")
    return {
        "uid": pair_uid(url, text),
        "url": url,
        "page_url": _string(metadata.get("page_url")),
        "text": text,
        "text_from": text_from if text_from in _TEXTS_FROM else TextFrom.GIVEN.value,
        "license": _string(metadata.get("license")),
        "width": picture.width,
        "height": picture.height,
        "original_width": _number(metadata.get("original_width")) or picture.original_width,
        "original_height": _number(metadata.get("original_height")) or picture.original_height,
        "sha256": sha256
        if isinstance(sha256, str) and _SHA256.fullmatch(sha256)
        else hashlib.sha256(found.picture).hexdigest(),
        "kept_by": [],
        "jpg": picture.jpeg,
    }


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 1 << 31 else None
