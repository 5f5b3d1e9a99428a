"""The report as one self-contained HTML page: no network, no framework, readable without script.

Query strings and the title come from users and from the web. They reach the page through jinja2's
autoescape and through ``script_json`` only, and the page's policy runs no script but its own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from wit_builder.report import figures
from wit_builder.report.count import EMPTY, FIGURES, FULL, STATUSES, Round
from wit_builder.report.folder import I64, script_json
from wit_builder.report.summary import Step, Summary, quantity, share, size, words
from wit_builder.tables import Source

TOP_ROWS, BOTTOM_ROWS = 3000, 1000
"""Queries in the page's table when the list is longer: so many from either end by matched pairs."""

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
    shown = embedded_rows(balance)
    script = _part("page.js")
    context = {
        "summary": summary,
        "style": Markup(_part("page.css")),  # noqa: S704 - a file of this package
        "script": Markup(script),  # noqa: S704 - a file of this package
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "funnel": funnel_rows(summary.funnel),
        "balance": _balance(balance, summary.cap_per_query),
        "sources": _sources(balance),
        "rounds": [_round(r) for r in summary.rounds],
        "rejections": _rejections(rejections),
        "status_words": STATUS_WORDS,
        "table": _table(shown, len(balance)),
        "rows": shown.slice(0, STATIC_ROWS).to_pylist(),
    }
    return _environment().get_template("page.html.j2").render(context)


def _part(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("template", name).read_text("utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=lambda n: f"{n:,}", quantity=quantity, share=share, size=size, words=words
    )
    return environment


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
    return {
        "any": True,
        "rank_plot": figures.rank_plot(before, after, cap_per_query),
        "share_plot": figures.share_plot(before, after),
        "head": int(head.sum()),
        "with_match": len(before),
        "head_before": share(matched[head].sum(), matched.sum()),
        "head_after": share(kept[head].sum(), kept.sum()),
        "matches": int(matched.sum()),
        "keeps": int(kept.sum()),
    }


def _falling(counts: I64) -> I64:
    return np.sort(counts[counts > 0])[::-1]


def _sources(balance: pa.Table) -> list[dict[str, Any]]:
    """Return, per source of queries, how its queries ended, most trusted source first."""
    rows = []
    for name in _in_order(pc.unique(balance["source"]).to_pylist()):
        part = balance.filter(pc.equal(balance["source"], name))
        statuses = status_counts(part["status"])
        pieces = [(f"status-{s}", statuses[s]) for s in _SHOWN_STATUSES]
        rows.append(
            {
                "name": name,
                "queries": len(part),
                "with_match": len(part) - statuses[EMPTY],
                "full": statuses[FULL],
                "kept": int(pc.sum(part["kept"]).as_py() or 0),
                "bar": figures.stacked_bar(pieces, len(part)),
            }
        )
    return rows


def _round(r: Round) -> dict[str, Any]:
    pieces = [(f"outcome-{o}", getattr(r, o)) for o in ("alive", "dead", "deferred")]
    return {"round": r, "bar": figures.stacked_bar(pieces, r.asked)}


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


def embedded_rows(balance: pa.Table) -> pa.Table:
    """Return the rows that the table holds, most matched first: all, or both ends."""
    order = [("matched", "descending"), ("query_id", "ascending")]
    ranked = balance.take(pc.sort_indices(balance, sort_keys=order))
    if len(ranked) <= TOP_ROWS + BOTTOM_ROWS:
        return ranked
    matched = int(pc.sum(pc.greater(ranked["matched"], 0)).as_py() or 0)
    if matched <= TOP_ROWS + BOTTOM_ROWS:
        return ranked.slice(0, TOP_ROWS + BOTTOM_ROWS)
    bottom = ranked.slice(matched - BOTTOM_ROWS, BOTTOM_ROWS)
    return pa.concat_tables([ranked.slice(0, TOP_ROWS), bottom]).combine_chunks()


def _table(shown: pa.Table, queries: int) -> dict[str, Any]:
    """Return what the page's script reads, as JSON, and the names its filters offer."""
    sources = _in_order(pc.unique(shown["source"]).to_pylist())
    columns: dict[str, Any] = {name: shown[name].to_pylist() for name in ("query", *FIGURES)}
    columns["source"] = [sources.index(s) for s in shown["source"].to_pylist()]
    columns["status"] = [_SHOWN_STATUSES.index(s) for s in shown["status"].to_pylist()]
    data = {"sources": sources, "statuses": _SHOWN_STATUSES, "columns": columns}
    return {
        "json": Markup(script_json({**data, "page_rows": STATIC_ROWS})),  # noqa: S704 - made safe there
        "sources": sources,
        "statuses": _SHOWN_STATUSES,
        "shown": len(shown),
        "all": len(shown) == queries,
        "has_bottom": len(shown) < queries and shown["matched"][-1].as_py() > 0,
        "top": TOP_ROWS,
        "bottom": BOTTOM_ROWS,
    }


def _in_order(names: list[str]) -> list[str]:
    order = [source.value for source in Source]
    return sorted(names, key=lambda s: ((*order, s).index(s), s))
