"""What a build would cost, from rates measured on a sample of its own archives.

A few archives of each kind are read, and matched if the query list is there already, as a build
would do it: by one process, into a temporary folder. Units that a build has done already are
measured better, and are taken where there are any. What is found is scaled by the number of
archives. So it is as good as the sample: archives of one crawl are much alike, lists of one's own
may not be.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from wit_builder import generations, storage
from wit_builder.crawl import site, sources
from wit_builder.crawl.candidates import Output, Piece
from wit_builder.curate import matching
from wit_builder.errors import GoneError, RecipeError
from wit_builder.fetch.route import owners
from wit_builder.generations import unit_name
from wit_builder.queries import build as queries
from wit_builder.sections import Recipe, SiteSource
from wit_builder.units import Done, Marker
from wit_builder.web.pace import interval_s

_SIZES_LOOKED_UP = 16
_WARM_S = 20.0
"""CPU seconds below which a sample is read twice: the first time, kernels are being loaded."""
_DAY_S = 86_400
_OWNERS_OF = 4
"""Done archives of which the domains are looked up."""


class Rate(msgspec.Struct, frozen=True):
    """What archives took, on average.

    Attributes:
        archives: measured.
        seconds: of CPU for one, or of a worker's time where a build has measured it.
        counts: what a unit counted for one.
        bytes_out: written for one.
    """

    archives: int
    seconds: float
    counts: dict[str, float]
    bytes_out: float


class Cost(msgspec.Struct, frozen=True):
    """What one kind of source would cost in all.

    Attributes:
        kind: of the source.
        archives: files to read, or domains to crawl.
        bytes_in: to be read; estimated from some files where there are many; 0 for sites.
        crawl: what reading one takes; None for sites, where pages and pace decide.
        match: what matching one takes; None without a query list.
    """

    kind: str
    archives: int
    bytes_in: int
    crawl: Rate | None
    match: Rate | None


class Estimate(msgspec.Struct, frozen=True):
    """What a build would cost.

    Attributes:
        costs: by kind of source.
        pages: to ask for from live sites, at most.
        requests: pictures to ask for in the first round, at most; None without a query list.
        slowest_domain: which domain takes longest, as far as the sample shows.
        days: that it takes at the recipe's pace, not knowing of a ``Crawl-delay``; 0 if the recipe
            sets no interval.
    """

    costs: list[Cost]
    pages: int
    requests: int | None
    slowest_domain: str = ""
    days: float = 0.0

    def core_hours(self, stage: str) -> float:
        """Return the core-hours of ``crawl`` or ``match`` in all."""
        rates = [(cost.archives, getattr(cost, stage)) for cost in self.costs]
        return sum(number * rate.seconds for number, rate in rates if rate) / 3600


def estimate(recipe: Recipe, root: str | None = None, sample: int = 1) -> Estimate:
    """Return what a build of the recipe would cost.

    Args:
        recipe: of the build.
        root: a run's folder, whose query list and done units are used.
        sample: archives of each kind to read where no unit was done yet.

    Raises:
        RecipeError: the recipe names nothing to crawl.
        WitError: an archive or a list cannot be read.
    """
    if not recipe.crawl.sources:
        raise RecipeError(
            "the recipe names nothing to crawl",
            where="crawl.sources",
            fix="add a [[crawl.sources]] section",
        )
    pieces = sources.pieces(recipe.crawl, recipe.fetch, {})
    with tempfile.TemporaryDirectory(prefix="wit-") as folder:
        sampled = _Sample(recipe, root, folder, pieces)
        costs = [
            sampled.cost(kind, [p for p in pieces if p.kind == kind], sample)
            for kind in dict.fromkeys(piece.kind for piece in pieces)
        ]
    pages = sum(
        s.max_pages * len(site.pieces(s, recipe.fetch, 1, {}))
        for s in recipe.crawl.sources
        if isinstance(s, SiteSource)
    )
    return sampled.in_all(costs, pages)


class _Sample:
    """Archives that are read to see what they take; the domains of what was found."""

    def __init__(
        self, recipe: Recipe, root: str | None, folder: str, pieces: Sequence[Piece]
    ) -> None:
        self._recipe, self._root, self._folder = recipe, root, folder
        self._keys = {piece.key for piece in pieces}
        self._list = storage.join(root, queries.LIST) if root else ""
        self._has_list = bool(root) and storage.exists(self._list)
        self._owners: list[pa.Array] = []

    def cost(self, kind: str, pieces: Sequence[Piece], sample: int) -> Cost:
        """Return what the pieces of one kind cost; a few of them are read."""
        if kind == "site":
            return Cost(kind, len(pieces), 0, None, None)
        done = {stage: self._done(stage, kind) for stage in (f"crawl-{kind}", "match")}
        chosen = _spread(pieces, sample)
        crawl = done[f"crawl-{kind}"] or self._crawl(kind, chosen)
        match = done["match"] or (self._match(kind, chosen) if self._has_list else None)
        return Cost(kind, len(pieces), _bytes(pieces), crawl, match)

    def _done(self, stage: str, kind: str) -> Rate | None:
        """Return what the run's done units of a stage took."""
        if not self._root:
            return None
        ours = [
            storage.join(self._root, "units", f"g{number}", stage, unit_name(kind, place) + ".json")
            for number, generation in enumerate(generations.recorded(self._root))
            for place, known in enumerate(generation.places)
            if known and known.kind == kind and known.key in self._keys
        ]
        markers = [msgspec.json.decode(d, type=Marker) for d in storage.read_many(ours).values()]
        for output in (o for m in markers[:_OWNERS_OF] for o in m.outputs):
            if stage != "match" and output.url.endswith(".arrow"):
                for batch in storage.read_batches(storage.join(self._root, output.url)):
                    self._owners.append(owners(batch))
        return _rate([(marker.seconds, marker) for marker in markers if marker.digest])

    def _output(self, kind: str, number: int) -> Output:
        return Output.of(self._folder, f"{kind}-{number:05d}")

    def _crawl(self, kind: str, pieces: Sequence[Piece]) -> Rate | None:
        read, measured = sources.READ[kind], []
        for number, piece in enumerate(pieces):
            output = self._output(kind, number)
            measured.append(_measured(partial(read, piece.job(output))))
            for batch in storage.read_batches(output.candidates):
                self._owners.append(owners(batch))
        return _rate(measured)

    def _match(self, kind: str, pieces: Sequence[Piece]) -> Rate | None:
        measured = []
        for number, _ in enumerate(pieces):
            output = self._output(kind, number)
            if not storage.exists(output.candidates):  # a build has done the crawl, not the match
                sources.READ[kind](pieces[number].job(output))
            job = matching.MatchJob(
                candidates=output.candidates,
                queries=self._list,
                queries_identity=self._list,
                section=self._recipe.match,
                buckets=self._recipe.buckets,
                matched=storage.join(self._folder, f"{kind}-{number}.arrow"),
                uses=storage.join(self._folder, f"{kind}-{number}.uses"),
                rejections=storage.join(self._folder, f"{kind}-{number}.parquet"),
            )
            measured.append(_measured(partial(matching.run, job)))
        return _rate(measured)

    def in_all(self, costs: list[Cost], pages: int) -> Estimate:
        """Return the sum of it."""
        requests = None
        if self._has_list:
            matched = sum(c.archives * c.match.counts.get("matched", 0) for c in costs if c.match)
            size = len(storage.read_parquet(self._list, ["query_id"]))
            requests = int(min(matched, size * self._recipe.balance.cap_per_query))
        if requests is None or not self._owners:
            return Estimate(costs, pages, requests)
        found = pc.value_counts(pa.chunked_array(self._owners).combine_chunks()).to_pylist()
        each = requests / sum(row["counts"] for row in found)
        seconds = {
            row["values"]: self._seconds(row["values"], row["counts"] * each) for row in found
        }
        slowest = max(seconds, key=lambda domain: seconds[domain])
        if not seconds[slowest]:
            return Estimate(costs, pages, requests)
        return Estimate(costs, pages, requests, slowest, seconds[slowest] / _DAY_S)

    def _seconds(self, domain: str, pairs: float) -> float:
        """Return how long a round takes for so many pairs of a domain, at the recipe's pace."""
        fetch = self._recipe.fetch
        return min(pairs, fetch.max_per_domain_per_round or pairs) * interval_s(fetch, domain)


