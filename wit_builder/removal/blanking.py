"""Takes named pairs out of the tables of a run, file by file; each is replaced as a whole.

In tables of stages a row stays, with uid, query ids and numbers, and says no more what it was of.
In the files between stages, and among the kept pairs, it goes: else a unit that is done anew from
them would bring a pair without URL or text to life. A file without a named pair is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from wit_builder import exchange, storage
from wit_builder.curate.states import REMOVED_KEY, removed_of
from wit_builder.curate.tally import tallied
from wit_builder.fetch import store
from wit_builder.removal.finding import Mask, Names, batches, files, has_uids
from wit_builder.tables import Outcome, Reason

TELLING = (
    "url", "text", "page_url", "license", "final_url", "detail", "picture_at", "sha256", "md5",
    "phash", "caption", "error_message",
)  # fmt: skip
"""Columns that tell which pair it was."""

_FATE = {"outcome": Outcome.DEAD.value, "reason": Reason.REMOVED.value, "key": ""}
"""What an image table says of a removed pair."""

_PICTURES = "jpg"
"""Column of exchange files whose rows are pictures, which are compressed already."""


@dataclass(frozen=True)
class Step:
    """A file from which pairs are to be taken; calling it does so, and again changes nothing."""

    url: str
    names: Names

    @property
    def rewrites(self) -> list[str]:
        """The files that have another size afterwards."""
        return [self.url]

    @property
    def looked_at(self) -> list[str]:
        """The columns that tell whether a row is named."""
        return ["uid"]

    def is_needed(self) -> bool:
        """Return whether the file tells of a named pair."""
        return self._has_any() and any(
            not blanked(told, np.ones(told.num_rows, np.bool_)).equals(told)
            for told in self._named([*self.looked_at, *TELLING, *_FATE])
        )

    def _has_any(self) -> bool:
        return next(self._named(self.looked_at), None) is not None

    def _named(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield what some columns have of named pairs."""
        for batch in batches(self.url, columns):
            mask = self.mask(batch)
            if mask.any():
                yield pa.Table.from_batches([batch]).filter(pa.array(mask))

    def mask(self, rows: pa.RecordBatch | pa.Table) -> Mask:
        """Return which rows are named."""
        return self.names.mask(rows.select([n for n in rows.schema.names if n in self.looked_at]))

    def __call__(self) -> None:
        """Blank the rows of named pairs."""
        with storage.open_arrow(self.url) as file, storage.publish(self.url) as path:
            if self.url.endswith(".arrow"):
                reader = pa.ipc.open_file(file)
                options = pa.ipc.IpcWriteOptions(compression="zstd")
                with pa.ipc.new_file(str(path), reader.schema, options=options) as sink:
                    for number in range(reader.num_record_batches):
                        sink.write_table(self._blanked([reader.get_batch(number)]))
                return
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            with pq.ParquetWriter(path, self.schema(schema), compression="zstd") as writer:
                for number in range(parquet.num_row_groups):
                    rows = parquet.read_row_group(number, use_threads=False)
                    writer.write_table(self._blanked(rows.to_batches()).cast(writer.schema))

    def _blanked(self, rows: list[pa.RecordBatch]) -> pa.Table:
        table = pa.Table.from_batches(rows)
        return blanked(table, self.mask(table))

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the table afterwards."""
        return schema


class Matched(Step):
    """A table of matched pairs: it lists those that were removed, so that none is drawn."""

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema with the uids of the removed pairs in its metadata."""
        metadata = schema.metadata or {}
        named = [t["uid"].combine_chunks() for t in self._named(["uid"])]
        uids = pa.concat_arrays([removed_of(metadata), *named]).unique()
        told = b"".join(sorted(uids.to_pylist())).hex().encode()
        return schema.with_metadata({**metadata, REMOVED_KEY: told})


