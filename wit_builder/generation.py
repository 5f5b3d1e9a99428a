"""One generation of a build: its stages, from archives to shards, composed.

Each method runs one stage (or says what it gave before) and hands the places of its tables on.
Inputs of a unit are the identities of what the units before it published, so a change anywhere
travels exactly as far as it changes bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from msgspec.structs import replace

from wit_builder import exchange, leftovers, storage
from wit_builder import recipe as recipes
from wit_builder.crawl import sources
from wit_builder.crawl.candidates import Output, Piece
from wit_builder.curate import dedup, draw, matching, repeats
from wit_builder.errors import QueryListError, RejectionFloodError
from wit_builder.fetch import route
from wit_builder.fetch import run as fetch
from wit_builder.generations import unit_name
from wit_builder.pack import plan, scatter, shard
from wit_builder.queries import build as queries
from wit_builder.sections import FetchSection, Recipe
from wit_builder.tables import Reason
from wit_builder.units import Marker, Run, Stage, Unit


@dataclass
class Generation:
    """The stages of one generation of a run.

    Attributes:
        recipe: what to build.
        run: where, and who does the work.
        queries: the query list.
        pieces: of the archives and sites that make this generation; None where one was.
        name: ``g0``, ``g1``, ...: its folder.
        earlier: the generations before it, all done: what they have is not asked for again.
        loopback: host pattern -> ``127.0.0.1:PORT``, for tests and the demo only.
    """

    recipe: Recipe
    run: Run
    queries: Marker
    pieces: Sequence[Piece | None]
    name: str = "g0"
    earlier: Sequence[Generation] = ()
    loopback: dict[str, str] = field(default_factory=dict)
    markers: list[Marker] = field(default_factory=list, init=False, repr=False)
    """Of every unit of this recipe that was done, or found done, so far."""

    def place(self, *parts: str) -> str:
        """Return a place in this generation's folder."""
        return storage.join(self.run.root, self.name, *parts)

    def _do(self, stage: Stage) -> list[Marker]:
        markers = self.run.do(stage, self.name)
        self.markers += markers
        return markers

    def _urls(self, markers: Sequence[Marker], suffix: str) -> list[str]:
        outputs = (o.url for m in markers for o in m.outputs)
        return [storage.join(self.run.root, url) for url in outputs if url.endswith(suffix)]

    def _exchanged(
        self, stage: str, markers: list[Marker], buckets: int, suffix: str = ".arrow"
    ) -> tuple[list[str], list[str]]:
        """Return the exchange files of a stage that has run, and their identity as inputs.

        Where files times buckets are too many, files are merged in groups first.
        """
        files = self._urls(markers, suffix)
        group = -(-len(files) * buckets // exchange.MAX_SLICES)
        if group > 1:
            units = []
            for number, at in enumerate(range(0, len(files), group)):
                out = self.place("exchange", f"{stage}-merged", f"{number:05d}{suffix}")
                job = exchange.MergeJob(files[at : at + group], out)
                units.append(Unit(f"{number:05d}", _together(markers[at : at + group]), job))
            markers = self._do(Stage(f"{stage}-merge", exchange.run_merge, units))
            files = self._urls(markers, suffix)
        else:
            self.run.retire(f"{stage}-merge", self.name)
        return files, _together(markers)

    # --- what to look for, and where ---------------------------------------

    @property
    def _query_list(self) -> str:
        return storage.join(self.run.root, queries.LIST)

    @cached_property
    def candidates(self) -> list[Marker]:
        """Texts that came with images, a table per piece of a source."""
        found: list[Marker] = []
        for kind, read in sources.READ.items():
            units = []
            for place, piece in enumerate(self.pieces):
                if piece is not None and piece.kind == kind:
                    name = unit_name(kind, place)
                    units.append(Unit(name, piece.inputs, piece.job(Output.of(self.place(), name))))
            settings = sources.settings(kind, self.recipe.crawl, self.recipe.fetch)
            stage = Stage(f"crawl-{kind}", read, units, settings)
            if units:
                found += self._do(stage)
            else:
                self.run.retire(stage.name, self.name)
        self._refuse_missing([m for m in found if m.counts.get(_MISSING)])
        return found

    def _refuse_missing(self, missing: list[Marker]) -> None:
        """Stop if too many archives of the run are not there; the next start looks for them again.

        Raises:
            RejectionFloodError: more than the recipe's share of them.
        """
        archives = sum(len(generation.pieces) for generation in [*self.earlier, self])
        if len(missing) <= self.recipe.crawl.max_missing_share * archives:
            return
        for marker in missing:
            self.run.forget(f"crawl-{marker.unit.rpartition('-')[0]}", marker.unit, self.name)
        raise RejectionFloodError(
            f"{len(missing)} of {archives} files are not there, or vanished",
            where=self.place("rejected"),
            fix="correct crawl.sources (is base right?), or raise crawl.max_missing_share",
        )

    # --- what contains a query, once per URL --------------------------------

    @cached_property
    def matched(self) -> list[Marker]:
        """Pairs whose text contains a query, one per URL, a table per bucket."""
        files, inputs = self._exchanged("match", self.matching, self.recipe.buckets)
        repeated = self.repeated
        earlier = [m for generation in self.earlier for m in generation.matched]
        earlier += [m for generation in self.earlier for m in generation.repeated]
        inputs = inputs + [m.identity for m in [*repeated, *earlier]]
        units = []
        for bucket in range(self.recipe.buckets):
            name = f"{bucket:05d}"
            job = dedup.DedupJob(
                sources=files,
                bucket=bucket,
                seed=self.recipe.seed,
                out=self.place("matched", f"{name}.parquet"),
                rejected=self.place("rejected", f"dedup-{name}.parquet"),
                repeated=[u for g in [*self.earlier, self] for u in g.repeated_tables],
                earlier=[g.place("matched", f"{name}.parquet") for g in self.earlier],
            )
            units.append(Unit(name, inputs, job))
        return self._do(Stage("dedup", dedup.run, units, self.recipe.seed))

    @property
    def repeated_tables(self) -> list[str]:
        """The places of the tables of ``repeated``."""
        return self._urls(self.repeated, ".parquet")

    @cached_property
    def repeated(self) -> list[Marker]:
        """Texts that come with too many URLs, a table per bucket; none if any number will do."""
        limit, buckets = self.recipe.match.max_urls_per_text, self.recipe.buckets
        if not limit:
            for stage in ("repeats", "repeats-merge"):
                self.run.retire(stage, self.name)
            return []
        files, inputs = self._exchanged("repeats", self.matching, buckets, repeats.SUFFIX)
        units = []
        for bucket in range(buckets):
            name = f"{bucket:05d}"
            out = self.place("repeated", f"{name}.parquet")
            units.append(Unit(name, inputs, repeats.RepeatsJob(files, bucket, limit, out)))
        return self._do(Stage("repeats", repeats.run, units, limit))

    @cached_property
    def matching(self) -> list[Marker]:
        """Candidates that contain a query, a file per candidates table, grouped by URL."""
        queries = self.queries.identity
        units = []
        for marker in self.candidates:
            job = matching.MatchJob(
                candidates=self._urls([marker], ".arrow")[0],
                queries=self._query_list,
                queries_identity=queries,
                section=self.recipe.match,
                buckets=self.recipe.buckets,
                matched=self.place("exchange", "matched", f"{marker.unit}.arrow"),
                uses=self.place("exchange", "uses", f"{marker.unit}{repeats.SUFFIX}"),
                rejections=self.place("rejected", f"match-{marker.unit}.parquet"),
            )
            units.append(Unit(marker.unit, [queries, marker.identity], job))
        settings = [self.recipe.match, self.recipe.buckets]
        return self._do(Stage("match", matching.run, units, settings))

    # --- rounds of drawing and fetching -------------------------------------

    @cached_property
    def rounds(self) -> list[list[Marker]]:
        """Per round, its fetch units; ends when no drawn pair is unknown, or at the last round."""
        done: list[list[Marker]] = []
        for number in range(self.recipe.balance.rounds):
            selected = self._round(number, done)
            if not selected:
                break
            done.append(self._fetch(number, selected))
        self._forget_rounds(len(done))
        return done

    def _forget_rounds(self, first: int) -> None:
        """Remove what an earlier, longer build left; the draw that ended this one stays."""
        for number in range(first, first + _FORGOTTEN_ROUNDS):
            stages = ("select", "route", "fetch") if number == first else _STAGES_OF_A_ROUND
            for stage in stages:
                self.run.retire(f"{stage}-r{number}", self.name)
            for folder in ("selected", "images"):  # parts of a fetch that was cut short, too
                storage.remove(self.place(folder, f"r{number}"))

    @cached_property
    def asked_first(self) -> list[Marker]:
        """What the first round asks for."""
        return self._round(0, [])

    def _round(self, number: int, before: list[list[Marker]]) -> list[Marker]:
        """Return the units with what the round asks for; none when the loop has converged."""
        images = [self._urls(markers, ".parquet") for markers in before]
        thresholds = self.place("exchange", "thresholds", f"r{number}.parquet")
        balance, seed, matched = self.recipe.balance, self.recipe.seed, self.matched
        matched_urls = [self.place("matched", f"{m.unit}.parquet") for m in matched]
        found_out = [m for markers in before for m in markers] + self._earlier_markers
        known = [self.queries.identity, *(m.identity for m in found_out)]
        drawn = draw.DrawJob(
            self._query_list, matched_urls, images, seed, balance, thresholds, self._earlier
        )
        unit = Unit("thresholds", [*known, *(m.identity for m in matched)], drawn)
        [found] = self._do(Stage(f"draw-r{number}", draw.run_draw, [unit], [balance, seed]))
        if not found.counts["unknown"]:
            return []
        units = []
        for marker, url in zip(matched, matched_urls, strict=True):
            out = self.place("selected", f"r{number}", f"{marker.unit}.parquet")
            job = draw.SelectJob(
                self._query_list, url, images, thresholds, seed, out, self._earlier
            )
            units.append(Unit(marker.unit, [*known, found.identity, marker.identity], job))
        return self._do(Stage(f"select-r{number}", draw.run_select, units, seed))

    def _fetch(self, number: int, selected: list[Marker]) -> list[Marker]:
        buckets = self.recipe.buckets
        units = []
        for marker, url in zip(selected, self._urls(selected, ".parquet"), strict=True):
            out = self.place("exchange", f"routed-r{number}", f"{marker.unit}.arrow")
            units.append(Unit(marker.unit, [marker.identity], route.RouteJob(url, buckets, out)))
        routed = self._do(Stage(f"route-r{number}", route.run, units, buckets))
        return self._ask(number, routed)

    def _ask(self, number: int, routed: list[Marker]) -> list[Marker]:
        recipe = self.recipe
        files, inputs = self._exchanged(f"route-r{number}", routed, recipe.buckets)
        units = []
        for bucket in range(recipe.buckets):
            job = fetch.FetchJob(
                sources=files,
                bucket=bucket,
                out=self.place("images", f"r{number}"),
                fetch=recipe.fetch,
                image=recipe.image,
                seed=recipe.seed,
                loopback=self.loopback,
            )
            units.append(Unit(f"{bucket:05d}", inputs, job))
        return self._do(Stage(f"fetch-r{number}", fetch.run, units, recipe.image))

    # --- what is kept, packed and reported ----------------------------------

    @cached_property
    def kept(self) -> Marker:
        """The pairs to keep, each with the queries that keep it."""
        images = [self._urls(markers, ".parquet") for markers in self.rounds]
        out, rejected = self.place("kept.parquet"), self.place("rejected", "keep.parquet")
        balance, seed = self.recipe.balance, self.recipe.seed
        job = draw.KeepJob(self._query_list, images, seed, balance, out, rejected, self._earlier)
        found_out = [m for r in self.rounds for m in r] + self._earlier_markers
        inputs = [self.queries.identity, *(m.identity for m in found_out)]
        cap = balance.cap_per_query
        return self._do(Stage("keep", draw.run_keep, [Unit("kept", inputs, job)], [cap, seed]))[0]

    @cached_property
    def _earlier(self) -> draw.Earlier:
        """What earlier generations keep and have asked for."""
        images = [
            url
            for g in self.earlier
            for r in g.rounds
            for url in g._urls(r, ".parquet")  # noqa: SLF001 - of its own kind
        ]
        return draw.Earlier([g.place("kept.parquet") for g in self.earlier], images)

    @property
    def _earlier_markers(self) -> list[Marker]:
        return [m for g in self.earlier for r in [*g.rounds, [g.kept]] for m in r]

    @cached_property
    def samples(self) -> int:
        """How many samples the generation's shards hold."""
        return self.kept.counts["kept"]

    @cached_property
    def shards(self) -> Marker | None:
        """The packed data set; None where a later generation adds nothing.

        Raises:
            QueryListError: no pair was kept, now or earlier.
        """
        kept = self.place("kept.parquet")
        inputs = [self.queries.identity, self.kept.identity]
        if not self.samples:
            if any(generation.samples for generation in self.earlier):
                self._unpack()
                return None
            raise QueryListError(
                "no pair was kept: no text contains a query, or no picture could be had",
                where=self.place(),
                fix="look at the counts of the stages above, then change queries or sources",
            )
        first = sum(generation.samples for generation in self.earlier)
        planned = plan.plan(
            storage.read_parquet(kept, ["uid"]),
            self.recipe.seed,
            self.recipe.pack.samples_per_shard,
            first,
        )
        scattered = self._scatter(kept, planned.shards, inputs)
        files, arrived = self._exchanged("pack-scatter", scattered, planned.shards)
        units = []
        for number, (first_key, samples) in enumerate(
            zip(planned.first_keys, planned.samples, strict=True)
        ):
            job = shard.ShardJob(
                sources=files,
                shard=number,
                first_key=first_key,
                samples=samples,
                queries_url=self._query_list,
                folder=self.place("shards"),
                max_block_bytes=self.recipe.pack.max_block_bytes,
            )
            units.append(Unit(f"{number:06d}", arrived + inputs, job))
        stage = Stage("pack", shard.run, units, [self.recipe.pack, self.recipe.seed, first])
        if not self.run.is_done(stage, self.name):
            # no manifest may stand beside shards that it does not describe
            self.run.retire("pack-finish", self.name)
        finished = self._finish(self._do(stage))
        leftovers.remove(self.place(), self.markers)
        return finished

    def _unpack(self) -> None:
        """Remove the shards that an earlier build of this generation has packed."""
        for stage in ("pack-finish", "pack", "pack-scatter", "pack-scatter-merge"):
            self.run.retire(stage, self.name)
        storage.remove(self.place("shards"))
        leftovers.remove(self.place(), self.markers)

    def _scatter(self, kept: str, shards: int, inputs: list[str]) -> list[Marker]:
        units = []
        parts = [(m, url) for r in self.rounds for m in r for url in self._urls([m], ".parquet")]
        for marker, url in parts:
            name = "-".join(url.removesuffix(".parquet").split("/")[-2:])
            job = scatter.MapJob(
                part_tar=url.removesuffix(".parquet") + ".tar",
                part_parquet=url,
                kept_url=kept,
                shards=shards,
                seed=self.recipe.seed,
                out=self.place("exchange", "packed", f"{name}.arrow"),
            )
            units.append(Unit(name, [*inputs, marker.identity], job))
        settings = [self.recipe.seed, shards]
        return self._do(Stage("pack-scatter", scatter.run, units, settings))

    @cached_property
    def _lineage(self) -> str:
        """A digest of what decides this generation's bytes: settings, and its own archives."""
        crawl = replace(self.recipe.crawl, sources=[])
        settings = replace(self.recipe, name="", crawl=crawl, fetch=FetchSection())
        archives = sorted((p.kind, storage.name_of(p.key)) for p in self.pieces if p)
        return recipes.digest([recipes.lineage(settings), archives])

    def _finish(self, packed: list[Marker]) -> Marker:
        job = shard.FinishJob(
            folder=self.place("shards"),
            shards=len(packed),
            generation=self.name,
            recipe=self._lineage,
            max_block_bytes=self.recipe.pack.max_block_bytes,
        )
        unit = Unit("dataset", [m.identity for m in packed], job)
        settings = self._lineage
        return self._do(Stage("pack-finish", shard.finish, [unit], settings))[0]


_MISSING = f"rejected:{Reason.ARCHIVE_MISSING}"
_STAGES_OF_A_ROUND = ("draw", "select", "route", "fetch")
_FORGOTTEN_ROUNDS = 8
"""Rounds past the last one whose leftovers of an earlier, longer build are looked for."""


def _together(markers: Sequence[Marker]) -> list[str]:
    """Return one identity for all of them: what a unit names that reads from every one."""
    return [recipes.digest([marker.identity for marker in markers])]
