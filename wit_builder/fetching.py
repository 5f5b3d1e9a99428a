"""Fetches what a round asks for: routes pairs to the owners of their domains, asks, and judges.

A pair that its domain sends on to another is asked for by that one's owner, in a pass that follows;
``fetch.max_redirects`` bounds how often. Block-lists and filters have the last word.
"""

from __future__ import annotations

from dataclasses import dataclass

from wit_builder import live, storage
from wit_builder.errors import RejectionFloodError
from wit_builder.fetch import route
from wit_builder.fetch import run as fetch
from wit_builder.judge import hook
from wit_builder.judge import run as judge
from wit_builder.sections import Recipe
from wit_builder.stages import Stages
from wit_builder.tables import REMOVED_TABLE, Outcome, Reason
from wit_builder.units import Marker, Stage, Unit, total
from wit_builder.web.blocklists import Blocklists

_UNREACHED = [
    Reason.DNS_FAILED,
    Reason.CONNECT_FAILED,
    Reason.TLS_FAILED,
    Reason.ROBOTS_UNREACHABLE,
]
_PASS = 100_000
"""Added to the numbers of a pass's units: whatever the number of buckets, no two share a name."""
_FEW = 20
"""Pairs below which it may be chance that nobody was reached."""


@dataclass(frozen=True)
class Fetching:
    """Fetches the rounds of a generation.

    Attributes:
        recipe: its limits, what a picture becomes, lists and filters.
        stages: of the generation.
        loopback: host pattern -> ``127.0.0.1:PORT``, for tests and the demo only.
    """

    recipe: Recipe
    stages: Stages
    loopback: dict[str, str]

    def __call__(self, number: int, selected: list[Marker]) -> list[Marker]:
        """Return the units that tell what became of all that a round asks for.

        Raises:
            UnitsFailedError: units failed after their retries.
            RejectionFloodError: hardly anybody could be reached.
        """
        return self._judge(number, self._fetch(number, selected))

    def _fetch(self, number: int, selected: list[Marker]) -> list[Marker]:
        buckets = self.recipe.buckets
        units = []
        for marker, url in zip(selected, self.stages.urls(selected, ".parquet"), strict=True):
            out = self.stages.place("exchange", f"routed-r{number}", f"{marker.unit}.arrow")
            units.append(Unit(marker.unit, [marker.identity], route.RouteJob(url, buckets, out)))
        routed = self.stages.do(Stage(f"route-r{number}", route.run, units, buckets))
        asked = self._ask(number, 0, f"route-r{number}", routed)
        fetched = {_stage(number, 0): asked}
        for hop in range(1, self.recipe.fetch.max_redirects + 1):
            if not total(asked).get(Outcome.MOVED):
                break
            with self.stages.step(f"fetch {number + 1}, moved {hop}"):
                asked = self._follow(number, hop, asked)
            fetched[_stage(number, hop)] = asked
        if number == 0:
            self._refuse_no_network(fetched)
        return [marker for markers in fetched.values() for marker in markers]

    def _follow(self, number: int, hop: int, asked: list[Marker]) -> list[Marker]:
        """Have the pairs that another domain sent on asked for by the owner of that domain."""
        buckets = self.recipe.buckets
        units = []
        for marker in asked:
            out = self.stages.place("exchange", f"moved-r{number}", f"{marker.unit}.arrow")
            job = route.MovedJob(self.stages.urls([marker], ".parquet"), buckets, out)
            units.append(Unit(marker.unit, [marker.identity], job))
        stage = f"moved-r{number}-{hop}"
        moved = self.stages.do(Stage(stage, route.run_moved, units, buckets))
        return self._ask(number, hop, stage, moved)

    def _ask(self, round_: int, hop: int, stage: str, routed: list[Marker]) -> list[Marker]:
        """Fetch what a stage has routed; ``hop`` counts how often pairs moved between domains."""
        recipe, buckets = self.recipe, self.recipe.buckets
        files, inputs = self.stages.exchanged(stage, routed, buckets)
        removed = storage.join(self.stages.run.root, REMOVED_TABLE)
        name = _stage(round_, hop)
        units = []
        for bucket in range(buckets):
            number = hop * _PASS + bucket
            job = fetch.FetchJob(
                sources=files,
                bucket=bucket,
                number=number,
                out=self.stages.place("images", f"r{round_}"),
                fetch=recipe.fetch,
                image=recipe.image,
                block=recipe.block,
                removed=removed if storage.exists(removed) else "",
                live=live.place(self.stages.run.root, self.stages.name, name, f"{number:05d}"),
                notes=storage.join(self.stages.run.root, "web", f"{bucket:05d}-of-{buckets:05d}"),
                seed=recipe.seed,
                loopback=self.loopback,
            )
            units.append(Unit(f"{number:05d}", inputs, job))
        pairs, outcomes = total(routed)["pairs"], [outcome.value for outcome in Outcome]
        return self.stages.do(
            Stage(name, fetch.run, units, recipe.image, items=pairs, counted=outcomes)
        )

    def _refuse_no_network(self, fetched: dict[str, list[Marker]]) -> None:
        """Stop if a first round reached hardly anybody; the next start asks all of them again.

        Later rounds ask for few, which may well be of a few hosts that are down.

        Args:
            fetched: markers by stage: of all passes.

        Raises:
            RejectionFloodError: more than the recipe's share of the pairs.
        """
        counts = total([marker for markers in fetched.values() for marker in markers])
        asked = sum(counts.get(o, 0) for o in Outcome if o is not Outcome.MOVED)
        unreached = sum(counts.get(reason, 0) for reason in _UNREACHED)
        if asked < _FEW or unreached <= self.recipe.fetch.flood_share * asked:
            return
        for stage, marker in ((s, m) for s, markers in fetched.items() for m in markers):
            self.stages.run.forget(stage, marker.unit, self.stages.name)
            for output in sorted(marker.outputs, key=lambda o: not o.url.endswith(".parquet")):
                storage.remove(storage.join(self.stages.run.root, output.url))
        storage.remove(storage.join(self.stages.run.root, "web"))  # it tells of the same
        raise RejectionFloodError(
            f"{unreached} of {asked} pairs could not be asked for: no name or server was reached",
            where=self.stages.place("images"),
            fix="check the network and its DNS, then start again; or set fetch.flood_share = 1.0",
        )

    def _judge(self, number: int, fetched: list[Marker]) -> list[Marker]:
        """Let block-lists and filters object to what was fetched; without any it is as it is."""
        recipe, fetch = self.recipe, self.recipe.fetch
        lists = Blocklists.load(recipe.block).identity
        if not (lists or recipe.filters):
            return fetched
        units = []
        for marker in fetched:
            job = judge.JudgeJob(
                images=self.stages.urls([marker], ".parquet"),
                out=self.stages.place("judged", f"r{number}"),
                filters=recipe.filters,
                block=recipe.block,
                flood_share=fetch.flood_share,
                flood_min=fetch.flood_min,
            )
            units.append(Unit(marker.unit, [marker.identity, lists], job))
        settings = hook.settings(recipe.filters)
        with self.stages.step(f"filter {number + 1}"):
            return self.stages.do(Stage(f"judge-r{number}", judge.run, units, settings))


def _stage(number: int, hop: int) -> str:
    return f"fetch-r{number}" + (f"-{hop}" if hop else "")