class Images(Step):
    """A part's table of pictures, and their tar, which goes first: the rows tell its members."""

    @property
    def rewrites(self) -> list[str]:
        """The table and the tar."""
        return [self.url, self._tar]

    @property
    def _tar(self) -> str:
        return self.url.removesuffix(".parquet") + ".tar"

    def __call__(self) -> None:
        """Cut the members of named pairs out of the tar, and blank their rows."""
        rows = storage.read_parquet(self.url, ["uid", "key"])
        others = rows.filter(pa.array(~self.mask(rows)))
        if storage.exists(self._tar):
            store.cut(self._tar, set(others["key"].to_pylist()))
        super().__call__()


class Rejected(Step):
    """A table of rejections: some are of no pair, but of a URL."""

    @property
    def looked_at(self) -> list[str]:
        """Uid and URL."""
        return ["uid", "url"]


class Kept(Step):
    """A table of kept pairs, which named ones leave; and the tally of it."""

    @property
    def rewrites(self) -> list[str]:
        """The table and the tally."""
        return [self.url, self._tally]

    @property
    def _tally(self) -> str:
        generation, _, name = self.url.rsplit("/", 2)
        return storage.join(generation, "exchange", "keeps", name)

    def is_needed(self) -> bool:
        """Return whether a named pair is kept."""
        return self._has_any()

    def __call__(self) -> None:
        """Publish the tally without the named pairs, then the table."""
        table = storage.read_parquet(self.url)
        left = table.filter(pa.array(~self.mask(table)))
        by = left["kept_by"].combine_chunks().flatten().to_numpy()
        storage.write_parquet(self._tally, tallied(np.bincount(by)))
        storage.write_parquet(self.url, left)


class Exchanged(Step):
    """A file between stages: its rows go."""

    @property
    def rewrites(self) -> list[str]:
        """The file and its index."""
        return [self.url, f"{self.url}.index"]

    def is_needed(self) -> bool:
        """Return whether a named pair is in it; of a unit that was killed, whether it is there."""
        if not storage.exists(f"{self.url}.index"):
            return True
        exchange.reindex(self.url)
        return any(self.mask(rows).any() for rows in self._rows())

    def _rows(self) -> Iterator[pa.Table]:
        found = exchange.streams(self.url, ["uid"])
        if has_uids(next(found).table.schema):
            yield from (stream.table for stream in found)

    def __call__(self) -> None:
        """Drop the rows, or the file that a killed unit left without its index."""
        if not storage.exists(f"{self.url}.index"):
            storage.remove(self.url)
            return
        header = next(exchange.streams(self.url)).table
        is_of_pictures = _PICTURES in header.column_names
        kind = exchange.PICTURES if is_of_pictures else exchange.ROWS
        exchange.rewrite(self.url, self._left, kind)

    def _left(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array(~self.mask(rows)))


_STEPS = {"matched": Matched, "images": Images, "rejected": Rejected, "kept": Kept}
"""By folder of a generation; in all others a table is blanked, and no more."""


def plan(root: str, names: Names) -> list[Step]:
    """Return what is to be done in the tables of a run, which are looked through for that.

    Raises:
        StorageError: a table cannot be read.
    """
    steps = (_step(root, url, names) for url in files(root))
    return [step for step in steps if step.is_needed()]


def _step(root: str, url: str, names: Names) -> Step:
    folder = url.removeprefix(root + "/").split("/")[1]
    if folder == "exchange" and url.endswith(".arrow"):
        return Exchanged(url, names)
    return _STEPS.get(folder, Step)(url, names)


def blanked(table: pa.Table, mask: Mask) -> pa.Table:
    """Return a table whose masked rows do not tell what they were of any more."""
    columns = {name: table[name] for name in table.column_names}
    there = pa.array(mask)
    for name in (name for name in TELLING if name in columns):
        nothing = None if table.schema.field(name).nullable else ""
        columns[name] = pc.if_else(there, pa.scalar(nothing, pa.string()), columns[name])
    if "outcome" in columns:
        for name, value in _FATE.items():
            columns[name] = pc.if_else(there, value, columns[name])
    return pa.table([columns[f.name].cast(f.type) for f in table.schema], schema=table.schema)
