"""Composes the stages into a build; the only module that knows them all.

Each method runs one stage (or says what it gave before) and hands the places of its tables on.
Inputs of a unit are the identities of what the units before it published, so a change anywhere
travels exactly as far as it changes bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from wit_builder import exchange, leftovers, lock, storage
from wit_builder import recipe as recipes
from wit_builder.crawl import archives, site
from wit_builder.curate import dedup, draw, match
from wit_builder.errors import QueryListError, RecipeError
from wit_builder.fetch import route
from wit_builder.fetch import run as fetch
from wit_builder.pack import plan, scatter, shard
from wit_builder.queries import build as queries
from wit_builder.report import build as report
from wit_builder.report.summary import Step
from wit_builder.sections import Recipe, SiteSource, WarcSource
from wit_builder.units import Marker, Run, Stage, Unit, total
from wit_builder.web.agent import user_agent

Until = Literal["queries", "crawl", "match", "balance", "fetch", "pack", "report"]
"""The stages a user can stop after, in order."""


@dataclass
class Build:
    """One run of a recipe in a folder.

    Attributes:
        recipe: what to build.
        run: where, and who does the work.
        loopback: host pattern -> ``127.0.0.1:PORT``, for tests and the demo only.
        generation: which generation of the run's tables.
    """

    recipe: Recipe
    run: Run
    loopback: dict[str, str] = field(default_factory=dict)
    generation: str = "g0"
    _markers: list[Marker] = field(default_factory=list, init=False, repr=False)
    """Of every unit of this recipe that was done, or found done, so far."""

    def __call__(self, until: Until = "report") -> None:
        """Do every stage up to ``until``; what is done already is not done again.

        Raises:
            WitError: something is wrong with the recipe, an input, or a place; units that do not
                depend on it are done, and starting again goes on from there.
        """
        self._refuse_early(until)
        with lock.alone(self.run.root):
            self._publish_recipe()
            self._go(until)

    def _go(self, until: Until) -> None:
        steps: dict[Until, Callable[[], object]] = {
            "queries": lambda: self.queries,
            "crawl": lambda: self.candidates,
            "match": lambda: self.matched,
            "balance": lambda: self._round(0, []),
            "fetch": lambda: self.rounds,
            "pack": lambda: self.shards,
            "report": lambda: self.report,
        }
        steps[until]()

    def _refuse_early(self, until: Until) -> None:
        """Refuse what would only be found out after hours; a finished run needs to ask nobody."""
        sources = self.recipe.crawl.sources
        if until != "queries" and not sources:
            raise RecipeError(
                "the recipe names nothing to crawl",
                where="crawl.sources",
                fix="add a [[crawl.sources]] section, e.g. kind = 'warc', paths = ['*.warc.gz']",
            )
        crawls = until != "queries" and any(isinstance(s, SiteSource) for s in sources)
        asks = crawls or until in {"fetch", "pack", "report"}
        if asks and not storage.exists(storage.join(self.run.root, "report", "summary.json")):
            user_agent(self.recipe.fetch.contact, loopback_only=bool(self.loopback))

    def place(self, *parts: str) -> str:
        """Return a place in this generation's folder."""
        return storage.join(self.run.root, self.generation, *parts)

    def _publish_recipe(self) -> None:
        leftovers.sweep(self.run.root)
        url = storage.join(self.run.root, "recipe.toml")
        storage.publish_bytes(url, recipes.dump(self.recipe).encode())

    def _do(self, stage: Stage) -> list[Marker]:
        markers = self.run.do(stage, self.generation)
        self._markers += markers
        return markers

    def _urls(self, markers: Sequence[Marker], suffix: str) -> list[str]:
        outputs = (o.url for m in markers for o in m.outputs)
        return [storage.join(self.run.root, url) for url in outputs if url.endswith(suffix)]

    def _exchanged(
        self, stage: str, markers: list[Marker], buckets: int
    ) -> tuple[list[str], list[str]]:
        """Return the exchange files of a stage that has run, and their identity as inputs.

        Where files times buckets are too many, files are merged in groups first.
        """
        files = self._urls(markers, ".arrow")
        group = -(-len(files) * buckets // exchange.MAX_SLICES)
        if group > 1:
            units = []
            for number, at in enumerate(range(0, len(files), group)):
                out = self.place("exchange", f"{stage}-merged", f"{number:05d}.arrow")
                job = exchange.MergeJob(files[at : at + group], out)
                units.append(Unit(f"{number:05d}", _together(markers[at : at + group]), job))
            markers = self._do(Stage(f"{stage}-merge", exchange.run_merge, units))
            files = self._urls(markers, ".arrow")
        else:
            self.run.retire(f"{stage}-merge", self.generation)
        return files, _together(markers)

    # --- what to look for, and where ---------------------------------------

    @cached_property
    def queries(self) -> Marker:
        """The query list."""
        return queries.build(self.recipe.queries, self.run)

    @property
    def _query_list(self) -> str:
        return storage.join(self.run.root, queries.LIST)

    @cached_property
    def candidates(self) -> list[Marker]:
        """Texts that came with images, a table per archive or site."""
        return self._from_archives() + self._from_sites()

    def _from_archives(self) -> list[Marker]:
        limit = self.recipe.crawl.max_html_bytes
        units: list[Unit] = []
        for source in self.recipe.crawl.sources:
            if isinstance(source, WarcSource):
                units += archives.units(source, self.place(), limit, first=len(units))
        return self._do(Stage("crawl-archives", archives.run, units, limit))

    def _from_sites(self) -> list[Marker]:
        limit, fetching = self.recipe.crawl.max_html_bytes, self.recipe.fetch
        crawl = site.Crawl(self.place(), fetching, limit, self.loopback)
        units: list[Unit] = []
        for source in self.recipe.crawl.sources:
            if isinstance(source, SiteSource):
                units += site.units(source, crawl, first=len(units))
        return self._do(Stage("crawl-sites", site.run, units, [limit, fetching.max_redirects]))

    # --- what contains a query, once per URL --------------------------------

    @cached_property
    def matched(self) -> list[Marker]:
        """Pairs whose text contains a query, one per URL, a table per bucket."""
        files, inputs = self._exchanged("match", self.matching, self.recipe.buckets)
        units = []
        for bucket in range(self.recipe.buckets):
            name = f"{bucket:05d}"
            job = dedup.DedupJob(
                sources=files,
                bucket=bucket,
                seed=self.recipe.seed,
                out=self.place("matched", f"{name}.parquet"),
                rejected=self.place("rejected", f"dedup-{name}.parquet"),
            )
            units.append(Unit(name, inputs, job))
        return self._do(Stage("dedup", dedup.run, units, self.recipe.seed))

    @cached_property
    def matching(self) -> list[Marker]:
        """Candidates that contain a query, a file per candidates table, grouped by URL."""
        queries = self.queries.identity
        units = []
        for marker in self.candidates:
            job = match.MatchJob(
                candidates=self._urls([marker], ".arrow")[0],
                queries=self._query_list,
                queries_identity=queries,
                section=self.recipe.match,
                buckets=self.recipe.buckets,
                matched=self.place("exchange", "matched", f"{marker.unit}.arrow"),
                rejections=self.place("rejected", f"match-{marker.unit}.parquet"),
            )
            units.append(Unit(marker.unit, [queries, marker.identity], job))
        settings = [self.recipe.match, self.recipe.buckets]
        return self._do(Stage("match", match.run, units, settings))

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
                self.run.retire(f"{stage}-r{number}", self.generation)
            for folder in ("selected", "images"):  # parts of a fetch that was cut short, too
                storage.remove(self.place(folder, f"r{number}"))

    def _round(self, number: int, before: list[list[Marker]]) -> list[Marker]:
        """Return the units with what the round asks for; none when the loop has converged."""
        images = [self._urls(markers, ".parquet") for markers in before]
        thresholds = self.place("exchange", "thresholds", f"r{number}.parquet")
        balance, seed, matched = self.recipe.balance, self.recipe.seed, self.matched
        matched_urls = [self.place("matched", f"{m.unit}.parquet") for m in matched]
        known = [self.queries.identity, *(m.identity for markers in before for m in markers)]
        drawn = draw.DrawJob(self._query_list, matched_urls, images, seed, balance, thresholds)
        unit = Unit("thresholds", [*known, *(m.identity for m in matched)], drawn)
        [found] = self._do(Stage(f"draw-r{number}", draw.run_draw, [unit], [balance, seed]))
        if not found.counts["unknown"]:
            return []
        units = []
        for marker, url in zip(matched, matched_urls, strict=True):
            out = self.place("selected", f"r{number}", f"{marker.unit}.parquet")
            job = draw.SelectJob(self._query_list, url, images, thresholds, seed, out)
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
        job = draw.KeepJob(self._query_list, images, seed, balance, out, rejected)
        inputs = [self.queries.identity, *(m.identity for r in self.rounds for m in r)]
        cap = balance.cap_per_query
        return self._do(Stage("keep", draw.run_keep, [Unit("kept", inputs, job)], [cap, seed]))[0]

    @cached_property
    def shards(self) -> Marker:
        """The packed data set."""
        kept = self.place("kept.parquet")
        inputs = [self.queries.identity, self.kept.identity]
        if not self.kept.counts["kept"]:
            raise QueryListError(
                "no pair was kept: no text contains a query, or no picture could be had",
                where=self.place(),
                fix="look at the counts of the stages above, then change queries or sources",
            )
        planned = plan.plan(
            storage.read_parquet(kept, ["uid"]),
            self.recipe.seed,
            self.recipe.pack.samples_per_shard,
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
        stage = Stage("pack", shard.run, units, [self.recipe.pack, self.recipe.seed])
        if not self.run.is_done(stage, self.generation):
            # no manifest may stand beside shards that it does not describe
            self.run.retire("pack-finish", self.generation)
        finished = self._finish(self._do(stage))
        leftovers.remove(self.place(), self._markers)
        return finished

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

    def _finish(self, packed: list[Marker]) -> Marker:
        job = shard.FinishJob(
            folder=self.place("shards"),
            shards=len(packed),
            generation=self.generation,
            recipe=recipes.lineage(self.recipe),
            max_block_bytes=self.recipe.pack.max_block_bytes,
        )
        unit = Unit("dataset", [m.identity for m in packed], job)
        settings = recipes.lineage(self.recipe)
        return self._do(Stage("pack-finish", shard.finish, [unit], settings))[0]

    @cached_property
    def report(self) -> Marker:
        """The balance report."""
        inputs = [m.identity for m in [self.queries, self.shards, *self._markers]]
        job = report.ReportJob(
            root=self.run.root,
            generation=self.generation,
            rounds=len(self.rounds),
            cap_per_query=self.recipe.balance.cap_per_query,
            title=self.recipe.name,
            recipe_digest=recipes.lineage(self.recipe),
            funnel=self._funnel(),
        )
        settings = [recipes.lineage(self.recipe), job.funnel]
        return self._do(Stage("report", report.run, [Unit("report", inputs, job)], settings))[0]

    def _funnel(self) -> list[Step]:
        crawled, matched = total(self.candidates), total(self.matching)
        fetched = total([m for r in self.rounds for m in r])
        put_off = total(self.rounds[-1]).get("deferred", 0) if self.rounds else 0
        asked = fetched.get("alive", 0) + fetched.get("dead", 0) + put_off
        return [
            Step("pages read", crawled["pages"], "pages"),
            Step("candidates", crawled["candidates"]),
            Step("contain a query", matched["matched"]),
            Step("one per URL", total(self.matched)["pairs"]),
            Step("asked for", asked),
            Step("fetched alive", fetched.get("alive", 0)),
            Step("kept", self.kept.counts["kept"]),
        ]


_STAGES_OF_A_ROUND = ("draw", "select", "route", "fetch")
_FORGOTTEN_ROUNDS = 8
"""Rounds past the last one whose leftovers of an earlier, longer build are looked for."""


def _together(markers: Sequence[Marker]) -> list[str]:
    """Return one identity for all of them: what a unit names that reads from every one."""
    return [recipes.digest([marker.identity for marker in markers])]
