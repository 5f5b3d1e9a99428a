"""Verify a data set of shards: every file, shard, member and digest, and list every fault.

The tables are checked against each other and against what stands in the tars: no value is believed
because one table says so. ``examine`` looks into a single shard.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import msgspec
import pyarrow as pa

from wit_builder import storage
from wit_builder.errors import ShardFormatError, WitError
from wit_builder.shards import layout
from wit_builder.shards.examine import Examined, Expected, examine
from wit_builder.shards.faults import FINISH_REMOVAL, Fault, readable_table, reason
from wit_builder.shards.layout import MEMBERS, DatasetInfo
from wit_builder.shards.manifest import base_digest, manifest_digest
from wit_builder.shards.read import disagreements, read_info
from wit_builder.shards.write import Block
from wit_builder.tables import BLOCKS, MANIFEST

__all__ = ["Fault", "Report", "verify"]


class Report(msgspec.Struct, frozen=True):
    """What was checked, and every fault; none means that every byte is as packed."""

    shards: int
    samples: int
    bytes: int
    faults: list[Fault]

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults


def verify(url: str, workers: int = 1) -> Report:
    """Check every shard, member and digest of a data set; list all faults, not only the first.

    Args:
        url: the data set's folder.
        workers: processes that the shards are shared out among.

    Raises:
        ShardFormatError: there is no data set to check, or it is of another format.
        StorageError: the place cannot be read.
    """
    folder = url.rstrip("/")
    faults: list[Fault] = []
    shards = list(_shards(folder, faults))
    faults += _unlisted(folder, {shard.shard for shard in shards})
    results = _run(shards, workers)
    for result in results:
        faults += result.faults
    faults += _unordered(shards, results)
    samples, size = sum(r.samples for r in results), sum(r.bytes for r in results)
    return Report(len(shards), samples, size, faults)


def _run(shards: list[Expected], workers: int) -> list[Examined]:
    if workers <= 1 or len(shards) <= 1:
        return [examine(shard) for shard in shards]
    context = multiprocessing.get_context("spawn")  # a fork would copy Arrow's threads half-way
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=context) as pool:
        return list(pool.map(examine, shards))


def _shards(folder: str, faults: list[Fault]) -> Iterator[Expected]:
    """Yield what to examine: the manifest's shards, or, without one, those that are there."""
    info = _info(folder, faults)
    manifest = readable_table(folder, layout.MANIFEST, MANIFEST, faults.append)
    blocks = readable_table(folder, layout.BLOCKS, BLOCKS, faults.append)
    if info is not None and info.members != MEMBERS:
        faults.append(Fault(layout.DATASET, "members", -1, f"not {', '.join(MEMBERS)}"))
    if manifest is None:
        for name in _tars(folder):
            yield Expected(folder, name, None, None)
        return
    if info is not None and blocks is not None:
        found = [Fault(layout.DATASET, "", -1, w) for w in disagreements(info, manifest, blocks)]
        faults += [_unfinished()] if _is_unfinished(info, manifest, blocks, found) else found
    faults += _check_sizes(folder, manifest)
    yield from _expected(folder, manifest, blocks)


def _is_unfinished(
    info: DatasetInfo, manifest: pa.Table, blocks: pa.Table, found: list[Fault]
) -> bool:
    """Return whether all that is wrong is that the manifest is of a later revision."""
    is_same = base_digest(manifest, blocks) == info.base
    return is_same and manifest_digest(manifest) != info.digest and len(found) == 1


def _unfinished() -> Fault:
    what = "not of the manifest's revision (digest differs): a removal was cut short, or a copy"
    return Fault(layout.DATASET, "", -1, what, f"{FINISH_REMOVAL}; else copy it again")


def _info(folder: str, faults: list[Fault]) -> DatasetInfo | None:
    """Return ``dataset.json``; where it is there but damaged, a fault: the rest can be checked."""
    try:
        return read_info(folder)
    except ShardFormatError as error:
        if error.__cause__ is None:  # missing, or whole and of another format: not for us
            raise
        faults.append(Fault(layout.DATASET, "", -1, error.what))
        return None


def _expected(folder: str, manifest: pa.Table, blocks: pa.Table | None) -> Iterator[Expected]:
    of_shard: list[list[Block]] = [[] for _ in range(manifest.num_rows)]
    for row in blocks.to_pylist() if blocks is not None else ():
        shard = row.pop("shard")
        if 0 <= shard < len(of_shard):
            of_shard[shard].append(Block(**row))
    for row, own in zip(manifest.to_pylist(), of_shard, strict=True):
        yield Expected(folder, row["shard"], row, own if blocks is not None else None)


def _check_sizes(folder: str, manifest: pa.Table) -> Iterator[Fault]:
    counts = dict(zip(manifest["shard"].to_pylist(), manifest["samples"].to_pylist(), strict=True))
    try:
        found = msgspec.json.decode(storage.read_bytes(storage.join(folder, layout.SIZES)))
    except (WitError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        yield Fault(layout.SIZES, "", -1, f"not readable: {reason(error)}")
        return
    if found != counts:
        yield Fault(layout.SIZES, "", -1, "its counts are not those of manifest.parquet")


def _tars(folder: str) -> list[str]:
    return sorted(name for name in storage.sizes(folder) if name.endswith(".tar"))


def _unlisted(folder: str, listed: set[str]) -> Iterator[Fault]:
    fix = "remove it if it does not belong here, or pack again"
    tables = {layout.samples_name(name) for name in listed}
    for name in sorted(storage.sizes(folder)):
        if name.endswith(".tar") and name not in listed:
            yield Fault(name, "", -1, "a shard that the manifest does not list", fix)
        elif layout.is_tar_name(name.replace(".parquet", ".tar")) and name not in tables | listed:
            yield Fault(name, "", -1, "a samples table without a listed shard", fix)


def _unordered(shards: list[Expected], results: list[Examined]) -> Iterator[Fault]:
    """Yield shards whose keys do not come after those of the shards before."""
    last = ""
    for shard, result in zip(shards, results, strict=True):
        if result.samples and result.first_key <= last:
            yield Fault(
                shard.shard, result.first_key, -1, "its keys do not follow the shard before"
            )
        last = result.last_key or last
