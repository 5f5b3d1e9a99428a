"""The report as one self-contained HTML page.

Query strings and the title come from users and from the web. They reach the page through jinja2's
autoescape (``wit_builder.pages``) and through ``script_json`` only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from wit_builder import pages
from wit_builder.pages import NO_BREAK
from wit_builder.report import figures
from wit_builder.report.count import EMPTY, FULL, STATUSES, Round
from wit_builder.report.embed import alphabetical, embed
from wit_builder.report.folder import I64, script_json
from wit_builder.report.summary import Step, Summary, quantity, round_names, words
from wit_builder.report.summary import share as breaking_share
from wit_builder.report.summary import size as breaking_size
from wit_builder.tables import Source

END_ROWS = 8
"""Rows of each of the small tables: most matched, least matched, most lost."""

STATIC_ROWS = 50
"""Rows written as HTML, for readers without script; the script shows as many at a time."""

STATUS_WORDS = {
    "full": "keeps as many pairs as the cap allows",
    "exhausted": "keeps fewer than the cap; every pair that contains it was tried",
    "short": "keeps fewer than the cap; a further round can bring more",
    "empty": "no text contains it",
}
"""What each status means, in the order in which bars and legends show them."""

_SHOWN_STATUSES = tuple(STATUS_WORDS)


def status_counts(status: pa.ChunkedArray) -> dict[str, int]:
    """Return the number of queries by status, in the order of ``STATUSES``, zeros included."""
    found = {v["values"]: v["counts"] for v in pc.value_counts(status).to_pylist()}
    return {name: int(found.get(name, 0)) for name in STATUSES}


def render(summary: Summary, balance: pa.Table, rejections: pa.Table) -> str:
    """Return the page. The same tables give the same text.

    Args:
        summary: the figures of the run.
        balance: ``tables.BALANCE``, a row per query.
        rejections: ``stage``, ``reason``, ``count``, in the order to show them.
    """
    rows = alphabetical(balance)
    sources = _in_order(pc.unique(rows["source"]).to_pylist())
    embedded = embed(rows, list(_SHOWN_STATUSES), sources)
    context = {
        "summary": summary,
        "funnel": funnel_rows(summary.funnel),
        "balance": _balance(balance, summary.cap_per_query),
        "ends": end_tables(rows, summary.cap_per_query),
        "by_source": [_source(rows, name) for name in sources],
        "rounds": _rounds(summary.rounds),
        "several_generations": summary.generation != "g0",
        "rejections": _rejections(rejections),
        "status_words": STATUS_WORDS,
        "sources": sources,
        "statuses": _SHOWN_STATUSES,
        "rows": rows.take(_most(rows["matched"].to_numpy(), STATIC_ROWS)).to_pylist(),
        "header": Markup(script_json({**embedded.header, "page_rows": STATIC_ROWS})),  # noqa: S704 - made safe there
        "packed": embedded.packed,
    }
    return pages.render("wit_builder.report", "page.html.j2", _FILTERS, **context)


def share(part: float, whole: float) -> str:
    """Return a share in per cent whose figure and sign stay on one line."""
    return breaking_share(part, whole).replace(" ", NO_BREAK)


def size(size_bytes: float) -> str:
    """Return a size whose figure and unit stay on one line."""
    return breaking_size(size_bytes).replace(" ", NO_BREAK)


def _most(values: I64, rows: int) -> I64:
    """Return the places of the greatest values, greatest first, equal ones in their order."""
    return np.argsort(-values, kind="stable")[:rows]


_FILTERS: pages.Filters = {
    "number": lambda n: f"{n:,}",
    "quantity": quantity,
    "share": share,
    "size": size,
    "words": words,
}


def funnel_rows(steps: list[Step]) -> list[dict[str, Any]]:
    """Return the steps with a bar each, and the share of the step before if of the same unit."""
    widest = {s.unit: max(t.count for t in steps if t.unit == s.unit) for s in steps}
    rows = []
    for before, step in zip([None, *steps], steps, strict=False):
        same = before is not None and before.unit == step.unit
        bar = figures.stacked_bar([("flow", step.count)], widest[step.unit])
        rows.append(
            {
                "label": step.label,
                "figure": quantity(step.count, step.unit),
                "share": share(step.count, before.count) if same and before else "",
                "before": before.label if before else "",
                "bar": bar if step.unit == "pairs" else "",
            }
        )
    return rows


def _balance(balance: pa.Table, cap_per_query: int) -> dict[str, Any]:
    """Return the plots, and how much of all pairs the head holds before and after."""
    matched, kept = (balance[name].to_numpy() for name in ("matched", "kept"))
    head = matched > cap_per_query
    before, after = _falling(matched), _falling(kept)
    if not len(before):
        return {"any": False}
    found = figures.bins(before, after)
    return {
        "any": True,
        "histogram": figures.histogram(found, cap_per_query),
        "bins": found,
        "share_plot": figures.share_plot(before, after, int(head.sum())),
        "head": int(head.sum()),
        "with_match": len(before),
        "without_pair": len(before) - len(after),
        "head_before": share(matched[head].sum(), matched.sum()),
        "head_after": share(kept[head].sum(), kept.sum()) if len(after) else "",
        "matches": int(matched.sum()),
        "keeps": int(kept.sum()),
    }


def _falling(counts: I64) -> I64:
    return np.sort(counts[counts > 0])[::-1]


def end_tables(rows: pa.Table, cap_per_query: int) -> list[dict[str, Any]]:
    """Return the small tables of queries at the ends of the list; those without a row are left out.

    A query's loss is what it keeps less than its matched pairs and the cap allow. Where more
    queries than fit have equally few matches, some are taken evenly from all of them.
    """
    matched, kept = rows["matched"].to_numpy(), rows["kept"].to_numpy()
    lost = np.minimum(matched, cap_per_query) - kept
    fewest = int(matched[matched > 0].min(initial=np.iinfo(np.int64).max))
    rare = np.flatnonzero(matched == fewest)
    spaced = np.linspace(0, max(len(rare) - 1, 0), min(END_ROWS, len(rare))).astype(np.int64)
    of_rare = f"{_some_of(len(spaced), len(rare))} with {quantity(fewest, 'matched pairs')}"
    tables = [
        ("Most matched", "the most pairs whose text contains them", _above_zero(matched)),
        ("Lost the most", "furthest below what matches and cap allow", _above_zero(lost)),
        ("Least matched", of_rare, rare[spaced]),
    ]
    return [
        {"title": title, "note": note, "rows": [_end(rows, lost, place) for place in places]}
        for title, note, places in tables
        if len(places)
    ]


def _some_of(shown: int, all_of_them: int) -> str:
    if all_of_them == 1:
        return "the only one"
    return f"all {shown}" if shown == all_of_them else f"{shown} of the {all_of_them:,}"


def _above_zero(values: I64) -> I64:
    places = _most(values, END_ROWS)
    return places[values[places] > 0]


def _end(rows: pa.Table, lost: I64, place: int) -> dict[str, Any]:
    [row] = rows.slice(place, 1).to_pylist()
    return {**row, "lost": int(lost[place])}


def _source(rows: pa.Table, name: str) -> dict[str, Any]:
    """Return how the queries of a source ended."""
    part = rows.filter(pc.equal(rows["source"], name))
    statuses = status_counts(part["status"])
    return {
        "name": name,
        "queries": len(part),
        "with_match": len(part) - statuses[EMPTY],
        "full": statuses[FULL],
        "kept": int(pc.sum(part["kept"]).as_py() or 0),
        "bar": figures.stacked_bar(
            [(f"status-{s}", statuses[s]) for s in _SHOWN_STATUSES], len(part)
        ),
    }


def _rounds(rounds: list[Round]) -> list[dict[str, Any]]:
    """Return the rounds with a bar each, all on the scale of the one that asked for most."""
    most = max((r.asked for r in rounds), default=0)
    return [
        {
            "name": name,
            "round": r,
            "bar": figures.stacked_bar(
                [(f"outcome-{o}", getattr(r, o)) for o in ("alive", "dead", "deferred")], most
            ),
        }
        for name, r in zip(round_names(rounds), rounds, strict=True)
    ]


def _rejections(rejections: pa.Table) -> list[dict[str, Any]]:
    """Return the stages in order, each with its total and its reasons with a bar each."""
    stages: dict[str, list[tuple[str, int]]] = {}
    for row in rejections.to_pylist():
        stages.setdefault(row["stage"], []).append((row["reason"], row["count"]))
    return [_rejected(stage, reasons) for stage, reasons in stages.items()]


def _rejected(stage: str, reasons: list[tuple[str, int]]) -> dict[str, Any]:
    total = sum(n for _, n in reasons)
    rows = [
        {
            "reason": words(reason) or "no reason given",
            "count": n,
            "share": share(n, total),
            "bar": figures.stacked_bar([("loss", n)], reasons[0][1]),
        }
        for reason, n in reasons
    ]
    return {"stage": stage, "total": total, "reasons": rows}


def _in_order(names: list[str]) -> list[str]:
    order = [source.value for source in Source]
    return sorted(names, key=lambda s: ((*order, s).index(s), s))
