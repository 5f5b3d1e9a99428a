"""What became of the pairs that contain one query: numbers, and where to read of samples.

Only identities and ids are read of whole tables, a batch at a time; texts and reasons are read for
the samples alone. Fates are looked up for the ``LOOKED_AT`` pairs of lowest uid. Uids are hashes,
so these are a fair sample, and memory does not grow with the run; of a query with more pairs, a
fate that befell only a few of them may have no sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.report.folder import I64, RunFolder, refuse_foreign
from wit_builder.tables import Reason

LOOKED_AT = 1 << 16
"""Pairs of a query whose fates are looked up: those of lowest uid."""

NEVER, KEPT, SPARE, DEAD, DEFERRED, DROPPED, WAITING = range(7)
FATES = (
    "never asked for",
    "kept",
    "spare",
    "dead",
    "deferred",
    "dropped",
    "drawn, not asked yet",
)

_OUTCOMES = pa.array(["alive", "dead", "deferred", "moved"])
_FATE_OF_OUTCOME = np.array([SPARE, DEAD, DEFERRED, WAITING], np.int8)
_AFTER_FETCHING = [Reason.DUPLICATE_IMAGE, Reason.SIMILAR_IMAGE]
_BATCH_ROWS = 1 << 18
_FEW_ROWS = 1 << 13
"""Rows decoded at once to get at a few: samples have low uids, and stand at a table's beginning."""

