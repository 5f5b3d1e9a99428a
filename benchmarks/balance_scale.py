"""What balance keeps at the paper's scale, by simulation, beside what MetaCLIP's paper tells.

    python benchmarks/balance_scale.py [--texts 2000000] [--drawn-share 0.005]

Numbers of matches per query have the shape that arXiv 2309.16671 gives (sections 3.2 and 4, tables
2 and 3): 500,000 queries, 114,000 without a match, 16,000 with more than 20,000, the twenty most
frequent as told; between those points a curve whose one parameter gives the published sums. Pool 2
is taken for pool 1 with 10.7 / 1.6 times the pairs: its counts are not published.

A pair is kept unless none of its queries draws it: with chance 1 - (1 - p1)(1 - p2)..., where
p = min(1, t / n). That is exact for independent draws; of exact ones, whose sizes are fixed, it is
off by about 1 / t. So the expected number of kept pairs needs a sample of texts only, and a
model of what stands in them. Which queries stand together is not published. Here, a text has a size
(geometric, 3.5 on average) and a *leaning* towards frequent or rare queries; the part that leaning
has in the choice is fitted to the 400 million pairs of t = 20,000 in pool 1, and the two figures of
pool 2 then are a test. A part of 0 is independent choice. Last, both methods of ``wit balance``
draw from a sample of pool 1 with the cap scaled like it.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wit_builder.curate import balance
from wit_builder.curate.pairs import Pairs, any_where

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]

QUERIES, MATCHED, HEAD, CAP = 500_000, 386_000, 16_000, 20_000
PAIRS, MATCHES, PER_TEXT = 1.6e9, 5.6e9, 3.5
HEAD_SHARE = 0.945
"""Of the matches, by the text of section 3.2; its own 5.35 B of 5.6 B would be 0.955."""

TOP = [120, 107, 100, 89, 87, 67, 67, 61, 54, 50, 48, 47, 45, 43, 43, 39, 38, 33, 30, 29]
"""Matches of the most frequent queries, in millions (table 3)."""

POOL_2 = 10.7 / 1.6
KEPT = 400e6


# --- the pool --------------------------------------------------------------


def published_counts(head_share: float = HEAD_SHARE) -> F64:
    """Return matches per query, most frequent first, in the published shape; not whole numbers."""
    top, head = np.array(TOP) * 1e6, MATCHES * head_share
    middle = _fall(len(TOP), HEAD, (top[-1], CAP), head - top.sum())
    tail = _fall(HEAD, MATCHED, (CAP, 1), MATCHES - head)
    return np.concatenate([top, middle, tail, np.zeros(QUERIES - MATCHED)])


def _fall(first: int, last: int, ends: tuple[float, float], total: float) -> F64:
    """Return counts of the ranks after ``first`` to ``last``: a bent line in log-log, of a sum."""
    ranks = np.arange(first + 1, last + 1)
    along = np.log(ranks / first) / np.log(last / first)
    least, most = -20.0, 20.0
    for _ in range(60):
        bend = (least + most) / 2
        counts = ends[0] * (ends[1] / ends[0]) ** along * np.exp(bend * along * (1 - along))
        least, most = (bend, most) if counts.sum() < total else (least, bend)
    return counts


class Texts(NamedTuple):
    """Some texts: int64 [T + 1] where each begins in ``queries``, and int32 [M] their queries.

    Queries are numbered from the most frequent; of each text they are sorted and distinct.
    """

    offsets: I64
    queries: I32


def drawn_texts(
    count: int,
    counts: F64,
    rng: np.random.Generator,
    leaning: float = 0.0,
    *,
    poisson: bool = False,
) -> Texts:
    """Return texts whose queries are drawn by their numbers of matches.

    Args:
        count: how many texts.
        counts: matches per query, most frequent first.
        rng: of the draws.
        leaning: the part, 0 to 0.5, that the text has in how frequent each of its queries is.
        poisson: of the sizes, less one; else they are geometric. A query that comes twice counts
            once: sizes are 1 to 3 % smaller than asked for.
    """
    sizes = 1 + rng.poisson(PER_TEXT - 1, count) if poisson else rng.geometric(1 / PER_TEXT, count)
    text = np.repeat(np.arange(count), sizes)
    place = rng.random(len(text))
    if leaning:
        mixed = leaning * rng.random(count)[text] + (1 - leaning) * place
        place = _uniform(mixed, leaning)
    ends = np.cumsum(counts)
    query = np.searchsorted(ends, place * ends[-1], side="right")
    both = np.sort(text << 20 | query)
    both = both[np.append(True, np.diff(both) != 0)]
    offsets = np.searchsorted(both, np.arange(count + 1) << 20)
    return Texts(offsets, (both & (1 << 20) - 1).astype(np.int32))


def _uniform(mixed: F64, part: float) -> F64:
    """Return the distribution function of ``part * A + (1 - part) * B``, A and B uniform."""
    rise = mixed**2 / (2 * part * (1 - part))
    fall = 1 - (1 - mixed) ** 2 / (2 * part * (1 - part))
    flat = (mixed - part / 2) / (1 - part)
    found = np.where(mixed < part, rise, np.where(mixed > 1 - part, fall, flat))
    return np.minimum(found, 1 - 2.0**-53)


# --- what is kept ----------------------------------------------------------


class Kept(NamedTuple):
    """The share of the pairs that are kept, and of the matches that these contain."""

    pairs: float
    matches: float


def expected(texts: Texts, counts: F64, cap: float) -> Kept:
    """Return what is kept on average, of a sample of texts."""
    with np.errstate(divide="ignore"):
        missed = np.log1p(-np.minimum(cap / np.maximum(counts, 1), 1))
    chance = 1 - np.exp(np.add.reduceat(missed[texts.queries], texts.offsets[:-1]))
    sizes = np.diff(texts.offsets)
    return Kept(float(chance.mean()), float(chance @ sizes / sizes.sum()))


def fitted_leaning(counts: F64, count: int, *, poisson: bool = False) -> float:
    """Return the leaning with which 400 million pairs of pool 1 are kept; 0.5 at most."""
    least, most = 0.0, 0.5
    for _ in range(8):
        part = (least + most) / 2
        texts = drawn_texts(count, counts, np.random.default_rng(1), part, poisson=poisson)
        too_many = expected(texts, counts, CAP).pairs * PAIRS > KEPT
        least, most = (part, most) if too_many else (least, part)
    return (least + most) / 2


class Setting(NamedTuple):
    """A pool (by its size), a cap, and the pairs that the paper keeps of it, if it says."""

    times: float
    cap: int
    published: float | None = None


SETTINGS = [
    Setting(1, 5_000),
    Setting(1, CAP, 400e6),
    Setting(1, 170_000),
    Setting(POOL_2, CAP, 1e9),
    Setting(POOL_2, 170_000, 2.5e9),
]


def print_kept(counts: F64, count: int, leanings: list[float], *, poisson: bool) -> None:
    """Print what each setting draws and keeps."""
    samples = [
        drawn_texts(count, counts, np.random.default_rng(2), part, poisson=poisson)
        for part in leanings
    ]
    print("pairs  cap      draws  tail before  after  kept, by leaning (of matches)  published")
    for times, cap, published in SETTINGS:
        n = counts * times
        draws = np.minimum(n, cap)
        before, after = n[n <= cap].sum() / n.sum(), n[n <= cap].sum() / draws.sum()
        kept = [expected(texts, n, cap) for texts in samples]
        told = "  ".join(f"{k.pairs * PAIRS * times / 1e6:6,.0f} M ({k.matches:.0%})" for k in kept)
        known = f"{published / 1e6:,.0f} M" if published else ""
        print(
            f"{PAIRS * times / 1e9:4.1f} B {cap:7,} {draws.sum() / 1e6:6,.0f} M {before:9.1%} "
            f"{after:9.0%}  {told}  {known}"
        )


def print_models(count: int) -> None:
    """Print the settings under several readings of the paper."""
    for head_share in (HEAD_SHARE, 0.955):
        counts = published_counts(head_share)
        for poisson in (False, True):
            part = fitted_leaning(counts, count // 4, poisson=poisson)
            sizes = "Poisson" if poisson else "geometric"
            print(f"\nhead {head_share:.1%} of matches, sizes {sizes}; leaning 0 and {part:.2f}")
            print_kept(counts, count, [0.0, part], poisson=poisson)


# --- real draws from a sample ----------------------------------------------


def print_drawn(share: float, leaning: float) -> None:
    """Print what both methods draw of a sample of pool 1, and what was to be expected."""
    counts, cap = published_counts(), round(CAP * share)
    texts = drawn_texts(round(PAIRS * share), counts, np.random.default_rng(3), leaning)
    found: I64 = np.bincount(texts.queries, minlength=QUERIES)
    size, matches = len(texts.offsets) - 1, len(texts.queries)
    print(f"\n{size:,} pairs, {matches:,} matches, cap {cap}, leaning {leaning:.2f}")
    uids = np.random.default_rng(4).integers(0, 1 << 63, (size, 2)).astype("<u8")
    pairs = Pairs(uids, texts.offsets.astype(np.int32), texts.queries)
    seeds = balance.query_seeds(pa.array([f"query {i}" for i in range(QUERIES)]), 5)
    masks = {
        "exact": balance.draw(pairs, seeds, cap),
        "bernoulli": _shares(pairs, seeds, cap, found),
    }
    for method, mask in masks.items():
        kept = np.count_nonzero(any_where(pairs, mask))
        draws = np.bincount(texts.queries[mask], minlength=QUERIES)
        more = np.abs(draws - np.minimum(found, cap)).max()
        print(
            f"  {method:9} draws {mask.sum():10,}, keeps {kept:9,} pairs ({kept / size:.2%}); "
            f"at most {more} draws from min(n, cap)"
        )
    print(f"  expected from the counts: {expected(texts, found.astype(float), cap).pairs:.2%}")


def _shares(pairs: Pairs, seeds: U64, cap: int, counts: I64) -> balance.Mask:
    """Return which matches independent draws take: those that rank below cap / matches."""
    limited = np.flatnonzero(counts > cap)
    slot = balance.slots(limited, len(counts))
    rank = (cap / counts[limited] * 2.0**64).astype(np.uint64)
    bounds = balance.no_bounds(slot, len(limited))._replace(rank=rank)
    return balance.drawn(pairs, np.ones(len(pairs), np.bool_), seeds, bounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--texts", type=int, default=2_000_000, help="texts in a sample")
    parser.add_argument("--drawn-share", type=float, default=0.005, help="of pool 1, really drawn")
    options = parser.parse_args()
    started = time.perf_counter()
    print_models(options.texts)
    leaning = fitted_leaning(published_counts(), options.texts // 4)
    for part in (0.0, leaning):
        print_drawn(options.drawn_share, part)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
