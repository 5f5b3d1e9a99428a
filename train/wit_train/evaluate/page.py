"""The page of an evaluation: what a model scores, and what it gets wrong, with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from wit_builder.pages import NO_BREAK
from wit_train.evaluate import plots
from wit_train.evaluate.class_section import class_section
from wit_train.evaluate.html import interval, ordinal, percent, render, share, signed
from wit_train.evaluate.results import Overlap, Probe, Result, Results, Score
from wit_train.evaluate.retrieved import Example, Found
from wit_train.evaluate.thumbnails import Pictures, thumbnails

PROMPTS = 12
"""Wordings that are shown at once, more where the ensemble is further down."""

NAMED = 100
"""Names of pictures or classes in one list at most."""

EXAMPLES, FOUND = 8, 6
"""Examples of retrieval each way, and answers of each: 112 pictures at most."""


def page(
    results: Results,
    predictions: pa.Table | None,
    classes: Sequence[str],
    pictures: Pictures,
    retrieved: Sequence[Example] = (),
    paired: Pictures | None = None,
) -> str:
    """Return the page. The same arguments give the same text.

    Args:
        results: what was measured.
        predictions: of zero-shot, ``results.PREDICTIONS``; None leaves out the classes.
        classes: their names, in the order of the predictions' numbers.
        pictures: of the test set with classes; asked once, for 120 at most.
        retrieved: examples of retrieval, in the order to show them.
        paired: pictures of the test set of retrieval, asked once, for 112 at most; by default
            those of ``pictures``.
    """
    asked = {"text_by_image": "picture", "image_by_text": "text"}
    return render(
        "evaluation.html.j2",
        results=results,
        title="/".join(results.model.rstrip("/").split("/")[-2:]),
        keys=_keys(results),
        zero_shot=results.zero_shot and _classified(results.zero_shot),
        prompts=results.zero_shot and _prompts(results.zero_shot),
        classes=class_section(predictions, classes, pictures),
        retrieval=results.retrieval and _retrieval(results.retrieval),
        examples=[
            {"by": by, "shown": _examples(retrieved, direction, paired or pictures)}
            for direction, by in asked.items()
        ],
        probe=results.probe and _probe(results.probe, results.zero_shot),
        overlap=results.overlap and _overlap(results.overlap),
        named=NAMED,
    )


# --- what is measured ------------------------------------------------------

_TOLD = {
    "top1": ("Top-1", "the right class scores best"),
    "top5": ("Top-5", "the right class is among the five that score best"),
    "mean_per_class": ("Mean per class", "top-1, every class counts as much"),
    "roc_auc": ("ROC AUC", "how often a picture of the one class scores above one of the other"),
}
_BY = {"image_by_text": "Pictures found by text", "text_by_image": "Texts found by picture"}


def _keys(results: Results) -> list[dict[str, str]]:
    """Return the figures at the head of the page."""
    probed = results.probe.result if results.probe else None
    keys = []
    for label, result, name in (
        ("Zero-shot top-1", results.zero_shot, "top1"),
        ("Pictures by text, R@1", results.retrieval, "image_by_text_r1"),
        ("Texts by picture, R@1", results.retrieval, "text_by_image_r1"),
        ("Linear probe top-1", probed, "top1"),
    ):
        score = result.scores.get(name) if result else None
        if score:
            note = f"95{NO_BREAK}%: {interval(score)}" if interval(score) else ""
            keys.append({"label": label, "figure": percent(score.value), "note": note})
    if results.overlap:
        known, note = results.overlap, "of the test pictures are in the training data"
        figure = share(known.overlapping, known.pictures)
        keys.append({"label": "Overlap", "figure": figure, "note": note})
    return keys


def _classified(result: Result) -> dict[str, Any]:
    return {"scores": [_score(name, score) for name, score in result.scores.items()]}


def _score(name: str, score: Score) -> dict[str, Any]:
    """Return a row of a table of scores; an area under a curve is no share and has no per cent."""
    label, about = _TOLD.get(name, (name.replace("_", " "), ""))
    bare = name == "roc_auc"
    write = (lambda value: f"{value:.3f}") if bare else percent
    within = interval(score)
    if bare and score.low is not None and score.high is not None:
        within = f"{score.low:.3f} to {score.high:.3f}"
    return {
        "label": label,
        "about": about,
        "value": write(score.value),
        "interval": within,
        "chance": "" if score.chance is None else write(score.chance),
        "bar": plots.interval_bar(score),
    }


def _prompts(result: Result) -> dict[str, Any] | None:
    """Return every wording with its bar, best first, and among them what they reach together."""
    if not result.prompts:
        return None
    rows = [(p.wording, p.top1, False) for p in result.prompts]
    if "top1" in result.scores and len(result.templates) > 1:
        together = f"all {len(result.templates):,} together"
        rows.append((together, result.scores["top1"], True))
    rows.sort(key=lambda row: (-row[1].value, not row[2], row[0]))
    ends = [value for _, score, _ in rows for value in (score.value, score.low, score.high)]
    axis = plots.percent_axis([value for value in ends if value is not None])
    shown = [
        {
            "wording": wording,
            "ensemble": ensemble,
            "value": percent(score.value),
            "interval": interval(score),
            "bar": plots.interval_mark(score, axis),
        }
        for wording, score, ensemble in rows
    ]
    ensemble_place = next((i for i, row in enumerate(rows) if row[2]), 0)
    first = max(PROMPTS, ensemble_place + 1)
    best, least = rows[0][1].value, rows[-1][1].value
    return {
        "first": shown[:first],
        "others": shown[first:],
        "count": len(result.prompts),
        "axis": f"{axis.ticks[0][1]} to {axis.ticks[-1][1]}",
        "apart": f"{100 * (best - least):.1f}",
    }


# --- retrieval -------------------------------------------------------------


def _retrieval(result: Result) -> dict[str, Any]:
    """Return a table for each way; a score of another name gets a table of its own."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, score in result.scores.items():
        way, _, k = name.rpartition("_r")
        told = _score(name, score)
        if way in _BY and k.isdigit():
            told["label"], told["about"] = f"R@{k}", ""
        tables.setdefault(_BY.get(way, "Others"), []).append(told)
    return {"tables": tables}


