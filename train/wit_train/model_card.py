"""The model card of an export: what the model is, how to load it, what is known and what is not.

Markdown with the front matter that the hub reads. What is said comes from the checkpoint, its
recipe and the results: figures of nothing else. Of places on this machine only last names are told.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jinja2
import msgspec

import wit_builder
from wit_builder import storage
from wit_train.checkpoint import Note, part_to_use
from wit_train.decode import Augment
from wit_train.evaluate.results import Result, Results, Score
from wit_train.lineage import DataSet, Told
from wit_train.model import checked

_MEASURES = {
    "top1": ("accuracy", "Top-1 accuracy"),
    "top5": ("top_5_accuracy", "Top-5 accuracy"),
    "mean_per_class": ("mean_per_class_recall", "Mean per-class recall"),
    "roc_auc": ("roc_auc", "ROC AUC"),
}
_RETRIEVAL = {"text_by_image": "Texts by picture", "image_by_text": "Pictures by text"}
_TASKS = {
    "zero_shot": ("zero-shot-image-classification", "Zero-shot classification"),
    "retrieval": ("image-text-retrieval", "Retrieval"),
    "probe": ("image-classification", "Linear probe"),
}
_PROMPTS = 7
"""Wordings that are listed at most: as many as open_clip's `simple` has."""
_LOSSES = {"clip": "CLIP's contrastive loss", "siglip": "SigLIP's sigmoid loss"}


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a card is written from.

    Attributes:
        note: of the checkpoint.
        told: of the run's recipe.
        name, licence: as they were given; empty: not.
        weights: digest.
        parameters: how many.
        data: what was trained on.
        datasheets: links to those of the data.
        results: of the same weights.
    """

    note: Note
    told: Told
    name: str
    licence: str
    weights: str
    parameters: int
    data: list[DataSet]
    datasheets: list[str]
    results: Results | None


class Metric(NamedTuple):
    """A score as the hub lists it."""

    kind: str
    name: str
    value: float


class Entry(NamedTuple):
    """Scores on a test set as the hub lists them."""

    task: str
    data: str
    metrics: list[Metric]


def written(subject: Subject) -> str:
    """Return the card; the same subject gives the same text."""
    source = importlib.resources.files(__package__).joinpath("template", "model_card.md.j2")
    # autoescape is HTML's; here ``plain`` and ``yaml`` escape all that is not ours
    environment = jinja2.Environment(  # noqa: S701
        undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"plain": plain, "yaml": _quoted, "number": _number}
    environment.globals["rows"] = _rows
    text = environment.from_string(source.read_text("utf-8")).render(
        subject=subject,
        name=name_of(subject),
        version=wit_builder.__version__,
        sigmoid=subject.note.model.get("init_logit_bias") is not None,
        model=_model(subject),
        training=_training(subject),
        data=[_data_row(data) for data in subject.data],
        **_evaluation(subject.results),
        limits=list(_limits(subject)),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def name_of(subject: Subject) -> str:
    """Return the model's name: as given, the run's, or its architecture's."""
    return subject.name or subject.told.name or subject.told.model.name or "clip"


def plain(text: str) -> str:
    """Return markdown that shows a text as it is, in one line, in a table's cell, too."""
    line = re.sub(r"[\\`*_\[\]|~$<>&#]", r"\\\g<0>", " ".join(text.split()))
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def _quoted(text: str) -> str:
    """Return a text as YAML: JSON's quotes are YAML's."""
    return msgspec.json.encode(text).decode()


