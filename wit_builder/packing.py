"""Packs what a generation keeps: fetched parts go to their shards, shards to one data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wit_builder import storage
from wit_builder.pack import plan, scatter, shard, wanted
from wit_builder.pack.plan import Plan, Ways, grouped
from wit_builder.pack.shard import ShardJob
from wit_builder.sections import PackSection
from wit_builder.stages import Stages, together
from wit_builder.units import Marker, Stage, Unit


class Part(NamedTuple):
    """A fetched part that may hold kept pairs.

    Attributes:
        name: unique among the parts.
        identity: of its unit.
        table: place of its rows.
        tar: place of its pictures.
        size_bytes: of the tar as it was fetched, so that a removal since then moves no part.
    """

    name: str
    identity: str
    table: str
    tar: str
    size_bytes: int


def parts_of(root: str, fetched: Sequence[Marker], markers: Sequence[Marker]) -> Iterator[Part]:
    """Yield the parts of fetched (and judged) units.

    Args:
        root: the run's folder.
        fetched: the units that tell what became of the pairs.
        markers: of all units, those that published the tars among them.
    """
    sizes = {output.url: output.size_bytes for marker in markers for output in marker.outputs}
    for marker in fetched:
        for table in (o.url for o in marker.outputs if o.url.endswith(".parquet")):
            name = table.removesuffix(".parquet")
            tar = name.replace("/judged/", "/images/") + ".tar"
            places = (storage.join(root, table), storage.join(root, tar))
            yield Part(name, marker.identity, *places, sizes[tar])


class Arrived(NamedTuple):
    """Where a shard's pairs are: a bucket of exchange files, with the identity of these."""

    files: list[str]
    bucket: int
    inputs: list[str]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Makes the shards of a generation.

    Attributes:
        stages: of the generation.
        queries: place of the query list.
        kept: tables of kept pairs, with identities, by bucket of their URL.
        samples: how many pairs are kept.
        inputs: identities of the query list and of what is kept.
        parts: where the pictures are.
        section: the recipe's section.
        seed: the run's seed.
        first: samples of the data set that come before.
        lineage: a digest of what decides the shards' bytes.
    """

    stages: Stages
    queries: str
    kept: list[tuple[str, str]]
    samples: int
    inputs: list[str]
    parts: list[Part]
    section: PackSection
    seed: int
    first: int
    lineage: str

    def __call__(self) -> Marker:
        """Return the marker of the data set.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        uids = (storage.read_parquet(url, ["uid"])["uid"] for url, _ in self.kept)
        size = self.section.samples_per_shard
        planned = plan.plan(uids, self.samples, self.seed, size, self.first)
        groups = [
            [self.parts[number] for number in group]
            for group in grouped([part.size_bytes for part in self.parts])
        ]
        ways = Ways.of(len(groups), planned.shards)
        arrived = sent_on(self.stages, "pack", self._scatter(groups, ways), ways)
        units = []
        for job, (_, _, inputs) in zip(self._jobs(planned, arrived), arrived, strict=True):
            units.append(Unit(f"{job.shard:06d}", inputs + self.inputs, job))
        stage = Stage("pack", shard.run, units, [self.section, self.seed, self.first])
        if not self.stages.is_done(stage):
            # no manifest may stand beside shards that it does not describe
            self.stages.retire("pack-finish")
            if sum(planned.samples) < self.samples:  # pairs were removed: keys are others now
                self.stages.retire("pack")
        return self._finish(self.stages.do(stage))

    def _scatter(self, groups: list[list[Part]], ways: Ways) -> list[Marker]:
        """Send the kept pairs of groups of parts to their shards, or to coarse buckets."""
        files, inputs = self._wanted(groups)
        units = []
        for number, parts in enumerate(groups):
            name = f"{number:05d}"
            job = scatter.MapJob(
                parts=[scatter.PartFiles(part.table, part.tar) for part in parts],
                wanted=files,
                unit=number,
                ways=ways,
                seed=self.seed,
                out=self.stages.place("exchange", "packed", f"{name}.arrow"),
            )
            units.append(Unit(name, [*self.inputs, *inputs, *_identities(parts)], job))
        return self.stages.do(Stage("pack-scatter", scatter.run, units, [self.seed, ways]))

    def _wanted(self, groups: list[list[Part]]) -> tuple[list[str], list[str]]:
        """Return the exchange files that tell each group its kept pairs, and their identity."""
        units = []
        for number, parts in enumerate(groups):
            name, tables = f"{number:05d}", [part.table for part in parts]
            out = self.stages.place("exchange", "located", f"{name}.arrow")
            locating = wanted.LocateJob(tables, number, len(self.kept), out)
            units.append(Unit(name, _identities(parts), locating))
        located = self.stages.do(Stage("pack-locate", wanted.run_locate, units, len(self.kept)))
        files, inputs = self.stages.exchanged("pack-locate", located, len(self.kept))
        units = []
        for number, (kept, identity) in enumerate(self.kept):
            name = f"{number:05d}"
            out = self.stages.place("exchange", "wanted", f"{name}.arrow")
            wanting = wanted.WantJob(files, number, kept, len(groups), out)
            units.append(Unit(name, [*inputs, identity], wanting))
        told = self.stages.do(Stage("pack-want", wanted.run_want, units, len(groups)))
        return self.stages.exchanged("pack-want", told, len(groups))

    def _jobs(self, planned: Plan, arrived: Sequence[Arrived]) -> list[ShardJob]:
        return jobs(planned, arrived, self.stages.place("shards"), self.section, self.queries)

    def _finish(self, packed: list[Marker]) -> Marker:
        job = shard.FinishJob(
            folder=self.stages.place("shards"),
            shards=len(packed),
            generation=self.stages.name,
            recipe=self.lineage,
            max_block_bytes=self.section.max_block_bytes,
        )
        unit = Unit("dataset", [marker.identity for marker in packed], job)
        return self.stages.do_one(Stage("pack-finish", shard.finish, [unit], self.lineage))


