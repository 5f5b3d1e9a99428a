"""What a crawl leaves on disk is enough to go on after a kill."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.mock_web import MockWeb, redirect, silence
from tests.site_crawls import (
    FETCH,
    HTML_BYTES,
    PAGES,
    SEED,
    asked_for,
    crawl,
    frontier,
    job_of,
    page,
)
from wit_builder.crawl import site
from wit_builder.crawl.candidates import Output
from wit_builder.sections import SiteSource

_CHILD = """
import sys, msgspec
from wit_builder.crawl import site
site.run(msgspec.json.decode(sys.stdin.buffer.read(), type=site.SiteJob))
"""


@contextlib.contextmanager
def started(job: site.SiteJob) -> Iterator[subprocess.Popen[bytes]]:
    """Crawl in a process of its own, which is killed in the end if it is still there."""
    with subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(msgspec.json.encode(job))
        child.stdin.close()
        try:
            yield child
        finally:
            child.kill()


def wait_for(child: subprocess.Popen[bytes], root: Path, rows: int) -> None:
    """Return once so many rows are published; fail if the crawl ends before."""
    while len(frontier(root)) < rows:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.02)
            pytest.fail("the crawl ended")


def test_a_killed_crawl_goes_on(web: MockWeb, tmp_path: Path) -> None:
    """After SIGKILL only what no part has is asked for, and the candidates are those of one go."""
    stuck = 17
    _, whole = crawl(web, tmp_path / "whole")
    healthy = web.pages[f"/{stuck}"]
    web.pages[f"/{stuck}"] = silence
    web.log.clear()
    root = tmp_path / "killed"
    with started(job_of(web, root)) as child:
        wait_for(child, root, stuck)  # the seed, and what stands before the page that hangs
        os.kill(child.pid, signal.SIGKILL)
    published = frontier(root)["url"].to_pylist()
    assert f"http://a.test/{stuck}" not in published
    assert not (root / "g0").exists() or not list((root / "g0").rglob("*.arrow"))
    web.pages[f"/{stuck}"] = healthy
    web.log.clear()
    done, found = crawl(web, root)
    assert sorted(asked_for(web)) == sorted(
        {f"http://a.test{path}" for path in web.pages} - set(published)
    )
    assert found.equals(whole)
    assert done.counts == {"candidates": PAGES, "pages": PAGES}


def test_kills_again_and_again(web: MockWeb, tmp_path: Path) -> None:
    """However often it is killed, no page that a part has is asked for again."""
    _, whole = crawl(web, tmp_path / "whole")
    root = tmp_path / "killed"
    web.log.clear()
    twice: Counter[str] = Counter()
    for rows in (3, 14):
        before = set(frontier(root)["url"].to_pylist())
        web.log.clear()
        with started(job_of(web, root)) as child:
            with contextlib.suppress(pytest.fail.Exception):  # it was faster than we are
                wait_for(child, root, max(rows, len(before) + 1))
            child.kill()
        twice.update(url for url in asked_for(web) if url in before)
    _, found = crawl(web, root)
    assert not twice
    assert found.equals(whole)


def test_done_again_asks_for_nothing(web: MockWeb, tmp_path: Path) -> None:
    """Should a unit be done anew, as when its output was removed, its visit has all it needs."""
    first = crawl(web, tmp_path, sitemaps=True)
    assert len(set(web.log)) == len(web.log)  # nor is anything asked for twice in one go
    web.log.clear()
    assert crawl(web, tmp_path, sitemaps=True)[1].equals(first[1])
    assert web.log == []


def test_more_pages_of_the_same_visit(web: MockWeb, tmp_path: Path) -> None:
    """A larger limit asks for what is missing only."""
    crawl(web, tmp_path, max_pages=5)
    web.log.clear()
    _, found = crawl(web, tmp_path, max_pages=8)
    assert len(asked_for(web)) == 3
    assert found.num_rows == 8
    web.log.clear()
    _, found = crawl(web, tmp_path)
    assert len(asked_for(web)) == 16
    assert found.num_rows == PAGES


def test_a_host_that_becomes_a_seed(web: MockWeb, tmp_path: Path) -> None:
    """A page that led off the seeds' hosts is asked for again once its host is one of them."""
    web.pages = {"a.test/": page(0, "/away"), "a.test/away": redirect("http://www.a.test/1")}
    web.pages["www.a.test/1"] = page(1)
    done, found = crawl(web, tmp_path)
    assert (done.counts["left the site"], found.num_rows) == (1, 1)
    asking = SiteSource(seeds=[SEED, "http://www.a.test/1"], sitemaps=False)
    (piece,) = site.pieces(asking, FETCH, HTML_BYTES, web.loopback)
    done = site.run(piece.job(Output.of(str(tmp_path / "g0"), "site-00000")))
    assert done.counts == {"candidates": 2, "pages": 3, "repeated": 1}


@pytest.mark.s3
def test_in_a_bucket(web: MockWeb, s3_folder: str) -> None:
    """A run in a bucket has its frontier there."""
    first = crawl(web, s3_folder, warc=True)
    web.log.clear()
    assert crawl(web, s3_folder, warc=True)[1].equals(first[1])
    assert not asked_for(web)