def _number(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _rows(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _model(subject: Subject) -> Iterator[tuple[str, str]]:
    spec = checked(subject.note.model)
    named = subject.told.model.name
    yield "architecture", plain(named) if named else "its own, in `open_clip_config.json`"
    yield "parameters", _number(subject.parameters)
    yield "embedding", f"{_number(spec.config['embed_dim'])} dimensions"
    yield "pictures", f"{spec.image_size} x {spec.image_size} pixels"
    yield "texts", f"{spec.context_length} tokens of CLIP's BPE, specials included"
    yield "activation", "QuickGELU" if spec.config.get("quick_gelu") else "GELU"
    yield "weights", f"float32; XXH3-128 {subject.weights}"
    yield "licence", plain(subject.licence) if subject.licence else "none was named"


def _training(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield what a checkpoint notes of its training; what an older one does not is left out."""
    note, bound = subject.note, subject.note.bound
    known = {key: msgspec.json.decode(value) for key, value in bound.items()}
    batch = known.get("data.batch_size", 0)
    asked = f" of {known['steps']:,}" if known.get("steps") else ""
    if known.get("epochs"):
        asked = f"; {known['epochs']:g} epochs were asked for"
    yield "steps", f"{note.step:,}{asked}"
    yield "began with", _beginning(subject.told.model.init_from)
    if batch:
        yield "batch size", _number(batch)
        since = " since then" * bool(subject.told.model.init_from)
        yield f"pairs seen{since}", _number(note.step * batch)
    if loss := known.get("loss.kind"):
        yield "loss", _LOSSES[loss]
    if optimiser := _group(known, "optimiser."):
        yield "optimiser", f"AdamW; {optimiser}"
    yield "augmentation", _augmentation(known)
    if dropped := note.model["vision_cfg"].get("patch_dropout"):
        yield "patches left out", _percent(dropped)
    yield "precision", note.precision
    if "seed" in known:
        yield "seed", str(known["seed"])
    if part_to_use(note) == "ema":
        yield "these weights", f"the moving average, decay {known['optimiser.ema_decay']}"


def _augmentation(known: dict[str, Any]) -> str:
    told = {k.removeprefix("data.augment."): v for k, v in known.items()}
    augment = Augment(**{k: told[k] for k in Augment.__struct_fields__ if k in told})
    if augment.crop == "square":
        least = f", of {augment.min_area:g} or more of its area" * (augment.min_area < 1)
        said = f"a random square crop, as large as fits{least}"
    else:
        bounds = [f"{low:g} to {high:g}" for low, high in (augment.scale, augment.ratio)]
        said = f"a random crop, of {bounds[0]} of the area and {bounds[1]} as wide as high, resized"
    said += f"; grey: {augment.gray:g}" * bool(augment.gray)
    return said + f"; jitter: {augment.jitter:g}" * bool(augment.jitter)


def _group(known: dict[str, Any], section: str) -> str:
    """Return the keys of a section with their values, those that are off left out."""
    found = {k.removeprefix(section): v for k, v in known.items() if k.startswith(section)}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in found.items() if value)


def _beginning(place: str) -> str:
    """Return what a run began with: a tag of weights, or the last name of their place.

    Of a checkpoint's JSON it is the run's name, too, for that is a number only.
    """
    if not place:
        return "random weights"
    run, _, step = place.rpartition("/checkpoints/")
    named = f"{_last_name(run)}, {_last_name(step)}" if run else _last_name(place)
    return f"weights of {plain(named)}"


def _data_row(data: DataSet) -> list[str]:
    if data.info is None:
        return [f"`{data.base}`", "not given", "", ""]
    return [f"`{data.base}`", *map(_number, (data.info.samples, data.info.shards, data.info.bytes))]


class _Row(NamedTuple):
    """A score, and what it is of."""

    task: str
    result: Result
    name: str
    score: Score


def _scores(results: Results) -> Iterator[_Row]:
    measured = {
        "zero_shot": results.zero_shot,
        "retrieval": results.retrieval,
        "probe": results.probe.result if results.probe else None,
    }
    for task, result in measured.items():
        if result:
            yield from (_Row(task, result, *named) for named in result.scores.items())


def _evaluation(results: Results | None) -> dict[str, Any]:
    rows = list(_scores(results)) if results else []
    overlap = results.overlap if results else None
    names = ("all", "overlap", "clean")
    parts = [(name, getattr(overlap, name)) for name in names] if overlap else []
    return {
        "scores": [_score_row(row) for row in rows],
        "index": _index(rows),
        "notes": list(_remarks(rows)),
        "overlap": overlap,
        "overlap_scores": [[name, *_values(score)] for name, score in parts if score],
    }


def _values(score: Score) -> tuple[str, str]:
    known = score.low is not None and score.high is not None
    return _percent(score.value), (
        f"{_percent(score.low or 0)} to {_percent(score.high or 0)}" if known else "not known"
    )


def _score_row(row: _Row) -> list[str]:
    chance = "not known" if row.score.chance is None else _percent(row.score.chance)
    of = f"{row.result.pictures:,} pictures"
    of += f", {row.result.classes:,} classes" if row.result.classes else ""
    of += f", {row.result.texts:,} texts" if row.result.texts else ""
    task, data = _TASKS[row.task][1], plain(_last_name(row.result.data))
    return [task, data, _measure(row.name)[1], *_values(row.score), chance, of]


def _measure(name: str) -> tuple[str, str]:
    """Return a score's name for the hub, and for people."""
    if name in _MEASURES:
        return _MEASURES[name]
    way, _, rank = name.rpartition("_r")
    return (name, f"{_RETRIEVAL[way]}, R@{rank}") if way in _RETRIEVAL else (name, plain(name))


def _last_name(place: str) -> str:
    return storage.name_of(storage.redact(place).partition("?")[0]) or "a test set"


def _index(rows: list[_Row]) -> list[Entry]:
    entries: dict[str, Entry] = {}
    for row in rows:
        made = Entry(_TASKS[row.task][0], _last_name(row.result.data), [])
        metric = Metric(*_measure(row.name), round(row.score.value, 6))
        entries.setdefault(row.task, made).metrics.append(metric)
    return list(entries.values())


def _remarks(rows: list[_Row]) -> Iterator[str]:
    """Yield what a reader of the table must know of each task."""
    for task, result in {row.task: row.result for row in rows}.items():
        said = [f"{count:,} left out: {plain(why)}." for why, count in result.left_out.items()]
        if result.empty_classes:
            said.append(f"{len(result.empty_classes):,} classes have no picture.")
        if task == "zero_shot" and result.templates:
            said.append(_prompts(result.templates))
        said += [f"{plain(note)}." for note in dict.fromkeys(result.notes)]
        if said:
            yield f"{_TASKS[task][1]}: {' '.join(said)}"


def _prompts(templates: Sequence[str]) -> str:
    """Return the wordings where they are few, else the first of them."""
    if len(templates) > _PROMPTS:
        return f"Prompts: {len(templates):,}, the first being: {plain(templates[0])}."
    listed = ", ".join(f"“{plain(wording)}”" for wording in templates)
    return f"{'Prompts' if len(templates) > 1 else 'Prompt'}: {listed}."


def _looked_at(subject: Subject) -> Iterator[str]:
    """Yield whether test sets were looked at during training, as far as the recipe tells."""
    asked = subject.told.evaluation
    if places := [place for place in (asked.images, asked.pairs) if place]:
        names = " and ".join(plain(_last_name(place)) for place in dict.fromkeys(places))
        yield (
            f"It was measured every {asked.every_steps:,} steps while training, on: {names}. What "
            "was chosen by such figures makes them look better than they are."
        )
    elif subject.results:
        yield "Whether the test sets were looked at while it was trained, nothing here tells."


def _limits(subject: Subject) -> Iterator[str]:
    results = subject.results or Results(model="", weights="")
    missing = [
        title.lower() for task, (_, title) in _TASKS.items() if getattr(results, task) is None
    ]
    if missing:
        yield f"Not measured here: {', '.join(missing)}."
    if results.overlap is None:
        yield (
            "Whether test pictures were among the training pictures was not looked for: figures "
            "may be too high."
        )
    if subject.results:
        yield "The figures are of one checkpoint on the test sets named."
    yield from _looked_at(subject)
    if subject.told.model.init_from:
        yield (
            "What the weights it began with were trained on is not told here; test pictures may "
            "have been among that."
        )
    yield (
        "Nothing was measured of how it treats groups of people, of languages, of faces, of what "
        "is harmful, nor of pictures and texts that are unlike those that it was trained on."
    )
    yield (
        "It learned from what stands beside pictures, with its errors and prejudices. A class is "
        "chosen even where none fits, and the choice depends on the wording of the prompts."
    )
    yield "Measure it on what it is to be used for, before it is used."
