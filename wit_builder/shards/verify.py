"""Verify a data set of shards: every file, shard, member and digest, and list every fault.

The tables are checked against each other and against what stands in the tars: no value is believed
because one table says so. ``examine`` looks into a single shard.
"""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from wit_builder import lock, storage
from wit_builder.errors import ShardFormatError, WitError
from wit_builder.progress import Observer, Silent
from wit_builder.recipe import digest
from wit_builder.runners import default_workers, make_runner
from wit_builder.shards import layout
from wit_builder.shards.examine import Examined, Expected, examine
from wit_builder.shards.examine_foreign import examine as examine_foreign
from wit_builder.shards.faults import FINISH_REMOVAL, Fault, readable_table, reason
from wit_builder.shards.index import identity, unit_name
from wit_builder.shards.layout import MEMBERS, DatasetInfo, Foreign
from wit_builder.shards.manifest import base_digest, manifest_digest
from wit_builder.shards.read import disagreements, read_info
from wit_builder.shards.write import Block
from wit_builder.tables import BLOCKS, MANIFEST
from wit_builder.units import Done, Run, Stage, Unit

__all__ = ["Fault", "Report", "verify"]

_LOOK_UPS = 16
_WORTH_A_POOL_BYTES = 256 << 20


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


class Job(msgspec.Struct, frozen=True):
    """One shard to examine, its blocks as bytes (``_BLOCK``), and where the outcome goes."""

    folder: str
    row: dict[str, Any] | None
    shard: str
    blocks: bytes | None
    foreign: Foreign | None
    decode: bool
    out: str = ""


def verify(
    url: str,
    workers: int | None = 1,
    *,
    decode: bool = False,
    resume: str = "",
    observer: Observer | None = None,
) -> Report:
    """Check every shard, member and digest of a data set; list all faults, not only the first.

    Args:
        url: the data set's folder.
        workers: processes that the shards are shared out among; None: one a core, if there is
            enough to read.
        decode: decode every picture, too.
        resume: a folder for notes of what is checked. If there are some already, of a verify of
            this data set that was cut short, shards that have not changed since are not read again.
            Once all is checked they are removed: the next verify reads everything.
        observer: who is told how it gets on.

    Raises:
        ShardFormatError: there is no data set to check, or it is of another format.
        StorageError: the place cannot be read.
    """
    folder = url.rstrip("/")
    faults: list[Fault] = []
    jobs = list(_jobs(folder, faults, decode=decode))
    is_foreign = any(job.foreign for job in jobs)
    if not is_foreign:
        faults += _unlisted(folder, {job.shard for job in jobs})
    with _notes(folder, resume) as notes:
        results = _run(jobs, notes, _Pace(workers, bool(resume), observer or Silent()))
    for result in results:
        faults += result.faults
    if not is_foreign:
        faults += _unordered(jobs, results)
    samples, size = sum(r.samples for r in results), sum(r.bytes for r in results)
    return Report(len(jobs), samples, size, faults)


@contextlib.contextmanager
def _notes(folder: str, resume: str) -> Iterator[str]:
    """Give the folder of notes, which is removed when all is done."""
    if not resume:
        with tempfile.TemporaryDirectory(prefix="wit-verify-") as place:
            yield place
        return
    place = storage.join(resume, f"wit-verify-{digest(folder)[:16]}")
    with lock.alone(place):
        yield place
        storage.remove(place)


class _Pace(NamedTuple):
    workers: int | None
    may_resume: bool
    observer: Observer


def _run(jobs: list[Job], notes: str, pace: _Pace) -> list[Examined]:
    named = [(unit_name(job.shard), job) for job in jobs]
    placed = [
        (n, replace(job, out=storage.join(notes, "examined", f"{n}.json"))) for n, job in named
    ]
    with ThreadPoolExecutor(_LOOK_UPS) as threads:
        identities = list(threads.map(_identities if pace.may_resume else _none, jobs))
    if pace.may_resume:
        _forget_faults(job.out for _, job in placed)
    units = [Unit(n, known, job) for (n, job), known in zip(placed, identities, strict=True)]
    runner = make_runner(max(1, min(pace.workers or _workers(jobs), len(jobs))))
    try:
        Run(notes, runner, pace.observer).do(Stage("verify", run, units))
    finally:
        runner.close()
    found = storage.read_many(job.out for _, job in placed)
    return [msgspec.json.decode(found[job.out], type=Examined) for _, job in placed]