def _examples(
    retrieved: Sequence[Example], direction: str, pictures: Pictures
) -> list[dict[str, Any]]:
    shown = [e for e in retrieved if e.direction == direction][:EXAMPLES]
    items = [e.query for e in shown]
    items += [f.item for e in shown for f in _answers(e)]
    thumbs = thumbnails([item for item in items if isinstance(item, int)], pictures)

    def told(item: int | str) -> dict[str, Any]:
        uri, said = thumbs[item] if isinstance(item, int) else (None, "")
        return {"text": item, "uri": uri, "said": said, "picture": isinstance(item, int)}

    return [
        {
            "query": told(e.query),
            "place": ordinal(e.rank),
            "first": e.rank == 0,
            "found": [
                {**told(f.item), "score": signed(f.score), "right": f.right, "apart": f is e.right}
                for f in _answers(e)
            ],
        }
        for e in shown
    ]


def _answers(example: Example) -> list[Found]:
    """Return the answers to show, and the right one if it is not among them."""
    first = example.found[:FOUND]
    has_right = any(f.right for f in first)
    return first if has_right or example.right is None else [*first, example.right]


# --- probe and overlap -----------------------------------------------------


def _probe(probe: Probe, zero_shot: Result | None) -> dict[str, Any]:
    """Return scores and plots; zero-shot stands beside them where it is of the same test set."""
    same = zero_shot is not None and zero_shot.data == probe.result.data
    without = zero_shot.scores.get("top1") if zero_shot and same else None
    whole = probe.result.scores.get("top1")
    shots = [
        {
            "shots": s.shots,
            "short": s.short,
            "top1": percent(s.top1),
            "spread": f"{percent(min(s.draws))} to {percent(max(s.draws))}" if s.draws else "",
            "draws": len(s.draws),
            "strength": f"{s.strength:.3g}",
        }
        for s in sorted(probe.few_shot, key=lambda s: s.shots)
    ]
    return {
        "told": probe,
        "scores": [_score(name, score) for name, score in probe.result.scores.items()],
        "strength": f"{probe.strength:.3g}",
        "sweep": plots.sweep(probe.sweep, probe.strength) if probe.sweep else "",
        "few_shot": plots.few_shot(probe.few_shot, without, whole.value if whole else None)
        if probe.few_shot
        else "",
        "shots": shots,
        "zero_shot": bool(without),
    }


def _overlap(found: Overlap) -> dict[str, Any]:
    parts = (("all pictures", found.all), ("overlap", found.overlap), ("clean", found.clean))
    return {
        "told": found,
        "rows": [{**_score("top1", s), "label": name} for name, s in parts if s],
        "share": share(found.overlapping, found.pictures),
        "inflation": "" if found.inflation is None else _points(found.inflation),
        "p_value": "" if found.p_value is None else f"{found.p_value:.2g}",
    }


def _points(difference: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{signed(100 * difference, '+.2f')}{NO_BREAK}points"
