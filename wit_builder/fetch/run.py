"""A fetch unit: ask for the pairs of one bucket, make their pictures, publish parts.

One event loop does the network and two threads the pictures. At most ``fetch.concurrency`` pairs
are under way, each with at most one body of ``fetch.max_body_bytes``; finished pictures wait in
memory until their part is published, about ``_PART_BYTES`` of them. Pictures that a shard holds are
read from there, beside what is asked for, without the web's gate or pace.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import msgspec
import pyarrow as pa

from wit_builder import live, storage
from wit_builder.errors import RejectionFloodError, StorageError
from wit_builder.exchange import gather
from wit_builder.fetch import held, outcome, route, store
from wit_builder.fetch.image import get_ready
from wit_builder.fetch.img2dataset.answers import Ask
from wit_builder.fetch.img2dataset.engine import Engine
from wit_builder.fetch.outcome import Maker
from wit_builder.fetch.queue import DomainQueue
from wit_builder.fetch.store import Part, Row, Store
from wit_builder.sections import BlockSection, FetchSection, ImageSection
from wit_builder.tables import SELECTED, Outcome, Reason
from wit_builder.units import Done
from wit_builder.web.answer import Refusal
from wit_builder.web.blocklists import Blocklists
from wit_builder.web.client import Asking, Client, NotYetError
from wit_builder.web.notes import Notes

_PICTURE_THREADS = 2
_PART_BYTES = 64 << 20
_FLOOD_FROM_SHARE = 0.1  # of a unit that must have been asked for before a flood can be told

_ORDINARY = (Reason.MOVED, Reason.DOMAIN_BUDGET)
"""What may well happen to nearly all pairs of a unit; ``moved`` is counted as an outcome."""
_LIKELY_CAUSE = {
    Reason.DNS_FAILED: "names do not resolve here: check the network and its DNS",
    Reason.CONNECT_FAILED: "no way out: check the network, firewall or proxy",
    Reason.TLS_FAILED: "no certificate is trusted: check the clock and the CA certificates",
    Reason.DEADLINE: "too slow: raise fetch.deadline_s or lower fetch.concurrency",
    Reason.PRIVATE_ADDRESS: "names resolve to private addresses: check the network's DNS",
    Reason.ROBOTS_UNREACHABLE: "no robots.txt can be read: check the network",
    Reason.PICTURE_MISSING: "shards were moved or changed since they were read: start again",
    Reason.NOT_AN_IMAGE: "a proxy or portal answers for everybody, or the URLs are of pages",
}


class FetchJob(msgspec.Struct, frozen=True):
    """All that one unit needs.

    Attributes:
        sources: exchange files of selected rows (``tables.SELECTED``) by registrable domain; with
            ``route.MOVED``'s columns those of pairs that another domain sent here.
        bucket: which bucket of them this unit asks for.
        number: of the unit among those that write to ``out``.
        out: folder of the parts.
        fetch: limits of asking.
        image: what a picture becomes.
        block: what must not be asked for or kept.
        removed: table of what was taken out of the run for good; empty if there is none.
        live: where the counts so far are written now and then, for people to see; or empty.
        notes: folder of what workers of this bucket's domains must remember; empty: nothing.
        seed: of the jitter between retries.
        loopback: host pattern -> ``127.0.0.1:PORT``; for tests and the demo only.
    """

    sources: list[str]
    bucket: int
    number: int
    out: str
    fetch: FetchSection
    image: ImageSection
    block: BlockSection = BlockSection()
    removed: str = ""
    live: str = ""
    notes: str = ""
    seed: int = 0
    loopback: dict[str, str] = {}


def run(job: FetchJob) -> Done:
    """Ask for every pair of the bucket that no published part has, and return all its parts.

    The counts are rows by outcome and by reason. Pairs of an earlier, interrupted run of the same
    selection are kept; parts of another selection or image section are removed.

    Raises:
        RecipeError: no contact is set for the live web, or a block-list cannot be read.
        MissingPartError: img2dataset is to ask, and is not installed.
        EngineError: img2dataset failed, or lost URLs.
        RejectionFloodError: one reason took nearly all; the unit's parts are removed.
        StorageError: a part cannot be written, or this machine has no more sockets.
    """
    cv2.setNumThreads(1)  # units run side by side; more threads would only get in each other's way
    get_ready()
    unit = _Unit(job, gather(job.sources, job.bucket))
    try:
        asyncio.run(unit.finish())
    except BaseExceptionGroup as group:
        raise _first(group) from group
    parts = sorted(unit.parts, key=lambda part: part.number)
    return Done([f for p in parts for f in p.files], dict(sorted(unit.counts.items())))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Unit:
    """One run of a unit: its parts so far, and what is under way."""

    def __init__(self, job: FetchJob, selection: pa.Table) -> None:
        self._job = job
        self._maker = Maker(job.image, Blocklists.load(job.block, job.removed or None))
        self._uids: list[bytes] = selection["uid"].to_pylist()
        self._held: list[str | None] = selection["picture_at"].to_pylist()
        urls, self._redirects = route.asked(selection)
        self._urls: list[str] = urls.to_pylist()
        self._domains: list[str] = route.domains(urls).to_pylist()
        pairs = selection.select(SELECTED.names)  # where they moved from is not where they end
        self._store = Store(job.out, job.number, pairs, job.image)
        self.parts: list[Part] = self._store.kept()
        self.counts: Counter[str] = Counter()
        for part in self.parts:
            self._count(part)
        self._collected = Counter(self.counts)
        published = {uid for part in self.parts for uid in part.uids}
        self._missing = [i for i, uid in enumerate(self._uids) if uid not in published]
        self._rows: asyncio.Queue[Row] = asyncio.Queue(maxsize=job.fetch.concurrency)
        self._client: Client | None = None
        self._again: dict[int, Asking] = {}

    async def finish(self) -> None:
        """Ask for what is missing, or read it where a shard holds it, and publish it."""
        with ThreadPoolExecutor(_PICTURE_THREADS, "picture") as threads:
            async with asyncio.TaskGroup() as group:
                collecting = group.create_task(self._collect())
                telling = group.create_task(self._tell())
                collecting.add_done_callback(lambda _: telling.cancel())
                left = await self._refuse(self._missing)
                group.create_task(self._read_held(threads, left))
                group.create_task(self._ask(threads, left))

    async def _refuse(self, positions: list[int]) -> list[int]:
        """Tell at once of pairs that were taken out, or block-listed; return the others."""
        left = []
        for position in positions:
            refusal = self._maker.blocked.of_uid(self._uids[position])
            if refusal is None and self._held[position] is not None:
                refusal = self._maker.blocked.of_url(self._urls[position])
            if refusal is None:
                left.append(position)
            else:
                await self._rows.put(outcome.unasked(position, refusal))
        return left

    # --- pictures that shards hold ------------------------------------------

    async def _read_held(self, threads: ThreadPoolExecutor, positions: list[int]) -> None:
        """Read the pictures that shards hold; no server is asked for these."""
        places = ((i, self._held[i]) for i in positions)
        pictures = [held.Picture.at(i, place) for i, place in places if place is not None]
        reads, shards = held.reads(pictures), held.Shards(self._job.fetch.max_body_bytes)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(held.READERS, len(pictures))):
                group.create_task(self._take_held(reads, shards, threads))

    async def _take_held(
        self, reads: Iterator[list[held.Picture]], shards: held.Shards, threads: ThreadPoolExecutor
    ) -> None:
        loop = asyncio.get_running_loop()
        for pictures in reads:  # the readers share it
            for position, body in await shards.take(pictures):
                if isinstance(body, Refusal):
                    await self._rows.put(outcome.unasked(position, body))
                else:
                    made = loop.run_in_executor(threads, outcome.held, position, body, self._maker)
                    await self._rows.put(await made)
                    del body, made  # or they would be held while the next are read

    # --- pictures that the web has ------------------------------------------

    async def _ask(self, threads: ThreadPoolExecutor, positions: list[int]) -> None:
        """Ask the web for what no shard holds."""
        job, blocked = self._job, self._maker.blocked
        web = [i for i in positions if self._held[i] is None]
        if not web:
            return
        async with Client(
            job.fetch, loopback=job.loopback, seed=job.seed, blocked=blocked, notes=Notes(job.notes)
        ) as client:
            self._client = client
            pace = client.gate.pace
            asked = await self._within_budget(web)
            if job.fetch.engine == "img2dataset":
                await self._ask_by_img2dataset(asked, client)
                return
            queue = DomainQueue(asked, pace.concurrency, pace.ready_in_s)
            async with asyncio.TaskGroup() as group:
                for _ in range(min(job.fetch.concurrency, len(asked))):
                    group.create_task(self._work(queue, client, threads))

    async def _ask_by_img2dataset(self, asked: list[tuple[int, str]], client: Client) -> None:
        engine = Engine(self._job.fetch, self._maker, self._job.loopback)
        asks = [Ask(i, self._urls[i], self._redirects[i]) for i, _ in asked]
        async with contextlib.aclosing(engine.rows(asks, client)) as rows:
            async for row in rows:
                await self._rows.put(row)

    async def _within_budget(self, positions: list[int]) -> list[tuple[int, str]]:
        """Return positions with their domains; a domain's beyond the round's limit are deferred.

        Whether a pair is one of these does not depend on what was published before a kill.
        """
        most = self._job.fetch.max_per_domain_per_round or len(self._urls)
        missing, seen, left = set(positions), Counter[str](), []
        for position, domain in enumerate(self._domains):
            seen[domain] += 1
            if position not in missing:
                continue
            if seen[domain] > most:
                refusal = Refusal(Reason.DOMAIN_BUDGET, f"beyond {most} pairs of {domain}")
                await self._rows.put(outcome.unasked(position, refusal))
            else:
                left.append((position, domain))
        return left

    async def _work(self, queue: DomainQueue, client: Client, threads: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while (taken := await queue.take()) is not None:
            position, domain = taken
            asking = self._again.pop(position, None) or self._begin(client, position)
            try:
                answer = await client.attempt(asking)
                wait_s = client.again_in_s(asking, answer)
            except NotYetError as error:  # others are asked meanwhile
                wait_s = error.seconds
            if wait_s is not None:
                self._again[position] = asking
                queue.put_back(position, domain, wait_s)
                continue
            queue.give_back(domain)
            made = loop.run_in_executor(threads, outcome.asked, position, answer, self._maker)
            await self._rows.put(await made)
            asking.hold.shrink()
            del answer, made  # or they would be held while waiting for the next

    def _begin(self, client: Client, position: int) -> Asking:
        asking = client.begin(self._urls[position], "image")
        asking.redirects = self._redirects[position]
        asking.patient = False
        return asking

    # --- parts --------------------------------------------------------------

    async def _collect(self) -> None:
        """Gather rows into parts; publish one when it is due by time or size, and at the end."""
        loop = asyncio.get_running_loop()
        left = len(self._missing)
        while left:
            part: list[Row] = []
            size, due_at = 0, loop.time() + self._job.fetch.part_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    while left > len(part) and size < _PART_BYTES:
                        part.append(await self._rows.get())
                        self._collected[part[-1].columns["outcome"]] += 1
                        size += len(part[-1].jpeg or b"")
            if part:
                left -= len(part)
                await self._publish(part)

    async def _tell(self) -> None:
        """Write down what was collected so far, over and over."""
        while self._job.live:
            with contextlib.suppress(StorageError):  # for people to see; nothing depends on it
                await asyncio.to_thread(live.tell, self._job.live, dict(self._collected))
            await asyncio.sleep(live.EVERY_S)

    async def _publish(self, rows: list[Row]) -> None:
        part = await asyncio.to_thread(self._store.publish, rows)
        if self._client is not None:
            await self._client.gate.save()
        self.parts.append(part)
        self._count(part)
        self._refuse_flood()

    def _count(self, part: Part) -> None:
        self.counts.update(part.outcomes)
        # "moved" is an outcome's name, too, and counted as such
        self.counts.update(r for r in part.reasons if r not in {None, Reason.MOVED})

    def _refuse_flood(self) -> None:
        asked = sum(self.counts[outcome] for outcome in Outcome) - sum(
            self.counts[reason] for reason in _ORDINARY
        )
        limits = self._job.fetch
        if asked < max(limits.flood_min, _FLOOD_FROM_SHARE * len(self._urls)):
            return
        reason, count = max(
            ((r, self.counts[r]) for r in Reason if r not in _ORDINARY), key=lambda item: item[1]
        )
        if count <= limits.flood_share * asked:
            return
        # so that starting again, once the cause is gone, asks anew
        store.remove(self.parts)
        if self._job.notes:
            storage.remove(self._job.notes)
        raise RejectionFloodError(
            f"{count} of {asked} pairs were rejected as {reason}",
            where=f"{self._job.out}, bucket {self._job.bucket}",
            fix=_LIKELY_CAUSE.get(reason, "look at a few of the URLs")
            + ", or set fetch.flood_share = 1.0",
        )
