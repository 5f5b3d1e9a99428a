"""A judging unit: block-lists and filters say which fetched pairs must not be kept.

Of every part ``X.parquet`` another ``X.parquet`` is published: the same rows, in which a pair that
was alive may be dead, and a column for every score. The part's tar is only read. A block-list or a
removal counts before any filter; every filter sees every picture that these leave, so that its
scores tell of all, and the first that objects is the reason.

At most ``_BATCH`` pictures, or ``_BATCH_BYTES`` of pixels and one picture, are in memory at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.errors import FilterError, RejectionFloodError, ShardFormatError, WitError
from wit_builder.judge import hook
from wit_builder.judge.hook import Filter, Pixels, Verdict
from wit_builder.sections import BlockSection, FilterSection
from wit_builder.shards import tar
from wit_builder.storage import Published
from wit_builder.tables import Outcome, Reason
from wit_builder.units import Done
from wit_builder.web.answer import Refusal
from wit_builder.web.blocklists import Blocklists

_BATCH = 64
_BATCH_BYTES = 64 << 20
# the pictures are upright already, and without metadata
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_ASKED_BY = ("uid", "url", "final_url", "md5", "sha256", "phash")


class JudgeJob(msgspec.Struct, frozen=True):
    """All that one unit needs.

    Attributes:
        images: tables of fetched parts (``tables.IMAGES``), each with its tar beside it.
        out: folder of the judged tables, which have the same names.
        filters: the recipe's.
        block: the recipe's block-lists.
        removed: the run's table of removals; None if there is none.
        flood_share: stop when more than this share of the pictures is dropped for one reason ...
        flood_min: ... of at least so many.
    """

    images: list[str]
    out: str
    filters: list[FilterSection]
    block: BlockSection
    removed: str | None = None
    flood_share: float = 1.0
    flood_min: int = 500


def run(job: JudgeJob) -> Done:
    """Publish the judged table of every part; the counts are rows by outcome and by reason.

    Raises:
        RecipeError: a list or a filter is not what it should be.
        FilterError: a filter fails, or does not do as agreed; nothing is published.
        RejectionFloodError: nearly all pictures were dropped for one reason.
        ShardFormatError: a part's tar lacks a picture that its table has.
        StorageError: something cannot be read or written.
    """
    cv2.setNumThreads(1)  # units run side by side; more threads would only get in each other's way
    blocked, filters = Blocklists.load(job.block, job.removed), hook.load(job.filters)
    done: list[Published] = []
    counts, dropped, pictures = Counter[str](), Counter[str](), 0
    try:
        for url in job.images:
            part = _Part(url)
            part.refuse(blocked)
            part.ask(filters)
            table = part.judged()
            place = storage.join(job.out, storage.name_of(url))
            done.append(storage.write_parquet(place, table))
            counts.update(table["outcome"].to_pylist() + table["reason"].drop_null().to_pylist())
            dropped.update(reason.value for reason, _ in part.objections.values())
            pictures += part.pictures
        _refuse_flood(job, dropped, pictures)
    except WitError:
        for published in done:
            storage.remove(published.url)
        raise
    return Done(done, dict(sorted(counts.items())))


def _refuse_flood(job: JudgeJob, dropped: Counter[str], pictures: int) -> None:
    for reason, count in dropped.most_common(1):
        if count > job.flood_share * pictures and pictures >= job.flood_min:
            raise RejectionFloodError(
                f"{count} of {pictures} pictures were rejected as {reason}",
                where=storage.redact(job.out),
                fix="look at the lists and at the filters' limits, or set fetch.flood_share = 1.0",
            )


class _Part:
    """The rows of a fetched part, and what is said of them.

    Attributes:
        pictures: how many rows were alive.
        objections: row -> reason and detail, of rows that were alive and must not be kept.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._rows = storage.read_parquet(url)
        alive = pc.equal(self._rows["outcome"], Outcome.ALIVE.value)
        self._alive: list[int] = np.flatnonzero(alive.to_numpy()).tolist()
        self.pictures = len(self._alive)
        self.objections: dict[int, tuple[Reason, str]] = {}
        self._scores: dict[str, pa.Array] = {}

    def refuse(self, blocked: Blocklists) -> None:
        """Object to what is listed."""
        if not blocked:
            return
        columns = self._rows.select(_ASKED_BY).take(pa.array(self._alive, pa.int64()))
        for at, row in zip(self._alive, columns.to_pylist(), strict=True):  # 40 us each
            refusal = _listed(blocked, row)
            if refusal is not None:
                self.objections[at] = refusal.reason, refusal.detail

    def ask(self, filters: Sequence[Filter]) -> None:
        """Let filters score the pictures, and object."""
        columns = [column for judge in filters for column in judge.columns]
        scores = {column: np.zeros(len(self._rows), np.float32) for column in columns}
        known = np.zeros(len(self._rows), np.bool_)
        for at, images in self._batches() if filters else ():
            rows = self._rows.take(pa.array(at, pa.int64()))
            known[at] = True
            for judge in filters:
                verdict = self._asked(judge, images, rows)
                for column, values in verdict.scores.items():
                    scores[column][at] = values
                for row, words in zip(at, verdict.objections, strict=True):
                    if words is not None:
                        self.objections.setdefault(row, (Reason.FILTERED, words))
        self._scores = {column: pa.array(v, mask=~known) for column, v in scores.items()}

    def _asked(self, judge: Filter, images: list[Pixels], rows: pa.Table) -> Verdict:
        try:
            return judge.judge(images, rows["text"].to_pylist(), rows)
        except FilterError as error:
            where = storage.redact(self._url)
            raise FilterError(error.what, where=where, fix=error.fix) from error

    def _batches(self) -> Iterator[tuple[list[int], list[Pixels]]]:
        """Yield rows that nobody objects to so far with their pictures, in the order of the tar."""
        at, images, size = list[int](), list[Pixels](), 0
        for row, data in self._members():
            pixels = _decoded(data)
            if pixels is None:
                self.objections[row] = Reason.IMAGE_TRUNCATED, "does not decode"
                continue
            at.append(row)
            images.append(pixels)
            size += pixels.nbytes
            if len(at) == _BATCH or size >= _BATCH_BYTES:
                yield at, images
                at, images, size = [], [], 0
        if at:
            yield at, images

    def _members(self) -> Iterator[tuple[int, bytes]]:
        """Yield rows that nobody objects to so far with the bytes of their pictures."""
        keys = self._rows["key"].to_pylist()
        wanted = {f"{keys[at]}.jpg": at for at in self._alive if at not in self.objections}
        place = self._url.removesuffix(".parquet") + ".tar"
        if not wanted:
            return
        with storage.open_read(place) as stream, storage.translated(place, "read"):
            for member in tar.walk(stream):
                row = wanted.pop(member.name, None)
                if row is not None:
                    stream.seek(member.offset)
                    yield row, stream.read(member.size)
        if wanted:
            raise ShardFormatError(
                f"{len(wanted)} pictures are missing, the first is {next(iter(wanted))}",
                where=storage.redact(place),
                fix="remove the part and its unit's marker: it will be fetched anew",
            )

    def judged(self) -> pa.Table:
        """Return the rows as they stand now, with a column for every score."""
        said = self.objections
        table = _changed(self._rows, "key", dict.fromkeys(said, ""))
        table = _changed(table, "outcome", dict.fromkeys(said, Outcome.DEAD.value))
        table = _changed(table, "reason", {at: reason.value for at, (reason, _) in said.items()})
        table = _changed(table, "detail", {at: detail for at, (_, detail) in said.items()})
        for column, values in self._scores.items():
            table = table.append_column(pa.field(column, pa.float32()), values)
        return table


def _changed(table: pa.Table, name: str, changes: dict[int, str]) -> pa.Table:
    """Return the table with other values in some rows of a column."""
    values = table[name].to_pylist() if changes else []
    for row, value in changes.items():
        values[row] = value
    at = table.schema.get_field_index(name)
    field = table.schema.field(at)
    return table.set_column(at, field, pa.array(values, field.type)) if changes else table


def _listed(blocked: Blocklists, row: dict[str, Any]) -> Refusal | None:
    urls = dict.fromkeys(url for url in (row["url"], row["final_url"]) if url)
    return (
        blocked.of_uid(row["uid"])
        or next((refusal for url in urls if (refusal := blocked.of_url(url))), None)
        or blocked.of_picture(row["md5"], row["sha256"], row["phash"])
    )


def _decoded(data: bytes) -> Pixels | None:
    """Return a picture, red green blue; None if it does not decode."""
    try:
        found: Any = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error:  # e.g. an empty file
        return None
    return None if found is None else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
