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
from wit_builder.hashing import hash_column

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 / golden ratio, odd: spreads small query ids over 64 bits (Knuth, TAOCP 6.4)."""


class RunFolder(msgspec.Struct, frozen=True):
    """The places of one generation of a run."""

    root: str
    generation: str = "g0"

    @property
    def queries(self) -> str:
        """The query list."""
        return storage.join(self.root, "queries", "queries.parquet")

    @property
    def kept(self) -> str:
        """The pairs that are kept, each with the queries that keep it."""
        return storage.join(self.root, self.generation, "kept.parquet")

    def report(self, name: str) -> str:
        """Return the place of a file of the report."""
        return storage.join(self.root, "report", name)

    def tables(self, *folders: str) -> list[str]:
        """Return the parquet files directly in a folder of the generation, sorted."""
        return storage.list_files(storage.join(self.root, self.generation, *folders), ".parquet")

    def rounds(self, kind: str) -> list[list[str]]:
        """Return the tables of ``selected`` or ``images``, round by round, first round first."""
        found: list[list[str]] = []
        while files := self.tables(kind, f"r{len(found)}"):
            found.append(files)
        return found

    @property
    def shards(self) -> str:
        """The folder of the packed data set."""
        return storage.join(self.root, self.generation, "shards")


def ids_of(column: pa.ChunkedArray) -> I64:
    """Return all query ids of a list column, flat, as int64."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def draw_keys(table: pa.Table, column: str) -> tuple[U64, I64]:
    """Return a 64-bit key and the query id of every (pair, query) of a list column.

    Equal pairs and queries have equal keys. Among n different ones, about n**2 / 2**65 share a key
    by chance, which would put a count off by one.
    """
    lists = table[column].combine_chunks()
    ids = ids_of(pa.chunked_array([lists]))
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return hash_column(table["uid"])[parents] + ids.astype(np.uint64) * _SPREAD, ids


def rows_with(table: pa.Table, column: str, query_id: int) -> pa.Array:
    """Return a mask of the rows whose list holds a query id."""
    lists = table[column].combine_chunks()
    mask = np.zeros(len(table), np.bool_)
    hits = lists.flatten().to_numpy(zero_copy_only=False) == query_id
    mask[pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)[hits]] = True
    return pa.array(mask)


def script_json(value: Any) -> str:
    """Return JSON that is safe inside an HTML ``<script>``: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
