"""Composes the stages into a build: query list, generations of archives, report.

With ``generation`` it is the only module that knows all stages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from wit_builder import generations, leftovers, lock, removal, storage, what_if
from wit_builder import recipe as recipes
from wit_builder.crawl import sources
from wit_builder.curate import language
from wit_builder.errors import QueryListError, RecipeError
from wit_builder.generation import Generation, is_packed, since_whole
from wit_builder.judge import hook
from wit_builder.queries import build as queries
from wit_builder.report import build as report
from wit_builder.report.summary import Step
from wit_builder.sections import FetchSection, Recipe, SiteSource, WebDatasetSource
from wit_builder.units import Marker, Run, Stage, Unit, total
from wit_builder.web.agent import user_agent
from wit_builder.web.blocklists import Blocklists
from wit_builder.web.domains import registrable
from wit_builder.what_if import Outlook

Until = Literal["queries", "crawl", "match", "balance", "fetch", "pack", "report"]
"""The stages a user can stop after, in order."""


@dataclass
class Build:
    """One run of a recipe in a folder.

    Attributes:
        recipe: what to build.
        run: where, and who does the work.
        loopback: host pattern -> ``127.0.0.1:PORT``, for tests and the demo only.
        whole: end with shards of all generations' pairs, drawn (``balance``) or packed anew.
    """

    recipe: Recipe
    run: Run
    loopback: dict[str, str] = field(default_factory=dict)
    whole: generations.Whole = ""

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

    def what_if(self, caps: list[int]) -> list[Outlook]:
        """Do every stage up to ``match``, and return what each cap would keep.

        Raises:
            WitError: as when called.
        """
        self._refuse_early("match")
        with lock.alone(self.run.root):
            self._publish_recipe()
            self._go("match")
            return what_if.outlooks(self.generations, caps)

    def _go(self, until: Until) -> None:
        steps: dict[str, Callable[[Generation], object]] = {
            "crawl": lambda generation: generation.candidates,
            "match": lambda generation: generation.matched,
            "balance": lambda generation: generation.asked_first,
            "fetch": lambda generation: generation.rounds,
            "keep": lambda generation: generation.kept,
            "pack": lambda generation: generation.shards,
        }
        if until == "queries":
            _ = self.queries
            return
        in_force = since_whole(self.generations)
        for generation in self.generations:
            step: str = "pack" if until == "report" else until
            if step == "pack" and generation not in in_force and not generation.is_packed:
                step = "keep"  # its shards are superseded, and were removed
            steps[step](generation)
        if until == "report":
            _ = self.report
        if until in {"pack", "report"}:
            self._refuse_empty(until)

    def _refuse_empty(self, until: Until) -> None:
        """Say so if nothing was kept, once all is done that can be done."""
        if any(generation.samples for generation in since_whole(self.generations)):
            return
        report = storage.join(self.run.root, "report", "index.html")
        seen = f"see {storage.redact(report)}" if until == "report" else "see the counts above"
        raise QueryListError(
            "no pair was kept: no text contains a query, or no picture could be had",
            where=storage.redact(self.run.root),
            fix=f"{seen}, then change queries or sources",
        )

    def _refuse_early(self, until: Until) -> None:
        """Refuse what would only be found out after hours; a finished run needs to ask nobody."""
        if until == "queries" or self.run.only:
            return
        named = self.recipe.crawl.sources
        if not named:
            raise RecipeError(
                "the recipe names nothing to crawl",
                where="crawl.sources",
                fix="add a [[crawl.sources]] section, e.g. kind = 'warc', paths = ['*.warc.gz']",
            )
        crawls = any(isinstance(s, SiteSource) for s in named)
        fetches = any(not isinstance(s, WebDatasetSource) for s in named)
        asks = crawls or (fetches and until in {"fetch", "pack", "report"})
        if asks and not storage.exists(storage.join(self.run.root, "report", "summary.json")):
            user_agent(self.recipe.fetch.contact, loopback_only=bool(self.loopback))
        if until != "crawl":
            language.check(self.recipe.match)
        if until in {"fetch", "pack", "report"}:
            _refuse_hosts(self.recipe.fetch)
            Blocklists.load(self.recipe.block)
            hook.load(self.recipe.filters)

    def _publish_recipe(self) -> None:
        removal.refuse_unfinished(self.run.root)
        leftovers.sweep(self.run.root)
        what_if.clear(self.run.root)
        url = storage.join(self.run.root, "recipe.toml")
        storage.publish_bytes(url, recipes.dump(self.recipe).encode())

    @cached_property
    def queries(self) -> Marker:
        """The query list."""
        return queries.build(self.recipe.queries, self.run)

    @cached_property
    def generations(self) -> list[Generation]:
        """The generations of the run: archives that came with a finished one make the next."""
        query_list = self.queries
        recipe = self.recipe
        pieces = sources.pieces(recipe.crawl, recipe.fetch, self.loopback, recipe.block)
        made: list[Generation] = []
        told = generations.of_run(
            self.run.root, pieces, self._is_packed, self.whole, self._is_fetched
        )
        for number, members in enumerate(told):
            generation = Generation(
                recipe=self.recipe,
                run=self.run,
                queries=query_list,
                pieces=members.pieces,
                name=f"g{number}",
                earlier=list(made),
                loopback=self.loopback,
                whole=members.whole,
            )
            made.append(generation)
        return made

    def _is_packed(self, generation: str) -> bool:
        return is_packed(storage.join(self.run.root, generation))

    def _is_fetched(self, generation: str) -> bool:
        return bool(storage.list_folders(storage.join(self.run.root, generation, "images")))

    @cached_property
    def report(self) -> Marker:
        """The balance report, of all generations together."""
        markers = [m for generation in self.generations for m in generation.markers]
        job = report.ReportJob(
            root=self.run.root,
            generation=self.generations[-1].name,
            since=since_whole(self.generations)[0].name,
            rounds=sum(len(generation.rounds) for generation in self.generations),
            unknown_after=[n for generation in self.generations for n in generation.unknown_after],
            cap_per_query=self.recipe.balance.cap_per_query,
            title=self.recipe.name,
            recipe_digest=recipes.lineage(self.recipe),
            found=self._found(),
        )
        inputs = [m.identity for m in [self.queries, *markers]]
        settings = [recipes.lineage(self.recipe), job.found, job.unknown_after]
        stage = Stage("report", report.run, [Unit("report", inputs, job)], settings)
        return self.run.do(stage, "all")[0]

    def _found(self) -> list[Step]:
        def count(what: str, stage: Callable[[Generation], list[Marker]]) -> int:
            markers = [m for generation in self.generations for m in stage(generation)]
            return total(markers).get(what, 0)

        return [
            Step("pages read", count("pages", lambda g: g.candidates), "pages"),
            Step("candidates", count("candidates", lambda g: g.candidates)),
            Step("contain a query", count("matched", lambda g: g.matching)),
            Step("one per URL", count("pairs", lambda g: g.matched)),
        ]


def _refuse_hosts(fetch: FetchSection) -> None:
    """Refuse limits of a host: they would hold for nobody.

    Raises:
        RecipeError: a name is no registrable domain.
    """
    for name in fetch.domains:
        if registrable(name) != name:
            raise RecipeError(
                f"limits are those of a registrable domain, {registrable(name)}",
                where=f'fetch.domains."{name}"',
                fix="name that; it holds for all hosts below it",
            )
