"""How the report's page does with 500,000 queries: its size, and a browser's time with it.

    python benchmarks/report_page.py [--data .data] [--repeats 7] [--slower 4]
    python benchmarks/report_page.py --page ROOT/report/index.html --screenshots docs/images

Queries are real: lemmas of WordNet, words of English Wikipedia by frequency, titles (if the data
folder has them), and pairs of neighbouring words from WordNet's glosses. Their numbers of pairs are
drawn from a seed, in the shape that MetaCLIP's paper (arXiv 2309.16671) gives for 500,000 queries:
16,000 have more than the cap of 20,000, and have nearly all matches. The page is opened from a file
in headless Chromium, each time in a new context. Times end when the browser has painted the answer.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import Browser, Page, sync_playwright

from wit_builder import tables
from wit_builder.report import page as report_page
from wit_builder.report.build import balance_table
from wit_builder.report.count import Counts, Round
from wit_builder.report.summary import Packed, Step, Summary
from wit_builder.text import normalise_column

I64 = npt.NDArray[np.int64]

CAP, HEAD, SURVIVAL = 20_000, 16_000, 0.68
PARTS = ("noun", "verb", "adj", "adv")
UNIGRAMS = 140_000
NEEDLES = ("e", "s", "an", "dog", "new york", "photograph", "1", "zebra crossing", "qqq", "")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]

# --- the list --------------------------------------------------------------


def real_queries(data: Path, count: int) -> pa.Table:
    """Return that many different normalised queries, with their sources."""
    found: dict[str, str] = {}
    for source, texts in _texts(data):
        for query in normalise_column(pa.array(texts, pa.string())).to_pylist():
            if query:
                found.setdefault(query, source)
    names = list(found)[:count]
    assert len(names) == count, f"the data folder has only {len(names):,} different queries"
    ids = pa.array(range(count), pa.int32())
    return pa.table({"query_id": ids, "query": names, "source": [found[q] for q in names]})


def _texts(data: Path) -> Iterator[tuple[str, list[str]]]:
    lemmas = [line.split(" ", 1)[0] for line in _lines(data, "index") if line[0] != " "]
    yield "wordnet", [lemma.replace("_", " ") for lemma in lemmas]
    words = pq.read_table(data / "enwiki-words.parquet", columns=["gram"])["gram"]
    yield "unigram", words.slice(0, UNIGRAMS).to_pylist()
    titles = data / "popular-titles.txt"
    yield "title", titles.read_text().splitlines() if titles.exists() else []
    glosses = [line.partition(" | ")[2] for line in _lines(data, "data")]
    tokens = [text.split() for text in normalise_column(pa.array(glosses)).to_pylist()]
    yield "bigram", [f"{first} {second}" for t in tokens for first, second in pairwise(t)]


def _lines(data: Path, kind: str) -> Iterator[str]:
    for part in PARTS:
        yield from (data / "wordnet" / f"{kind}.{part}").read_text().splitlines()


def drawn_counts(queries: int, seed: int = 7) -> Counts:
    """Return numbers of pairs per query in the published shape, in no order."""
    rng = np.random.default_rng(seed)
    rank = rng.permutation(queries) + 1
    fall = np.where(rank < HEAD, 0.9, 3.1)
    matched = rng.poisson(CAP * (HEAD / rank) ** fall).astype(np.int64)
    rounds = _rounds_of(matched, rng)
    drawn = rounds.sum(axis=0)
    alive = rng.binomial(drawn, SURVIVAL)
    kept = np.minimum(alive, CAP)
    contained = kept + rng.binomial(matched - kept, 0.2)
    return Counts(matched, drawn, alive, kept, contained, drawn, rounds)


def _rounds_of(matched: I64, rng: np.random.Generator) -> I64:
    """Return what three rounds ask for: the cap, then enough to make up for what was lost."""
    left, want, rounds = matched.copy(), np.full(len(matched), CAP), []
    for _ in range(3):
        rounds.append(np.minimum(left, want))
        left = left - rounds[-1]
        want = np.ceil(rng.binomial(rounds[-1], 1 - SURVIVAL) / SURVIVAL * 1.05).astype(np.int64)
    return np.array(rounds, np.int64)


def made_page(data: Path, queries: int) -> str:
    """Return the page of a made run, and print what making it took."""
    listed, counts = real_queries(data, queries), drawn_counts(queries)
    balance = balance_table(listed, counts, CAP)
    rejections = pa.table(
        [["match", "fetch"], ["no_query", "http_4xx"], [9_000_000, 4_000_000]],
        schema=pa.schema(
            [
                *(tables.REJECTIONS.field(name) for name in ("stage", "reason")),
                ("count", pa.int64()),
            ]
        ),
    )
    started = time.perf_counter()
    html = report_page.render(_summary(balance, counts), balance, rejections)
    letters = sum(map(len, listed["query"].to_pylist())) / queries
    print(
        f"{queries:,} queries, {letters:.1f} characters each, head {(counts.matched > CAP).sum():,}"
    )
    print(f"page: {len(html.encode()) / 1e6:.2f} MB, made in {time.perf_counter() - started:.1f} s")
    return html


def _summary(balance: pa.Table, counts: Counts) -> Summary:
    asked = [int(r.sum()) for r in counts.drawn_per_round]
    kept = int(counts.kept.sum())
    return Summary(
        title="500,000 queries",
        recipe_digest="0" * 32,
        generation="g0",
        cap_per_query=CAP,
        queries=len(balance),
        statuses=report_page.status_counts(balance["status"]),
        funnel=[Step("one per URL", int(counts.matched.sum())), Step("kept", kept)],
        rounds=[_round(number, pairs) for number, pairs in enumerate(asked, 1)],
        dataset=Packed(kept, kept // 10_000, kept * 22_000),
        pairs_kept=kept,
    )


def _round(number: int, asked: int) -> Round:
    alive = int(asked * SURVIVAL)
    return Round(
        generation="g0",
        number=number,
        asked=asked,
        alive=alive,
        dead=asked - alive,
        deferred=0,
        unknown=asked - alive,
    )


# --- the browser -----------------------------------------------------------

WATCH = """
  window.longest = 0;
  new PerformanceObserver((list) => list.getEntries().forEach(
    (entry) => { window.longest = Math.max(window.longest, entry.duration); }
  )).observe({ type: "longtask", buffered: true });
  const watch = () => {
    const filters = document.getElementById("filters");
    if (!filters || filters.hidden) requestAnimationFrame(watch);
    else requestAnimationFrame(() => setTimeout(() => { window.usable = performance.now(); }));
  };
  watch();
