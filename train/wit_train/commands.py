"""``wit train`` and ``wit eval``: loaded by the ``wit`` program when they are asked for."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from wit_builder import recipe as recipes
from wit_builder import storage
from wit_builder.errors import MissingPartError, RecipeError, TrainingError

if TYPE_CHECKING:
    from wit_train.stream import Stream

AsJson = Annotated[bool, Parameter(negative="")]

INTERRUPTED = 130
"""Exit status of a run that was asked to stop, saved, and can go on."""


def train(
    recipe: str,
    *,
    out: str = "",
    set_: Annotated[list[str] | None, Parameter("--set", negative=())] = None,
    json: AsJson = False,
) -> None:
    """Train a CLIP on shards; start again to go on from the last checkpoint.

    Args:
        recipe: TOML file, such as train/recipes/tiny.toml.
        out: folder of the run, local or remote; without it the recipe's own.
        set_: key.path=value, over the recipe's; may be given several times.
        json: write each logged step as JSON.
    """
    need_torch()
    from wit_builder.shards.read import read_info
    from wit_train import loop
    from wit_train.config import TrainRecipe, places_of, steps_of
    from wit_train.metrics import for_terminal

    settings = recipes.load(recipe, TrainRecipe, set_ or ())
    folder = out or settings.out
    if not folder:
        raise RecipeError("where shall the run go?", where="out", fix="give --out FOLDER")
    folders = places_of(settings.data)
    listed = [folders] if isinstance(folders, str) else folders
    steps = steps_of(settings, sum(read_info(place).samples for place in listed))
    with for_terminal(steps, as_json=json) as shown:
        outcome = loop.train(settings, folder, shown.show, _tell_memory)
    if outcome.interrupted:
        fix = "start again with the same --out to go on"
        print(f"stopped after step {outcome.step:,} of {outcome.steps:,}; {fix}", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    print(storage.redact(outcome.checkpoint))


def _tell_memory(stream: Stream) -> None:
    gigabytes = stream.memory_bytes / 1e9
    print(f"the stream takes at most {gigabytes:.2f} GB of shared memory", file=sys.stderr)


def evaluate(
    model: str,
    *,
    images: str = "",
    names: str = "",
    template: Annotated[list[str] | None, Parameter(negative=())] = None,
    shards: str = "",
    out: str = "",
    json: AsJson = False,
) -> None:
    """Measure a trained model: zero-shot classification (--images), retrieval (--shards), or both.

    Args:
        model: folder of a run, or the JSON of one of its checkpoints.
        images: folder of class folders, or a list with lines of picture, tab, class.
        names: file of all classes: a name a line, or JSON mapping folders to names.
        template: such as "a photo of a {}"; may be given several times; by default the bare name.
        shards: folder of a finished data set that was not trained on.
        out: file for the results as JSON.
        json: print the results as JSON.
    """
    need_torch()
    from wit_train import evaluate as measure
    from wit_train import labels

    if not (images or shards):
        raise TrainingError("evaluate on what?", fix="give --images or --shards")
    labelled = labels.read(images, names) if images else None
    judged = measure.load(model)
    results: dict[str, Any] = {}
    if labelled:
        results["zero_shot"] = measure.zero_shot(judged, labelled, template or ["{}"])
    if shards:
        results["retrieval"] = measure.retrieval(judged, shards)
    text = msgspec.json.format(msgspec.json.encode(results)) + b"\n"
    if out:
        storage.publish_bytes(out, text)
    print(text.decode(), end="") if json else _print_table(results)


def _print_table(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("", no_wrap=True), "score", "chance", "times", "pictures", "classes")
    for task, result in results.items():
        for name, score in result.scores.items():
            table.add_row(
                f"{task} {name}".replace("_", " "),
                f"{score.value:.2%}",
                f"{score.chance:.3%}",
                f"{score.value / score.chance:.0f}",
                f"{result.pictures:,}",
                f"{result.classes:,}" if result.classes else "",
            )
    Console().print(table)


def need_torch(who: str = "training") -> None:
    """Check that torch is there, before anything imports it.

    Raises:
        MissingPartError: it is not, or open_clip is not.
    """
    # torch's threads wait for each other by spinning, which takes the cores from the threads that
    # decode, and from whatever else runs: throughput was seen to fall to a fifth
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for package in ("torch", "open_clip"):
        if importlib.util.find_spec(package) is None:
            raise MissingPartError(
                f"{who} needs the package {package}", fix="pip install 'wit-builder[train]'"
            )
