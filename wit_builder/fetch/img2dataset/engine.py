"""``fetch.engine = "img2dataset"``: that package asks, resizes and encodes; we say what it may ask.

The gate is asked about every URL first, and about every redirect: img2dataset is started once for
the URLs themselves, again for where these lead within their domain and for what is worth another
try, and so on. It runs in a process of its own, with ``transport`` under its downloads. A crash, a
hang, or a URL that it lost fails the unit; what was published before stands.

What it does not do as our own engine does is told in docs/decisions/0037.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from wit_builder.errors import MissingPartError
from wit_builder.fetch.img2dataset.answers import Ask, Reader, pauses
from wit_builder.fetch.img2dataset.process import Process
from wit_builder.fetch.img2dataset.turns import Limit, Manners
from wit_builder.fetch.outcome import Maker
from wit_builder.fetch.store import Row
from wit_builder.sections import FetchSection
from wit_builder.web.agent import TOKEN, user_agent
from wit_builder.web.answer import Refusal
from wit_builder.web.client import Client
from wit_builder.web.gate import Gate, parse
from wit_builder.web.pace import Pace


class Engine(msgspec.Struct, frozen=True):
    """What is asked with.

    Attributes:
        fetch: limits of asking.
        maker: what a picture becomes, and what must not be kept.
        loopback: host pattern -> ``127.0.0.1:PORT``; for tests and the demo only.
    """

    fetch: FetchSection
    maker: Maker
    loopback: dict[str, str] = {}

    async def rows(self, asks: Sequence[Ask], client: Client) -> AsyncGenerator[Row]:
        """Yield what became of every URL, in no particular order.

        Whoever does not take them all must close this (``contextlib.aclosing``), which ends
        img2dataset.

        Args:
            asks: URLs to ask for.
            client: whose gate is asked, and who asks for the robots.txt files.

        Raises:
            MissingPartError: img2dataset is not installed.
            EngineError: it ended or hung before all was done; says what it printed.
            StorageError: this machine has no more sockets, or local disk is full.
        """
        _refuse_missing()
        reader = Reader(self.fetch, self.maker, client.gate)
        asked = list(asks)
        while asked:
            allowed, refused = await self._ask_gate(asked, client.gate)
            for ask, refusal in refused:
                yield reader.refused(ask, refusal)
            asked = []
            async with contextlib.aclosing(self._download(allowed, reader)) as results:
                async for result in results:
                    if isinstance(result, Ask):
                        asked.append(result)
                    else:
                        yield result

    async def _ask_gate(
        self, asks: list[Ask], gate: Gate
    ) -> tuple[list[Ask], list[tuple[Ask, Refusal]]]:
        """Return what may be asked for, its URLs as they are sent, and what may not."""
        allowed: list[Ask] = []
        refused: list[tuple[Ask, Refusal]] = []
        # Neighbours are of one domain, so that its robots.txt is remembered while it is needed.
        todo = iter(sorted(asks, key=lambda ask: ask.domain))

        async def work() -> None:
            for ask in todo:
                url = parse(ask.url)
                refusal = url if isinstance(url, Refusal) else await gate.refusal(url)
                if refusal is not None:
                    refused.append((ask, refusal))
                else:
                    allowed.append(ask._replace(url=str(url)))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.fetch.concurrency, len(asks))):
                group.create_task(work())
        return allowed, refused

    async def _download(self, asks: list[Ask], reader: Reader) -> AsyncGenerator[Row | Ask]:
        """Run img2dataset once; yield the row of every URL, or what to ask for next."""
        if not asks:
            return
        asks, pace = _in_turns(asks), reader.gate.pace
        manners = self._manners(asks, pace)

        def limit_s(indices: range) -> float:
            return self._limit_s(asks[indices.start : indices.stop], manners.domains)

        with tempfile.TemporaryDirectory(prefix="wit-img2dataset-") as folder:
            urls = [ask.url for ask in asks]
            process = Process(Path(folder), urls, manners, self._arguments(), limit_s)
            async with contextlib.aclosing(process.results()) as shards:
                async for shard in shards:
                    for result in shard:
                        ask = asks[result.nth]
                        for domain, pause_s in pauses(ask, result):
                            pace.pause(domain, pause_s)
                        yield await asyncio.to_thread(reader.read, ask, result)

    def _manners(self, asks: list[Ask], pace: Pace) -> Manners:
        fetch = self.fetch
        domains = sorted({ask.domain for ask in asks})
        mapped_only = bool(self.loopback) and not fetch.contact
        return Manners(
            agent=user_agent(fetch.contact, loopback_only=mapped_only),
            domains={
                name: Limit(pace.concurrency(name), pace.interval_s(name)) for name in domains
            },
            deadline_s=fetch.deadline_s,
            max_body_bytes=fetch.max_body_bytes,
            max_pause_s=fetch.max_pause_s,
            breaker_failures=fetch.breaker_failures,
            breaker_pause_s=fetch.breaker_pause_s,
            max_pixels=self.maker.image.max_pixels,
            loopback=self.loopback,
        )

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of ``img2dataset.download`` that mean what the recipe says."""
        image = self.maker.image
        return {
            "thread_count": self.fetch.concurrency,
            "timeout": math.ceil(self.fetch.deadline_s),
            "retries": 0,
            "image_size": image.size_px,
            "resize_mode": image.mode,
            "resize_only_if_bigger": not image.enlarge,
            "encode_quality": image.quality,
            "skip_reencode": True,  # a JPEG that needs no change stays; its metadata go later
            "min_image_size": image.min_side_px,
            "max_image_area": image.max_pixels,
            "max_aspect_ratio": image.max_aspect,
            "compute_hash": "sha256",
            "extract_exif": False,
            "user_agent_token": TOKEN,
        }

    def _limit_s(self, asks: list[Ask], limits: dict[str, Limit]) -> float:
        """Return twice the seconds that a shard takes if every server is as slow as can be.

        That is the time of all threads together, or of the domain that takes longest alone.
        """
        fetch = self.fetch
        longest = max(
            count * (fetch.deadline_s / limits[name].concurrency + limits[name].interval_s)
            for name, count in Counter(ask.domain for ask in asks).items()
        )
        together = len(asks) / fetch.concurrency * (fetch.deadline_s + fetch.max_pause_s)
        return 2 * (max(longest, together) + fetch.max_pause_s)


def _refuse_missing() -> None:
    if importlib.util.find_spec("img2dataset") is None:
        raise MissingPartError(
            "this engine needs a package that is not installed",
            where='fetch.engine = "img2dataset"',
            fix="pip install 'wit-builder[img2dataset]'",
        )


def _in_turns(asks: list[Ask]) -> list[Ask]:
    """Return asks so that domains take turns: img2dataset asks in the order of its list."""
    nth = Counter[str]()
    order: list[tuple[int, Ask]] = []
    for ask in sorted(asks):
        order.append((nth[ask.domain], ask))
        nth[ask.domain] += 1
    return [ask for _, ask in sorted(order)]