"""
"""Notes when the search is there and painted, in ms since the navigation began."""

USABLE = """async () => {
  while (!window.usable) await new Promise((done) => requestAnimationFrame(done));
}"""

ANSWER = """async ([id, kind, value]) => {
  const element = id.startsWith("#") ? document.querySelector(id)
    : document.querySelector(`#table [data-column="${id}"] button`);
  const started = performance.now();
  if (kind === "click") element.click();
  else { element.value = value; element.dispatchEvent(new Event(kind)); }
  const answered = performance.now() - started;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [answered, performance.now() - started];
}"""
"""Does something as a reader would; returns ms until the rows are there, and until painted."""

SCROLL = "section => section.scrollIntoView({ behavior: 'instant' })"

Action = tuple[str, str, str]


def actions() -> dict[str, list[Action]]:
    """Return what is timed, by kind; each starts from where the one before ended."""
    columns = ("query", "drawn", "alive", "kept", "contained", "status", "source", "matched")
    sources = ["0", "1", "3", ""]
    searches: list[Action] = [("#search", "input", needle) for needle in NEEDLES]
    return {
        "search": searches,
        "sort, first time": [(c, "click", "") for c in columns for _ in range(2)],
        "sort again": [(c, "click", "") for c in columns for _ in range(2)],
        "filter by source": [("#source", "change", place) for place in sources],
        "filter by status": [("#status", "change", place) for place in ["0", "1", "3", ""]],
        "search one letter, sorted by kept": [("kept", "click", ""), ("#search", "input", "e")],
    }


def opened(browser: Browser, place: Path, slower: float) -> Page:
    """Return the page in a context of its own, with its search there."""
    page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
    page.add_init_script(WATCH)
    if slower > 1:
        session = page.context.new_cdp_session(page)
        session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
    page.goto(place.resolve().as_uri())
    page.evaluate(USABLE)
    return page


def measure(browser: Browser, place: Path, repeats: int, slower: float) -> None:
    """Print medians and worsts over repeated openings."""
    usable, longest = [], []
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in actions()}
    needles: dict[str, list[float]] = {needle: [] for needle in NEEDLES}
    for _ in range(repeats):
        page = opened(browser, place, slower)
        usable.append(page.evaluate("window.usable"))
        longest.append(page.evaluate("window.longest"))
        for kind, does in actions().items():
            for action in does:
                took = page.evaluate(ANSWER, list(action))
                times[kind].append(took)
                if kind == "search":
                    needles[action[2]].append(took[1])
        page.context.close()
    print(f"{'':36}   median     worst   ms, {repeats} openings")
    _print("usable after opening", usable)
    _print("longest block while opening", longest)
    for kind, took in times.items():
        _print(f"{kind}: rows there", [t[0] for t in took])
        _print(f"{kind}: painted", [t[1] for t in took])
    for needle, painted in needles.items():
        _print(f"  search {needle!r}: painted", painted)


def _print(what: str, took: list[float]) -> None:
    print(f"{what:44} {statistics.median(took):7.0f} {max(took):9.0f}")


def screenshots(browser: Browser, place: Path, folder: Path) -> None:
    """Write the page as pictures: light, dark while searching, and on a phone."""
    shots = {
        "report": ("light", 1100, 1420, "", None),
        "report-dark": ("dark", 1100, 900, "#queries", "cat"),
        "report-phone": ("light", 360, 1100, "[aria-labelledby=h-balance]", None),
    }
    for name, (scheme, width, height, section, needle) in shots.items():
        size = {"width": width, "height": height}
        page = browser.new_context(viewport=size, color_scheme=scheme).new_page()  # type: ignore[arg-type]  # a literal in the table
        page.goto(place.resolve().as_uri())
        page.wait_for_selector("#filters:not([hidden])")
        if needle:
            page.fill("#search", needle)
        if section:
            page.locator(section).evaluate(SCROLL)
        picture = folder / f"{name}.png"
        page.screenshot(path=picture)
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
        page.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--queries", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--slower", type=float, default=1, help="slow the browser's CPU so many times"
    )
    parser.add_argument("--page", type=Path, help="a page that is there, instead of making one")
    parser.add_argument("--screenshots", type=Path, help="write pictures here, and measure nothing")
    options = parser.parse_args()

    if not (chromium := shutil.which("chromium")):
        print("NOT MEASURED: this needs Chromium: apt-get install chromium")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        place = options.page or Path(folder, "index.html")
        if not options.page:
            place.write_text(made_page(options.data, options.queries))
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        print(f"Chromium {browser.version}, Python {platform.python_version()}")
        if options.screenshots:
            screenshots(browser, place, options.screenshots)
        else:
            measure(browser, place, options.repeats, options.slower)
        browser.close()


if __name__ == "__main__":
    main()
