"""One generation of a build: its stages, from archives to shards, composed.

Each method runs one stage (or says what it gave before) and hands the places of its tables on.
Inputs of a unit are the identities of what the units before it published, so a change anywhere
travels exactly as far as it changes bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from msgspec.structs import replace

from wit_builder import leftovers, storage
from wit_builder import recipe as recipes
from wit_builder.crawl import sources
from wit_builder.crawl.candidates import Output, Piece
from wit_builder.curate import dedup, draw, matching, repeats
from wit_builder.curate.states import AnswersJob, QueryList, run_answers
from wit_builder.drawing import Draw, Drawing, Exchanged, Taken
from wit_builder.errors import RejectionFloodError
from wit_builder.fetching import Fetching
from wit_builder.generations import Whole, unit_name
from wit_builder.packing import Packing, Part, parts_of
from wit_builder.queries import build as queries
from wit_builder.sections import FetchSection, Recipe
from wit_builder.shards.layout import DATASET
from wit_builder.stages import Stages, together
from wit_builder.tables import Reason
from wit_builder.units import Marker, Run, Stage, Unit, total


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
        whole: why this one's shards are of all earlier generations' pairs, too: ``balance``: they
            are drawn from anew; ``pack``: what they keep is packed anew. Empty: they are not.
    """

    recipe: Recipe
    run: Run
    queries: Marker
    pieces: Sequence[Piece | None]
    name: str = "g0"
    earlier: Sequence[Generation] = ()
    loopback: dict[str, str] = field(default_factory=dict)
    whole: Whole = ""

    @cached_property
    def stages(self) -> Stages:
        """Does the stages of this generation."""
        return Stages(self.run, self.name)

    @property
    def markers(self) -> list[Marker]:
        """Of every unit that was done, or found done, so far."""
        return self.stages.markers

    def place(self, *parts: str) -> str:
        """Return a place in this generation's folder."""
        return self.stages.place(*parts)

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
                found += self.stages.do(stage)
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
        if not self.pieces:
            return []
        files, inputs = self.stages.exchanged("match", self.matching, self.recipe.buckets)
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
                queries_identity=self.queries.identity,
                earlier=[g.place("matched", f"{name}.parquet") for g in self.earlier if g.pieces],
            )
            units.append(Unit(name, inputs, job))
        settings = [self.recipe.seed, self.queries.identity]
        return self.stages.do(Stage("dedup", dedup.run, units, settings))

    @property
    def repeated_tables(self) -> list[str]:
        """The places of the tables of ``repeated``."""
        return self.stages.urls(self.repeated, ".parquet")

    @cached_property
    def repeated(self) -> list[Marker]:
        """Texts that come with too many URLs, a table per bucket; none if any number will do."""
        limit, buckets = self.recipe.match.max_urls_per_text, self.recipe.buckets
        if not limit or not self.pieces:
            for stage in ("repeats", "repeats-merge"):
                self.run.retire(stage, self.name)
            return []
        files, inputs = self.stages.exchanged("repeats", self.matching, buckets, repeats.SUFFIX)
        units = []
        for bucket in range(buckets):
            name = f"{bucket:05d}"
            out = self.place("repeated", f"{name}.parquet")
            units.append(Unit(name, inputs, repeats.RepeatsJob(files, bucket, limit, out)))
        return self.stages.do(Stage("repeats", repeats.run, units, limit))

    @cached_property
    def matching(self) -> list[Marker]:
        """Candidates that contain a query, a file per candidates table, grouped by URL."""
        queries = self.queries.identity
        units = []
        for marker in self.candidates:
            job = matching.MatchJob(
                candidates=self.stages.urls([marker], ".arrow")[0],
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
        return self.stages.do(Stage("match", matching.run, units, settings))

    # --- rounds of drawing and fetching -------------------------------------

    @cached_property
    def drawing(self) -> Drawing:
        """Finds this generation's draws."""
        if self.whole:
            known = [answers for g in self.earlier for answers in g.answers]
            return dataclasses.replace(
                self.drawing_from([*self.earlier, self], self.stages), known=known
            )
        kept = [tally for g in self.before for tally in g.tallies]
        return dataclasses.replace(
            self.drawing_from([self], self.stages), kept=kept, taken=self._taken
        )

    @property
    def _taken(self) -> Taken | None:
        """The pictures that the generations before keep."""
        if not self.earlier:
            return None
        answers = [answers for g in self.earlier for answers in g.answers]
        kept = [g.kept_tables for g in self.before]
        return Taken(answers, [list(tables) for tables in zip(*kept, strict=True)])

    def drawing_from(self, generations: Sequence[Generation], stages: Stages) -> Drawing:
        """Return what finds draws from the matched pairs of some generations."""
        matched: list[list[tuple[str, str]]] = [[] for _ in range(self.recipe.buckets)]
        for generation in generations:
            for tables, marker in zip(matched, generation.matched, strict=False):
                table = generation.place("matched", f"{marker.unit}.parquet")
                tables.append((table, marker.identity))
        queries = QueryList(self._query_list, self.queries.identity, self.recipe.seed)
        return Drawing(stages, queries, self.recipe.balance, self.recipe.buckets, matched)

    @property
    def before(self) -> Sequence[Generation]:
        """The generations whose shards make the data set together with this one's."""
        return since_whole(self.earlier) if not self.whole else ()

    @cached_property
    def _loop(self) -> tuple[list[list[Marker]], list[Exchanged], Draw | None]:
        """Per round its fetch units and their answers, and the draw that is kept."""
        fetched: list[list[Marker]] = []
        answers: list[Exchanged] = []

        fetching = Fetching(self.recipe, self.stages, self.loopback)

        def ask(number: int, selected: list[Marker]) -> Exchanged:
            with self.stages.step(f"fetch {number + 1}"):
                fetched.append(fetching(number, selected))
            last = number + 1 == self.recipe.balance.rounds
            with self.stages.step("keep" if last else f"draw {number + 2}"):
                answers.append(self._answers(number, fetched[-1]))
            return answers[-1]

        drawn = None if self.whole == "pack" else self.drawing.loop(ask)
        self._forget_rounds({f"r{number}" for number in range(len(fetched))})
        return fetched, answers, drawn

    @property
    def rounds(self) -> list[list[Marker]]:
        """Per round, its fetched (and judged) units.

        They end when no drawn pair is unknown, or at the last round.
        """
        return self._loop[0]

    @property
    def answers(self) -> list[Exchanged]:
        """What became of the pairs that this generation asked for, by URL, round by round."""
        return self._loop[1]

    @property
    def unknown_after(self) -> list[int]:
        """Drawn pairs that were unknown after each round."""
        return [] if self.whole == "pack" else self.drawing.unknown_after

    def _forget_rounds(self, done: set[str]) -> None:
        """Remove what an earlier, longer build left, and parts of a fetch that was cut short."""
        for folder in ("selected", "images", "judged"):
            for name in storage.list_folders(self.place(folder)):
                if name not in done:
                    storage.remove(self.place(folder, name))

    @property
    def asked_first(self) -> list[Marker]:
        """What the first round asks for; none where nothing is unknown."""
        if self.whole == "pack":
            return []
        drawn = self.drawing.first()
        return self.drawing.select(0, drawn) if drawn.unknown else []

    def _answers(self, number: int, fetched: list[Marker]) -> Exchanged:
        buckets = self.recipe.buckets
        units = []
        for marker in fetched:
            out = self.place("exchange", f"answers-r{number}", f"{marker.unit}.arrow")
            job = AnswersJob(self.stages.urls([marker], ".parquet"), buckets, out)
            units.append(Unit(marker.unit, [marker.identity], job))
        stage = f"answers-r{number}"
        told = self.stages.do(Stage(stage, run_answers, units, buckets))
        return Exchanged(*self.stages.exchanged(stage, told, buckets), total(told))

    # --- what is kept, packed and reported ----------------------------------

    @cached_property
    def kept(self) -> list[Marker]:
        """The pairs to keep, each with the queries that keep it, a table per bucket."""
        drawn = self._loop[2]
        if drawn is not None:
            return self.drawing.keep(drawn)
        units = []
        before = since_whole(self.earlier)
        for number in range(self.recipe.buckets):
            name = f"{number:05d}"
            job = draw.JoinJob(
                kept=[g.place("kept", f"{name}.parquet") for g in before],
                tallies=[g.place("exchange", "keeps", f"{name}.parquet") for g in before],
                queries=self._query_list,
                out=self.place("kept", f"{name}.parquet"),
                tally=self.place("exchange", "keeps", f"{name}.parquet"),
            )
            inputs = together([g.kept[number] for g in before])
            units.append(Unit(name, [self.queries.identity, *inputs], job))
        return self.stages.do(Stage("keep", draw.run_join, units))

    @property
    def kept_tables(self) -> list[tuple[str, str]]:
        """The places of the tables of ``kept``, with identities."""
        return [(self.place("kept", f"{m.unit}.parquet"), m.identity) for m in self.kept]

    @property
    def tallies(self) -> list[tuple[str, str]]:
        """The places of tallies of pairs by query that keeps them, with identities."""
        folder = self.place("exchange", "keeps")
        return [(storage.join(folder, f"{m.unit}.parquet"), m.identity) for m in self.kept]

    @cached_property
    def samples(self) -> int:
        """How many samples the generation's shards hold."""
        return sum(marker.counts["kept"] for marker in self.kept)

    @cached_property
    def shards(self) -> Marker | None:
        """The packed data set; None where the generation adds nothing."""
        if self.samples:
            with self.stages.step("pack"):
                finished = self._packing()
        else:
            finished = None
            self.stages.retire("pack-finish")
            storage.remove(self.place("shards"))  # which an earlier build of this one has packed
        self.stages.retire_others()
        leftovers.remove(self.place(), self.markers)
        return finished

    @property
    def is_packed(self) -> bool:
        """Whether there are shards."""
        return is_packed(self.place())

    @property
    def _packing(self) -> Packing:
        return Packing(
            stages=self.stages,
            queries=self._query_list,
            kept=self.kept_tables,
            samples=self.samples,
            inputs=[self.queries.identity, *together(self.kept)],
            parts=self._parts(),
            section=self.recipe.pack,
            seed=self.recipe.seed,
            first=sum(generation.samples for generation in self.before),
            lineage=self._lineage,
        )

    def _parts(self) -> list[Part]:
        """Return every fetched part that may hold kept pairs."""
        generations = [*self.earlier, self] if self.whole else [self]
        return [
            part
            for generation in generations
            for fetched in generation.rounds
            for part in parts_of(self.run.root, fetched, generation.markers)
        ]

    @property
    def _lineage(self) -> str:
        """A digest of what decides this generation's bytes: settings, and the archives it packs."""
        crawl = replace(self.recipe.crawl, sources=[])
        settings = replace(self.recipe, name="", crawl=crawl, fetch=FetchSection())
        packed = [*self.earlier, self] if self.whole else [self]
        pieces = [p for generation in packed for p in generation.pieces if p]
        archives = sorted((p.kind, storage.name_of(p.key)) for p in pieces)
        return recipes.digest([recipes.lineage(settings), archives])


_MISSING = f"rejected:{Reason.ARCHIVE_MISSING}"


def is_packed(folder: str) -> bool:
    """Return whether a generation's folder has shards."""
    return storage.exists(storage.join(folder, "shards", DATASET))


def since_whole(generations: Sequence[Generation]) -> Sequence[Generation]:
    """Return the generations whose shards make the data set: from the last whole one on."""
    whole = [number for number, generation in enumerate(generations) if generation.whole]
    return generations[whole[-1] :] if whole else generations
