"""Where the tables of a run lie, and how the report reads their columns."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import storage
from wit_builder.errors import StorageError
from wit_builder.hashing import hash_column
from wit_builder.shards.layout import DATASET

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 / golden ratio, odd: spreads small query ids over 64 bits (Knuth, TAOCP 6.4)."""


class RunFolder(msgspec.Struct, frozen=True):
    """The places of a run's tables, of all generations up to one."""

    root: str
    generation: str = "g0"
    since: str = "g0"
    """The generation whose shards, and those of all after it, are the data set."""

    @property
    def generations(self) -> list[str]:
        """The generations that are told of, first one first."""
        return [f"g{number}" for number in range(int(self.generation.removeprefix("g")) + 1)]

    @property
    def queries(self) -> str:
        """The query list."""
        return storage.join(self.root, "queries", "queries.parquet")

    @property
    def kept(self) -> list[str]:
        """The tables of pairs that are kept, each with the queries that keep it; one per bucket."""
        return [url for name in self._packed for url in self._tables(name, "kept")]

    @property
    def _packed(self) -> list[str]:
        return self.generations[int(self.since.removeprefix("g")) :]

    def report(self, name: str) -> str:
        """Return the place of a file of the report."""
        return storage.join(self.root, "report", name)

    def tables(self, *folders: str) -> list[str]:
        """Return the parquet files directly in a folder of each generation, sorted."""
        return [url for name in self.generations for url in self._tables(name, *folders)]

    def _tables(self, generation: str, *folders: str) -> list[str]:
        return storage.list_files(self._folder(generation, *folders), ".parquet")

    def _folder(self, *folders: str) -> str:
        return storage.join(self.root, *folders)

    @property
    def rejections(self) -> list[str]:
        """The tables of rejections, without what superseded generations did not keep."""
        superseded = set(self.generations) - set(self._packed)
        return [
            url
            for name in self.generations
            for url in self._tables(name, "rejected")
            if not (name in superseded and storage.name_of(url).startswith("keep-"))
        ]

    def rounds(self, kind: str) -> list[list[str]]:
        """Return the tables of ``selected`` or ``images``, round by round, first round first."""
        return [files for rounds in self.rounds_of_generations(kind) for files in rounds]

    def rounds_of_generations(self, kind: str) -> list[list[list[str]]]:
        """Do as ``rounds``, for each generation; of ``images``, as filters have judged them."""
        found: list[list[list[str]]] = []
        for name in self.generations:
            judged = kind == "images" and self._tables(name, "judged", "r0")
            place = "judged" if judged else kind
            found.append([])
            while files := self._tables(name, place, f"r{len(found[-1])}"):
                found[-1].append(files)
        return found

    @property
    def has_kept(self) -> bool:
        """Whether a build has come so far as to say what is kept."""
        return bool(self._tables("g0", "kept"))

    @property
    def shards(self) -> list[str]:
        """The folders of the packed data set; a generation may add none."""
        folders = [storage.join(self.root, name, "shards") for name in self._packed]
        return [folder for folder in folders if storage.exists(storage.join(folder, DATASET))]


def ids_of(column: pa.ChunkedArray) -> I64:
    """Return all query ids of a list column, flat, as int64."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def refuse_foreign(ids: I64, queries: int, url: str) -> None:
    """Refuse query ids that are not in the query list.

    Raises:
        StorageError: one is not.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < queries:
        worst = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise StorageError(
            f"names query {worst}, but the query list ends at {queries - 1}",
            where=storage.redact(url),
            fix="this table is of another query list; build the run again with wit build",
        )


def draw_keys(table: pa.Table, column: str) -> tuple[U64, I64]:
    """Return a 64-bit key and the query id of every (pair, query) of a list column.

    Equal pairs and queries have equal keys. Among n different ones, about n**2 / 2**65 share a key
    by chance, which would put a count off by one.
    """
    lists = table[column].combine_chunks()
    ids = ids_of(pa.chunked_array([lists]))
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return hash_column(table["uid"])[parents] + ids.astype(np.uint64) * _SPREAD, ids


def script_json(value: Any) -> str:
    """Return JSON that is safe inside an HTML ``<script>``: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
