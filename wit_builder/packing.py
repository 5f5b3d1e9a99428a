"""Packs what a generation keeps: fetched parts go to their shards, shards to one data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from wit_builder import storage
from wit_builder.pack import plan, scatter, shard
from wit_builder.sections import PackSection
from wit_builder.stages import Stages
from wit_builder.units import Marker, Stage, Unit


class Part(NamedTuple):
    """A fetched part that may hold kept pairs: its unit's name and identity, its two files."""

    name: str
    identity: str
    table: str
    tar: str


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Makes the shards of a generation.

    Attributes:
        stages: of the generation.
        queries: place of the query list.
        kept: tables of kept pairs.
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
    kept: list[str]
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
        uids = (storage.read_parquet(url, ["uid"])["uid"] for url in self.kept)
        size = self.section.samples_per_shard
        planned = plan.plan(uids, self.samples, self.seed, size, self.first)
        scattered = self._scatter(planned.shards)
        files, arrived = self.stages.exchanged("pack-scatter", scattered, planned.shards)
        units = []
        for number, (first_key, samples) in enumerate(
            zip(planned.first_keys, planned.samples, strict=True)
        ):
            job = shard.ShardJob(
                sources=files,
                shard=number,
                first_key=first_key,
                samples=samples,
                queries_url=self.queries,
                folder=self.stages.place("shards"),
                max_block_bytes=self.section.max_block_bytes,
            )
            units.append(Unit(f"{number:06d}", arrived + self.inputs, job))
        stage = Stage("pack", shard.run, units, [self.section, self.seed, self.first])
        if not self.stages.is_done(stage):
            # no manifest may stand beside shards that it does not describe
            self.stages.retire("pack-finish")
            if sum(planned.samples) < self.samples:  # pairs were removed: keys are others now
                self.stages.retire("pack")
        return self._finish(self.stages.do(stage))

    def _scatter(self, shards: int) -> list[Marker]:
        units = []
        for part in self.parts:
            job = scatter.MapJob(
                part_tar=part.tar,
                part_parquet=part.table,
                kept=self.kept,
                shards=shards,
                seed=self.seed,
                out=self.stages.place("exchange", "packed", f"{part.name}.arrow"),
            )
            units.append(Unit(part.name, [*self.inputs, part.identity], job))
        return self.stages.do(Stage("pack-scatter", scatter.run, units, [self.seed, shards]))

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
