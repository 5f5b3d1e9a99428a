"""The closed loop of one generation: draw, ask, find out, and draw again what was lost.

A *draw* is found by stages over the buckets of matched pairs (``curate.bounds``). Pairs that turn
out dead make room for others, and so do pairs whose picture another drawn pair has; both only ever
raise the bounds, so the loop comes to an end, at the same draw whatever was fetched ahead of need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from msgspec import structs

from wit_builder.curate import bounds, draw, pictures, states, tally
from wit_builder.sections import BalanceSection
from wit_builder.stages import Stages, together
from wit_builder.units import Done, Marker, Stage, Unit, total


class Exchanged(NamedTuple):
    """Exchange files, their identity as inputs, and what the units that wrote them counted."""

    files: list[str] = []  # noqa: RUF012 - never changed
    inputs: list[str] = []  # noqa: RUF012 - never changed
    counts: dict[str, int] = {}  # noqa: RUF012 - never changed


class Draw(NamedTuple):
    """What each query takes.

    Attributes:
        bounds: marker of the table of bounds.
        losers: the pairs that lost their picture before.
        unknown: drawn matches of unknown pairs; 0 when there is nothing left to ask.
    """

    bounds: Marker
    losers: Exchanged
    unknown: int

    def is_same(self, other: Draw | None) -> bool:
        """Return whether both take the same pairs: their tables have the same bytes."""
        return other is not None and _digests(self.bounds) == _digests(other.bounds)


def _digests(marker: Marker) -> list[str]:
    return [output.xxh3 for output in marker.outputs]


class Taken(NamedTuple):
    """The pictures of earlier generations.

    Attributes:
        answers: by URL, of all that they asked for.
        kept: tables of the pairs that they keep, with identities, by bucket.
    """

    answers: Sequence[Exchanged]
    kept: list[list[tuple[str, str]]]


@dataclass
class Drawing:
    """Finds the draws of a generation.

    Attributes:
        stages: of the generation.
        queries: the query list.
        balance: the recipe's section.
        buckets: how many there are; of pictures and queries as of URLs.
        matched: tables of matched pairs, with identities, by bucket: of each generation drawn from.
        known: answers by URL that are known beforehand.
        kept: tallies of pairs that earlier generations keep, with identities.
        taken: pictures that earlier generations keep.
        label: of stages that are beside the generation's own.
    """

    stages: Stages
    queries: states.QueryList
    balance: BalanceSection
    buckets: int
    matched: list[list[tuple[str, str]]]
    known: Sequence[Exchanged] = ()
    kept: Sequence[tuple[str, str]] = ()
    taken: Taken | None = None
    label: str = ""
    answers: list[Exchanged] = field(default_factory=list, init=False)
    """What is known so far, of each round."""
    unknown_after: list[int] = field(default_factory=list, init=False)
    """Drawn pairs that were unknown after each round of ``loop``."""

    def __post_init__(self) -> None:
        self.answers = list(self.known)

    @cached_property
    def tally(self) -> Marker:
        """How many matched pairs contain each query."""
        units = []
        for number, tables in enumerate(self.matched):
            name, bucket = f"{number:05d}", states.Bucket(number, [url for url, _ in tables])
            job = tally.TallyJob(self.queries, bucket, self._place("tally", f"{name}.parquet"))
            units.append(Unit(name, [self.queries.identity, *(i for _, i in tables)], job))
        counted = self.stages.do(Stage("tally", tally.run_tally, units))
        out = self.stages.place("tally.parquet")
        added = tally.SumJob(self._urls(counted), self.queries.url, out)
        inputs = [self.queries.identity, *together(counted)]
        return self.stages.do_one(Stage("tally-sum", tally.run_sum, [Unit("all", inputs, added)]))

    def with_cap(self, cap: int) -> Drawing:
        """Return the same with another cap, and stages of its own, except for the tally."""
        other = replace(self, balance=structs.replace(self.balance, cap_per_query=cap))
        other.label, other.tally = f"{cap}-", self.tally
        return other

    def loop(self, ask: Callable[[int, list[Marker]], Exchanged]) -> Draw:
        """Return the draw that is kept, after rounds of asking for what it lacks.

        Args:
            ask: takes a round's number and the markers of what it asks for (``select``), and
                returns the answers, by URL (with the counts of ``run_answers``).

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        self.answers, self.unknown_after = list(self.known), []
        drawn = self.first()
        rounds = self.balance.rounds if self.balance.method == "exact" else 1
        for number in range(rounds):
            if not drawn.unknown:
                break
            self.answers.append(ask(number, self.select(number, drawn)))
            with self.stages.step(f"draw {number + 2}" if number + 1 < rounds else "keep"):
                drawn = self._redrawn(number + 1, drawn)
                self.unknown_after.append(self.count(f"unknown-r{number}", drawn))
        with self.stages.step("keep"):
            if self.balance.method == "bernoulli":
                return drawn._replace(losers=self._losers("once", drawn))
            return self.settle("last", drawn, final=True) if drawn.unknown else drawn

    def _redrawn(self, number: int, drawn: Draw) -> Draw:
        """Return the draw after a round; independent ones stay, but for pictures they share."""
        if self.balance.method == "exact":
            return self.settle(f"r{number}", drawn)
        return drawn._replace(losers=self._losers("once", drawn))

    def first(self) -> Draw:
        """Return the draw that the first round asks for.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        with self.stages.step("draw 1"):
            if self.balance.method == "exact":
                return self.settle("r0")
            drawn = Draw(self._by_caps("shares", bounds.run_shares), Exchanged(), 0)
            return drawn._replace(unknown=self.count("unknown-first", drawn))

    def settle(self, name: str, before: Draw | None = None, *, final: bool = False) -> Draw:
        """Return a draw with something left to ask, or else the one that the loop ends with.

        Args:
            name: of the stages.
            before: the draw before; bounds are never below its.
            final: take unknown pairs for dead: nothing will be asked any more.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        step = 0
        while True:
            losers = self._losers(f"{name}-{step}", before)
            found = self._bounds(f"{name}-{step}", losers, final=final)
            if found.unknown or found.is_same(before):
                return found
            before, step = found, step + 1

    def select(self, number: int, drawn: Draw) -> list[Marker]:
        """Do the stage that says what a round asks for.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        units = []
        for unit, inputs, bucket in self._buckets(drawn.losers):
            out = self.stages.place("selected", f"r{number}", f"{unit}.parquet")
            job = draw.SelectJob(self.queries, bucket, self._table(drawn.bounds), out)
            units.append(Unit(unit, [*inputs, drawn.bounds.identity], job))
        with self.stages.step(f"draw {number + 1}"):
            return self.stages.do(Stage(f"select-r{number}", draw.run_select, units))

    def keep(self, drawn: Draw) -> list[Marker]:
        """Do the stage that says what is kept.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        units = []
        for unit, inputs, bucket in self._buckets(drawn.losers):
            job = draw.KeepJob(
                queries=self.queries,
                bucket=bucket,
                bounds=self._table(drawn.bounds),
                kept=self.stages.place("kept", f"{unit}.parquet"),
                tally=self.stages.place("exchange", "keeps", f"{unit}.parquet"),
                rejected=self.stages.place("rejected", f"keep-{unit}.parquet"),
            )
            units.append(Unit(unit, [*inputs, drawn.bounds.identity], job))
        with self.stages.step("keep"):
            return self.stages.do(Stage("keep", draw.run_keep, units))

    def count(self, name: str, drawn: Draw) -> int:
        """Return how many unknown pairs a draw takes.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        units = []
        for unit, inputs, bucket in self._buckets(drawn.losers):
            job = draw.CountJob(self.queries, bucket, self._table(drawn.bounds))
            units.append(Unit(unit, [*inputs, drawn.bounds.identity], job))
        counted = self.stages.do(Stage(self.label + name, draw.run_count, units))
        return sum(marker.counts["pairs"] for marker in counted)

    # --- how bounds are found ------------------------------------------------

    def _buckets(self, losers: Exchanged) -> list[_Bucket]:
        """Return each bucket with its unit's name, and the identities of all that tells of it."""
        identity = [self.queries.identity, str(self.queries.seed), *losers.inputs]
        identity += [i for answers in self.answers for i in answers.inputs]
        files = [file for answers in self.answers for file in answers.files]
        found = []
        for number, tables in enumerate(self.matched):
            bucket = states.Bucket(number, [url for url, _ in tables], files, losers.files)
            found.append((f"{number:05d}", [*identity, *(i for _, i in tables)], bucket))
        return found

    def _urls(self, markers: Sequence[Marker]) -> list[str]:
        return self.stages.urls(markers, ".parquet")

    def _table(self, marker: Marker) -> str:
        [url] = self._urls([marker])
        return url

    def _place(self, name: str, unit: str) -> str:
        return self.stages.place("exchange", name, unit)

    @cached_property
    def _start(self) -> Marker:
        """Where the bounds of queries over their cap are looked for first."""
        return self._by_caps("start", bounds.run_start)

    def _by_caps(self, stage: str, run: Callable[[bounds.CapsJob], Done]) -> Marker:
        name, cap = self.label + stage, self.balance.cap_per_query
        kept = [url for url, _ in self.kept]
        out = self._place(name, "all.parquet")
        job = bounds.CapsJob(self._table(self.tally), kept, self.queries.url, cap, out)
        inputs = [self.queries.identity, self.tally.identity, *(i for _, i in self.kept)]
        return self.stages.do_one(Stage(name, run, [Unit("all", inputs, job)], cap))

    def _bounds(self, name: str, losers: Exchanged, *, final: bool) -> Draw:
        name = f"{self.label}{name}"
        left, buckets = self._start, self._buckets(losers)
        unlimited, tried, is_open = 0, 0, True
        while is_open:
            counted = self._steps(f"steps-{name}-{tried}", buckets, left, final=final)
            left = self._narrow(f"narrow-{name}-{tried}", left, counted)
            unlimited += left.counts["pairs:unlimited"]
            is_open, tried = left.counts["queries:open"] > 0, tried + 1
        unlimited += sum(marker.counts["pairs:unlimited"] for marker in counted)
        collected = self._collect(f"collect-{name}", buckets, left, final=final)
        found = self._bound(f"bound-{name}", left, collected, self._asked_per_wanted(losers))
        job = bounds.JoinJob(self._urls(found), self._place(f"bounds-{name}", "all.parquet"))
        stage = Stage(f"bounds-{name}", bounds.run_join, [Unit("all", together(found), job)])
        unknown = unlimited + sum(marker.counts["matches:unknown"] for marker in found)
        return Draw(self.stages.do_one(stage), losers, unknown)

    def _steps(
        self, name: str, buckets: list[_Bucket], searches: Marker, *, final: bool
    ) -> list[Marker]:
        where = self._table(searches)
        units = []
        for unit, inputs, bucket in buckets:
            out = self._place(name, f"{unit}.parquet")
            job = bounds.StepsJob(self.queries, bucket, where, final, out)
            units.append(Unit(unit, [*inputs, searches.identity], job))
        return self.stages.do(Stage(name, bounds.run_steps, units, final))

    def _narrow(self, name: str, searches: Marker, counted: list[Marker]) -> Marker:
        where = self._table(searches)
        job = bounds.NarrowJob(where, self._urls(counted), self._place(name, "all.parquet"))
        unit = Unit("all", together([searches, *counted]), job)
        return self.stages.do_one(Stage(name, bounds.run_narrow, [unit]))

    def _collect(
        self, name: str, buckets: list[_Bucket], searches: Marker, *, final: bool
    ) -> list[Marker]:
        where = self._table(searches)
        units = []
        for unit, inputs, bucket in buckets:
            out = self._place(name, f"{unit}.arrow")
            job = bounds.CollectJob(self.queries, bucket, where, final, self.buckets, out)
            units.append(Unit(unit, [*inputs, searches.identity], job))
        return self.stages.do(Stage(name, bounds.run_collect, units, [final, self.buckets]))

    def _bound(
        self, name: str, searches: Marker, collected: list[Marker], asked_per_wanted: float
    ) -> list[Marker]:
        where = self._table(searches)
        files, inputs = self.stages.exchanged(name, collected, self.buckets)
        units = []
        for number in range(self.buckets):
            job = bounds.BoundJob(
                collected=files,
                searches=where,
                bucket=number,
                buckets=self.buckets,
                asked_per_wanted=asked_per_wanted,
                out=self._place(name, f"{number:05d}.parquet"),
            )
            units.append(Unit(f"{number:05d}", [*inputs, searches.identity], job))
        return self.stages.do(Stage(name, bounds.run_bound, units, asked_per_wanted))

    def _asked_per_wanted(self, losers: Exchanged) -> float:
        """Return how many pairs to ask for per pair wanted: by the survival seen so far."""
        if not self.answers:
            return self.balance.over_draw
        kinds = ("answers:alive", "answers:dead")
        alive, dead = (sum(a.counts[kind] for a in self.answers) for kind in kinds)
        return (alive + dead + 1) / (alive - losers.counts.get("losers", 0) + 1)

    # --- pairs that have one picture -----------------------------------------

    def _losers(self, name: str, drawn: Draw | None) -> Exchanged:
        """Return the pairs whose picture another pair of the draw has, by URL."""
        if drawn is None or not self.answers:
            return Exchanged()
        rivals = [*self._taken, *self._rivals(f"rivals-{name}", self.answers, drawn.bounds)]
        files, inputs = self.stages.exchanged(f"losers-{name}", rivals, self.buckets)
        units = []
        for number in range(self.buckets):
            out = self._place(f"losers-{name}", f"{number:05d}.arrow")
            job = pictures.LosersJob(files, number, self.buckets, out)
            units.append(Unit(f"{number:05d}", inputs, job))
        found = self.stages.do(Stage(f"losers-{name}", pictures.run_losers, units))
        merged = self.stages.exchanged(f"lost-{name}", found, self.buckets)
        return Exchanged(*merged, total(found))

    @cached_property
    def _taken(self) -> list[Marker]:
        """The pictures of earlier generations."""
        if self.taken is None:
            return []
        return self._rivals("rivals-earlier", self.taken.answers, None)

    def _rivals(
        self, name: str, answers: Sequence[Exchanged], drawn: Marker | None
    ) -> list[Marker]:
        files = [file for told in answers for file in told.files]
        identity = [self.queries.identity, str(self.queries.seed)]
        identity += [i for told in answers for i in told.inputs]
        identity += [drawn.identity] if drawn else []
        look_alikes = self.balance.look_alikes == "drop"
        units = []
        for number, tables in enumerate(self.matched):
            kept = self.taken.kept[number] if self.taken and not drawn else []
            job = pictures.RivalsJob(
                queries=self.queries,
                bucket=states.Bucket(number, [url for url, _ in tables], files),
                bounds=self._table(drawn) if drawn else "",
                kept=[url for url, _ in kept],
                look_alikes=look_alikes,
                buckets=self.buckets,
                out=self._place(name, f"{number:05d}.arrow"),
            )
            inputs = [*identity, *(i for _, i in [*tables, *kept])]
            units.append(Unit(f"{number:05d}", inputs, job))
        return self.stages.do(Stage(name, pictures.run_rivals, units, look_alikes))


_Bucket = tuple[str, list[str], states.Bucket]
"""A unit's name, the identities of all that it reads, and what it reads."""