def _identities(parts: list[Part]) -> list[str]:
    return [f"{part.name} {part.identity}" for part in parts]


def jobs(
    planned: Plan, arrived: Sequence[Arrived], folder: str, section: PackSection, queries: str = ""
) -> list[ShardJob]:
    """Return the job of every planned shard."""
    found = list[ShardJob]()
    numbers = zip(planned.first_keys, planned.samples, strict=True)
    for (files, bucket, _), (first_key, samples) in zip(arrived, numbers, strict=True):
        job = ShardJob(
            sources=files,
            bucket=bucket,
            shard=len(found),
            first_key=first_key,
            samples=samples,
            queries_url=queries,
            folder=folder,
            max_block_bytes=section.max_block_bytes,
        )
        found.append(job)
    return found


def sent_on(stages: Stages, name: str, sent: list[Marker], ways: Ways) -> list[Arrived]:
    """Return where the pairs of every shard are, once they are sent on if the ways are two.

    Args:
        stages: to do so with.
        name: what the stage is called after.
        sent: units that sent pairs to shards or to coarse buckets.
        ways: to the shards.

    Raises:
        UnitsFailedError: units failed after their retries.
    """
    stage = f"{name}-refine"
    if ways.is_one:
        stages.retire(stage)
        files, inputs = stages.urls(sent, ".arrow"), together(sent)
        return [Arrived(files, number, inputs) for number in range(ways.shards)]
    sizes = [marker.outputs[0].size_bytes / ways.buckets for marker in sent]  # buckets are equal
    groups = [sent[group.start : group.stop] for group in grouped(sizes)]
    units = []
    for bucket in range(ways.buckets):
        for number, group in enumerate(groups):
            unit = f"{bucket:05d}-{number:05d}"
            out = stages.place("exchange", "refined", f"{unit}.arrow")
            job = scatter.RefineJob(stages.urls(group, ".arrow"), bucket, ways, out)
            units.append(Unit(unit, together(group), job))
    refined = stages.do(Stage(stage, scatter.run_refine, units, ways))
    return list(_refined(stages, refined, len(groups), ways))


def _refined(stages: Stages, markers: list[Marker], groups: int, ways: Ways) -> Iterator[Arrived]:
    """Yield where each shard's pairs are, from the units of all groups, bucket by bucket."""
    for bucket in range(ways.buckets):
        mine = markers[bucket * groups : (bucket + 1) * groups]
        files, inputs = stages.urls(mine, ".arrow"), together(mine)
        first = bucket * ways.span
        for number in range(first, min(first + ways.span, ways.shards)):
            yield Arrived(files, number - first, inputs)
