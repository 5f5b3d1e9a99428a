"""The closed loop of one generation: draw, ask, find out, and draw again what was lost.

A *draw* is found by stages over the buckets of matched pairs (``curate.bounds``). Pairs that turn
out dead make room for others, and so do pairs whose picture another drawn pair has; both only ever
raise the bounds, so the loop comes to an end, at the same draw whatever was fetched ahead of need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import structs

from wit_builder.curate import bounds, draw, pictures, states, tally
from wit_builder.sections import BalanceSection
from wit_builder.stages import Stages, together
from wit_builder.units import Done, Marker, Stage, Unit


class Draw(NamedTuple):
    """What each query takes.

    Attributes:
        markers: of the units that found the bounds.
        losers: markers of the pairs that lost their picture before.
        unknown: drawn matches of unknown pairs; 0 when there is nothing left to ask.
    """

    markers: list[Marker]
    losers: list[Marker]
    unknown: int

    def is_same(self, other: Draw | None) -> bool:
        """Return whether both take the same pairs."""
        return other is not None and self.content == other.content

    @property
    def content(self) -> list[tuple[int, str]]:
        """Sizes and digests of the tables of bounds."""
        return [(o.size_bytes, o.xxh3) for marker in self.markers for o in marker.outputs]


@dataclass
class Drawing:
    """Finds the draws of a generation.

    Attributes:
        stages: of the generation.
        queries: the query list.
        balance: the recipe's section.
        buckets: how many there are; of pictures and queries as of URLs.
        matched: tables of matched pairs, with identities, by bucket: of each generation drawn from.
        answers: markers of answers by URL, known so far.
        kept: tallies of pairs that earlier generations keep, with identities.
        taken: markers of answers of earlier generations, whose pictures are theirs.
        label: of stages that are beside the generation's own.
    """

    stages: Stages
    queries: states.QueryList
    balance: BalanceSection
    buckets: int
    matched: list[list[tuple[str, str]]]
    answers: list[Marker] = field(default_factory=list)
    kept: Sequence[tuple[str, str]] = ()
    taken: Sequence[Marker] = ()
    label: str = ""
    unknown_after: list[int] = field(default_factory=list, init=False)
    """Drawn pairs that were unknown after each round of ``loop``."""

    @cached_property
    def tally(self) -> Marker:
        """How many matched pairs contain each query."""
        units = []
        for unit, inputs, bucket in self._buckets():
            out = self.stages.place("exchange", "tally", f"{unit}.parquet")
            units.append(Unit(unit, inputs, tally.TallyJob(self.queries, bucket, out)))
        counted = self.stages.do(Stage("tally", tally.run_tally, units))
        out = self.stages.place("tally.parquet")
        job = tally.SumJob(self._urls(counted), self.queries.url, out)
        inputs = [self.queries.identity, *together(counted)]
        return self.stages.do_one(Stage("tally-sum", tally.run_sum, [Unit("all", inputs, job)]))

    def with_cap(self, cap: int) -> Drawing:
        """Return the same with another cap, and stages of its own, except for the tally."""
        other = replace(self, balance=structs.replace(self.balance, cap_per_query=cap))
        other.label, other.tally = f"{cap}-", self.tally
        return other

    def loop(self, ask: Callable[[int, list[Marker]], list[Marker]]) -> Draw:
        """Return the draw that is kept, after rounds of asking for what it lacks.

        Args:
            ask: takes a round's number and the markers of what it asks for (``select``), and
                returns markers of the answers, by URL.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        if self.balance.method == "bernoulli":
            return self._loop_once(ask)
        drawn = self.first()
        for number in range(self.balance.rounds):
            if not drawn.unknown:
                return drawn
            selected = self.select(number, drawn)
            self.answers += ask(number, selected)
            drawn = self.settle(f"r{number + 1}", drawn)
            self.unknown_after.append(self.count(f"unknown-r{number}", drawn))
        return self.settle("last", drawn, final=True) if drawn.unknown else drawn

    def _loop_once(self, ask: Callable[[int, list[Marker]], list[Marker]]) -> Draw:
        drawn = self.first()
        self.answers += ask(0, self.select(0, drawn))
        drawn = drawn._replace(losers=self._losers("once", drawn))
        self.unknown_after.append(self.count("unknown-r0", drawn))
        return drawn

    def first(self) -> Draw:
        """Return the draw that the first round asks for.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        if self.balance.method == "exact":
            return self.settle("r0")
        bounds_of_shares = self._from_tally("shares", bounds.SharesJob, bounds.run_shares)
        return Draw([bounds_of_shares], [], self.tally.counts["matches"])

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
        for unit, inputs, bucket in self._buckets(self.answers, drawn.losers):
            out = self.stages.place("selected", f"r{number}", f"{unit}.parquet")
            job = draw.SelectJob(self.queries, bucket, self._urls(drawn.markers), out)
            units.append(Unit(unit, [*inputs, *together(drawn.markers)], job))
        return self.stages.do(Stage(f"select-r{number}", draw.run_select, units))

    def keep(self, drawn: Draw) -> list[Marker]:
        """Do the stage that says what is kept.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        units = []
        for unit, inputs, bucket in self._buckets(self.answers, drawn.losers):
            job = draw.KeepJob(
                queries=self.queries,
                bucket=bucket,
                bounds=self._urls(drawn.markers),
                kept=self.stages.place("kept", f"{unit}.parquet"),
                tally=self.stages.place("exchange", "keeps", f"{unit}.parquet"),
                rejected=self.stages.place("rejected", f"keep-{unit}.parquet"),
            )
            units.append(Unit(unit, [*inputs, *together(drawn.markers)], job))
        return self.stages.do(Stage("keep", draw.run_keep, units))

    def count(self, name: str, drawn: Draw) -> int:
        """Return how many unknown pairs a draw takes.

        Raises:
            UnitsFailedError: units failed after their retries.
        """
        units = []
        for unit, inputs, bucket in self._buckets(self.answers, drawn.losers):
            job = draw.CountJob(self.queries, bucket, self._urls(drawn.markers))
            units.append(Unit(unit, [*inputs, *together(drawn.markers)], job))
        counted = self.stages.do(Stage(self.label + name, draw.run_count, units))
        return sum(marker.counts["pairs"] for marker in counted)

    # --- how bounds are found ------------------------------------------------

    def _buckets(
        self, answers: Sequence[Marker] = (), losers: Sequence[Marker] = ()
    ) -> list[_Bucket]:
        """Return each bucket with its unit's name, and the identities of all that tells of it."""
        known = [self.queries.identity, *together([*answers, *losers])]
        told, lost = self._arrow(answers), self._arrow(losers)
        found = []
        for number, tables in enumerate(self.matched):
            bucket = states.Bucket(number, [url for url, _ in tables], told, lost)
            found.append((f"{number:05d}", [*known, *(i for _, i in tables)], bucket))
        return found

    def _urls(self, markers: Sequence[Marker]) -> list[str]:
        return self.stages.urls(markers, ".parquet")

    def _arrow(self, markers: Sequence[Marker]) -> list[str]:
        return self.stages.urls(markers, ".arrow")

    def _place(self, name: str, unit: str) -> str:
        return self.stages.place("exchange", name, unit)

    def _from_tally(
        self,
        stage: str,
        job: type[bounds.StartJob | bounds.SharesJob],
        run: Callable[[Any], Done],
    ) -> Marker:
        name, cap = self.label + stage, self.balance.cap_per_query
        [tally], kept = self._urls([self.tally]), [url for url, _ in self.kept]
        todo = job(tally, kept, self.queries.url, cap, self._place(name, "all.parquet"))
        inputs = [self.queries.identity, self.tally.identity, *(i for _, i in self.kept)]
        return self.stages.do_one(Stage(name, run, [Unit("all", inputs, todo)], cap))

    def _bounds(self, name: str, losers: list[Marker], *, final: bool) -> Draw:
        name = f"{self.label}{name}"
        left = self._from_tally("start", bounds.StartJob, bounds.run_start)
        buckets = self._buckets(self.answers, losers)
        unlimited, tried, is_open = 0, 0, True
        while is_open:
            counted = self._steps(f"steps-{name}-{tried}", buckets, left, final=final)
            left = self._narrow(f"narrow-{name}-{tried}", left, counted)
            unlimited += left.counts["unlimited"]
            is_open, tried = left.counts["open"] > 0, tried + 1
        unlimited += sum(marker.counts["unlimited"] for marker in counted)
        collected = self._collect(f"collect-{name}", buckets, left, final=final)
        found = self._bound(f"bound-{name}", left, collected, self._asked_per_wanted(losers))
        return Draw(found, losers, unlimited + sum(m.counts["unknown"] for m in found))

    def _steps(
        self, name: str, buckets: list[_Bucket], searches: Marker, *, final: bool
    ) -> list[Marker]:
        [where] = self._urls([searches])
        units = []
        for unit, inputs, bucket in buckets:
            out = self._place(name, f"{unit}.parquet")
            job = bounds.StepsJob(self.queries, bucket, where, final, out)
            units.append(Unit(unit, [*inputs, searches.identity], job))
        return self.stages.do(Stage(name, bounds.run_steps, units, final))

    def _narrow(self, name: str, searches: Marker, counted: list[Marker]) -> Marker:
        [where] = self._urls([searches])
        job = bounds.NarrowJob(where, self._urls(counted), self._place(name, "all.parquet"))
        unit = Unit("all", together([searches, *counted]), job)
        return self.stages.do_one(Stage(name, bounds.run_narrow, [unit]))

    def _collect(
        self, name: str, buckets: list[_Bucket], searches: Marker, *, final: bool
    ) -> list[Marker]:
        [where] = self._urls([searches])
        units = []
        for unit, inputs, bucket in buckets:
            out = self._place(name, f"{unit}.arrow")
            job = bounds.CollectJob(self.queries, bucket, where, final, self.buckets, out)
            units.append(Unit(unit, [*inputs, searches.identity], job))
        return self.stages.do(Stage(name, bounds.run_collect, units, [final, self.buckets]))

    def _bound(
        self, name: str, searches: Marker, collected: list[Marker], asked_per_wanted: float
    ) -> list[Marker]:
        [where] = self._urls([searches])
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

    def _asked_per_wanted(self, losers: list[Marker]) -> float:
        """Return how many pairs to ask for per pair wanted: by the survival seen so far."""
        if not self.answers:
            return self.balance.over_draw
        alive, dead = (sum(m.counts[key] for m in self.answers) for key in ("alive", "dead"))
        lost = sum(marker.counts["losers"] for marker in losers)
        return (alive + dead + 1) / (alive - lost + 1)

    # --- pairs that have one picture -----------------------------------------

    def _losers(self, name: str, drawn: Draw | None) -> list[Marker]:
        """Return the pairs whose picture another pair of the draw has, by URL."""
        if drawn is None or not self.answers:
            return []
        urls, found = self._urls(drawn.markers), together(drawn.markers)
        rivals = [*self._taken, *self._rivals(f"rivals-{name}", self.answers, urls, found)]
        files, inputs = self.stages.exchanged(f"losers-{name}", rivals, self.buckets)
        units = []
        for number in range(self.buckets):
            out = self._place(f"losers-{name}", f"{number:05d}.arrow")
            units.append(
                Unit(f"{number:05d}", inputs, pictures.LosersJob(files, number, self.buckets, out))
            )
        return self.stages.do(Stage(f"losers-{name}", pictures.run_losers, units))

    @cached_property
    def _taken(self) -> list[Marker]:
        """The pictures of earlier generations."""
        return self._rivals("rivals-earlier", self.taken, None, []) if self.taken else []

    def _rivals(
        self, name: str, answers: Sequence[Marker], drawn: list[str] | None, inputs: list[str]
    ) -> list[Marker]:
        files, identity = self._arrow(answers), together(answers)
        look_alikes = self.balance.look_alikes == "drop"
        units = []
        for number, tables in enumerate(self.matched):
            job = pictures.RivalsJob(
                queries=self.queries,
                bucket=states.Bucket(number, [url for url, _ in tables], files),
                bounds=drawn,
                look_alikes=look_alikes,
                buckets=self.buckets,
                out=self._place(name, f"{number:05d}.arrow"),
            )
            known = [self.queries.identity, *identity, *inputs, *(i for _, i in tables)]
            units.append(Unit(f"{number:05d}", known, job))
        return self.stages.do(Stage(name, pictures.run_rivals, units, look_alikes))


_Bucket = tuple[str, list[str], states.Bucket]
"""A unit's name, the identities of all that it reads, and what it reads."""
