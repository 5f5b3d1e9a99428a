"""Which pairs a list names: looked up by the column, wherever a run has uid and URL or digests.

Candidates tell uid and URL of all pairs, image tables the URL after redirects and the digests. The
page that a picture stood on does not count: a host names the pictures that it serves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from wit_builder import storage
from wit_builder.removal.wanted import Entry

Mask = npt.NDArray[np.bool_]

UID = pa.binary(16)
NONE = pa.array([], UID)

_URLS = ("url", "final_url")
_DIGESTS = ("md5", "sha256", "phash")
_BATCH_ROWS = 1 << 16
_HOST = r"^[a-z]+://(?:\[([^\]]*)\]|([^/?#:]*)).*$"


@dataclass(frozen=True)
class Names:
    """A list, fit to be asked.

    Attributes:
        uids: binary(16), unique.
        urls: sha256 of URLs.
        hosts: each stands for all hosts below it, too.
        digests: hex digests by their column's name.
    """

    uids: pa.Array
    urls: frozenset[bytes]
    hosts: frozenset[str]
    digests: dict[str, pa.Array]

    @staticmethod
    def of(listed: pa.Table) -> Names:
        """Return what a table (``tables.REMOVED``) names."""

        def values(by: str) -> pa.Array:
            return listed.filter(pc.equal(listed["by"], by))["value"].combine_chunks()

        uids = [bytes.fromhex(uid) for uid in values("uid").to_pylist()]
        return Names(
            uids=pa.array(uids, UID),
            urls=frozenset(bytes.fromhex(url) for url in values("url").to_pylist()),
            hosts=frozenset(values("host").to_pylist()),
            digests={by: found for by in _DIGESTS if len(found := values(by))},
        )

    @property
    def are_uids_only(self) -> bool:
        """Whether nothing has to be looked up."""
        return not (self.urls or self.hosts or self.digests)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that can tell of a pair."""
        asked = [*_URLS] if self.urls or self.hosts else []
        return ["uid", *asked, *self.digests]

    def mask(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Return which rows are named, by whichever of ``columns`` the table has."""
        found = np.zeros(table.num_rows, np.bool_)
        for name in (name for name in self.columns if name in table.column_names):
            found |= self._in_column(name, table[name])
        return found

    def entries(self, table: pa.Table | pa.RecordBatch) -> set[Entry]:
        """Return what names any of the rows, all of which are named."""
        found = set[Entry]()
        for name in (name for name in self.columns if name in table.column_names):
            column = table[name]
            if name == "uid":
                told = column.filter(_is_in(column, self.uids)).unique()
                found |= {Entry(name, uid.hex()) for uid in told.to_pylist()}
            elif name in self.digests:
                told = column.filter(_is_in(column, self.digests[name])).unique()
                found |= {Entry(name, digest) for digest in told.to_pylist()}
            else:
                urls = {_sha256(url) for url in column.to_pylist() if url} if self.urls else set()
                found |= {Entry("url", url.hex()) for url in urls & self.urls}
                hosts = _hosts(column).unique().to_pylist() if self.hosts else []
                found |= {Entry("host", h) for host in hosts if host for h in self._above(host)}
        return found

    def _in_column(self, name: str, column: pa.Array | pa.ChunkedArray) -> Mask:
        if name == "uid":
            return _is_in(column, self.uids)
        if name in self.digests:
            return _is_in(column, self.digests[name])
        return self._is_of_urls(column) | self._is_of_hosts(column)

    def _is_of_urls(self, column: pa.Array | pa.ChunkedArray) -> Mask:
        if not self.urls:
            return np.zeros(len(column), np.bool_)
        # 0.6 us a row, measured; only where somebody asked for a URL
        told = (url is not None and _sha256(url) in self.urls for url in column.to_pylist())
        return np.fromiter(told, np.bool_, len(column))

    def _is_of_hosts(self, column: pa.Array | pa.ChunkedArray) -> Mask:
        if not self.hosts:
            return np.zeros(len(column), np.bool_)
        hosts = _hosts(column)
        distinct = hosts.unique()
        named = [host for host in distinct.to_pylist() if host and self._above(host)]
        return _is_in(hosts, pa.array(named, pa.string()))

    def _above(self, host: str) -> frozenset[str]:
        """Return the listed hosts that a host is, or is below."""
        labels = host.rstrip(".").split(".")
        return self.hosts.intersection(".".join(labels[at:]) for at in range(len(labels)))


class Found(NamedTuple):
    """The pairs that a list names and that are there still, and the entries that name them."""

    uids: pa.Array
    entries: set[Entry]


def _hosts(urls: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.replace_substring_regex(urls, pattern=_HOST, replacement=r"\1\2")


def _sha256(url: str) -> bytes:
    return hashlib.sha256(url.encode()).digest()


def _is_in(column: pa.Array | pa.ChunkedArray, values: pa.Array) -> Mask:
    found = pc.is_in(column, value_set=values)
    return np.asarray(found.to_numpy() if isinstance(found, pa.ChunkedArray) else found, np.bool_)


def in_run(root: str, names: Names) -> Found:
    """Return which pairs of a run are named; not those that were removed, whose rows are blank.

    Memory is a batch of rows, and the uids.

    Raises:
        StorageError: a table cannot be read.
    """
    uids, entries = [NONE], set[Entry]()
    for url in files(root, ("candidates", "images")):
        for batch in batches(url, [*names.columns, "url"]):
            named = batch.filter(pa.array(names.mask(batch) & _tells(batch["url"])))
            if named.num_rows:
                uids.append(named["uid"])
                entries |= names.entries(named)
    return Found(pa.concat_arrays(uids).unique(), entries)


def _tells(urls: pa.Array) -> Mask:
    return np.asarray(pc.not_equal(pc.fill_null(urls, ""), "").to_numpy(False), np.bool_)


def files(root: str, folders: Iterable[str] = ()) -> Iterator[str]:
    """Yield the tables of all generations of a run, but for its shards.

    Args:
        root: the run's folder.
        folders: of the generations; none: all.
    """
    for generation in generations(root):
        place = storage.join(root, generation)
        for folder in folders or storage.list_folders(place):
            if folder != "shards":
                yield from _below(storage.join(place, folder))


def generations(root: str) -> list[str]:
    """Return the names of the folders of a run's generations."""
    return [name for name in storage.list_folders(root) if re.fullmatch(r"g\d+", name)]


def _below(folder: str) -> Iterator[str]:
    for name in storage.list_folders(folder):
        yield from _below(storage.join(folder, name))
    for url in storage.list_files(folder):
        if url.endswith((".parquet", ".arrow")):
            yield url


def batches(url: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield those of the columns that a table has, a batch at a time; none if it has no uids.

    Args:
        url: a parquet file, or an Arrow IPC file.
        columns: wanted.

    Raises:
        StorageError: it cannot be read.
    """
    with storage.open_arrow(url) as file:
        table = pq.ParquetFile(file) if url.endswith(".parquet") else None
        schema = table.schema_arrow if table else pa.ipc.open_file(file).schema
        if not has_uids(schema):
            return
        present = [name for name in schema.names if name in columns]
        if table:
            yield from table.iter_batches(_BATCH_ROWS, columns=present, use_threads=False)
            return
        fields = [schema.get_field_index(name) for name in present]
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        reader = pa.ipc.open_file(file, options=options)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))


def has_uids(schema: pa.Schema) -> bool:
    """Return whether a table's rows are pairs."""
    return "uid" in schema.names and bool(schema.field("uid").type == UID)