Batches = Callable[[str, list[str]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Query:
    """A query by its id, and the length of the list that it is of."""

    id: int
    of: int

    def rows(self, lists: pa.ListArray, url: str) -> I64:
        """Return the rows whose list has the query.

        Raises:
            StorageError: a list names a query that is not in the query list.
        """
        ids = lists.flatten().to_numpy(zero_copy_only=False)
        refuse_foreign(ids, self.of, url)
        offsets = lists.offsets.to_numpy()
        return np.searchsorted(offsets - offsets[0], np.flatnonzero(ids == self.id), "right") - 1


class Lowest:
    """The pairs of lowest uid of those added, each with the file and row that it was found at."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._table = _PLACES.empty_table()
        self.added = 0

    def add(self, uids: pa.Array, file: int, rows: I64) -> None:
        """Add pairs of a file."""
        if not len(rows):
            return
        self.added += len(rows)
        columns = [uids, pa.repeat(pa.scalar(file, pa.int32()), len(rows)), pa.array(rows)]
        self._table = pa.concat_tables([self._table, pa.table(columns, schema=_PLACES)])
        if len(self._table) > 2 * self._size:
            self._table = self.table

    @property
    def table(self) -> pa.Table:
        """``uid``, ``file``, ``row``, in the order of uids."""
        return self._table.sort_by("uid").slice(0, self._size).combine_chunks()

    @property
    def bound(self) -> bytes | None:
        """The highest uid of ``table`` where some were left out, else None."""
        return self.table["uid"][-1].as_py() if self.added > self._size else None


_PLACES = pa.schema([("uid", pa.binary(16)), ("file", pa.int32()), ("row", pa.int64())])


@dataclass
class Fates:
    """The query's pairs of lowest uid, in that order, and what became of each.

    Attributes:
        uids: binary(16).
        fate: index into ``FATES``.
        found: int64 [pairs, 2], file and row in ``texts`` that have the pair.
        told: the same, of the row in ``answers`` that tells of it; -1 if it was never asked for.
        texts: the matched tables.
        answers: the image tables.
        reasons: by position, of those that were dropped: reason and detail.
    """

    uids: pa.Array
    found: I64
    texts: list[str]
    answers: list[str]
    fate: npt.NDArray[np.int8] = field(init=False)
    told: I64 = field(init=False)
    reasons: dict[int, tuple[str, str | None]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Begin with nothing known."""
        self.fate = np.full(len(self.uids), NEVER, np.int8)
        self.told = np.full((len(self.uids), 2), -1, np.int64)

    def positions(self, uids: pa.Array) -> tuple[I64, I64]:
        """Return those rows of a column that are among the pairs, and their positions there."""
        at = pc.index_in(uids, value_set=self.uids)
        rows = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
        return rows, at.drop_null().to_numpy().astype(np.int64)

    def samples(self, fate: int, count: int) -> list[int]:
        """Return the positions of the first pairs of a fate: those of lowest uid."""
        return [int(at) for at in np.flatnonzero(self.fate == fate)[:count]]


def matched(run: RunFolder, query: Query, *, counting: bool) -> tuple[Fates, int]:
    """Return the query's pairs, fates still unknown, and how many there are.

    Args:
        run: the run.
        query: the query.
        counting: read on where the rest of a table, which is in the order of uids, can only count.

    Raises:
        StorageError: a table cannot be read, or is of another query list.
    """
    lowest, urls = Lowest(LOOKED_AT), run.tables("matched")
    for file, url in enumerate(urls):
        for first, batch in numbered(storage.parquet_batches(url, ["uid", "query_ids"])):
            bound = None if counting else lowest.bound
            if bound is not None and len(batch) and batch["uid"][0].as_py() > bound:
                break
            rows = query.rows(batch["query_ids"], url)
            lowest.add(batch["uid"].take(pa.array(rows)), file, rows + first)
    found = lowest.table
    images = [url for files in run.rounds("images") for url in files]
    places = np.stack([found["file"].to_numpy(), found["row"].to_numpy()], axis=1)
    return Fates(whole(found["uid"]), places.astype(np.int64), urls, images), lowest.added


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    return pa.concat_arrays([*column.chunks, pa.array([], column.type)])


def numbered(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield each batch with the number of its first row."""
    first = 0
    for batch in batches:
        yield first, batch
        first += len(batch)


def look_up(run: RunFolder, fates: Fates) -> None:
    """Fill in what became of each pair: the last answer, then whether it was dropped or kept.

    Raises:
        StorageError: a table cannot be read.
    """
    for url in _last_drawn(run):
        for batch in storage.parquet_batches(url, ["uid"]):
            fates.fate[fates.positions(batch["uid"])[1]] = WAITING
    for file, url in enumerate(fates.answers):  # a later round's answer replaces an earlier one's
        for first, batch in numbered(storage.parquet_batches(url, ["uid", "outcome"])):
            rows, at = fates.positions(batch["uid"])
            answer = pc.index_in(batch["outcome"].take(pa.array(rows)), value_set=_OUTCOMES)
            fates.fate[at] = _FATE_OF_OUTCOME[answer.to_numpy()]
            fates.told[at] = np.stack([np.full(len(rows), file), rows + first], axis=1)
    alive = fates.uids.filter(pa.array(fates.fate == SPARE))
    for uid, reason in rejections(run, alive, _AFTER_FETCHING).items():
        _, [at] = fates.positions(pa.array([uid], pa.binary(16)))
        fates.fate[at], fates.reasons[int(at)] = DROPPED, reason
    for url in run.kept:
        for batch in storage.parquet_batches(url, ["uid"]):
            fates.fate[fates.positions(batch["uid"])[1]] = KEPT


def _last_drawn(run: RunFolder) -> list[str]:
    """Return the tables of the last round's draw: what all before it drew was asked for."""
    rounds = run.rounds("selected")
    return rounds[-1] if rounds else []


def rejections(
    run: RunFolder, uids: pa.Array, reasons: list[Reason]
) -> dict[bytes, tuple[str, str | None]]:
    """Return reason and detail of those of the pairs that were dropped for one of the reasons.

    Row groups that cannot have such a reason, by their statistics, are not read: there are far more
    texts without a query than pairs.
    """
    found: dict[bytes, tuple[str, str | None]] = {}
    wanted = pa.array([reason.value for reason in reasons])
    for url in run.rejections if len(uids) else []:
        for batch in _rejected(url, [reason.value for reason in reasons]):
            mask = pc.and_(
                pc.is_in(batch["reason"], value_set=wanted), pc.is_in(batch["uid"], value_set=uids)
            )
            for row in batch.filter(mask).to_pylist():  # one query's pairs, LOOKED_AT at most
                found[row["uid"]] = (row["reason"], row["detail"])
    return found


_BEFORE_DEDUP = {"extract", "filter", "match", "language"}


def _rejected(url: str, reasons: list[str]) -> Iterator[pa.RecordBatch]:
    columns = ["uid", "stage", "reason", "detail"]
    with storage.open_arrow(url) as file:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        groups = [
            number
            for number in range(table.num_row_groups)
            if _may_tell(table.metadata.row_group(number), names, reasons)
        ]
        yield from table.iter_batches(
            _BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False
        )


def _may_tell(group: pq.RowGroupMetaData, names: list[str], reasons: list[str]) -> bool:
    """Return whether a row group's statistics allow for one of the reasons, from dedup on."""
    stage, reason = (group.column(names.index(name)).statistics for name in ("stage", "reason"))
    if any(s is None or not s.has_min_max for s in (stage, reason)):
        return True
    if stage.min == stage.max and stage.min in _BEFORE_DEDUP:
        return False
    return any(reason.min <= wanted <= reason.max for wanted in reasons)


def lost_in_dedup(run: RunFolder, query: Query, fates: Fates) -> tuple[Lowest, list[str]]:
    """Return pairs that contain the query but did not come through dedup, and their files.

    They are told by the files that dedup read, where these are there still and on this machine; no
    later table has them. ``added`` counts all of those at which fates were looked up.
    """
    lost, bound = Lowest(LOOKED_AT), fates.uids[-1].as_py() if len(fates.uids) >= LOOKED_AT else b""
    urls = [] if storage.is_remote(run.root) else exchanged(run)
    for file, url in enumerate(urls):
        for first, batch in numbered(exchange_batches(url, ["uid", "query_ids"])):
            rows = query.rows(batch["query_ids"], url)
            uids = batch["uid"].take(pa.array(rows))
            if bound:
                low = pc.less(uids, pa.scalar(bound, uids.type))
                uids, rows = uids.filter(low), rows[low.to_numpy(zero_copy_only=False)]
            new = pc.invert(pc.is_in(uids, value_set=fates.uids))
            lost.add(uids.filter(new), file, rows[new.to_numpy(zero_copy_only=False)] + first)
    return lost, urls


def exchanged(run: RunFolder) -> list[str]:
    """Return the files through which matched pairs went to dedup, of all generations."""
    folders = [storage.join(run.root, g, "exchange", "matched") for g in run.generations]
    return [url for folder in folders for url in storage.list_files(folder, ".arrow")]


def exchange_batches(url: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of an exchange file: its streams one after another, see ``exchange``."""
    with storage.open_arrow(url) as file:
        header = pa.ipc.open_stream(file)
        header.read_all()  # it is empty, and tells the columns
        fields = [header.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        while file.tell() < file.size():
            yield from pa.ipc.open_stream(file, options=options)


def take(
    batches: Batches, urls: list[str], places: list[tuple[int, int]], columns: list[str]
) -> list[dict[str, str | None]]:
    """Return some columns of the rows at (file, row), in the order of the places."""
    found: dict[tuple[int, int], dict[str, str | None]] = {}
    for file in sorted({file for file, _ in places}):
        wanted = sorted({row for place, row in places if place == file}, reverse=True)
        for first, batch in numbered(batches(urls[file], columns)):
            while wanted and wanted[-1] < first + len(batch):
                row = wanted.pop()
                [found[file, row]] = batch.slice(row - first, 1).to_pylist()
            if not wanted:
                break
    return [found[place] for place in places]


def few(url: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield a parquet file's rows, few at a time, so that little is decoded for the first ones."""
    return storage.parquet_batches(url, columns, _FEW_ROWS)
