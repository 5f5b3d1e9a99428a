"""What other caps would keep, of pairs that are matched already: to choose the cap by.

MetaCLIP chose its 20,000 so that the *tail*, queries with no more matches than the cap, holds about
6 % of all matches (arXiv 2309.16671, section 3.4). Nothing is fetched, and nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from wit_builder import storage
from wit_builder.curate.tally import read_tally
from wit_builder.drawing import Drawing
from wit_builder.generation import Generation
from wit_builder.stages import Stages

_FOLDER = "what-if"


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What a cap would keep if every picture could be had.

    Attributes:
        cap_per_query: pairs a query keeps at most.
        pairs: pairs that at least one query keeps.
        draws: (pair, query) draws; a pair that several queries draw counts for each. Of independent
            draws, the number to expect.
        queries: queries with a match.
        at_cap: queries with more matches than the cap: the head.
        tail_of_matches: share of all matches that the other queries have: the tail.
        tail_of_draws: share of all draws that the tail has.
    """

    cap_per_query: int
    pairs: int
    draws: int
    queries: int
    at_cap: int
    tail_of_matches: float
    tail_of_draws: float


def outlooks(generations: Sequence[Generation], caps: Sequence[int]) -> list[Outlook]:
    """Return what each cap would keep of the matched pairs of all generations.

    Raises:
        UnitsFailedError: units failed after their retries.
    """
    last = generations[-1]
    stages = Stages(last.run, _FOLDER)
    base = last.drawing_from(generations, stages)
    try:
        return [_outlook(base, cap) for cap in caps]
    finally:
        clear(last.run.root)


def clear(root: str) -> None:
    """Remove what a look at caps has left in a run's folder, if it was killed.

    Raises:
        StorageError: no permission, bucket unreachable.
    """
    for folder in (_FOLDER, f"units/{_FOLDER}"):
        storage.remove(storage.join(root, folder))


def _outlook(base: Drawing, cap: int) -> Outlook:
    drawing = base.with_cap(cap)
    matched = read_tally(
        drawing.stages.urls([drawing.tally], ".parquet"), len(drawing.queries.seeds())
    )
    with drawing.stages.step(f"cap {cap:,}"):
        pairs = drawing.count("count", drawing.first())
    draws, tail = np.minimum(matched, cap), matched <= cap
    return Outlook(
        cap_per_query=cap,
        pairs=pairs,
        draws=int(draws.sum()),
        queries=int(np.count_nonzero(matched)),
        at_cap=int(np.count_nonzero(~tail)),
        tail_of_matches=_share(matched[tail].sum(), matched.sum()),
        tail_of_draws=_share(draws[tail].sum(), draws.sum()),
    )


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else 0.0


def lines(found: Sequence[Outlook]) -> list[str]:
    """Return what caps would keep as a table of text, a cap a line."""
    head = ("cap", "pairs kept", "draws", "more than the cap", "tail, of matches", "tail, of draws")
    rows = [
        (
            f"{o.cap_per_query:,}",
            f"{o.pairs:,}",
            f"{o.draws:,}",
            f"{o.at_cap:,} of {o.queries:,} queries",
            f"{o.tail_of_matches:.1%}",
            f"{o.tail_of_draws:.1%}",
        )
        for o in found
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [head, *rows]
    ]