def _workers(jobs: list[Job]) -> int:
    """Return how many processes are worth their start, which takes a second."""
    size = sum(job.row["bytes"] for job in jobs if job.row)
    return default_workers() if size >= _WORTH_A_POOL_BYTES else 1


def _forget_faults(places: Iterable[str]) -> None:
    """Remove notes of faults: such a shard is read again, it may have been out of reach."""
    for place, data in storage.read_many(places).items():
        if msgspec.json.decode(data, type=Examined).faults:
            storage.remove(place)


def _none(_: Job) -> list[str]:
    return []


def _identities(job: Job) -> list[str]:
    """Return what changes when a shard does, or what is known of it, or what is checked."""
    tables = digest([job.row, (job.blocks or b"").hex(), job.decode])
    places = [job.shard, *([] if job.foreign else [layout.samples_name(job.shard)])]
    found = []
    for place in places:
        try:
            found.append(identity(storage.join(job.folder, place)) or "")
        except WitError as error:
            found.append(str(error))
    return [*found, tables]


def run(job: Job) -> Done:
    """Publish what was found in a shard."""
    blocks = None if job.blocks is None else [Block(*b) for b in _BLOCK.iter_unpack(job.blocks)]
    expected = Expected(job.folder, job.shard, job.row, blocks, job.decode)
    found = examine_foreign(expected, job.foreign) if job.foreign else examine(expected)
    published = storage.publish_bytes(job.out, msgspec.json.encode(found))
    counts = {"samples": found.samples, "bytes": found.bytes, "faults": len(found.faults)}
    return Done([published], counts)


def _jobs(folder: str, faults: list[Fault], *, decode: bool) -> Iterator[Job]:
    """Yield what to examine: the manifest's shards, or, without one, those that are there."""
    info = _info(folder, faults)
    manifest = readable_table(folder, layout.MANIFEST, MANIFEST, faults.append)
    blocks = readable_table(folder, layout.BLOCKS, BLOCKS, faults.append)
    foreign = None if info is None or info.foreign is msgspec.UNSET else info.foreign
    if info is not None and foreign is None and info.members != MEMBERS:
        faults.append(Fault(layout.DATASET, "members", -1, f"not {', '.join(MEMBERS)}"))
    if manifest is None:
        for name in [] if foreign else _tars(folder):
            yield Job(folder, None, name, None, None, decode)
        return
    if info is not None and blocks is not None:
        found = [Fault(layout.DATASET, "", -1, w) for w in disagreements(info, manifest, blocks)]
        faults += [_unfinished()] if _is_unfinished(info, manifest, blocks, found) else found
    faults += _check_sizes(folder, manifest)
    root = (foreign and foreign.root) or folder
    packed = _packed(manifest.num_rows, blocks) if blocks is not None else None
    for number, row in enumerate(manifest.to_pylist()):
        own = packed[number] if packed is not None else None
        yield Job(root, row, row["shard"], own, foreign, decode)


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


_BLOCK = struct.Struct("=iiqqQ")


def _packed(shards: int, blocks: pa.Table) -> list[bytes]:
    """Return the blocks of every shard as bytes: of 400 million samples there are millions."""
    shard, *columns = (blocks[name].to_numpy() for name in BLOCKS.names)
    kinds = np.dtype([("f", "=i4"), ("s", "=i4"), ("o", "=i8"), ("l", "=i8"), ("x", "=u8")])
    assert kinds.itemsize == _BLOCK.size
    order = np.argsort(shard, kind="stable")
    rows = np.empty(len(shard), kinds)
    for name, column in zip(kinds.names or (), columns, strict=True):
        rows[name] = column[order]
    ends = np.searchsorted(shard[order], np.arange(shards + 1))
    return [rows[start:end].tobytes() for start, end in pairwise(ends.tolist())]


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


def _unordered(jobs: list[Job], results: list[Examined]) -> Iterator[Fault]:
    """Yield shards whose keys do not come after those of the shards before."""
    last = ""
    for job, result in zip(jobs, results, strict=True):
        if result.samples and result.first_key <= last:
            yield Fault(job.shard, result.first_key, -1, "its keys do not follow the shard before")
        last = result.last_key or last
