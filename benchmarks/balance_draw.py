"""How long a draw takes: ours beside the published algorithm, in plain Python and in numpy.

    python benchmarks/balance_draw.py [--matches 20000000] [--repeats 5]
    python benchmarks/balance_draw.py --disk [--matches 5000000 20000000 80000000]

Pairs are texts of ``balance_scale.py``: a sample of MetaCLIP's pool (arXiv 2309.16671), so many of
its 5.6 billion matches, over 500,000 queries in no order. The cap is 20,000 in the same proportion
(71 of 20 million matches), so that as in the paper 16,000 queries are over the cap and have 94.5 %
of the matches; of the other queries, three in four have no match in so small a sample.

In memory, on one core: from Arrow (uid as fixed-size binary, query_ids as list<int32>) to which
pairs are kept. The peers are algorithm 1 of that paper, written from its description. *Python*
loops over pairs and queries, with chances in a numpy array as in the paper; its counts are given,
and are not part of its time. Beside it, with lists made beforehand, and with chances in a list,
which is as quick as Python gets. *numpy* does the same over whole columns, and counts. They draw
independently, right on average; ours is exact, which is checked, and hashes every match for it.

From disk (``--disk``): parquet tables of a million pairs each, through the units of a run in one
process, up to the tables of what the first round asks for. Each size has a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.balance_scale import CAP, MATCHES, QUERIES, drawn_texts, published_counts
from benchmarks.web_turns import Works, medians, versions
from wit_builder import storage
from wit_builder.curate import balance
from wit_builder.curate.pairs import Pairs, any_where, pairs_of
from wit_builder.curate.states import QueryList, of_list
from wit_builder.drawing import Drawing
from wit_builder.sections import BalanceSection
from wit_builder.stages import Stages
from wit_builder.tables import MATCHED
from wit_builder.units import Run

Mask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
T = TypeVar("T")

PAIRS_PER_TABLE = 1_000_000
MATCHES_PER_PAIR = 3.47
SEED = 5
TEXT = "a text of the length that a caption has, as it stands beside a picture, and its number "


class Pool(NamedTuple):
    """Arrow columns of some pairs: uid, and list<int32> of the queries they contain."""

    uids: pa.Array
    query_ids: pa.ListArray


def pool(pairs: int, number: int = 0) -> Pool:
    """Return that many pairs, in the order of their uids; other ones for each number."""
    rng = np.random.default_rng([7, number])
    ids = np.random.default_rng(7).permutation(QUERIES).astype(np.int32)
    texts = drawn_texts(pairs, published_counts(), rng)
    lists = pa.ListArray.from_arrays(texts.offsets.astype(np.int32), ids[texts.queries])
    words = np.sort(rng.integers(0, 1 << 63, pairs, np.uint64))
    uids = np.stack([words.byteswap(), rng.integers(0, 1 << 63, pairs, np.uint64)], axis=1)
    return Pool(pa.Array.from_buffers(pa.binary(16), pairs, [None, pa.py_buffer(uids)]), lists)


def query_strings() -> pa.Array:
    """Return 500,000 strings of a query's length."""
    return pa.array([f"query number {i}" for i in range(QUERIES)])


# --- in memory -------------------------------------------------------------


def in_python(query_ids: Iterable[list[int]], chance: Sequence[float] | F64) -> list[int]:
    """Return the pairs that are kept: those that any of their queries draws, with its chance."""
    kept = []
    for pair, ids in enumerate(query_ids):
        for query in ids:
            if random.random() < chance[query]:
                kept.append(pair)
                break
    return kept


def from_arrow(query_ids: pa.ListArray) -> Iterator[list[int]]:
    """Yield each pair's queries, as Python has them."""
    for start in range(0, len(query_ids), 1 << 16):
        yield from query_ids.slice(start, 1 << 16).to_pylist()


def in_numpy(query_ids: pa.ListArray, cap: int, rng: np.random.Generator) -> Mask:
    """Return which pairs are kept, by the same rule."""
    queries, offsets = query_ids.values.to_numpy(), query_ids.offsets.to_numpy()
    chance = cap / np.maximum(np.bincount(queries, minlength=QUERIES), cap)
    drawn = rng.random(queries.size) < chance[queries]
    kept: Mask = np.logical_or.reduceat(drawn, offsets[:-1])
    return kept


def ours(columns: Pool, queries: pa.Array, cap: int) -> tuple[Pairs, Mask, Mask]:
    """Return the pairs, which of their matches are drawn, and which pairs are kept."""
    pairs = pairs_of(*columns)
    drawn = balance.draw(pairs, balance.query_seeds(queries, SEED), cap)
    return pairs, drawn, any_where(pairs, drawn)