def _spread(pieces: Sequence[Piece], count: int) -> list[Piece]:
    """Return so many of the pieces, evenly spread."""
    count = min(count, len(pieces))
    return [pieces[(2 * i + 1) * len(pieces) // (2 * count)] for i in range(count)]


def _bytes(pieces: Sequence[Piece]) -> int:
    """Return the bytes of all files; a file that several pieces share is counted once."""
    places = list(dict.fromkeys(re.sub(r"#\d+-\d+$", "", piece.key) for piece in pieces))
    sizes = []
    for place in places[:: max(1, len(places) // _SIZES_LOOKED_UP)]:
        with contextlib.suppress(GoneError):  # a few of a listing may be gone
            sizes.append(storage.size_of(place))
    return round(sum(sizes) * len(places) / max(1, len(sizes)))


def _measured(work: Callable[[], Done]) -> tuple[float, Done]:
    """Return CPU seconds of some work, kernels loaded, and what it did."""
    for _ in range(2):
        begun = time.process_time()
        done = work()
        seconds = time.process_time() - begun
        if seconds > _WARM_S:
            break
    return seconds, done


def _rate(measured: Sequence[tuple[float, Done | Marker]]) -> Rate | None:
    if not measured:
        return None
    number = len(measured)
    counts: dict[str, float] = {}
    for _, did in measured:
        for name, count in did.counts.items():
            counts[name] = counts.get(name, 0) + count / number
    bytes_out = sum(output.size_bytes for _, did in measured for output in did.outputs)
    return Rate(number, sum(s for s, _ in measured) / number, counts, bytes_out / number)


def lines(found: Estimate, cores: int) -> list[tuple[str, str]]:
    """Return an estimate as rows of label and text."""
    rows: list[tuple[str, str]] = []
    for cost in found.costs:
        rows += _lines_of(cost)
    if found.pages:
        rows.append(("pages of live sites", f"at most {found.pages:,}"))
    hours = {stage: found.core_hours(stage) for stage in ("crawl", "match")}
    known = any(cost.match for cost in found.costs)
    rows.append(("core-hours, crawl", _number(hours["crawl"])))
    rows.append(("core-hours, match", _number(hours["match"]) if known else _NO_LIST))
    rows.append((f"hours on {cores} cores", _number(sum(hours.values()) / cores)))
    if found.requests is not None:
        beside = ", not counting sites" if found.pages else ""
        rows.append(("pictures to ask for", f"at most {found.requests:,} in round 1{beside}"))
    if found.days:
        rows.append(("slowest domain", f"{found.slowest_domain}: {_number(found.days)} days"))
    return rows


_NO_LIST = "not known: wit queries build first, and name that folder with --out"


def _lines_of(cost: Cost) -> list[tuple[str, str]]:
    rows = [(cost.kind, f"{cost.archives:,} {'domains' if cost.kind == 'site' else 'archives'}")]
    if cost.bytes_in:
        rows.append(("  to read", f"{_number(cost.bytes_in / 1e9)} GB"))
    totals: list[tuple[str, Any]] = [
        ("  candidates", cost.crawl and cost.crawl.counts.get("candidates", 0)),
        ("  contain a query", cost.match and cost.match.counts.get("matched", 0)),
    ]
    rows += [(label, f"{each * cost.archives:,.0f}") for label, each in totals if each is not None]
    if cost.crawl:
        took = f"{_number(cost.crawl.seconds)} core-seconds an archive"
        rows.append(("  measured", f"{took}, on {cost.crawl.archives:,} of them"))
        rows.append(("  to write", f"{_number(cost.crawl.bytes_out * cost.archives / 1e9)} GB"))
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
