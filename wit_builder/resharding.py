"""Packs a finished data set anew: other sizes of shards or blocks, or another order; nothing else.

``OUT`` becomes a data set like any other: shards and their tables lie directly in it. Until then
the exchange files lie in ``OUT/reshard``, and the markers in ``OUT/units``; both are removed at the
end, so that no picture is left where a removal would not look for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import ahead, leftovers, lock, storage
from wit_builder.errors import RecipeError, ShardFormatError
from wit_builder.pack import plan, shard, unpack
from wit_builder.pack.plan import Plan, Ways, grouped
from wit_builder.packing import jobs, sent_on
from wit_builder.sections import PackSection
from wit_builder.shards import layout
from wit_builder.shards.layout import DatasetInfo
from wit_builder.shards.read import Dataset, read_info
from wit_builder.stages import Stages
from wit_builder.units import Marker, Run, Stage, Unit

_WORK = "reshard"
"""Folder for the exchange files, and for the markers in ``units``."""

_EXCHANGES = ("unpacked", "refined")

_READERS = 16
"""Samples tables that are read at once."""


def reshard(source: str, out: str, section: PackSection, seed: int, run: Run) -> DatasetInfo:
    """Make another data set of the samples of one, and return what its ``dataset.json`` says.

    Every sample has its place by ``hash(seed, "pack", uid)``, as when a build packs it; so with
    the section and seed that made the source, the shards are the same to the byte, unless samples
    were removed: those stay out, and the keys of others close up. Members are copied as they are.
    Starting again finishes what was cut short. Any runner gives the same bytes.

    Args:
        source: folder of a finished data set of ours, local or remote.
        out: folder of the new one. It must not have a data set yet.
        section: how large shards and blocks are to be.
        seed: of the order; a build's is its recipe's ``seed``.
        run: who does the work, and who is told; its ``root`` must be ``out``.

    Raises:
        RecipeError: ``out`` is a run's folder, or has a data set.
        ShardFormatError: ``source`` is no finished data set of ours, or is damaged.
        StorageError: something cannot be read or written, or another ``wit`` is at work there.
        UnitsFailedError: units failed after their retries.
    """
    out = out.rstrip("/")
    assert run.root.rstrip("/") == out, "units publish below their run's root"
    data = _opened(source)
    _refuse(out)
    with lock.alone(out):
        leftovers.sweep(out)
        if not _is_finished(out):
            _Resharding(data, out, section, seed, Stages(run, _WORK)).do()
        # the markers first: without them, a start after a kill has nothing else left to do
        for folder in ("units", _WORK):
            storage.remove(storage.join(out, folder))
    return read_info(out)


def _is_finished(out: str) -> bool:
    """Return whether the data set is whole, and the markers are gone."""
    last = storage.join(out, "units", _WORK, "pack-finish", "dataset.json")
    return storage.exists(storage.join(out, layout.DATASET)) and not storage.exists(last)


def _is_cleared(out: str) -> bool:
    """Return whether no exchange file is left; some buckets keep folders without any."""
    folder = storage.join(out, _WORK, "exchange")
    return not any(storage.list_files(storage.join(folder, n), ".arrow") for n in _EXCHANGES)


def _opened(source: str) -> Dataset:
    data = Dataset.open(source)
    if storage.exists(data.samples_url(0)):
        return data
    raise ShardFormatError(
        "the shards have no samples tables: they are those of others",
        where=storage.redact(data.url),
        fix="name a data set that wit has packed",
    )


def _refuse(out: str) -> None:
    """Refuse a folder that has something else, or that is finished."""
    if storage.exists(storage.join(out, "recipe.toml")):
        what = "this is the folder of a build"
    elif _is_finished(out) and _is_cleared(out):
        what = "there is a data set here already"
    else:
        return
    raise RecipeError(what, where=storage.redact(out), fix="name another folder")


class _Resharding:
    """The stages of one resharding."""

    def __init__(
        self, data: Dataset, out: str, section: PackSection, seed: int, stages: Stages
    ) -> None:
        self._data, self._out, self._seed = data, out, seed
        self._section, self._stages = section, stages

    def do(self) -> None:
        """Do all that is not done."""
        planned = self._plan()
        listed = self._data.manifest
        groups = list(grouped(listed["bytes"].to_pylist()))
        ways = Ways.of(len(groups), planned.shards)
        arrived = sent_on(self._stages, _WORK, self._unpack(groups, ways), ways)
        units = [
            Unit(f"{job.shard:06d}", there.inputs, job)
            for job, there in zip(
                jobs(planned, arrived, self._out, self._section), arrived, strict=True
            )
        ]
        stage = Stage("pack", shard.run_again, units, [self._section, self._seed, planned.first])
        if not self._stages.is_done(stage):
            # no manifest may stand beside shards that it does not describe
            self._stages.retire("pack-finish")
        self._finish(self._stages.do(stage))

    def _plan(self) -> Plan:
        """Return how many samples each shard gets; those of the source are counted as they are."""
        total = self._data.info.samples
        if self._data.revision:
            total = sum(len(uids) for uids in self._uids())
        size = self._section.samples_per_shard
        if not total:
            raise ShardFormatError(
                "no sample is left: all were removed", where=storage.redact(self._data.url)
            )
        return plan.plan(self._uids(), total, self._seed, size, self._first_key())

    def _uids(self) -> Iterator[pa.ChunkedArray]:
        """Yield the uids of each shard's samples that are not removed."""
        numbers = range(self._data.info.shards)
        return ahead.mapped(self._left, numbers, _READERS)

    def _left(self, number: int) -> pa.ChunkedArray:
        rows = storage.read_parquet(self._data.samples_url(number), ["uid", "removed"])
        return rows["uid"].filter(pc.invert(rows["removed"]))

    def _first_key(self) -> int:
        """Return where the keys begin: those of a later generation go on where others end."""
        keys = storage.read_parquet(self._data.samples_url(0), ["key"])["key"]
        return int(keys[0].as_py()) if len(keys) else 0

    def _unpack(self, groups: list[range], ways: Ways) -> list[Marker]:
        listed = self._data.manifest
        names, digests = listed["shard"].to_pylist(), listed["sha256"].to_pylist()
        units = []
        for number, group in enumerate(groups):
            some = slice(group.start, group.stop)
            job = unpack.UnpackJob(
                folder=self._data.url,
                shards=names[some],
                ways=ways,
                seed=self._seed,
                out=self._stages.place("exchange", "unpacked", f"{number:05d}.arrow"),
            )
            units.append(Unit(f"{number:05d}", digests[some], job))
        return self._stages.do(Stage("unpack", unpack.run, units, [self._seed, ways]))

    def _finish(self, packed: list[Marker]) -> None:
        info = self._data.info
        job = shard.FinishJob(
            folder=self._out,
            shards=len(packed),
            generation=info.generation,
            recipe=info.recipe,
            max_block_bytes=self._section.max_block_bytes,
        )
        identities = [marker.identity for marker in packed]
        unit = Unit("dataset", identities, job)
        self._stages.do_one(Stage("pack-finish", shard.finish, [unit], info.recipe))