def compare(matches: int, repeats: int) -> None:
    """Print how long each takes in memory."""
    columns, queries = pool(round(matches / MATCHES_PER_PAIR)), query_strings()
    ids = columns.query_ids.values.to_numpy()
    cap, counts = round(CAP * len(ids) / MATCHES), np.bincount(ids, minlength=QUERIES)
    over = counts > cap
    print(versions("numpy", "numba", "pyarrow"))
    print(f"{len(ids):,} matches, {len(columns.uids):,} pairs, cap {cap}")
    print(f"{(counts > 0).sum():,} queries with a match, {over.sum():,} over the cap", end=" ")
    print(f"with {counts[over].sum() / len(ids):.1%} of the matches")

    rng, chance = np.random.default_rng(SEED), cap / np.maximum(counts, cap)
    own: Works = {"ours": lambda: ours(columns, queries, cap)}
    # one peer at a time: after Python's many small objects, numpy's large arrays take twice as long
    numpy: Works = {"numpy": lambda: in_numpy(columns.query_ids, cap, rng)}
    print_turns(numpy | own, len(ids), repeats)
    gc.freeze()  # else some of the peer's time would be that of the garbage collector
    python: Works = {"Python": lambda: in_python(from_arrow(columns.query_ids), chance)}
    print_turns(python | own, len(ids), repeats)
    lists, known = columns.query_ids.to_pylist(), chance.tolist()
    gc.freeze()
    from_lists: Works = {
        "Python, lists given": lambda: in_python(lists, chance),
        "Python, chances in a list, too": lambda: in_python(lists, known),
    }
    print_turns(from_lists | own, len(ids), repeats)
    pairs, drawn, kept = ours(columns, queries, cap)
    draws = np.bincount(pairs.queries[drawn], minlength=QUERIES)
    assert (draws == np.minimum(counts, cap)).all(), "a draw is not exact"
    print(f"every query draws min(matches, cap): {draws.sum():,} draws")
    others = [len(in_python(lists, known)), in_numpy(columns.query_ids, cap, rng).sum()]
    print(f"kept pairs: Python {others[0]:,}, numpy {others[1]:,}, ours {kept.sum():,}")


def print_turns(works: Works, matches: int, repeats: int) -> None:
    """Print how long each work takes, all in turns, and its ratio to the last."""
    took = medians(works, repeats)
    *_, last = took.values()
    for name, seconds in took.items():
        rate = matches / seconds / 1e6
        print(
            f"{name:32} {seconds:6.3f} s  {rate:5.1f} M matches/s  {seconds / last:5.2f} x our time"
        )


# --- from disk -------------------------------------------------------------


def write_matched(folder: str, matches: int) -> int:
    """Write a run's queries and matched tables; return how many matches there are."""
    ids = pa.array(range(QUERIES), pa.int32())
    queries = pa.table({"query_id": ids, "query": query_strings()})
    storage.write_parquet(storage.join(folder, "queries.parquet"), queries)
    tables = -(-round(matches / MATCHES_PER_PAIR) // PAIRS_PER_TABLE)
    written = 0
    for number in range(tables):
        columns = pool(round(matches / MATCHES_PER_PAIR / tables), number)
        place = storage.join(folder, f"g0/matched/{number:05d}.parquet")
        storage.write_parquet(place, of_list(_rows(columns, number), "list"))
        written += len(columns.query_ids.values)
    return written


def _rows(columns: Pool, number: int) -> pa.Table:
    size = len(columns.uids)
    row = pc.cast(pa.array(np.random.default_rng(number).permutation(size)), pa.string())
    given = {
        "uid": columns.uids,
        "query_ids": columns.query_ids,
        "url": pc.binary_join_element_wise(f"http://www{number}.test/picture-", row, ".jpg", ""),
        "text": pc.binary_join_element_wise(TEXT, row, ""),
        "text_from": pa.repeat("alt", size),
        "archive": pa.repeat("a", size),
    }
    every = [given.get(f.name, pa.nulls(size, f.type)) for f in MATCHED]
    return pa.table([c.cast(f.type) for c, f in zip(every, MATCHED, strict=True)], schema=MATCHED)


class Measured(NamedTuple):
    """Seconds to find the draw and to write what it asks for, and the process's peak in MiB."""

    settle_s: float
    select_s: float
    peak_mib: int
    asked: int


def draw_from_disk(folder: str, cap: int) -> Measured:
    """Find the draw of a run's first round, and write what it asks for."""
    matched = storage.list_files(storage.join(folder, "g0/matched"), ".parquet")
    queries = QueryList(storage.join(folder, "queries.parquet"), "list", SEED)
    tables = [[(url, url)] for url in sorted(matched)]
    section = BalanceSection(cap_per_query=cap)
    drawing = Drawing(Stages(Run(folder), "g0"), queries, section, len(tables), tables)
    started = time.perf_counter()
    drawn = drawing.settle("r0")
    settled = time.perf_counter()
    asked = sum(marker.counts["pairs"] for marker in drawing.select(0, drawn))
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return Measured(settled - started, ended - settled, peak, asked)


def seconds_by_stage(folder: str) -> Counter[str]:
    """Return how many seconds the units of each stage took."""
    took: Counter[str] = Counter()
    for marker in Path(folder, "units", "g0").glob("*/*.json"):
        took[marker.parent.name.partition("-r0")[0]] += json.loads(marker.read_text())["seconds"]
    return took


def from_disk(matches: int) -> None:
    """Print what a draw of that many matches takes, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        written = _alone(write_matched, folder, matches)
        cap = round(CAP * written / MATCHES)
        _alone(draw_from_disk, folder, cap)  # loads what is compiled, brings the input into memory
        for made in ("units", "g0/exchange", "g0/selected"):
            storage.remove(storage.join(folder, made))
        took = _alone(draw_from_disk, folder, cap)
        stages = ", ".join(f"{n} {s:.1f}" for n, s in seconds_by_stage(folder).most_common())
    rate = written / (took.settle_s + took.select_s) / 1e6
    print(
        f"{written:,} matches, cap {cap}, {took.asked:,} pairs asked for: {rate:.2f} M matches/s,"
    )
    print(f"  draw {took.settle_s:.1f} s, select {took.select_s:.1f} s, peak {took.peak_mib} MiB")
    print(f"  seconds of units: {stages}", flush=True)


def _alone(function: Callable[[str, int], T], folder: str, number: int) -> T:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, folder, number).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--matches", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--disk", action="store_true", help="from disk, through the units")
    options = parser.parse_args()
    if options.disk:
        for matches in options.matches or [5_000_000, 20_000_000, 80_000_000]:
            from_disk(matches)
    else:
        for matches in options.matches or [20_000_000]:
            compare(matches, options.repeats)


if __name__ == "__main__":
    main()
