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

from wit_builder.errors import RejectionFloodError
from wit_builder.exchange import gather
from wit_builder.fetch import held, outcome, store
from wit_builder.fetch.queue import DomainQueue
from wit_builder.fetch.store import Part, Row, Store
from wit_builder.sections import FetchSection, ImageSection
from wit_builder.tables import Outcome, Reason
from wit_builder.units import Done
from wit_builder.web.answer import Refusal
from wit_builder.web.client import Client
from wit_builder.web.gate import domain_of, parse

_PICTURE_THREADS = 2
_PART_BYTES = 64 << 20
_FLOOD_FROM_SHARE = 0.1  # of a unit that must have been asked for before a flood can be told

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
        sources: exchange files of selected rows (``tables.SELECTED``) by registrable domain.
        bucket: which bucket of them this unit asks for.
        out: folder of the parts.
        fetch: limits of asking.
        image: what a picture becomes.
        seed: of the jitter between retries.
        loopback: host pattern -> ``127.0.0.1:PORT``; for tests and the demo only.
    """

    sources: list[str]
    bucket: int
    out: str
    fetch: FetchSection
    image: ImageSection
    seed: int = 0
    loopback: dict[str, str] = {}


def run(job: FetchJob) -> Done:
    """Ask for every pair of the bucket that no published part has, and return all its parts.

    The counts are rows by outcome and by reason. Pairs of an earlier, interrupted run of the same
    selection are kept; parts of another selection or image section are removed.

    Raises:
        RecipeError: no contact is set for the live web.
        RejectionFloodError: one reason took nearly all; the unit's parts are removed.
        StorageError: a part cannot be written, or this machine has no more sockets.
    """
    cv2.setNumThreads(1)  # units run side by side; more threads would only get in each other's way
    selection = gather(job.sources, job.bucket)
    unit = _Unit(job, selection)
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
        self._urls: list[str] = selection["url"].to_pylist()
        self._held: list[str | None] = selection["picture_at"].to_pylist()
        self._store = Store(job.out, job.bucket, selection, job.image)
        self.parts: list[Part] = self._store.kept()
        self.counts: Counter[str] = Counter()
        for part in self.parts:
            self._count(part)
        asked = {uid for part in self.parts for uid in part.uids}
        uids = selection["uid"].to_pylist()
        self._missing = [i for i, uid in enumerate(uids) if uid not in asked]

    async def finish(self) -> None:
        """Ask for what is missing, or read it where a shard holds it, and publish it."""
        rows: asyncio.Queue[Row] = asyncio.Queue(maxsize=self._job.fetch.concurrency)
        with ThreadPoolExecutor(_PICTURE_THREADS, "picture") as threads:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._collect(rows))
                group.create_task(self._read_held(threads, rows))
                group.create_task(self._ask(threads, rows))

    async def _read_held(self, threads: ThreadPoolExecutor, rows: asyncio.Queue[Row]) -> None:
        """Read the pictures that shards hold; no server is asked for these."""
        missing = ((i, self._held[i]) for i in self._missing)
        pictures = [held.Picture.at(i, place) for i, place in missing if place is not None]
        reads, shards = held.reads(pictures), held.Shards(self._job.fetch.max_body_bytes)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(held.READERS, len(pictures))):
                group.create_task(self._take_held(reads, shards, threads, rows))

    async def _take_held(
        self,
        reads: Iterator[list[held.Picture]],
        shards: held.Shards,
        threads: ThreadPoolExecutor,
        rows: asyncio.Queue[Row],
    ) -> None:
        loop = asyncio.get_running_loop()
        for pictures in reads:  # the readers share it
            for taken in await shards.take(pictures):
                made = loop.run_in_executor(
                    threads, outcome.held, taken.position, taken.body, self._job.image
                )
                await rows.put(await made)

    async def _ask(self, threads: ThreadPoolExecutor, rows: asyncio.Queue[Row]) -> None:
        """Ask the web for what no shard holds."""
        job = self._job
        positions = [(i, _domain(self._urls[i])) for i in self._missing if self._held[i] is None]
        if not positions:
            return
        async with Client(job.fetch, loopback=job.loopback, seed=job.seed) as client:
            queue = DomainQueue(
                positions, job.fetch.per_domain_concurrency, client.gate.pace.ready_in_s
            )
            async with asyncio.TaskGroup() as group:
                for _ in range(min(job.fetch.concurrency, len(positions))):
                    group.create_task(self._work(queue, client, threads, rows))

    async def _work(
        self,
        queue: DomainQueue,
        client: Client,
        threads: ThreadPoolExecutor,
        rows: asyncio.Queue[Row],
    ) -> None:
        loop = asyncio.get_running_loop()
        while (taken := await queue.take()) is not None:
            position, domain = taken
            answer = await client.get(self._urls[position], kind="image")
            queue.give_back(domain)
            made = loop.run_in_executor(threads, outcome.asked, position, answer, self._job.image)
            await rows.put(await made)

    async def _collect(self, rows: asyncio.Queue[Row]) -> None:
        """Gather rows into parts; publish one when it is due by time or size, and at the end."""
        loop = asyncio.get_running_loop()
        left = len(self._missing)
        while left:
            part: list[Row] = []
            size, due_at = 0, loop.time() + self._job.fetch.part_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_at):
                    while left > len(part) and size < _PART_BYTES:
                        part.append(await rows.get())
                        size += len(part[-1].jpeg or b"")
            if part:
                left -= len(part)
                await self._publish(part)

    async def _publish(self, rows: list[Row]) -> None:
        part = await asyncio.to_thread(self._store.publish, rows)
        self.parts.append(part)
        self._count(part)
        self._refuse_flood()

    def _count(self, part: Part) -> None:
        self.counts.update(part.outcomes)
        self.counts.update(reason for reason in part.reasons if reason is not None)

    def _refuse_flood(self) -> None:
        asked = sum(self.counts[outcome] for outcome in Outcome)
        limits = self._job.fetch
        if asked < max(limits.flood_min, _FLOOD_FROM_SHARE * len(self._urls)):
            return
        reason, count = max(((r, self.counts[r]) for r in Reason), key=lambda item: item[1])
        if count <= limits.flood_share * asked:
            return
        store.remove(self.parts)  # so that starting again, once the cause is gone, asks anew
        raise RejectionFloodError(
            f"{count} of {asked} pairs were rejected as {reason}",
            where=f"{self._job.out}, bucket {self._job.bucket}",
            fix=_LIKELY_CAUSE.get(reason, "look at a few of the URLs")
            + ", or set fetch.flood_share = 1.0",
        )


def _domain(url: str) -> str:
    parsed = parse(url)
    return "" if isinstance(parsed, Refusal) else domain_of(parsed)
