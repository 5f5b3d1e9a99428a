"""SIGKILL at random moments of a fetch: nothing is lost or doubled, and manners are kept."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from tests.fetch import asking
from tests.mock_web import MockWeb, Page, jpeg, picture_reply
from wit_builder import storage
from wit_builder.fetch.run import FetchJob, run
from wit_builder.sections import FetchSection
from wit_builder.tables import Reason

HOSTS = 15
PAIRS = 150
PAUSED = "paused.test"
"""A domain that asks to be left alone for longer than the test takes."""
KILLS = 4


class Watched(MockWeb):
    """A web that tells when it was asked a number of times more."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at = 0
        self._reached = threading.Event()

    def wait_for(self, more: int) -> None:
        """Return after so many more requests, or after a minute without."""
        self._reached.clear()
        self._told_at = len(self.log) + more
        self._reached.wait(60)

    def _page(self, request: str) -> Page:
        page = super()._page(request)
        if len(self.log) >= self._told_at:
            self._reached.set()
        return page


class Life(NamedTuple):
    """One run of the unit, from its start to its kill or end.

    ``published`` are the rows of the parts that were there when it began, all but those of the last
    of these parts ``settled``; ``log`` is what it asked for.
    """

    published: list[dict[str, Any]]
    settled: list[dict[str, Any]]
    log: list[tuple[str, str]]


def parts(job: FetchJob) -> list[list[dict[str, Any]]]:
    """Return the rows of each part that is published."""
    found = sorted(storage.list_files(job.out, ".parquet")) if Path(job.out).exists() else []
    return [storage.read_parquet(part).to_pylist() for part in found]


def pause_is_noted(job: FetchJob) -> bool:
    files = storage.list_files(job.notes) if Path(job.notes).exists() else []
    return any(PAUSED in storage.read_parquet(f)["domain"].to_pylist() for f in files)


def filled(web: MockWeb) -> list[str]:
    urls = []
    for nth in range(PAIRS):
        host, path = f"h{nth % HOSTS}.test", f"/{nth}.jpg"
        web.pages[host + path] = picture_reply(jpeg(64, 48, seed=nth))
        urls.append(f"http://{host}{path}")
    web.pages[f"{PAUSED}/robots.txt"] = (200, {}, b"User-agent: *\nDisallow: /x\n")
    web.pages[PAUSED + "/a"] = web.pages[PAUSED + "/b"] = (429, {"Retry-After": "900"}, b"")
    return [*urls, f"http://{PAUSED}/a", f"http://{PAUSED}/b"]


@pytest.fixture(scope="module")
def lives(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[Life], FetchJob, list[str]]:
    """Kill a unit again and again, first after a pause is noted; then let it finish."""
    moments, folder = random.Random(6), tmp_path_factory.mktemp("kills")
    processes = multiprocessing.get_context("forkserver")  # which imports once for all of them
    processes.set_forkserver_preload([run.__module__])
    fetch = FetchSection(
        part_s=0.1, per_domain_interval_s=0.15, per_domain_concurrency=1, max_pause_s=1000.0
    )
    found: list[Life] = []
    with Watched() as web:
        urls = filled(web)
        job = asking.job(folder, web, urls, fetch)
        for number in range(KILLS + 1):
            before, began = parts(job), len(web.log)
            if number == KILLS:  # with less patience, or it would wait for the pause
                run(replace(job, fetch=replace(fetch, max_pause_s=1.0)))
            else:
                process = processes.Process(target=run, args=(job,))
                process.start()
                web.wait_for(moments.randrange(5, 30))
                while number == 0 and not pause_is_noted(job):
                    web.wait_for(1)
                process.kill()
                process.join()
                assert process.exitcode == -signal.SIGKILL
            published = [row for part in before for row in part]
            settled = [row for part in before[:-1] for row in part]
            found.append(Life(published, settled, web.log[began:]))
    return found, job, urls


def test_no_pair_is_lost_or_doubled(lives: tuple[list[Life], FetchJob, list[str]]) -> None:
    """After any number of kills every pair stands in one part, once."""
    found, job, urls = lives
    rows = [row for part in parts(job) for row in part]
    assert sorted(row["url"] for row in rows) == sorted(urls)
    assert {row["url"] for row in rows if row["outcome"] != "alive"} == set(urls[-2:])
    assert [len(life.published) for life in found] == sorted(len(life.published) for life in found)
    assert 0 < len(found[1].published) < len(urls)


def test_only_what_was_not_published_is_asked_for_again(
    lives: tuple[list[Life], FetchJob, list[str]],
) -> None:
    """A restart asks for no picture that a part has, and for each of the others at most once."""
    for life in lives[0]:
        asked = [f"http://{host}{path}" for host, path in life.log if path != "/robots.txt"]
        assert not {row["url"] for row in life.published} & set(asked)
        assert len(asked) == len(set(asked))


def test_robots_are_not_asked_for_again(lives: tuple[list[Life], FetchJob, list[str]]) -> None:
    """A restart does not ask for the robots.txt of an origin of which something is published."""
    for life in lives[0]:
        known = {row["url"].split("/")[2] for row in life.settled}
        assert not known & {host for host, path in life.log if path == "/robots.txt"}
    assert {row["url"].split("/")[2] for row in lives[0][-1].settled}


def test_a_pause_outlives_its_worker(lives: tuple[list[Life], FetchJob, list[str]]) -> None:
    """A domain that asked for a pause is left alone by every restart; its pairs are deferred."""
    found, job, _ = lives
    asked = [[path for host, path in life.log if host == PAUSED] for life in found]
    assert asked[0][0] == "/robots.txt"
    assert len(asked[0]) == 2
    assert asked[1:] == [[]] * KILLS
    rows = [row for part in parts(job) for row in part if PAUSED in row["url"]]
    assert {(row["outcome"], row["reason"]) for row in rows} == {("deferred", Reason.RATE_LIMITED)}
